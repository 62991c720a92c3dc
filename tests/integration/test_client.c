/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libpt2box against the real programs: packages that torch made give torch's outputs, memory is
 * shared, kept and given back as the header says, and every way in which a run, a client or a
 * broker can end has its status.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/check.h"
#include "tests/lib/broker.h"
#include "tests/lib/package.h"
#include "tests/lib/tensors.h"

static struct pt2box_error failure; /* of the main thread */

#define OK(call)                                                                              \
	do {                                                                                  \
		enum pt2box_status st_ = call;                                                \
		if (st_)                                                                      \
			fail_msg("%s: %s: %s", #call, pt2box_status_name(st_), failure.text); \
	} while (0)

struct subject {
	struct pt2box *c;
	struct pt2box_model *m;
	struct pt2box_tensor *in[8], *out[64];
	size_t n_in, n_out;
	struct test_arrays arrays, want;
};

static void subject_open(struct subject *s, const char *fixture,
			 const struct pt2box_load_options *opt)
{
	memset(s, 0, sizeof(*s));
	OK(pt2box_open(NULL, &s->c, &failure));
	OK(pt2box_load_path(s->c, fixture_path(fixture, "model.pt2"), opt, &s->m, &failure));
	s->n_out = pt2box_model_n_outputs(s->m);
}

static void subject_inputs(struct subject *s, const char *fixture, const char *in, const char *out,
			   bool in_lane)
{
	fixture_read(fixture, in, &s->arrays);
	fixture_read(fixture, out, &s->want);
	s->n_in = s->arrays.n;
	fixture_tensors(in_lane ? s->m : NULL, &s->arrays, s->in);
}

static void free_outputs(struct subject *s)
{
	for (size_t i = 0; i < s->n_out; i++)
		pt2box_tensor_free(s->out[i]);
}

static void subject_free_inputs(struct subject *s)
{
	for (size_t i = 0; i < s->n_in; i++)
		pt2box_tensor_free(s->in[i]);
	test_arrays_free(&s->arrays);
	test_arrays_free(&s->want);
}

static void subject_close(struct subject *s)
{
	pt2box_unload(s->m);
	pt2box_close(s->c);
}

static void run_equal(struct subject *s)
{
	OK(pt2box_run(s->m, s->in, s->n_in, NULL, s->out, &failure));
	assert_true(fixture_equal(s->out, s->n_out, &s->want, 1e-4, 1e-5));
}

static void test_mlp(void **state)
{
	static const char *const in[] = {"in.npz", "in_1.npz", "in_2.npz", "in_3.npz"};
	static const char *const out[] = {"out.npz", "out_1.npz", "out_2.npz", "out_3.npz"};
	struct subject s;

	(void)state;
	subject_open(&s, "mlp", NULL);
	assert_int_equal(pt2box_model_n_inputs(s.m), 1);
	assert_int_equal(pt2box_model_input_dtype(s.m, 0), PT2BOX_FLOAT32);
	assert_int_equal(pt2box_model_input_dtype(s.m, 1), -1);
	for (int i = 0; i < 8; i++) {
		subject_inputs(&s, "mlp", in[i / 2], out[i / 2], i % 2);
		run_equal(&s);
		free_outputs(&s);
		subject_free_inputs(&s);
	}
	subject_close(&s);
}

/* Shapes, dtypes and counts that do not fit are refused before the model sees them. */
static void test_bad_tensors(void **state)
{
	static const struct {
		int32_t dtype, ndim;
		int64_t sizes[3];
	} bad[] = {
		{PT2BOX_FLOAT64, 2, {4, 64}},	 {PT2BOX_FLOAT32, 1, {64}},
		{PT2BOX_FLOAT32, 3, {4, 64, 1}}, {PT2BOX_FLOAT32, 2, {4, 63}},
		{PT2BOX_FLOAT32, 2, {1025, 64}}, {PT2BOX_FLOAT32, 2, {0, 64}},
	};
	struct subject s;
	struct pt2box_error e;

	(void)state;
	subject_open(&s, "mlp", NULL);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		OK(pt2box_tensor_alloc(s.m, bad[i].dtype, bad[i].ndim, bad[i].sizes, &s.in[0],
				       &failure));
		assert_int_equal(pt2box_run(s.m, s.in, 1, NULL, s.out, &e), PT2BOX_BAD_TENSOR);
		assert_int_equal(e.status, PT2BOX_BAD_TENSOR);
		assert_true(e.text[0]);
		pt2box_tensor_free(s.in[0]);
	}
	assert_int_equal(pt2box_run(s.m, s.in, 0, NULL, s.out, &e), PT2BOX_BAD_TENSOR);
	assert_int_equal(pt2box_tensor_alloc(s.m, 99, 0, NULL, &s.in[0], &e), PT2BOX_BAD_TENSOR);
	assert_int_equal(pt2box_tensor_alloc(s.m, 6, 1, (int64_t[]){INT64_MAX}, &s.in[0], &e),
			 PT2BOX_BAD_TENSOR);
	assert_int_equal(pt2box_tensor_alloc(s.m, 6, 1, (int64_t[]){1ll << 36}, &s.in[0], &e),
			 PT2BOX_LIMIT);
	subject_inputs(&s, "mlp", "in.npz", "out.npz", true);
	run_equal(&s);
	free_outputs(&s);
	subject_free_inputs(&s);
	subject_close(&s);
}

