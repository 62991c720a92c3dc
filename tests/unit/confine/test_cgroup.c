/* SPDX-License-Identifier: Apache-2.0 */
/* Control groups: they limit, they count, and nothing of them is left. Skipped where there are no rights to any. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "confine/confine.h"
#include "tests/unit/confine/child.h"

#define MIB (1u << 20)

static bool there_are(const char *which)
{
	char *text, want[64];
	bool on;

	pb_cgroup_open();
	text = pb_confine_report_text();
	snprintf(want, sizeof(want), "%s cgroup\ton", which);
	on = text && strstr(text, want);
	free(text);
	return on;
}

/* Directories named pt2box-PID of this process, under any of the hierarchies; depth is bounded. */
static int leftovers(const char *dir, int depth)
{
	DIR *d = depth ? opendir(dir) : NULL;
	char own[32], path[4096];
	struct dirent *e;
	int n = 0;

	snprintf(own, sizeof(own), "pt2box-%d", getpid());
	while (d && (e = readdir(d)) != NULL) {
		if (e->d_type != DT_DIR || e->d_name[0] == '.')
			continue;
		if (strcmp(e->d_name, own) == 0)
			n++;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		n += leftovers(path, depth - 1);
	}
	if (d)
		closedir(d);
	return n;
}

/* A child that waits until it is in its group, does @f, and is reaped. */
static int status_in_group(void (*f)(void), const struct pb_cgroup_limits *l, uint32_t *ret_kills)
{
	struct pb_cgroup *g;
	int go[2], status;
	char byte;
	pid_t pid;

	assert_int_equal(pipe(go), 0);
	pid = fork();
	if (pid == 0) {
		for (int sig = 1; sig < 32; sig++)
			signal(sig, SIG_DFL);
		if (read(go[0], &byte, 1) == 1)
			f();
		_exit(0);
	}
	g = pb_cgroup_new(1, l, pid);
	assert_non_null(g);
	assert_int_equal(write(go[1], "g", 1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	close(go[0]);
	close(go[1]);
	*ret_kills = pb_cgroup_oom_kills(g);
	assert_null(pb_cgroup_free(g));
	return status;
}

static void touch(size_t bytes)
{
	char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(p != MAP_FAILED);
	for (size_t i = 0; i < bytes; i += 4096)
		p[i] = 1;
}

static void touch_little(void)
{
	touch(8 * MIB);
}

static void touch_much(void)
{
	touch(128 * MIB);
}

static void fork_many(void)
{
	for (int i = 0; i < 20; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			usleep(100000);
			_exit(0);
		}
		if (pid < 0) {
			int n = errno == EAGAIN ? i : 99;

			while (wait(NULL) > 0)
				;
			_exit(n);
		}
	}
	_exit(98);
}

static void test_memory(void **state)
{
	const struct pb_cgroup_limits l = {.memory_bytes = 32 * MIB, .pids = 8};
	uint32_t kills;

	(void)state;
	if (!there_are("memory")) {
		pb_cgroup_close();
		skip();
	}
	assert_int_equal(status_in_group(touch_little, &l, &kills), 0);
	assert_int_equal(kills, 0);
	assert_true(killed_by(status_in_group(touch_much, &l, &kills), SIGKILL));
	assert_true(kills >= 1);
	pb_cgroup_close();
	assert_int_equal(leftovers("/sys/fs/cgroup", 5), 0);
}

static void test_pids(void **state)
{
	const struct pb_cgroup_limits l = {.pids = 4};
	uint32_t kills;

	(void)state;
	if (!there_are("pids")) {
		pb_cgroup_close();
		skip();
	}
	assert_int_equal(WEXITSTATUS(status_in_group(fork_many, &l, &kills)), 3);
	pb_cgroup_close();
	assert_int_equal(leftovers("/sys/fs/cgroup", 5), 0);
}

/* No limits, no group: nothing to pay for. */
static void test_none(void **state)
{
	const struct pb_cgroup_limits none = {0}, some = {.pids = 4};

	(void)state;
	pb_cgroup_open();
	assert_null(pb_cgroup_new(1, &none, getpid()));
	pb_cgroup_close();
	assert_null(pb_cgroup_new(1, &some, getpid()));
	assert_null(pb_cgroup_free(NULL));
	assert_int_equal(pb_cgroup_oom_kills(NULL), 0);
}

static void leave_it(void *arg)
{
	pb_cgroup_open();
	(void)!write(*(int *)arg, &(pid_t){getpid()}, sizeof(pid_t));
}

/* What a killed spawner left goes when the next one starts. */
static void test_sweep(void **state)
{
	char dir[64];
	int p[2];
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(p), 0);
	assert_int_equal(status_of(leave_it, &p[1]), 0);
	assert_int_equal(read(p[0], &pid, sizeof(pid)), sizeof(pid));
	close(p[0]);
	close(p[1]);
	if (!there_are("pids")) {
		pb_cgroup_close();
		skip();
	}
	pb_cgroup_close();
	snprintf(dir, sizeof(dir), "/sys/fs/cgroup/pids/pt2box-%d", pid);
	assert_int_not_equal(access(dir, F_OK), 0);
	assert_int_equal(leftovers("/sys/fs/cgroup", 5), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_memory), cmocka_unit_test(test_pids),
					   cmocka_unit_test(test_none), cmocka_unit_test(test_sweep)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
