/* SPDX-License-Identifier: Apache-2.0 */
/* The LSTM layer against the textbook loop in double. */
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

#include "runtime/hooks.h"
#include "runtime/ops/heavy.h"
#include "runtime/ops/rnn.h"
#include "tests/unit/runtime/draw.h"

#define MOST 40

struct problem {
	int64_t t, n, c, h;
	bool reverse, biases;
	struct pb_rt_tensor *x, *w_ih, *w_hh, *b_ih, *b_hh, *hx, *cx;
	struct pb_rt_tensor *y, *hy, *cy, *workspace;
};

static double sigmoid(double x)
{
	return 1 / (1 + exp(-x));
}

static double gate(const struct problem *p, int64_t t, int64_t n, int64_t g, const double *h)
{
	double s = p->biases ? get(p->b_ih, &g, 1) + get(p->b_hh, &g, 1) : 0;

	for (int64_t c = 0; c < p->c; c++)
		s += get(p->x, (int64_t[]){t, n, c}, 3) * get(p->w_ih, (int64_t[]){g, c}, 2);
	for (int64_t c = 0; c < p->h; c++)
		s += h[c] * get(p->w_hh, (int64_t[]){g, c}, 2);
	return s;
}

static void expect(double got, double want, double eps, const char *what)
{
	if (!(fabs(got - want) <= eps))
		fail_msg("%s: got %g, want %g", what, got, want);
}

static void compare_sample(const struct problem *p, int64_t n, double eps)
{
	double h[MOST], c[MOST], next[MOST];

	for (int64_t j = 0; j < p->h; j++) {
		h[j] = get(p->hx, (int64_t[]){0, n, j}, 3);
		c[j] = get(p->cx, (int64_t[]){0, n, j}, 3);
	}
	for (int64_t i = 0; i < p->t; i++) {
		const int64_t t = p->reverse ? p->t - 1 - i : i;

		for (int64_t j = 0; j < p->h; j++) {
			const double in = gate(p, t, n, j, h), forget = gate(p, t, n, p->h + j, h);
			const double cell = gate(p, t, n, 2 * p->h + j, h),
				     out = gate(p, t, n, 3 * p->h + j, h);

			c[j] = sigmoid(forget) * c[j] + sigmoid(in) * tanh(cell);
			next[j] = sigmoid(out) * tanh(c[j]);
			expect(get(p->y, (int64_t[]){t, n, j}, 3), next[j], eps, "y");
		}
		memcpy(h, next, sizeof(h));
	}
	for (int64_t j = 0; j < p->h; j++) {
		expect(get(p->hy, (int64_t[]){0, n, j}, 3), h[j], eps, "hy");
		expect(get(p->cy, (int64_t[]){0, n, j}, 3), c[j], eps, "cy");
	}
}

static int run(struct problem *p, int64_t mode)
{
	return aoti_torch_cpu_mkldnn_rnn_layer(p->x, p->w_ih, p->w_hh, p->b_ih, p->b_hh, p->hx,
					       p->cx, p->reverse, NULL, 0, mode, p->h, 1, p->biases,
					       0, (int32_t)draw_int(0, 1), 0, &p->y, &p->hy, &p->cy,
					       &p->workspace);
}

static void draw_problem(struct problem *p, int32_t dtype)
{
	const bool flat = draw_int(0, 1); /* states come as [1, N, H] or [N, H] */
	const int64_t state[3] = {1, p->n, p->h};

	p->reverse = draw_int(0, 1);
	p->biases = draw_int(0, 3) != 0;
	p->x = draw_tensor(dtype, 3, (int64_t[]){p->t, p->n, p->c}, true);
	p->w_ih = draw_tensor(dtype, 2, (int64_t[]){4 * p->h, p->c}, false);
	p->w_hh = draw_tensor(dtype, 2, (int64_t[]){4 * p->h, p->h}, false);
	p->b_ih = draw_tensor(dtype, 1, (int64_t[]){4 * p->h}, false);
	p->b_hh = draw_tensor(dtype, 1, (int64_t[]){4 * p->h}, false);
	p->hx = draw_tensor(dtype, flat ? 2 : 3, flat ? state + 1 : state, false);
	p->cx = draw_tensor(dtype, flat ? 2 : 3, flat ? state + 1 : state, false);
	p->w_ih->storage->constant = p->w_hh->storage->constant = draw_int(0, 1);
}

static void free_results(struct problem *p)
{
	pb_rt_delete(p->y);
	pb_rt_delete(p->hy);
	pb_rt_delete(p->cy);
	pb_rt_delete(p->workspace);
}

static void free_inputs(struct problem *p)
{
	pb_rt_delete(p->x);
	pb_rt_delete(p->w_ih);
	pb_rt_delete(p->w_hh);
	pb_rt_delete(p->b_ih);
	pb_rt_delete(p->b_hh);
	pb_rt_delete(p->hx);
	pb_rt_delete(p->cx);
	pb_rt_cache_clear();
}

static void one_drawn(int32_t dtype, int64_t t, int64_t n)
{
	struct problem p = {.t = t, .n = n, .c = draw_int(1, 30), .h = draw_int(1, MOST)};

	draw_problem(&p, dtype);
	for (int i = 0; i < 2; i++) {
		if (run(&p, 2))
			fail_msg("refused: %s", pb_rt_last_error());
		assert_int_equal(p.hx->ndim, p.hy->ndim);
		assert_int_equal(dtype, p.y->dtype);
		for (int64_t s = 0; s < n; s++)
			compare_sample(&p, s,
				       dtype == PB_RT_F32   ? 5e-6
				       : dtype == PB_RT_F16 ? 3e-3
							    : 2e-2);
		free_results(&p);
	}
	free_inputs(&p);
}

static void test_drawn(void **state)
{
	const int32_t dtypes[] = {PB_RT_F32, PB_RT_F32, PB_RT_F32, PB_RT_BF16, PB_RT_F16};

	(void)state;
	draw_state = 61;
	for (int i = 0; i < 200; i++)
		one_drawn(dtypes[draw_int(0, 4)], draw_int(1, 9), draw_int(1, 5));
	one_drawn(PB_RT_F32, 40, 13);
}

static void test_no_time_keeps_the_state(void **state)
{
	struct problem p = {.t = 0, .n = 2, .c = 3, .h = 4};

	(void)state;
	draw_problem(&p, PB_RT_F32);
	assert_int_equal(0, run(&p, 2));
	assert_int_equal(0, p.y->numel);
	compare_sample(&p, 1, 0);
	free_results(&p);
	free_inputs(&p);
}

static void test_errors(void **state)
{
	struct problem p = {.t = 2, .n = 2, .c = 3, .h = 4};

	(void)state;
	draw_problem(&p, PB_RT_F32);
	assert_int_equal(1, run(&p, 3));
	assert_non_null(strstr(pb_rt_last_error(), "only LSTM"));
	p.h = 5;
	assert_int_equal(1, run(&p, 2));
	assert_non_null(strstr(pb_rt_last_error(), "[16, 3]"));
	free_inputs(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_drawn),
		cmocka_unit_test(test_no_time_keeps_the_state),
		cmocka_unit_test(test_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