static void test_every_batch(void **state)
{
	struct subject s;

	(void)state;
	subject_open(&s, "mlp", NULL);
	for (int64_t n = 1; n <= 1024; n += n < 20 ? 1 : 97) {
		const struct pt2box_tensor_info *f;

		OK(pt2box_tensor_alloc(s.m, PT2BOX_FLOAT32, 2, (int64_t[]){n, 64}, &s.in[0],
				       &failure));
		memset(pt2box_tensor_get_info(s.in[0])->data, 0, (size_t)n * 256);
		OK(pt2box_run(s.m, s.in, 1, NULL, s.out, &failure));
		f = pt2box_tensor_get_info(s.out[0]);
		assert_int_equal(f->ndim, 2);
		assert_int_equal(f->sizes[0], n);
		assert_int_equal(f->sizes[1], 10);
		/* Equal rows in, equal rows out. */
		for (int64_t i = 10; i < f->numel; i++)
			assert_true(fixture_at(f, i) == fixture_at(f, i - 10));
		free_outputs(&s);
		pt2box_tensor_free(s.in[0]);
	}
	subject_close(&s);
}

/* Any fixture, lent and in the lane. */
static void check_fixture(const char *name)
{
	for (int in_lane = 0; in_lane < 2; in_lane++) {
		struct subject s;

		subject_open(&s, name, NULL);
		for (int i = 0; i < 3; i++) {
			subject_inputs(&s, name, "in.npz", "out.npz", in_lane);
			run_equal(&s);
			free_outputs(&s);
			subject_free_inputs(&s);
		}
		subject_close(&s);
	}
}

static void test_fixtures(void **state)
{
	static const char *const names[] = {"noneint", "zerod",	  "nonzero", "sorts",
					    "kitchen", "inplace", "strided", "alias"};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		check_fixture(names[i]);
}

static void test_none(void **state)
{
	struct subject s;

	(void)state;
	subject_open(&s, "noneint", NULL);
	subject_inputs(&s, "noneint", "in_1.npz", "out_1.npz", true);
	run_equal(&s);
	assert_int_equal(s.n_out, 5);
	assert_null(s.out[1]);
	assert_null(s.out[4]);
	assert_int_equal(pt2box_tensor_get_info(s.out[2])->ndim, 0);
	free_outputs(&s);
	subject_free_inputs(&s);
	subject_close(&s);
}

static const char *data_of(const struct pt2box_tensor *t)
{
	return pt2box_tensor_get_info(t)->data;
}

static void test_alias(void **state)
{
	struct subject s;

	(void)state;
	subject_open(&s, "alias", NULL);
	subject_inputs(&s, "alias", "in.npz", "out.npz", true);
	run_equal(&s);
	assert_ptr_equal(data_of(s.out[0]), data_of(s.in[0]));
	assert_ptr_equal(data_of(s.out[1]), data_of(s.in[0]));
	assert_ptr_equal(data_of(s.out[2]), data_of(s.in[0]) + 6 * sizeof(float));
	for (int i = 4; i < 7; i++)
		assert_ptr_equal(data_of(s.out[i]), data_of(s.out[3]));
	/* A store through one is seen through the other, and an output outlives the input. */
	((float *)pt2box_tensor_get_info(s.out[3])->data)[0] = 77;
	assert_true(fixture_at(pt2box_tensor_get_info(s.out[6]), 0) == 77);
	pt2box_tensor_free(s.in[0]);
	pt2box_tensor_free(s.in[1]);
	s.in[0] = s.in[1] = NULL;
	assert_true(fixture_equal(s.out, 3, &s.want, 0, 0));
	free_outputs(&s);
	subject_free_inputs(&s);
	/* Lent: outputs alias the copy, not the caller's memory, which may go. */
	subject_inputs(&s, "alias", "in.npz", "out.npz", false);
	run_equal(&s);
	assert_ptr_equal(data_of(s.out[0]), data_of(s.out[1]));
	assert_ptr_not_equal(data_of(s.out[0]), data_of(s.in[0]));
	free_outputs(&s);
	subject_free_inputs(&s);
	subject_close(&s);
}

static void test_inplace(void **state)
{
	struct subject s;
	struct test_arrays before;

	(void)state;
	subject_open(&s, "inplace", NULL);
	for (int in_lane = 0; in_lane < 2; in_lane++) {
		fixture_read("inplace", "in.npz", &before);
		subject_inputs(&s, "inplace", "in.npz", "out.npz", in_lane);
		run_equal(&s);
		for (int i = 0; i < 35; i++) {
			double x = (double)((float *)before.v[0].data)[i] +
				   (double)((float *)before.v[1].data)[i];

			assert_true(fixture_at(pt2box_tensor_get_info(s.in[0]), i) - x < 1e-6);
			assert_true(fixture_at(pt2box_tensor_get_info(s.in[0]), i) - x > -1e-6);
		}
		free_outputs(&s);
		subject_free_inputs(&s);
		test_arrays_free(&before);
	}
	/* Protected: nothing comes back into it. */
	subject_inputs(&s, "inplace", "in.npz", "out.npz", false);
	fixture_read("inplace", "in.npz", &before);
	pt2box_tensor_protect(s.in[0]);
	run_equal(&s);
	assert_memory_equal(data_of(s.in[0]), before.v[0].data, 35 * sizeof(float));
	free_outputs(&s);
	subject_free_inputs(&s);
	test_arrays_free(&before);
	subject_close(&s);
}

