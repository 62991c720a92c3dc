/* SPDX-License-Identifier: Apache-2.0 */
#include "ipc/python_place.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/check.h"

static char dir[64];
static struct pb_python_place p;

static const char *in(const char *name)
{
	static char path[4][PATH_MAX];
	static int i;

	i = (i + 1) % 4;
	snprintf(path[i], sizeof(path[i]), "%s/%s", dir, name);
	return path[i];
}

/* A program, or a script; @name below dir/bin. */
static void put(const char *name, const char *head)
{
	FILE *f;

	mkdir(in("bin"), 0755);
	f = fopen(in(name), "we");
	assert_non_null(f);
	fputs(head, f);
	fclose(f);
	assert_int_equal(chmod(in(name), 0755), 0);
}

static int begin(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/pt2box-python-XXXXXX");
	unsetenv("PT2BOX_PYTHON");
	unsetenv("VIRTUAL_ENV");
	setenv("PATH", "/nonexistent", 1);
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *sb, int type, struct FTW *ftw)
{
	(void)sb;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int end(void **state)
{
	(void)state;
	return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void test_nowhere(void **state)
{
	(void)state;
	assert_false(pb_python_find(&p));
	assert_string_equal("", p.path);
	assert_non_null(strstr(p.text, "PATH"));
	setenv("PT2BOX_PYTHON", "none", 1);
	assert_false(pb_python_find(&p));
	assert_non_null(strstr(p.text, "PT2BOX_PYTHON"));
}

/* What is named is taken, or nothing is; a script is no interpreter. */
static void test_named(void **state)
{
	(void)state;
	put("bin/python3.12", "\177ELF...");
	put("bin/shim", "#!/bin/sh\n");
	setenv("PT2BOX_PYTHON", in("bin/shim"), 1);
	assert_false(pb_python_find(&p));
	setenv("PT2BOX_PYTHON", in("bin/python3.12"), 1);
	assert_true(pb_python_find(&p));
	assert_string_equal(in("bin/python3.12"), p.path);
	assert_string_equal("3.12", p.version);
}

/* By the name that was found, since that is where a virtual environment begins; of the first that is a program. */
static void test_search(void **state)
{
	char search[PATH_MAX];

	(void)state;
	put("bin/python3.11", "\177ELF...");
	assert_int_equal(mkdir(in("shims"), 0755), 0);
	put("shims/python3", "#!/bin/sh\n");
	assert_int_equal(mkdir(in("venv"), 0755), 0);
	assert_int_equal(mkdir(in("venv/bin"), 0755), 0);
	assert_int_equal(symlink("../../bin/python3.11", in("venv/bin/python3")), 0);
	assert_int_equal(symlink("python3.11", in("bin/python")), 0);
	snprintf(search, sizeof(search), "relative:%s::%s", in("shims"), in("bin"));
	setenv("PATH", search, 1);
	assert_true(pb_python_find(&p));
	assert_string_equal(in("bin/python"), p.path);
	assert_non_null(strstr(p.text, "PATH"));
	setenv("VIRTUAL_ENV", in("venv"), 1);
	assert_true(pb_python_find(&p));
	assert_string_equal(in("venv/bin/python3"), p.path);
	assert_string_equal("3.11", p.version);
}

static void test_too_old(void **state)
{
	(void)state;
	put("bin/python3.9", "\177ELF...");
	setenv("PT2BOX_PYTHON", in("bin/python3.9"), 1);
	assert_false(pb_python_find(&p));
	assert_non_null(strstr(p.text, "too old"));
}

/* Root runs nothing that others may change: the program, what leads to it, its library. */
static void test_of_others(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	put("bin/python3.11", "\177ELF...");
	setenv("PT2BOX_PYTHON", in("bin/python3.11"), 1);
	assert_true(pb_python_find(&p));
	assert_int_equal(chmod(in("bin"), 0777), 0);
	assert_false(pb_python_find(&p));
	assert_non_null(strstr(p.text, "others than root"));
	assert_int_equal(chmod(in("bin"), 0755), 0);
	assert_int_equal(mkdir(in("lib"), 0755), 0);
	assert_int_equal(mkdir(in("lib/python3.11"), 0755), 0);
	assert_true(pb_python_find(&p));
	assert_int_equal(chown(in("lib/python3.11"), 1, 1), 0);
	assert_false(pb_python_find(&p));
	assert_int_equal(chown(in("bin/python3.11"), 1, 1), 0);
	assert_int_equal(chown(in("lib/python3.11"), 0, 0), 0);
	assert_false(pb_python_find(&p));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_nowhere, begin, end),
		cmocka_unit_test_setup_teardown(test_named, begin, end),
		cmocka_unit_test_setup_teardown(test_search, begin, end),
		cmocka_unit_test_setup_teardown(test_too_old, begin, end),
		cmocka_unit_test_setup_teardown(test_of_others, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
