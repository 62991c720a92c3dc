/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel says of workers whose constants change: no memory of an old generation stays mapped, in any profile;
 * those that packed nothing themselves are replaced by fresh forks that share the template's packed copies.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/broker.h"
#include "tests/lib/check.h"
#include "tests/lib/tensors.h"

#define WORKERS_MAX 16
#define ROLLED_MS 20000

static struct pt2box_error failure;

#define OK(call)                                                                              \
	do {                                                                                  \
		enum pt2box_status st_ = call;                                                \
		if (st_)                                                                      \
			fail_msg("%s: %s: %s", #call, pt2box_status_name(st_), failure.text); \
	} while (0)

/* ---- workers, seen from outside ---- */

static int parent_of(int pid)
{
	char path[64], line[256];
	int parent = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "PPid: %d", &parent) == 1)
			break;
	if (f)
		fclose(f);
	return parent;
}

static bool is_ours(int pid)
{
	while (pid > 1 && pid != getpid())
		pid = parent_of(pid);
	return pid == getpid();
}

static bool has_fd(int pid, int fd)
{
	char path[64], target[64];

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
	return readlink(path, target, sizeof(target)) > 0;
}

/* By its descriptors: warden and template have their link to each other. -1: this user may not look. */
static int is_worker(int pid)
{
	char path[64], exe[512];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	n = readlink(path, exe, sizeof(exe) - 1);
	if (n < 0)
		return -1;
	exe[n] = '\0';
	return strstr(exe, "/pt2box-worker") && has_fd(pid, 4) && !has_fd(pid, 5) && !has_fd(pid, 11);
}

static size_t find_workers(int *ret)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	size_t n = 0;

	while ((e = readdir(d))) {
		int pid = atoi(e->d_name);

		if (pid > 0 && n < WORKERS_MAX && is_ours(pid) && is_worker(pid) == 1)
			ret[n++] = pid;
	}
	closedir(d);
	return n;
}

/* All mappings, and those of constants. */
static size_t mappings(int pid, size_t *ret_constants)
{
	char path[64], line[4096];
	size_t n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	f = fopen(path, "re");
	assert_non_null(f);
	*ret_constants = 0;
	for (; fgets(line, sizeof(line), f); n++)
		*ret_constants += strstr(line, "memfd:pt2box-constants") != NULL;
	fclose(f);
	return n;
}

/* ---- a model ---- */

struct subject {
	struct pt2box *c;
	struct pt2box_model *m;
	struct pt2box_tensor *in[8], *out[8];
	struct test_arrays arrays;
	int full, partial;
};

static int open_file(const char *fixture, const char *file)
{
	return open(fixture_path(fixture, file), O_RDONLY | O_CLOEXEC);
}

static void subject_open(struct subject *s, const char *fixture, const char *profile, uint32_t runners)
{
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT;
	int constants = open_file(fixture, "constants.safetensors");

	memset(s, 0, sizeof(*s));
	opt.runners = runners;
	opt.profile = profile;
	opt.constants_fd = constants;
	OK(pt2box_open(NULL, &s->c, &failure));
	OK(pt2box_load_path(s->c, fixture_path(fixture, "model.pt2"), &opt, &s->m, &failure));
	if (constants >= 0)
		close(constants);
	fixture_read(fixture, "in.npz", &s->arrays);
	fixture_tensors(s->m, &s->arrays, s->in);
	s->full = open_file(fixture, "full.safetensors");
	s->partial = open_file(fixture, "partial.safetensors");
	assert_true(s->full >= 0 && s->partial >= 0);
}

static void subject_close(struct subject *s)
{
	for (size_t i = 0; i < s->arrays.n; i++)
		pt2box_tensor_free(s->in[i]);
	test_arrays_free(&s->arrays);
	close(s->full);
	close(s->partial);
	pt2box_unload(s->m);
	pt2box_close(s->c);
}

static void run(struct subject *s)
{
	OK(pt2box_run(s->m, s->in, s->arrays.n, NULL, s->out, &failure));
	for (size_t i = 0; i < pt2box_model_n_outputs(s->m); i++)
		pt2box_tensor_free(s->out[i]);
}

