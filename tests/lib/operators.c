/* SPDX-License-Identifier: Apache-2.0 */
/* See operators.h. */
#include "tests/lib/operators.h"

#include <unistd.h>

#include "tests/lib/loaded.h"
#include "tests/lib/tensors.h"

#define ELEMENTS 12

int64_t test_operators_run_deadline_ms = 1000;

enum pt2box_status test_operators_load(struct pt2box *c, const char *fixture, int ops_take, uint32_t runners,
			       struct pt2box_model **ret)
{
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT;
	enum pt2box_status st;

	opt.ops_fd = ops_take;
	opt.runners = runners;
	opt.run_deadline_ms = test_operators_run_deadline_ms;
	st = pt2box_load_path(c, fixture_path(fixture, "model.pt2"), &opt, ret, &test_error);
	if (ops_take >= 0)
		close(ops_take);
	return st;
}

void test_operators_input(struct pt2box_model *m, struct pt2box_tensor **ret, float **ret_x)
{
	const int64_t sizes[2] = {3, 4};

	OK(pt2box_tensor_alloc(m, PT2BOX_FLOAT32, 2, sizes, ret, &test_error));
	*ret_x = pt2box_tensor_get_info(*ret)->data;
	for (int i = 0; i < ELEMENTS; i++)
		(*ret_x)[i] = (float)i - 3;
}

void test_operators_begin(struct test_operators *w, int ops_take, uint32_t runners)
{
	OK(pt2box_open(NULL, &w->c, &test_error));
	OK(test_operators_load(w->c, "customop", ops_take, runners, &w->m));
	test_operators_input(w->m, &w->in, &w->x);
}

void test_operators_end(struct test_operators *w)
{
	pt2box_tensor_free(w->in);
	pt2box_unload(w->m);
	pt2box_close(w->c);
}

enum pt2box_status test_operators_run(struct test_operators *w, float first)
{
	struct pt2box_tensor *out = NULL;
	enum pt2box_status st;

	w->x[0] = first;
	st = pt2box_run(w->m, &w->in, 1, NULL, &out, &test_error);
	for (int i = 0; !st && i < ELEMENTS; i++) {
		const float want = w->x[i] * 3 + 4, got = ((const float *)pt2box_tensor_get_info(out)->data)[i];

		assert_true(got == (want > 0 ? want : 0));
	}
	pt2box_tensor_free(out);
	return st;
}

void test_operators_values(int (*open_ops)(void), int runs)
{
	static const char *const fixtures[] = {"customop", "opkinds"};
	struct pt2box *c;

	OK(pt2box_open(NULL, &c, &test_error));
	for (size_t k = 0; k < 2; k++) {
		struct loaded l = {.c = c};
		struct test_arrays want;

		assert_int_equal(test_fixture_load(fixtures[k], &l.f), 0);
		OK(test_operators_load(c, fixtures[k], open_ops(), 1, &l.m));
		assert_int_equal(test_arrays_read(l.f.cases[0].in, l.f.cases[0].dtypes_in, l.f.cases[0].n_in, &l.in), 0);
		assert_int_equal(test_arrays_read(l.f.cases[0].out, l.f.cases[0].dtypes_out, l.f.cases[0].n_out, &want), 0);
		l.n_out = pt2box_model_n_outputs(l.m);
		for (int i = 0; i < runs; i++) {
			fixture_tensors(l.m, &l.in, l.t);
			OK(loaded_run(&l, l.m));
			if (!fixture_equal(l.out, l.n_out, &want, l.f.rtol, l.f.atol))
				fail_msg("%s: run %d is not what PyTorch computed", fixtures[k], i);
			loaded_free(&l);
			for (size_t t = 0; t < l.in.n; t++) {
				pt2box_tensor_free(l.t[t]);
				l.t[t] = NULL;
			}
		}
		test_arrays_free(&want);
		loaded_close(&l);
	}
	pt2box_close(c);
}
