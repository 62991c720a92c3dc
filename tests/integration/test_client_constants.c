/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The constants' life cycle and sessions through libpt2box, against the real programs: what PyTorch's own container computes
 * after each kind of update, values that come back, what is refused, threads that change while others run.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "tests/lib/broker.h"
#include "tests/lib/check.h"
#include "tests/lib/tensors.h"

static struct pt2box_error failure; /* of the main thread */

#define OK(call)                                                                              \
	do {                                                                                  \
		enum pt2box_status st_ = call;                                                \
		if (st_)                                                                      \
			fail_msg("%s: %s: %s", #call, pt2box_status_name(st_), failure.text); \
	} while (0)

#define REFUSED(call, want, words)                                                                         \
	do {                                                                                               \
		enum pt2box_status st_ = call;                                                             \
		if (st_ != (want) || !strstr(failure.text, words))                                         \
			fail_msg("%s: %s: %s", #call, pt2box_status_name(st_), st_ ? failure.text : ""); \
	} while (0)

static struct pt2box *c;
static struct pt2box_model *m;

static int open_file(const char *fixture, const char *file)
{
	int fd = open(fixture_path(fixture, file), O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static void open_model(const char *fixture, bool external, uint32_t runners)
{
	struct pt2box_load_options o = PT2BOX_LOAD_OPTIONS_INIT;

	o.runners = runners;
	if (external)
		o.constants_fd = open_file(fixture, "constants.safetensors");
	OK(pt2box_open(NULL, &c, &failure));
	OK(pt2box_load_path(c, fixture_path(fixture, "model.pt2"), &o, &m, &failure));
	if (external)
		close(o.constants_fd);
}

static void close_model(void)
{
	pt2box_unload(m);
	pt2box_close(c);
}

/* One run of in.npz; @file NULL: its result does not matter. */
static void run_equals(struct pt2box_model *h, const char *fixture, const char *file)
{
	size_t n_out = pt2box_model_n_outputs(h);
	struct pt2box_tensor *in[8], *out[8];
	struct test_arrays a, want;

	fixture_read(fixture, "in.npz", &a);
	fixture_tensors(NULL, &a, in);
	OK(pt2box_run(h, in, a.n, NULL, out, &failure));
	if (file) {
		fixture_read(fixture, file, &want);
		if (!fixture_equal(out, n_out, &want, 1e-4, 1e-5))
			fail_msg("%s: not %s", fixture, file);
		test_arrays_free(&want);
	}
	for (size_t i = 0; i < n_out; i++)
		pt2box_tensor_free(out[i]);
	for (size_t i = 0; i < a.n; i++)
		pt2box_tensor_free(in[i]);
	test_arrays_free(&a);
}

/* ---- lists ---- */

struct list {
	struct test_arrays a;
	struct pt2box_constant item[TEST_ARRAYS_MAX];
	void *spread[TEST_ARRAYS_MAX];
};

/* Constants of a file as a list; @odd: in strides that the package does not have, with holes. */
static void list_read(struct list *l, const char *fixture, const char *file, bool odd)
{
	fixture_read(fixture, file, &l->a);
	for (size_t i = 0; i < l->a.n; i++) {
		const struct pb_array_view *v = &l->a.v[i];
		size_t elem = pt2box_dtype_size(v->dtype);
		int64_t strides[PT2BOX_MAX_DIMS], n = 3;

		for (int32_t d = 0; d < v->ndim; d++) {
			strides[d] = odd ? n : v->strides[d];
			n *= v->sizes[d];
		}
		l->spread[i] = odd ? calloc((size_t)n + 1, elem) : NULL;
		l->item[i].name = v->name;
		OK(pt2box_tensor_lend(v->dtype, v->ndim, v->sizes, strides, odd ? l->spread[i] : (void *)v->data,
				      &l->item[i].tensor, &failure));
		/* Element by element, by the numbers of both. */
		for (int64_t k = 0, count = pt2box_tensor_get_info(l->item[i].tensor)->numel; odd && k < count; k++) {
			int64_t from = 0, to = 0, rest = k;

			for (int32_t d = v->ndim - 1; d >= 0; rest /= v->sizes[d--]) {
				from += rest % v->sizes[d] * v->strides[d];
				to += rest % v->sizes[d] * strides[d];
			}
			memcpy((char *)l->spread[i] + (size_t)to * elem, (const char *)v->data + (size_t)from * elem,
			       elem);
		}
	}
}

static void list_free(struct list *l)
{
	for (size_t i = 0; i < l->a.n; i++) {
		pt2box_tensor_free(l->item[i].tensor);
		free(l->spread[i]);
	}
	test_arrays_free(&l->a);
}

/* ---- every kind of update ---- */

static const struct {
	const char *name;
	bool external;
	int runs_before;
} fixtures[] = {
	{"attn", false, 0},    {"blobconst", false, 0}, {"blobmut", false, 2}, {"convs", false, 0},
	{"extconst", true, 0}, {"extfold", true, 0},	{"extmut", true, 2},   {"lstm", false, 0},
	{"mlp", false, 0},     {"mutbuf", false, 2},	{"rtfold", false, 0},
};

static void load_file(const char *fixture, const char *file, uint32_t flags)
{
	int fd = open_file(fixture, file);

	OK(pt2box_load_constants_fd(m, fd, flags, &failure));
	close(fd);
}

static void update_full(const char *fixture)
{
	load_file(fixture, "full.safetensors", PT2BOX_CONSTANTS_FULL);
	run_equals(m, fixture, "out_full.npz");
}

/* From a list, in odd strides. */
static void update_partial(const char *fixture)
{
	struct list l;

	list_read(&l, fixture, "partial.safetensors", true);
	OK(pt2box_load_constants(m, l.item, l.a.n, 0, &failure));
	list_free(&l);
	run_equals(m, fixture, "out_partial.npz");
}

static void update_swap(const char *fixture)
{
	load_file(fixture, pt2box_model_is_stateful(m) ? "partial.safetensors" : "full.safetensors",
		  PT2BOX_CONSTANTS_INACTIVE);
	run_equals(m, fixture, NULL);
	OK(pt2box_swap_constants(m, &failure));
	run_equals(m, fixture, "out_swap.npz");
}

static void test_updates(void **state)
{
	static void (*const update[])(const char *) = {update_full, update_partial, update_swap};

	(void)state;
	for (size_t i = 0; i < sizeof(fixtures) / sizeof(fixtures[0]); i++)
		for (size_t k = 0; k < 3; k++) {
			open_model(fixtures[i].name, fixtures[i].external, 1);
			for (int n = 0; n < fixtures[i].runs_before; n++)
				run_equals(m, fixtures[i].name, NULL);
			update[k](fixtures[i].name);
			close_model();
		}
}

/* ---- values ---- */

/* What is extracted is what was given, in the package's strides. */
static void values_are(bool inactive, const char *fixture, const char *file)
{
	struct pt2box_constant *got;
	struct test_arrays want;
	size_t n, found = 0;

	fixture_read(fixture, file, &want);
	OK(pt2box_extract_constants(m, inactive, &got, &n, &failure));
	for (size_t i = 0; i < want.n; i++)
		for (size_t k = 0; k < n; k++) {
			const struct pt2box_tensor_info *t = pt2box_tensor_get_info(got[k].tensor);

			if (strcmp(got[k].name, want.v[i].name) != 0)
				continue;
			found++;
			assert_int_equal(t->dtype, want.v[i].dtype);
			assert_int_equal(t->ndim, want.v[i].ndim);
			assert_memory_equal(t->data, want.v[i].data,
					    (size_t)t->numel * pt2box_dtype_size(t->dtype));
		}
	assert_int_equal(found, want.n);
	pt2box_free_constants(got, n);
	test_arrays_free(&want);
}

static void check_buffers(const char *fixture, bool external)
{
	struct pt2box_constant *got;
	size_t n;

	open_model(fixture, external, 2);
	OK(pt2box_extract_constants(m, 1, &got, &n, &failure));
	assert_int_equal(n, 0);
	pt2box_free_constants(got, n);
	REFUSED(pt2box_swap_constants(m, &failure), PT2BOX_USAGE, "inactive");
	REFUSED(pt2box_fold_constants(m, 1, &failure), PT2BOX_USAGE, "inactive");
	OK(pt2box_free_inactive_constants(m, &failure)); /* nothing to free */
	OK(pt2box_fold_constants(m, 0, &failure));
	run_equals(m, fixture, "out.npz");
	load_file(fixture, "full.safetensors", PT2BOX_CONSTANTS_INACTIVE);
	run_equals(m, fixture, "out.npz");
	values_are(true, fixture, "full.safetensors");
	OK(pt2box_fold_constants(m, 1, &failure));
	OK(pt2box_swap_constants(m, &failure));
	run_equals(m, fixture, "out_full.npz");
	values_are(false, fixture, "full.safetensors");
	OK(pt2box_swap_constants(m, &failure));
	run_equals(m, fixture, "out.npz");
	OK(pt2box_free_inactive_constants(m, &failure));
	REFUSED(pt2box_swap_constants(m, &failure), PT2BOX_USAGE, "inactive");
	run_equals(m, fixture, "out.npz");
	close_model();
}

static void test_buffers(void **state)
{
	(void)state;
	check_buffers("mlp", false);
	check_buffers("extconst", true);
	check_buffers("extfold", true);
}

/* ---- what is refused ---- */

static void test_refused(void **state)
{
	struct list full, partial;
	int fd;

	(void)state;
	open_model("mlp", false, 1);
	list_read(&full, "mlp", "full.safetensors", true);
	list_read(&partial, "mlp", "partial.safetensors", false);
	REFUSED(pt2box_load_constants(m, partial.item, 2, PT2BOX_CONSTANTS_FULL, &failure), PT2BOX_NOT_FOUND, "fc1.weight");
	REFUSED(pt2box_load_constants(m, full.item, 4, PT2BOX_CONSTANTS_USER_MANAGED, &failure), PT2BOX_BAD_TENSOR,
		"const.stride");
	OK(pt2box_load_constants(m, partial.item, 2, PT2BOX_CONSTANTS_USER_MANAGED, &failure));
	run_equals(m, "mlp", "out_partial.npz");
	/* What the broker finds: in a file it is not looked at here. */
	fd = open_file("mlp", "partial.safetensors");
	REFUSED(pt2box_load_constants_fd(m, fd, PT2BOX_CONSTANTS_FULL, &failure), PT2BOX_NOT_FOUND, "fc1.weight");
	close(fd);
	fd = open_file("mutbuf", "full.safetensors");
	REFUSED(pt2box_load_constants_fd(m, fd, 0, &failure), PT2BOX_NOT_FOUND, "lin.weight");
	close(fd);
	fd = open_file("mlp", "in.npz");
	assert_int_not_equal(pt2box_load_constants_fd(m, fd, 0, &failure), PT2BOX_OK);
	close(fd);
	run_equals(m, "mlp", "out_partial.npz");
	/* By internal names, all of them. */
	full.item[0].name = "fc1_bias";
	REFUSED(pt2box_load_constants(m, full.item, 4, 0, &failure), PT2BOX_NOT_FOUND, "fc1_bias");
	OK(pt2box_load_constants(m, full.item, 4, PT2BOX_CONSTANTS_NAMES | PT2BOX_CONSTANTS_FULL, &failure));
	run_equals(m, "mlp", "out_full.npz");
	list_free(&full);
	list_free(&partial);
	close_model();
}

/* ---- threads ---- */

#define CHANGES 20

static _Atomic bool stop;

static void *change(void *data)
{
	struct list *l = data;
	struct pt2box_error e;
	enum pt2box_status st = PT2BOX_OK;

	for (int i = 0; i < CHANGES && !st; i++)
		st = pt2box_load_constants(m, l[i % 2].item, l[i % 2].a.n, 0, &e);
	if (st)
		fprintf(stderr, "%s\n", e.text);
	return (void *)(intptr_t)st;
}

static void *run_all_the_time(void *data)
{
	struct test_arrays in, *want = data;
	struct pt2box_tensor *t[1], *out[1];
	struct pt2box_error e;
	enum pt2box_status st = PT2BOX_OK;
	double far[2];

	if (test_arrays_read("tests/fixtures/mlp/in.npz", NULL, 0, &in))
		abort();
	fixture_tensors(NULL, &in, t);
	while (!st && !stop) {
		st = pt2box_run(m, t, 1, NULL, out, &e);
		if (st)
			break;
		/* Wholly the one or wholly the other. */
		for (int k = 0; k < 2; k++) {
			const struct pt2box_tensor_info *f = pt2box_tensor_get_info(out[0]);

			far[k] = 0;
			for (int64_t i = 0; i < f->numel; i++) {
				double d = (double)((float *)f->data)[i] - (double)((const float *)want[k].v[0].data)[i];

				far[k] = d * d > far[k] ? d * d : far[k];
			}
		}
		pt2box_tensor_free(out[0]);
		if (far[0] > 1e-8 && far[1] > 1e-8)
			st = PT2BOX_INTERNAL;
	}
	pt2box_tensor_free(t[0]);
	test_arrays_free(&in);
	return (void *)(intptr_t)st;
}

static void test_changed_while_used(void **state)
{
	static struct list l[2];
	static struct test_arrays want[2];
	pthread_t changer[3], runner[4];
	void *st;

	(void)state;
	open_model("mlp", false, 4);
	list_read(&l[0], "mlp", "full.safetensors", false);
	list_read(&l[1], "mlp", "full.safetensors", false);
	/* Two generations: as given, and with other biases at the end. */
	for (size_t i = 0; i < l[1].a.n; i++)
		if (strcmp(l[1].a.v[i].name, "fc2.bias") == 0)
			for (int k = 0; k < 10; k++)
				((float *)l[1].a.v[i].data)[k] += 5;
	OK(pt2box_load_constants(m, l[0].item, 4, 0, &failure));
	fixture_read("mlp", "out_full.npz", &want[0]);
	fixture_read("mlp", "out_full.npz", &want[1]);
	for (int64_t i = 0; i < want[1].v[0].sizes[0] * 10; i++)
		((float *)want[1].v[0].data)[i] += 5;
	stop = false;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&runner[i], NULL, run_all_the_time, want), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&changer[i], NULL, change, l), 0);
	for (int i = 0; i < 3; i++) {
		pthread_join(changer[i], &st);
		assert_int_equal((intptr_t)st, PT2BOX_OK);
	}
	stop = true;
	for (int i = 0; i < 4; i++) {
		pthread_join(runner[i], &st);
		assert_int_equal((intptr_t)st, PT2BOX_OK);
	}
	for (int i = 0; i < 2; i++) {
		list_free(&l[i]);
		test_arrays_free(&want[i]);
	}
	close_model();
}

/* ---- sessions ---- */

/* mutbuf counts its runs in a buffer. */
static float count_of(struct pt2box_model *h)
{
	struct pt2box_constant *list;
	float count = -1;
	size_t n;

	OK(pt2box_extract_constants(h, 0, &list, &n, &failure));
	for (size_t i = 0; i < n; i++)
		if (strcmp(list[i].name, "count") == 0)
			count = *(float *)pt2box_tensor_get_info(list[i].tensor)->data;
	pt2box_free_constants(list, n);
	return count;
}

static void test_sessions(void **state)
{
	struct pt2box_model *s[2];
	struct list full;
	float first;

	(void)state;
	open_model("mutbuf", false, 1);
	first = count_of(m);
	for (int i = 0; i < 2; i++)
		OK(pt2box_session_open(m, &s[i], &failure));
	for (int i = 0; i < 3; i++)
		run_equals(s[0], "mutbuf", i == 0 ? "out.npz" : NULL);
	run_equals(m, "mutbuf", "out.npz");
	run_equals(s[1], "mutbuf", "out.npz");
	run_equals(s[1], "mutbuf", NULL);
	assert_true(count_of(s[0]) == first + 3);
	assert_true(count_of(s[1]) == first + 2);
	assert_true(count_of(m) == first + 1);
	/* Constants are the model's: changed there, they change everywhere; state that was not given stays. */
	list_read(&full, "mutbuf", "partial.safetensors", false);
	REFUSED(pt2box_load_constants(s[0], full.item, full.a.n, 0, &failure), PT2BOX_USAGE, "session");
	OK(pt2box_load_constants(m, full.item, full.a.n, 0, &failure));
	list_free(&full);
	assert_true(count_of(s[0]) == first + 3);
	run_equals(s[1], "mutbuf", "out_partial.npz"); /* its third run */
	pt2box_unload(s[0]);
	run_equals(s[1], "mutbuf", NULL);
	assert_true(count_of(s[1]) == first + 4);
	pt2box_unload(s[1]);
	run_equals(m, "mutbuf", NULL);
	assert_true(count_of(m) == first + 2);
	OK(pt2box_session_open(m, &s[0], &failure)); /* the place is free again */
	run_equals(s[0], "mutbuf", NULL);
	pt2box_unload(m); /* before its session */
	pt2box_unload(s[0]);
	pt2box_close(c);
}

int main(void)
{
	char dir[4096], real[4096];
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_updates),	     CHECK_TEST(test_buffers),	CHECK_TEST(test_refused),
		CHECK_TEST(test_changed_while_used), CHECK_TEST(test_sessions),
	};

	snprintf(dir, sizeof(dir), "%s/libexec", test_build_dir());
	if (!realpath(dir, real) || setenv("PT2BOX_LIBEXEC", real, 1))
		return 1;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