static void test_strides(void **state)
{
	float data[80];
	int64_t sizes[2] = {5, 8};
	static const int64_t strides[][2] = {{1, 5}, {8, 1}, {16, 2}, {1, 10}, {0, 0}};
	struct subject s;

	(void)state;
	subject_open(&s, "strided", NULL);
	for (int i = 0; i < 80; i++)
		data[i] = (float)i;
	for (size_t k = 0; k < sizeof(strides) / sizeof(strides[0]); k++) {
		OK(pt2box_tensor_lend(PT2BOX_FLOAT32, 2, sizes, strides[k], data, &s.in[0],
				      &failure));
		OK(pt2box_run(s.m, s.in, 1, NULL, s.out, &failure));
		for (int i = 0; i < 5; i++)
			for (int j = 0; j < 8; j++)
				assert_true(
					fixture_at(pt2box_tensor_get_info(s.out[0]), i * 8 + j) ==
					2 * (double)data[i * strides[k][0] + j * strides[k][1]] +
						1);
		free_outputs(&s);
		pt2box_tensor_free(s.in[0]);
	}
	subject_close(&s);
}

/* ---- large outputs ---- */

static uint64_t sum_of(const struct pt2box_tensor *t)
{
	const struct pt2box_tensor_info *f = pt2box_tensor_get_info(t);
	const uint32_t *p = f->data;
	uint64_t h = 0;

	for (int64_t i = 0; i < f->numel; i++)
		h = h * 1099511628211u + p[i];
	return h;
}

#define KEPT 40

static void test_large_outputs_kept(void **state)
{
	struct pt2box_tensor *kept[KEPT];
	uint64_t sum[KEPT];
	struct subject s;
	float *x;

	(void)state;
	subject_open(&s, "omp2", NULL);
	subject_inputs(&s, "omp2", "in.npz", "out.npz", true);
	x = pt2box_tensor_get_info(s.in[0])->data;
	run_equal(&s);
	assert_true(pt2box_tensor_get_info(s.out[0])->readonly);
	assert_false(pt2box_tensor_get_info(s.out[1])->readonly);
	free_outputs(&s);
	for (int i = 0; i < 3 * KEPT; i++) {
		int k = i % KEPT;

		if (i >= KEPT) {
			assert_int_equal(sum_of(kept[k]), sum[k]);
			pt2box_tensor_free(kept[k]);
		}
		x[i] = (float)(1000 + i); /* no two results are alike */
		OK(pt2box_run(s.m, s.in, 1, NULL, s.out, &failure));
		pt2box_tensor_free(s.out[1]);
		kept[k] = s.out[0];
		sum[k] = sum_of(kept[k]);
		assert_true(k == 0 || sum[k] != sum[k - 1]);
	}
	/* Every second one goes; what is left stays as it was while new ones come. */
	for (int i = 0; i < KEPT; i += 2) {
		pt2box_tensor_free(kept[i]);
		kept[i] = NULL;
	}
	for (int i = 0; i < KEPT; i++) {
		OK(pt2box_run(s.m, s.in, 1, NULL, s.out, &failure));
		free_outputs(&s);
	}
	subject_free_inputs(&s);
	subject_close(&s);
	/* Model, connection and broker are gone: the memory is not. */
	for (int i = 1; i < KEPT; i += 2) {
		assert_int_equal(sum_of(kept[i]), sum[i]);
		pt2box_tensor_free(kept[i]);
	}
}

/* A large output as the next input. */
static void test_output_as_input(void **state)
{
	struct pt2box_tensor *next;
	struct subject s;
	double was;

	(void)state;
	subject_open(&s, "omp2", NULL);
	subject_inputs(&s, "omp2", "in.npz", "out.npz", true);
	OK(pt2box_run(s.m, s.in, 1, NULL, s.out, &failure));
	next = s.out[0];
	pt2box_tensor_free(s.out[1]);
	was = fixture_at(pt2box_tensor_get_info(next), 5);
	OK(pt2box_run(s.m, &next, 1, NULL, s.out, &failure));
	assert_true(fixture_at(pt2box_tensor_get_info(next), 5) == was);
	free_outputs(&s);
	pt2box_tensor_free(next);
	subject_free_inputs(&s);
	subject_close(&s);
}

/* ---- threads ---- */

struct runner {
	pthread_t thread;
	struct pt2box_model *m;
	int index, rounds;
	bool ok;
	struct test_arrays arrays, want;
};

