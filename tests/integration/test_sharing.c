/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packages of one user with the same constants, or the same code, are held once; those of another
 * user are not touched. What the broker holds is read from its descriptors: only root can.
 */
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/broker.h"
#include "tests/lib/loaded.h"

/* Of shared_a and shared_b: their layout, then one byte a constant. */
#define CONSTANTS_BYTES (37376 + 4)
#define OTHER_UID 12345

static struct test_broker broker;

struct memories {
	ino_t of[64];
	size_t n;
};

/* The memories that a process has descriptors of, all sizes if @bytes is 0; the same one counts
 * once. */
static void look(pid_t pid, off_t bytes, struct memories *ret)
{
	char dir[64], path[400], to[400];
	struct dirent *e;
	struct stat sb;
	DIR *d;

	ret->n = 0;
	snprintf(dir, sizeof(dir), "/proc/%d/fd", pid);
	d = opendir(dir);
	while (d && (e = readdir(d))) {
		ssize_t len;
		bool known = false;

		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		len = readlink(path, to, sizeof(to) - 1);
		if (len < 0)
			continue;
		to[len] = '\0';
		if (strncmp(to, "/memfd:", 7) != 0 || stat(path, &sb) != 0 ||
		    (bytes && sb.st_size != bytes))
			continue;
		for (size_t i = 0; i < ret->n; i++)
			known |= ret->of[i] == sb.st_ino;
		if (!known && ret->n < 64)
			ret->of[ret->n++] = sb.st_ino;
	}
	if (d)
		closedir(d);
}

static size_t count(off_t bytes)
{
	struct memories m;

	look(broker.pid, bytes, &m);
	return m.n;
}

static void expect(off_t bytes, size_t n)
{
	const long until = test_now_ms() + 3000;

	while (count(bytes) != n && test_now_ms() < until)
		usleep(5000);
	assert_int_equal(count(bytes), n);
}

/* What ps says that all models hold. */
static long long memfd_bytes(struct pt2box *c)
{
	json_t *o = test_ps(c);
	const json_t *m;
	long long sum = 0;
	size_t i;

	json_array_foreach(json_object_get(o, "models"), i, m) sum +=
		json_integer_value(json_object_get(m, "memfd_bytes"));
	json_decref(o);
	return sum;
}

/* Size of the code's memory: the package says it. */
static off_t code_bytes(struct loaded *l)
{
	char *text;
	json_t *o;
	off_t n;

	OK(pt2box_model_describe(l->m, &text, &test_error));
	o = json_loads(text, 0, NULL);
	n = (off_t)json_integer_value(json_object_get(json_object_get(o, "code"), "bytes"));
	json_decref(o);
	pt2box_free_text(text);
	assert_true(n > 4096);
	return n;
}

static void gives_its_own(struct loaded *l)
{
	loaded_gives(l, l->m, l->f.cases[0].out);
}

static void test_same_constants(void **state)
{
	struct loaded a, b;
	struct pt2box *c;

	(void)state;
	OK(pt2box_open(broker.socket, &c, &test_error));
	loaded_open(&a, c, "shared_a", 1);
	expect(CONSTANTS_BYTES, 1);
	loaded_open(&b, c, "shared_b", 2);
	expect(CONSTANTS_BYTES, 1);
	gives_its_own(&a);
	gives_its_own(&b);
	/* What is shared outlives whoever brought it. */
	loaded_close(&a);
	expect(CONSTANTS_BYTES, 1);
	gives_its_own(&b);
	loaded_open(&a, c, "shared_a", 1);
	expect(CONSTANTS_BYTES, 1);
	gives_its_own(&a);
	loaded_close(&b);
	gives_its_own(&a);
	loaded_close(&a);
	expect(CONSTANTS_BYTES, 0);
	pt2box_close(c);
}

/* Two connections of one user: the same tenant. */
static void test_two_connections(void **state)
{
	struct loaded a, b;
	struct pt2box *c[2];

	(void)state;
	for (int i = 0; i < 2; i++)
		OK(pt2box_open(broker.socket, &c[i], &test_error));
	loaded_open(&a, c[0], "shared_a", 1);
	loaded_open(&b, c[1], "shared_b", 1);
	expect(CONSTANTS_BYTES, 1);
	loaded_close(&a);
	pt2box_close(c[0]);
	gives_its_own(&b);
	loaded_close(&b);
	pt2box_close(c[1]);
	expect(CONSTANTS_BYTES, 0);
}

