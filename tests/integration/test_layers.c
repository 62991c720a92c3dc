/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers left out: a few attacks of the matrix (tests/tools/matrix.c has all), so that it is known to be true now, and the proof
 * that the programs which are installed have no such switch.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/check.h"
#include "tests/lib/layered.h"

static struct test_layered world;

static bool names_the_switch(const char *program)
{
	struct stat sb;
	int fd = open(program, O_RDONLY | O_CLOEXEC);
	bool found;
	void *p;

	if (fd < 0 || fstat(fd, &sb) != 0)
		fail_msg("%s cannot be read", program);
	p = mmap(NULL, (size_t)sb.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	found = memmem(p, (size_t)sb.st_size, "PB_TEST_LAYERS_OFF", 18) != NULL;
	munmap(p, (size_t)sb.st_size);
	return found;
}

static void test_product_has_no_switch(void **state)
{
	static const char *const names[] = {"pt2boxd", "pt2box-worker", "pt2box-intake"};
	struct pt2box_error e;
	char path[400];

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/libexec/%s", test_build_dir(), names[i]);
		assert_false(names_the_switch(path));
		snprintf(path, sizeof(path), "%s/tests/layers/libexec/%s", test_build_dir(), names[i]);
		assert_true(names_the_switch(path));
	}
	assert_true(test_layered_start(&world, "filters,root,landlock,network,limits,gate", true));
	assert_int_equal(test_layered_attack(&world, "socket_tcp", &e), PT2BOX_MODEL_KILLED);
	assert_int_equal(test_layered_attack(&world, "rpath", &e), PT2BOX_PKG_REJECTED);
	test_layered_end(&world);
}

static void test_one_layer_less(void **state)
{
	static const struct {
		const char *off, *fixture;
		bool through;
	} row[] = {
		{"", "open_file", false},
		{"filters", "open_file", false},	    /* empty root, Landlock */
		{"filters", "execve", false},
		{"filters", "socket_tcp", false},	    /* no network, Landlock */
		{"filters", "connect_abstract", false},
		{"filters", "ptrace", false},
		{"filters", "store_embedded", false},
		{"filters", "cut_lane", false},		    /* sealed */
		{"filters", "fork_libc", true},		    /* so it is seen when something gets through */
		{"filters,root", "open_file", false},	    /* Landlock alone */
		{"filters,landlock", "open_file", false},   /* the empty root alone */
		{"filters,root,landlock", "open_file", true},
		{"gate", "ifunc", false},		    /* the load filter is in force */
	};
	const char *now = NULL;
	int wrong = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		struct pt2box_error e = {.status = PT2BOX_OK};
		enum pt2box_status st;

		if (!now || strcmp(now, row[i].off) != 0) {
			if (now)
				test_layered_end(&world);
			now = row[i].off;
			assert_true(test_layered_begin(&world, now));
		}
		st = test_layered_attack(&world, row[i].fixture, &e);
		if (test_got_through(row[i].fixture, st, &e) == row[i].through)
			continue;
		print_error("%s without \"%s\": %s: %s\n", row[i].fixture, now, pt2box_status_name(st), e.text);
		wrong++;
	}
	test_layered_end(&world);
	assert_int_equal(wrong, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_product_has_no_switch),
		cmocka_unit_test(test_one_layer_less),
	};

	alarm(100);
	(void)test_listen_abstract(); /* until this process ends */
	return cmocka_run_group_tests_name("layers", tests, NULL, NULL);
}