static void *run_rounds(void *data)
{
	struct runner *r = data;
	struct pt2box_tensor *t, *o;
	struct pt2box_error e;

	r->ok = true;
	for (int i = 0; i < r->rounds && r->ok; i++) {
		fixture_tensors(i % 3 ? r->m : NULL, &r->arrays, &t);
		r->ok = pt2box_run(r->m, &t, 1, NULL, &o, &e) == PT2BOX_OK;
		if (!r->ok) {
			fprintf(stderr, "%s: %s\n", pt2box_status_name(e.status), e.text);
			break;
		}
		r->ok = fixture_equal(&o, 1, &r->want, 1e-4, 1e-5);
		pt2box_tensor_free(o);
		pt2box_tensor_free(t);
	}
	return NULL;
}

static void run_threads(struct pt2box_model *m, int n, int rounds)
{
	static const char *const in[] = {"in.npz", "in_1.npz", "in_2.npz", "in_3.npz"};
	static const char *const out[] = {"out.npz", "out_1.npz", "out_2.npz", "out_3.npz"};
	static struct runner r[32];

	for (int i = 0; i < n; i++) {
		r[i] = (struct runner){.m = m, .index = i, .rounds = rounds};
		fixture_read("mlp", in[i % 4], &r[i].arrays);
		fixture_read("mlp", out[i % 4], &r[i].want);
	}
	for (int i = 0; i < n; i++)
		assert_int_equal(pthread_create(&r[i].thread, NULL, run_rounds, &r[i]), 0);
	for (int i = 0; i < n; i++)
		pthread_join(r[i].thread, NULL);
	for (int i = 0; i < n; i++) {
		assert_true(r[i].ok);
		test_arrays_free(&r[i].arrays);
		test_arrays_free(&r[i].want);
	}
}

static void test_threads(void **state)
{
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT;
	struct subject s;

	(void)state;
	opt.runners = 4;
	subject_open(&s, "mlp", &opt);
	run_threads(s.m, 4, 300);
	run_threads(s.m, 24, 40); /* more than there are slots */
	subject_close(&s);
}

/* ---- asynchronous runs ---- */

static void test_async(void **state)
{
	static const char *const in[] = {"in.npz", "in_1.npz", "in_2.npz", "in_3.npz"};
	static const char *const out[] = {"out.npz", "out_1.npz", "out_2.npz", "out_3.npz"};
	struct test_arrays a[4], want[4];
	struct pt2box_tensor *t[4], *o;
	struct pt2box_run *run[50];
	struct subject s;

	(void)state;
	subject_open(&s, "mlp", NULL);
	for (int i = 0; i < 4; i++) {
		fixture_read("mlp", in[i], &a[i]);
		fixture_read("mlp", out[i], &want[i]);
		fixture_tensors(i % 2 ? s.m : NULL, &a[i], &t[i]);
	}
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < 50; i++)
			OK(pt2box_run_start(s.m, &t[i % 4], 1, NULL, &run[i], &failure));
		for (int i = 49; i >= 0; i--) {
			struct pollfd p = {.fd = pt2box_run_fd(run[i]), .events = POLLIN};

			if (i % 3)
				assert_int_equal(poll(&p, 1, 5000), 1);
			OK(pt2box_run_finish(run[i], &o, &failure));
			assert_true(fixture_equal(&o, 1, &want[i % 4], 1e-4, 1e-5));
			pt2box_tensor_free(o);
		}
	}
	for (int i = 0; i < 4; i++) {
		pt2box_tensor_free(t[i]);
		test_arrays_free(&a[i]);
		test_arrays_free(&want[i]);
	}
	subject_close(&s);
}

static void test_async_window(void **state)
{
	struct pt2box_run *run[8];
	struct subject s;

	(void)state;
	subject_open(&s, "omp2", NULL);
	subject_inputs(&s, "omp2", "in.npz", "out.npz", true);
	for (int i = 0; i < 8; i++)
		OK(pt2box_run_start(s.m, s.in, 1, NULL, &run[i], &failure));
	for (int i = 0; i < 8; i++) {
		OK(pt2box_run_finish(run[i], s.out, &failure));
		assert_true(fixture_equal(s.out, s.n_out, &s.want, 1e-4, 1e-5));
		free_outputs(&s);
	}
	subject_free_inputs(&s);
	subject_close(&s);
}

/* ---- models that misbehave, but only if asked to ---- */

#define MAGIC 666.0f

static void hostile_open(struct subject *s, const char *name, const struct pt2box_load_options *opt)
{
	struct test_package p = {0};
	char so[300], pkg[] = "/tmp/pt2box-client-XXXXXX";

	memset(s, 0, sizeof(*s));
	snprintf(so, sizeof(so), "%s/tests/hostile/%s.3.so", test_build_dir(), name);
	p.so_path = so;
	close(mkstemp(pkg));
	assert_int_equal(test_package_write(pkg, &p), 0);
	OK(pt2box_open(NULL, &s->c, &failure));
	OK(pt2box_load_path(s->c, pkg, opt, &s->m, &failure));
	unlink(pkg);
	s->n_in = s->n_out = 1;
	OK(pt2box_tensor_alloc(s->m, PT2BOX_FLOAT32, 1, (int64_t[]){16}, &s->in[0], &failure));
}

