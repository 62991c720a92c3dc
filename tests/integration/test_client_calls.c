/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls of libpt2box beyond load and run, against the real programs: runs that take their inputs or are interrupted, outputs
 * that are views of inputs, what a package says of itself, several private brokers in one process, a fork in the middle.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/broker.h"
#include "tests/lib/check.h"
#include "tests/lib/package.h"
#include "tests/lib/tensors.h"

static struct pt2box_error failure; /* of the main thread */

#define OK(call)                                                                              \
	do {                                                                                  \
		enum pt2box_status st_ = call;                                                \
		if (st_)                                                                      \
			fail_msg("%s: %s: %s", #call, pt2box_status_name(st_), failure.text); \
	} while (0)

static struct pt2box *c;
static struct pt2box_model *m;

static void open_model(const char *fixture, uint32_t runners)
{
	struct pt2box_load_options o = PT2BOX_LOAD_OPTIONS_INIT;

	o.runners = runners;
	OK(pt2box_open(NULL, &c, &failure));
	OK(pt2box_load_path(c, fixture_path(fixture, "model.pt2"), &o, &m, &failure));
}

static void close_model(void)
{
	pt2box_unload(m);
	pt2box_close(c);
}

static void free_all(struct pt2box_tensor **t, size_t n)
{
	for (size_t i = 0; i < n; i++)
		pt2box_tensor_free(t[i]);
}

static char *data_of(const struct pt2box_tensor *t)
{
	return pt2box_tensor_get_info(t)->data;
}

/* ---- outputs that are views of inputs ---- */

static void is_view(const struct pt2box_tensor *out, struct pt2box_tensor *const *in, size_t index, int64_t offset,
		    bool in_lane)
{
	size_t i;
	int64_t at;

	assert_int_equal(pt2box_tensor_input(out, &i, &at), 1);
	assert_int_equal(i, index);
	assert_int_equal(at, offset);
	assert_int_equal(data_of(out) == data_of(in[index]) + offset, in_lane);
}

/*
 * writealias: x.add_(y); return x, x[1:], x.t(), y, y * 2. PyTorch compiles it so that x and y are the inputs, and the other two
 * views of one more tensor. The model gets copies of its inputs, and everything is aliased as if it had none; the second run is
 * the first that begins with copies.
 */
static void test_views_of_written(void **state)
{
	struct test_arrays in, want;
	struct pt2box_tensor *t[2], *out[5];
	size_t index;
	int64_t at;

	(void)state;
	open_model("writealias", 1);
	for (int round = 0; round < 6; round++) {
		bool in_lane = round % 2;

		fixture_read("writealias", "in.npz", &in);
		fixture_read("writealias", "out.npz", &want);
		fixture_tensors(in_lane ? m : NULL, &in, t);
		OK(pt2box_run(m, t, 2, NULL, out, &failure));
		assert_true(fixture_equal(out, 5, &want, 1e-5, 1e-6));
		is_view(out[0], t, 0, 0, in_lane);
		is_view(out[3], t, 1, 0, in_lane);
		assert_int_equal(pt2box_tensor_input(out[1], &index, &at), 0);
		assert_int_equal(pt2box_tensor_input(out[4], &index, &at), 0);
		assert_ptr_equal(data_of(out[1]), data_of(out[2]) + 6 * sizeof(float));
		/* What was written is in the input and in its view. */
		assert_memory_equal(data_of(t[0]), data_of(out[0]), 24 * sizeof(float));
		assert_memory_equal(data_of(out[1]), data_of(out[0]) + 24, 18 * sizeof(float));
		free_all(out, 5);
		free_all(t, 2);
		test_arrays_free(&in);
		test_arrays_free(&want);
	}
	close_model();
}

static void test_views_of_lent(void **state)
{
	struct test_arrays in, want;
	struct pt2box_tensor *t[2], *out[7];

	(void)state;
	open_model("alias", 1);
	fixture_read("alias", "in.npz", &in);
	fixture_read("alias", "out.npz", &want);
	fixture_tensors(NULL, &in, t);
	OK(pt2box_run(m, t, 2, NULL, out, &failure));
	is_view(out[0], t, 0, 0, false);
	is_view(out[1], t, 0, 0, false);
	is_view(out[2], t, 0, 6 * sizeof(float), false);
	/* The copy outlives what it is a copy of. */
	memset(data_of(t[0]), 0, 24 * sizeof(float));
	free_all(t, 2);
	test_arrays_free(&in);
	assert_true(fixture_equal(out, 7, &want, 1e-5, 1e-6));
	free_all(out, 7);
	test_arrays_free(&want);
	close_model();
}

/* ---- boxed ---- */

static void check_boxed(const char *fixture, size_t n_out)
{
	struct test_arrays in, want;
	struct pt2box_tensor *t[2], *out[8];
	size_t n;

	open_model(fixture, 1);
	for (int round = 0; round < 6; round++) {
		fixture_read(fixture, "in.npz", &in);
		fixture_read(fixture, "out.npz", &want);
		n = in.n;
		fixture_tensors(round % 2 ? m : NULL, &in, t);
		OK(pt2box_boxed_run(m, t, n, NULL, out, &failure));
		for (size_t i = 0; i < n; i++)
			assert_null(t[i]);
		test_arrays_free(&in);
		assert_true(fixture_equal(out, n_out, &want, 1e-4, 1e-5));
		free_all(out, n_out);
		test_arrays_free(&want);
	}
	close_model();
}

static void test_boxed(void **state)
{
	(void)state;
	check_boxed("mlp", 1);
	check_boxed("alias", 7);
	check_boxed("writealias", 5);
}

/* ---- interrupted ---- */

static void open_hostile(const char *name)
{
	struct test_package p = {0};
	char so[300], pkg[] = "/tmp/pt2box-calls-XXXXXX";

	snprintf(so, sizeof(so), "%s/tests/hostile/%s.3.so", test_build_dir(), name);
	p.so_path = so;
	close(mkstemp(pkg));
	assert_int_equal(test_package_write(pkg, &p), 0);
	OK(pt2box_open(NULL, &c, &failure));
	OK(pt2box_load_path(c, pkg, NULL, &m, &failure));
	unlink(pkg);
}

static int third_time(void *count)
{
	return ++*(int *)count == 3;
}

/* A model that never ends. */
static void test_interrupted(void **state)
{
	struct pt2box_run_options o = PT2BOX_RUN_OPTIONS_INIT;
	struct pt2box_tensor *t, *out[1];
	struct pt2box_error e;
	int asked = 0;
	long began;
	float *x;

	(void)state;
	open_hostile("loop");
	OK(pt2box_tensor_alloc(m, PT2BOX_FLOAT32, 1, (int64_t[]){16}, &t, &failure));
	x = pt2box_tensor_get_info(t)->data;
	memset(x, 0, 64);
	x[0] = 666;
	o.interrupted = third_time;
	o.arg = &asked;
	began = test_now_ms();
	assert_int_equal(pt2box_run(m, &t, 1, &o, out, &e), PT2BOX_CANCELLED);
	assert_in_range(test_now_ms() - began, 200, 2000);
	assert_int_equal(asked, 3);
	/* And it can be called again. */
	x[0] = 1;
	OK(pt2box_run(m, &t, 1, NULL, out, &failure));
	assert_true(fixture_at(pt2box_tensor_get_info(out[0]), 0) == 2);
	pt2box_tensor_free(out[0]);
	pt2box_tensor_free(t);
	close_model();
}

/* ---- what a package says ---- */

static void test_descriptions(void **state)
{
	struct pt2box_constant_info k;
	const char *in, *out;
	char *text;
	int fd;

	(void)state;
	open_model("mlp", 1);
	pt2box_model_call_spec(m, &in, &out);
	assert_non_null(strstr(in, "builtins.tuple"));
	assert_non_null(strstr(out, "children_spec"));
	assert_int_equal(pt2box_model_is_stateful(m), 0);
	assert_int_equal(pt2box_model_constant(m, 0, &k), 1);
	assert_string_equal(k.fqn, "fc1.weight");
	assert_int_equal(k.ndim, 2);
	assert_int_equal(k.sizes[0], 256);
	assert_int_equal(k.strides[0], 64);
	assert_int_equal(pt2box_model_constant(m, 4, &k), 0);
	pt2box_unload(m);
	OK(pt2box_load_path(c, fixture_path("mutbuf", "model.pt2"), NULL, &m, &failure));
	assert_int_equal(pt2box_model_is_stateful(m), 1);
	fd = open(fixture_path("twomodels", "model.pt2"), O_RDONLY | O_CLOEXEC);
	OK(pt2box_inspect_metadata_fd(c, fd, "second", &text, &failure));
	assert_non_null(strstr(text, "\"models\":[\"first\",\"second\"]"));
	assert_non_null(strstr(text, "\"AOTI_DEVICE_KEY\":\"cpu\""));
	assert_null(strstr(text, "constants"));
	pt2box_free_text(text);
	assert_int_equal(pt2box_inspect_metadata_fd(c, fd, "third", &text, &failure), PT2BOX_NOT_FOUND);
	assert_non_null(strstr(failure.text, "first, second"));
	close(fd);
	close_model();
}

/* ---- threads, connections, forks ---- */

struct runner {
	struct pt2box_model *m;
	struct pt2box_tensor *in; /* shared with others; NULL: one of this thread's own */
	pthread_t thread;
	_Atomic bool *stop; /* NULL: rounds */
	int rounds;
	enum pt2box_status st;
};

/* Runs of the mlp with inputs of this thread's own. */
static void *run_rounds(void *data)
{
	struct runner *r = data;
	struct test_arrays in, want;
	struct pt2box_tensor *t[1], *out[1];
	struct pt2box_error e;

	if (test_arrays_read("tests/fixtures/mlp/in.npz", NULL, 0, &in) ||
	    test_arrays_read("tests/fixtures/mlp/out.npz", NULL, 0, &want))
		abort();
	if (r->in)
		t[0] = r->in;
	else
		fixture_tensors(NULL, &in, t);
	for (int i = 0; !r->st && (r->stop ? !*r->stop : i < r->rounds); i++) {
		r->st = pt2box_run(r->m, t, 1, NULL, out, &e);
		if (r->st)
			fprintf(stderr, "%s\n", e.text);
		else if (!fixture_equal(out, 1, &want, 1e-4, 1e-5))
			r->st = PT2BOX_INTERNAL;
		if (!r->st || r->st == PT2BOX_INTERNAL)
			pt2box_tensor_free(out[0]);
	}
	if (!r->in)
		pt2box_tensor_free(t[0]);
	test_arrays_free(&in);
	test_arrays_free(&want);
	return NULL;
}

static void start_with(struct runner *r, struct pt2box_model *of, int rounds, _Atomic bool *stop,
		       struct pt2box_tensor *in)
{
	*r = (struct runner){.m = of, .rounds = rounds, .stop = stop, .in = in};
	assert_int_equal(pthread_create(&r->thread, NULL, run_rounds, r), 0);
}

static void start(struct runner *r, struct pt2box_model *of, int rounds, _Atomic bool *stop)
{
	start_with(r, of, rounds, stop, NULL);
}

static void join(struct runner *r)
{
	pthread_join(r->thread, NULL);
	assert_int_equal(r->st, PT2BOX_OK);
}

static void test_threads(void **state)
{
	struct test_arrays in;
	struct pt2box_tensor *t[1];
	struct runner r[8];

	(void)state;
	open_model("mlp", 4);
	fixture_read("mlp", "in.npz", &in);
	for (int round = 0; round < 3; round++) {
		/* Each with an input of its own; all with one in the lane; with one of the caller's. */
		if (round)
			fixture_tensors(round == 1 ? m : NULL, &in, t);
		for (int i = 0; i < 8; i++)
			start_with(&r[i], m, 300, NULL, round ? t[0] : NULL);
		for (int i = 0; i < 8; i++)
			join(&r[i]);
		if (round)
			pt2box_tensor_free(t[0]);
	}
	test_arrays_free(&in);
	close_model();
}

/* Two private brokers at the same time, each with a model of its own: neither knows of the other. */
static void test_two_brokers(void **state)
{
	struct pt2box *other;
	struct pt2box_model *model;
	struct runner r[4];

	(void)state;
	open_model("mlp", 2);
	other = c;
	model = m;
	open_model("mlp", 2);
	for (int i = 0; i < 4; i++)
		start(&r[i], i % 2 ? m : model, 200, NULL);
	join(&r[0]);
	join(&r[2]);
	pt2box_unload(model);
	pt2box_close(other);
	join(&r[1]);
	join(&r[3]);
	start(&r[0], m, 50, NULL);
	join(&r[0]);
	close_model();
}

/* Every call on a parent's handles. */
static bool all_refused(struct pt2box_tensor *t)
{
	struct pt2box_constant one = {"fc1.bias", t}, *list;
	struct pt2box_model *model;
	struct pt2box_tensor *boxed[1] = {t}, *out[1], *made;
	struct pt2box_run *run;
	struct pt2box_error e;
	char *text;
	size_t n;
	bool ok;

	ok = pt2box_run(m, &t, 1, NULL, out, &e) == PT2BOX_USAGE;
	ok &= pt2box_run_start(m, &t, 1, NULL, &run, &e) == PT2BOX_USAGE;
	ok &= pt2box_ps(c, &text, &e) == PT2BOX_USAGE;
	ok &= pt2box_load_path(c, fixture_path("mlp", "model.pt2"), NULL, &model, &e) == PT2BOX_USAGE;
	ok &= pt2box_inspect_metadata_fd(c, 0, NULL, &text, &e) == PT2BOX_USAGE;
	ok &= pt2box_tensor_alloc(m, PT2BOX_FLOAT32, 0, NULL, &made, &e) == PT2BOX_USAGE;
	ok &= pt2box_load_constants(m, &one, 1, 0, &e) == PT2BOX_USAGE;
	ok &= pt2box_load_constants_fd(m, 0, 0, &e) == PT2BOX_USAGE;
	ok &= pt2box_swap_constants(m, &e) == PT2BOX_USAGE;
	ok &= pt2box_free_inactive_constants(m, &e) == PT2BOX_USAGE;
	ok &= pt2box_fold_constants(m, 0, &e) == PT2BOX_USAGE;
	ok &= pt2box_extract_constants(m, 0, &list, &n, &e) == PT2BOX_USAGE;
	ok &= pt2box_session_open(m, &model, &e) == PT2BOX_USAGE;
	ok &= pt2box_boxed_run(m, boxed, 1, NULL, out, &e) == PT2BOX_USAGE; /* takes its inputs all the same */
	return ok && !boxed[0];
}

/* In the child of a process whose threads are in the middle of runs: locks may be held for ever. */
static int in_child(struct pt2box_tensor *t, const struct test_arrays *in)
{
	struct runner r = {.rounds = 20};
	bool ok = memcmp(data_of(t), in->v[0].data, 64) == 0; /* tensors can be read */

	ok &= all_refused(t);
	pt2box_unload(m);
	pt2box_close(c);
	if (pt2box_open(NULL, &c, &failure) ||
	    pt2box_load_path(c, fixture_path("mlp", "model.pt2"), NULL, &m, &failure))
		return 2;
	r.m = m;
	run_rounds(&r);
	pt2box_unload(m);
	pt2box_close(c);
	return ok && !r.st ? 0 : 1;
}

static void test_fork(void **state)
{
	_Atomic bool stop = false;
	struct test_arrays in;
	struct pt2box_tensor *t[1];
	struct runner r[4];
	int status;

	(void)state;
	open_model("mlp", 2);
	fixture_read("mlp", "in.npz", &in);
	fixture_tensors(m, &in, t);
	for (int i = 0; i < 4; i++)
		start(&r[i], m, 0, &stop);
	for (int i = 0; i < 5; i++) {
		pid_t pid;

		usleep(20000);
		pid = fork();
		if (pid == 0)
			_exit(in_child(t[0], &in));
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
	}
	stop = true;
	for (int i = 0; i < 4; i++)
		join(&r[i]);
	start(&r[0], m, 50, NULL);
	join(&r[0]);
	free_all(t, 1);
	test_arrays_free(&in);
	close_model();
}

int main(void)
{
	char dir[4096], real[4096];
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_views_of_written), CHECK_TEST(test_views_of_lent), CHECK_TEST(test_boxed),
		CHECK_TEST(test_interrupted),	   CHECK_TEST(test_descriptions),  CHECK_TEST(test_threads),
		CHECK_TEST(test_two_brokers),	   CHECK_TEST(test_fork),
	};

	snprintf(dir, sizeof(dir), "%s/libexec", test_build_dir());
	if (!realpath(dir, real) || setenv("PT2BOX_LIBEXEC", real, 1))
		return 1;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