/* The code of a ResNet, with its constants inside. */
static void test_same_code(void **state)
{
	struct loaded a, b;
	struct pt2box *c;
	long long one;
	off_t code;

	(void)state;
	OK(pt2box_open(broker.socket, &c, &test_error));
	loaded_open(&a, c, "resnet18", 1);
	code = code_bytes(&a);
	expect(code, 1);
	gives_its_own(&a);
	one = memfd_bytes(c);
	assert_true(one > (long long)code);
	loaded_open(&b, c, "resnet18", 1);
	expect(code, 1);
	gives_its_own(&a);
	gives_its_own(&b);
	/* A second lane, but not the code again. */
	assert_true(memfd_bytes(c) < 2 * one - (long long)code + (1 << 20));
	loaded_close(&a);
	gives_its_own(&b);
	loaded_close(&b);
	pt2box_close(c);
	expect(code, 0);
}

/* An update is one model's: the other goes on with what they had in common. */
static void test_update_ends_it(void **state)
{
	static const int64_t sizes[] = {32};
	static float zero[32];
	struct pt2box_constant k = {.name = "b.bias"};
	struct loaded a, b;
	struct pt2box *c;

	(void)state;
	OK(pt2box_open(broker.socket, &c, &test_error));
	loaded_open(&a, c, "shared_a", 1);
	loaded_open(&b, c, "shared_b", 1);
	OK(pt2box_tensor_lend(PT2BOX_FLOAT32, 1, sizes, NULL, zero, &k.tensor, &test_error));
	OK(pt2box_load_constants(a.m, &k, 1, 0, &test_error));
	gives_its_own(&b);
	expect(CONSTANTS_BYTES, 2);
	/* The same update of the other: one memory again. */
	OK(pt2box_load_constants(b.m, &k, 1, 0, &test_error));
	expect(CONSTANTS_BYTES, 1);
	pt2box_tensor_free(k.tensor);
	loaded_close(&a);
	loaded_close(&b);
	pt2box_close(c);
	expect(CONSTANTS_BYTES, 0);
}

/* ---- another user ---- */

static _Noreturn void other_user(int ready, int go)
{
	struct pt2box *c;
	struct loaded l;
	char byte;

	if (setgroups(0, NULL) != 0 || setresgid(OTHER_UID, OTHER_UID, OTHER_UID) != 0 ||
	    setresuid(OTHER_UID, OTHER_UID, OTHER_UID) != 0)
		_exit(2);
	OK(pt2box_open(broker.socket, &c, &test_error));
	loaded_open(&l, c, "shared_b", 1);
	gives_its_own(&l);
	(void)!write(ready, "x", 1);
	(void)!read(go, &byte, 1);
	gives_its_own(&l);
	loaded_close(&l);
	pt2box_close(c);
	_exit(0);
}

/* The files of the tree may be unreadable to another user: hand it copies. */
static bool fixtures_for_all(char dir[80])
{
	char cmd[500];

	snprintf(dir, 80, "%s/user", broker.dir);
	snprintf(cmd, sizeof(cmd),
		 "mkdir -p '%s/tests/fixtures' && cp -r tests/fixtures/shared_a "
		 "tests/fixtures/shared_b '%s/tests/fixtures/' && "
		 "chmod -R a+rX '%s'",
		 dir, dir, dir);
	return system(cmd) == 0;
}

static void test_another_user(void **state)
{
	int ready[2], go[2], status;
	struct pt2box *c;
	struct loaded a;
	char dir[80], byte;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	assert_int_equal(pipe2(go, O_CLOEXEC), 0);
	assert_true(fixtures_for_all(dir));
	OK(pt2box_open(broker.socket, &c, &test_error));
	loaded_open(&a, c, "shared_a", 1);
	expect(CONSTANTS_BYTES, 1);
	pid = fork();
	if (pid == 0) {
		if (chdir(dir) != 0)
			_exit(3);
		other_user(ready[1], go[0]);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	expect(CONSTANTS_BYTES, 2);
	gives_its_own(&a);
	assert_int_equal(write(go[1], "x", 1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	expect(CONSTANTS_BYTES, 1);
	loaded_close(&a);
	pt2box_close(c);
	close(ready[0]);
	close(go[0]);
	close(go[1]);
}

static int begin(void **state)
{
	(void)state;
	alarm(100);
	return test_broker_start(&broker, getenv("PT2BOX_LIBEXEC"));
}

static int end(void **state)
{
	int left = test_broker_stop(&broker);

	(void)state;
	test_remove_tree(broker.dir);
	return left;
}

static void test_root_only(void **state)
{
	(void)state;
	print_message("what a broker holds can only be read by root\n");
	skip();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_same_constants), CHECK_TEST(test_two_connections),
		CHECK_TEST(test_same_code),	 CHECK_TEST(test_update_ends_it),
		CHECK_TEST(test_another_user),
	};
	const struct CMUnitTest none[] = {cmocka_unit_test(test_root_only)};

	if (test_programs_init())
		return 1;
	if (geteuid() != 0)
		return cmocka_run_group_tests(none, NULL, NULL);
	return cmocka_run_group_tests(tests, begin, end);
}