static void set_magic(struct subject *s, float v)
{
	float *x = pt2box_tensor_get_info(s->in[0])->data;

	for (int i = 0; i < 16; i++)
		x[i] = (float)i;
	x[0] = v;
}

static void good_run(struct subject *s)
{
	set_magic(s, 1);
	OK(pt2box_run(s->m, s->in, 1, NULL, s->out, &failure));
	assert_true(fixture_at(pt2box_tensor_get_info(s->out[0]), 3) == 6);
	free_outputs(s);
}

static void hostile_close(struct subject *s)
{
	pt2box_tensor_free(s->in[0]);
	subject_close(s);
}

static void test_deadline(void **state)
{
	struct pt2box_run_options opt = PT2BOX_RUN_OPTIONS_INIT;
	struct pt2box_error e;
	struct subject s;
	long began;

	(void)state;
	hostile_open(&s, "loop", NULL);
	good_run(&s);
	set_magic(&s, MAGIC);
	opt.deadline_ms = 150;
	began = test_now_ms();
	assert_int_equal(pt2box_run(s.m, s.in, 1, &opt, s.out, &e), PT2BOX_MODEL_TIMEOUT);
	assert_in_range(test_now_ms() - began, 149, 1500);
	good_run(&s);
	hostile_close(&s);
}

static void test_crash(void **state)
{
	struct pt2box_run_options opt = PT2BOX_RUN_OPTIONS_INIT;
	struct pt2box_error e;
	struct subject s;
	char *ps;

	(void)state;
	hostile_open(&s, "segfault", NULL);
	set_magic(&s, MAGIC);
	assert_int_equal(pt2box_run(s.m, s.in, 1, NULL, s.out, &e), PT2BOX_MODEL_CRASHED);
	assert_int_equal(e.signal, SIGSEGV);
	good_run(&s);
	set_magic(&s, MAGIC);
	/* Two workers die of it, and no third. */
	opt.retries = 20;
	assert_int_equal(pt2box_run(s.m, s.in, 1, &opt, s.out, &e), PT2BOX_MODEL_CRASHED);
	OK(pt2box_ps(s.c, &ps, &failure));
	assert_non_null(strstr(ps, "\"deaths\":3"));
	pt2box_free_text(ps);
	good_run(&s);
	hostile_close(&s);
}

/* The poison rule for one that hangs, and one that ends its process. */
static void test_poison(void **state)
{
	struct pt2box_load_options load = PT2BOX_LOAD_OPTIONS_INIT;
	struct pt2box_run_options opt = PT2BOX_RUN_OPTIONS_INIT;
	struct pt2box_error e;
	struct subject s;
	char *ps;

	(void)state;
	load.run_deadline_ms = 200;
	hostile_open(&s, "poison", &load);
	opt.retries = 20;
	set_magic(&s, MAGIC);
	((float *)pt2box_tensor_get_info(s.in[0])->data)[1] = 2;
	assert_int_equal(pt2box_run(s.m, s.in, 1, &opt, s.out, &e), PT2BOX_MODEL_TIMEOUT);
	((float *)pt2box_tensor_get_info(s.in[0])->data)[1] = 3;
	assert_int_equal(pt2box_run(s.m, s.in, 1, &opt, s.out, &e), PT2BOX_MODEL_EXITED);
	OK(pt2box_ps(s.c, &ps, &failure));
	assert_non_null(strstr(ps, "\"deaths\":4"));
	pt2box_free_text(ps);
	good_run(&s);
	hostile_close(&s);
}

/* Good runs in between: a worker that dies is replaced at once, however many have died before. */
static void test_crashes_among_good_runs(void **state)
{
	long began = test_now_ms();
	struct pt2box_error e;
	struct subject s;

	(void)state;
	hostile_open(&s, "segfault", NULL);
	for (int i = 0; i < 30; i++) {
		set_magic(&s, MAGIC);
		assert_int_equal(pt2box_run(s.m, s.in, 1, NULL, s.out, &e), PT2BOX_MODEL_CRASHED);
		good_run(&s);
	}
	/* Waiting longer and longer it would be 40 seconds. */
	assert_in_range(test_now_ms() - began, 0, 20000);
	hostile_close(&s);
}

/* Of the only worker, as ps has it; -1: there is none now. */
static long of_worker(struct pt2box *c, const char *key)
{
	char word[32], *ps, *at;
	long n = -1;

	OK(pt2box_ps(c, &ps, &failure));
	snprintf(word, sizeof(word), "\"%s\":", key);
	at = strstr(ps, "\"workers\":");
	if (at && (at = strstr(at, word)))
		n = strtol(at + strlen(word), NULL, 10);
	pt2box_free_text(ps);
	return n;
}