static void change_often(struct subject *s, int n)
{
	for (int i = 0; i < n; i++) {
		uint32_t inactive = i % 4 == 1 ? PT2BOX_CONSTANTS_INACTIVE : 0;

		OK(pt2box_load_constants_fd(s->m, i % 2 ? s->partial : s->full, inactive, &failure));
		if (inactive)
			OK(pt2box_swap_constants(s->m, &failure));
		run(s);
		if (i % 8 == 7)
			OK(pt2box_free_inactive_constants(s->m, &failure));
	}
}

/* ---- tests ---- */

struct seen {
	int pid[WORKERS_MAX];
	size_t maps[WORKERS_MAX], n;
};

/* Every worker has at most the active constants mapped. */
static void look(struct seen *ret)
{
	size_t constants;

	ret->n = find_workers(ret->pid);
	if (ret->n == 0 && getuid() != 0)
		skip();
	assert_true(ret->n > 0);
	for (size_t i = 0; i < ret->n; i++) {
		ret->maps[i] = mappings(ret->pid[i], &constants);
		assert_in_range(constants, 0, 1);
	}
}

/* Workers that were there before and still are; none has more mappings. */
static size_t compare(const char *fixture, const struct seen *before, const struct seen *after)
{
	size_t same = 0;

	for (size_t i = 0; i < before->n; i++)
		for (size_t k = 0; k < after->n; k++) {
			if (before->pid[i] != after->pid[k])
				continue;
			if (after->maps[k] > before->maps[i])
				fail_msg("%s: %zu mappings, then %zu", fixture, before->maps[i], after->maps[k]);
			same++;
		}
	return same;
}

static void updates_leave_nothing(const char *fixture, const char *profile, uint32_t runners)
{
	struct seen before, after;
	struct subject s;
	size_t same = 0;

	subject_open(&s, fixture, profile, runners);
	/* Changes that follow each other fast are made by the same workers, unless this machine has other things to do. */
	for (int attempt = 0; !same && attempt < 20; attempt++) {
		change_often(&s, 16);
		look(&before);
		change_often(&s, 200);
		look(&after);
		same = compare(fixture, &before, &after);
	}
	assert_true(same > 0);
	subject_close(&s);
}

static void test_updates_leave_nothing(void **state)
{
	(void)state;
	updates_leave_nothing("mlp", "default", 2);
	updates_leave_nothing("extfold", "strict", 2);
	updates_leave_nothing("blobconst", "strict", 2);
	/* Not rolled: what it has mapped is its state, in memory of its own. */
	updates_leave_nothing("extmut", "strict", 1);
	updates_leave_nothing("mutbuf", "default", 1);
}

static bool any_of(const int *list, size_t n, int pid)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] == pid)
			return true;
	return false;
}

/* When changes have come to rest, others serve, which were forked after them; runs go on. */
static void test_workers_are_rolled(void **state)
{
	int before[WORKERS_MAX], now[WORKERS_MAX];
	long until = test_now_ms() + ROLLED_MS;
	struct test_arrays want;
	struct subject s;
	size_t n, old;

	(void)state;
	subject_open(&s, "mlp", "default", 3);
	n = find_workers(before);
	if (n == 0 && getuid() != 0)
		skip();
	assert_int_equal(n, 3);
	OK(pt2box_load_constants_fd(s.m, s.full, 0, &failure));
	fixture_read("mlp", "out_full.npz", &want);
	do {
		OK(pt2box_run(s.m, s.in, s.arrays.n, NULL, s.out, &failure));
		assert_true(fixture_equal(s.out, 1, &want, 1e-4, 1e-5));
		pt2box_tensor_free(s.out[0]);
		n = find_workers(now);
		old = 0;
		for (size_t i = 0; i < n; i++)
			old += any_of(before, 3, now[i]);
	} while ((old || n != 3) && test_now_ms() < until);
	assert_int_equal(0, old);
	assert_int_equal(3, n);
	test_arrays_free(&want);
	subject_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_updates_leave_nothing),
		CHECK_TEST(test_workers_are_rolled),
	};
	char dir[300], real[4096];

	snprintf(dir, sizeof(dir), "%s/libexec", test_build_dir());
	if (!realpath(dir, real) || setenv("PT2BOX_LIBEXEC", real, 1))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