/* Whose worker is killed from outside, again and again, is not to blame: it is repeated as often as it may be. */
static void test_killed_from_outside(void **state)
{
	struct pt2box_run_options opt = PT2BOX_RUN_OPTIONS_INIT;
	struct pt2box_run *run;
	struct pt2box_error e;
	struct subject s;

	(void)state;
	hostile_open(&s, "poison", NULL);
	set_magic(&s, MAGIC);
	((float *)pt2box_tensor_get_info(s.in[0])->data)[1] = 4;
	((float *)pt2box_tensor_get_info(s.in[0])->data)[2] = 1000;
	for (int turn = 0; turn < 2; turn++) {
		opt.retries = turn ? 3 : 4;
		OK(pt2box_run_start(s.m, s.in, 1, &opt, &run, &failure));
		for (int i = 0; i < 4; i++) {
			long deaths = of_worker(s.c, "deaths");

			usleep(100000);
			assert_int_equal(kill((pid_t)of_worker(s.c, "pid"), SIGKILL), 0);
			while (of_worker(s.c, "deaths") == deaths || of_worker(s.c, "pid") <= 0)
				usleep(2000);
		}
		if (turn) {
			assert_int_equal(pt2box_run_finish(run, s.out, &e), PT2BOX_MODEL_CRASHED);
			assert_int_equal(e.signal, SIGKILL);
			continue;
		}
		OK(pt2box_run_finish(run, s.out, &failure));
		assert_true(fixture_at(pt2box_tensor_get_info(s.out[0]), 3) == 6);
		free_outputs(&s);
	}
	good_run(&s);
	hostile_close(&s);
}

static void test_cancel(void **state)
{
	struct pt2box_run_options opt = PT2BOX_RUN_OPTIONS_INIT;
	struct pt2box_run *bad, *waits, *queued[20];
	struct pt2box_tensor *t;
	struct pt2box_error e;
	struct subject s;
	long began;

	(void)state;
	hostile_open(&s, "loop", NULL);
	OK(pt2box_tensor_alloc(s.m, PT2BOX_FLOAT32, 1, (int64_t[]){16}, &t, &failure));
	memset(pt2box_tensor_get_info(t)->data, 0, 64);
	set_magic(&s, MAGIC);
	OK(pt2box_run_start(s.m, s.in, 1, NULL, &bad, &e));
	OK(pt2box_run_start(s.m, &t, 1, NULL, &waits, &failure));
	for (int i = 0; i < 20; i++)
		OK(pt2box_run_start(s.m, &t, 1, NULL, &queued[i], &failure));
	usleep(50000);
	/* What no worker has begun ends at once: in the lane, and waiting for a slot. */
	began = test_now_ms();
	pt2box_run_cancel(waits);
	assert_int_equal(pt2box_run_finish(waits, s.out, &e), PT2BOX_CANCELLED);
	pt2box_run_cancel(queued[19]);
	assert_int_equal(pt2box_run_finish(queued[19], s.out, &e), PT2BOX_CANCELLED);
	assert_in_range(test_now_ms() - began, 0, 500);
	pt2box_run_cancel(bad);
	assert_int_equal(pt2box_run_finish(bad, s.out, &e), PT2BOX_CANCELLED);
	for (int i = 0; i < 19; i++) {
		OK(pt2box_run_finish(queued[i], s.out, &failure));
		free_outputs(&s);
	}
	good_run(&s);
	set_magic(&s, MAGIC);
	opt.deadline_ms = 100;
	OK(pt2box_run_start(s.m, s.in, 1, &opt, &bad, &failure));
	assert_int_equal(pt2box_run_finish(bad, s.out, &e), PT2BOX_MODEL_TIMEOUT);
	good_run(&s);
	/* Closing ends what has not ended. */
	set_magic(&s, MAGIC);
	OK(pt2box_run_start(s.m, s.in, 1, NULL, &bad, &failure));
	pt2box_close(s.c);
	assert_int_equal(pt2box_run_finish(bad, s.out, &e), PT2BOX_CANCELLED);
	pt2box_tensor_free(t);
	pt2box_tensor_free(s.in[0]);
	pt2box_unload(s.m);
}

/* ---- the ends of processes ---- */

static pid_t broker_pid(struct pt2box *c)
{
	int pid = -1;
	char *ps;

	OK(pt2box_ps(c, &ps, &failure));
	assert_int_equal(sscanf(ps, "{\"broker\":{\"pid\":%d", &pid), 1);
	pt2box_free_text(ps);
	return pid;
}

/* No process that descends from this one is left. */
static void assert_no_children(void)
{
	long until = test_now_ms() + 4000;

	for (;;) {
		pid_t pid = waitpid(-1, NULL, WNOHANG | __WALL);

		if (pid < 0)
			return;
		if (pid == 0 && test_now_ms() > until)
			fail_msg("a process is left");
		if (pid == 0)
			usleep(5000);
	}
}

static void test_nothing_left(void **state)
{
	struct subject s;
	long began;

	(void)state;
	subject_open(&s, "mlp", NULL);
	assert_int_not_equal(getsid(broker_pid(s.c)), getsid(0));
	subject_close(&s);
	/* Close has waited for the broker, and that for its own. A zombie of a helper may come to us. */
	began = test_now_ms();
	assert_no_children();
	assert_in_range(test_now_ms() - began, 0, 200);
}

static void *kill_later(void *data)
{
	usleep(100000);
	kill(*(pid_t *)data, SIGKILL);
	return NULL;
}

static void test_broker_killed(void **state)
{
	struct pt2box_error e;
	struct pt2box_run *run;
	struct subject s;
	pthread_t thread;
	pid_t pid;
	long began;
	char *text;

	(void)state;
	hostile_open(&s, "loop", NULL);
	set_magic(&s, MAGIC);
	pid = broker_pid(s.c);
	OK(pt2box_run_start(s.m, s.in, 1, NULL, &run, &failure));
	pthread_create(&thread, NULL, kill_later, &pid);
	began = test_now_ms();
	assert_int_equal(pt2box_run(s.m, s.in, 1, NULL, s.out, &e), PT2BOX_BROKER_LOST);
	assert_non_null(strstr(e.text, "signal 9"));
	assert_int_equal(pt2box_run_finish(run, s.out, &e), PT2BOX_BROKER_LOST);
	assert_in_range(test_now_ms() - began, 90, 1500);
	pthread_join(thread, NULL);
	assert_int_equal(pt2box_ps(s.c, &text, &e), PT2BOX_BROKER_LOST);
	assert_int_equal(pt2box_run(s.m, s.in, 1, NULL, s.out, &e), PT2BOX_BROKER_LOST);
	hostile_close(&s);
	assert_no_children();
}

static void check_client_killed(bool with_child)
{
	int p[2];
	pid_t pid;
	char byte;

	assert_int_equal(pipe(p), 0);
	pid = fork();
	if (pid == 0) {
		struct subject s;
		struct pt2box_run *run;

		hostile_open(&s, "loop", NULL);
		set_magic(&s, MAGIC);
		OK(pt2box_run_start(s.m, s.in, 1, NULL, &run, &failure));
		/* A grandchild that holds the socket for longer than its parent lives. */
		if (with_child && fork() == 0) {
			sleep(2);
			_exit(0);
		}
		usleep(50000);
		(void)!write(p[1], "x", 1);
		pause();
	}
	assert_int_equal(read(p[0], &byte, 1), 1);
	close(p[0]);
	close(p[1]);
	kill(pid, SIGKILL);
	assert_no_children();
}

static void test_client_killed(void **state)
{
	(void)state;
	check_client_killed(false);
	check_client_killed(true);
}

static void test_fork(void **state)
{
	struct subject s;
	int status;
	pid_t pid;

	(void)state;
	subject_open(&s, "mlp", NULL);
	subject_inputs(&s, "mlp", "in.npz", "out.npz", true);
	run_equal(&s);
	pid = fork();
	if (pid == 0) {
		struct pt2box_error e;
		struct pt2box *c = NULL;
		struct pt2box_tensor *t, *out[1];
		struct pt2box_run *run;
		char *text;
		bool ok = pt2box_run(s.m, s.in, 1, NULL, out, &e) == PT2BOX_USAGE;

		ok &= pt2box_run_start(s.m, s.in, 1, NULL, &run, &e) == PT2BOX_USAGE;
		ok &= pt2box_ps(s.c, &text, &e) == PT2BOX_USAGE;
		ok &= pt2box_tensor_alloc(s.m, 6, 0, NULL, &t, &e) == PT2BOX_USAGE;
		ok &= fixture_equal(s.out, 1, &s.want, 1e-4, 1e-5);
		free_outputs(&s);
		pt2box_tensor_free(s.in[0]);
		pt2box_unload(s.m);
		pt2box_close(s.c);
		ok &= pt2box_open(NULL, &c, &e) == PT2BOX_OK;
		pt2box_close(c);
		_exit(ok ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	free_outputs(&s);
	run_equal(&s);
	free_outputs(&s);
	subject_free_inputs(&s);
	subject_close(&s);
}

/* ---- a service, two connections ---- */

static void test_two_connections(void **state)
{
	char libexec[4096], *ps;
	struct test_broker b;
	struct pt2box *c[2];
	struct pt2box_model *m[2];
	struct pt2box_error e;

	(void)state;
	snprintf(libexec, sizeof(libexec), "%s", getenv("PT2BOX_LIBEXEC"));
	assert_int_equal(test_broker_start(&b, libexec), 0);
	for (int i = 0; i < 2; i++) {
		OK(pt2box_open(b.socket, &c[i], &e));
		OK(pt2box_load_path(c[i], fixture_path("mlp", "model.pt2"), NULL, &m[i], &failure));
	}
	run_threads(m[0], 2, 20);
	run_threads(m[1], 2, 20);
	pt2box_close(c[0]);
	pt2box_unload(m[0]);
	run_threads(m[1], 2, 20);
	OK(pt2box_ps(c[1], &ps, &failure));
	pt2box_free_text(ps);
	pt2box_unload(m[1]);
	pt2box_close(c[1]);
	assert_int_equal(test_broker_stop(&b), 0);
	assert_int_equal(pt2box_open(b.socket, &c[0], &e), PT2BOX_BROKER_LOST);
	test_remove_tree(b.dir);
}

/* ---- loading ---- */

static void test_loading(void **state)
{
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT;
	struct pt2box_model *m;
	struct pt2box_error e;
	struct pt2box *c;
	char *text;
	void *data;
	int fd;

	(void)state;
	OK(pt2box_open(NULL, &c, &failure));
	assert_int_equal(pt2box_load_path(c, "/nonexistent/x.pt2", NULL, &m, &e), PT2BOX_IO);
	assert_int_equal(e.sys_errno, ENOENT);
	assert_int_equal(pt2box_load_path(c, "/", NULL, &m, &e), PT2BOX_BAD_FD);
	assert_int_equal(pt2box_load_memory(c, "no package", 10, NULL, &m, &e),
			 PT2BOX_PKG_REJECTED);
	opt.model_name = "nobody";
	assert_int_equal(pt2box_load_path(c, fixture_path("mlp", "model.pt2"), &opt, &m, &e),
			 PT2BOX_NOT_FOUND);
	opt.model_name = NULL;
	opt.profile = "loose";
	assert_int_equal(pt2box_load_path(c, fixture_path("mlp", "model.pt2"), &opt, &m, &e),
			 PT2BOX_USAGE);
	opt.profile = NULL;
	assert_int_equal(pt2box_load_path(c, fixture_path("customop", "model.pt2"), NULL, &m, &e),
			 PT2BOX_UNSUPPORTED);
	/* From memory. */
	fd = open(fixture_path("mlp", "model.pt2"), O_RDONLY | O_CLOEXEC);
	data = mmap(NULL, 1 << 20, PROT_READ, MAP_PRIVATE, fd, 0);
	OK(pt2box_load_memory(c, data, (size_t)lseek(fd, 0, SEEK_END), NULL, &m, &failure));
	run_threads(m, 1, 5);
	OK(pt2box_model_describe(m, &text, &failure));
	assert_non_null(strstr(text, "\"state\": \"loaded\""));
	pt2box_free_text(text);
	OK(pt2box_inspect_fd(c, fd, NULL, &text, &failure));
	assert_non_null(strstr(text, "\"state\": \"inspected\""));
	assert_non_null(strstr(text, "fc1.weight"));
	pt2box_free_text(text);
	munmap(data, 1 << 20);
	close(fd);
	pt2box_unload(m);
	OK(pt2box_doctor(c, &text, &failure));
	assert_non_null(strstr(text, "layers"));
	pt2box_free_text(text);
	pt2box_close(c);
}

static void test_constants_file(void **state)
{
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT;
	struct pt2box_error e;
	struct pt2box_model *m;
	struct subject s;

	(void)state;
	opt.constants_fd =
		open(fixture_path("extconst", "constants.safetensors"), O_RDONLY | O_CLOEXEC);
	subject_open(&s, "extconst", &opt);
	close(opt.constants_fd);
	subject_inputs(&s, "extconst", "in.npz", "out.npz", true);
	run_equal(&s);
	free_outputs(&s);
	assert_int_not_equal(
		pt2box_load_path(s.c, fixture_path("extconst", "model.pt2"), NULL, &m, &e),
		PT2BOX_OK);
	subject_free_inputs(&s);
	subject_close(&s);
}

static void test_state(void **state)
{
	static const char *const out[] = {"out.npz", "out_1.npz", "out_2.npz"};
	struct subject s;

	(void)state;
	subject_open(&s, "mutbuf", NULL);
	for (int i = 0; i < 3; i++) {
		subject_inputs(&s, "mutbuf", "in.npz", out[i], i % 2);
		run_equal(&s);
		free_outputs(&s);
		subject_free_inputs(&s);
	}
	subject_close(&s);
}

int main(void)
{
	char dir[4096], real[4096];
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_mlp),
		CHECK_TEST(test_bad_tensors),
		CHECK_TEST(test_every_batch),
		CHECK_TEST(test_fixtures),
		CHECK_TEST(test_none),
		CHECK_TEST(test_alias),
		CHECK_TEST(test_inplace),
		CHECK_TEST(test_strides),
		CHECK_TEST(test_large_outputs_kept),
		CHECK_TEST(test_output_as_input),
		CHECK_TEST(test_threads),
		CHECK_TEST(test_async),
		CHECK_TEST(test_async_window),
		CHECK_TEST(test_deadline),
		CHECK_TEST(test_crash),
		CHECK_TEST(test_poison),
		CHECK_TEST(test_crashes_among_good_runs),
		CHECK_TEST(test_killed_from_outside),
		CHECK_TEST(test_cancel),
		CHECK_TEST(test_nothing_left),
		CHECK_TEST(test_broker_killed),
		CHECK_TEST(test_client_killed),
		CHECK_TEST(test_fork),
		CHECK_TEST(test_two_connections),
		CHECK_TEST(test_loading),
		CHECK_TEST(test_constants_file),
		CHECK_TEST(test_state),
	};

	snprintf(dir, sizeof(dir), "%s/libexec", test_build_dir());
	if (!realpath(dir, real) || setenv("PT2BOX_LIBEXEC", real, 1))
		return 1;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
