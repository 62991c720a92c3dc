/* SPDX-License-Identifier: Apache-2.0 */
/* Convolution against a naive loop in double: 1-d to 3-d, groups, transposed, dilation, layouts,
 * dtypes. */
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

#include "runtime/hooks.h"
#include "runtime/ops/conv.h"
#include "runtime/ops/heavy.h"
#include "tests/unit/runtime/draw.h"

struct params {
	int nd;
	int64_t groups, stride[3], pad[3], dil[3], out_pad[3];
	bool transposed;
};

static double naive(const struct params *p, const struct pb_rt_tensor *x,
		    const struct pb_rt_tensor *w, const struct pb_rt_tensor *b, const int64_t *at,
		    double *scale)
{
	const int64_t ocg = p->transposed ? w->sizes[1] : w->sizes[0] / p->groups;
	const int64_t icg = p->transposed ? w->sizes[0] / p->groups : w->sizes[1];
	const int64_t g = at[1] / ocg;
	int64_t taps = 1;
	double sum = b ? get(b, &at[1], 1) : 0;

	*scale = fabs(sum);
	for (int i = 0; i < p->nd; i++)
		taps *= w->sizes[2 + i];
	for (int64_t t = 0; t < taps; t++) {
		int64_t xi[5] = {at[0]}, wi[5], rest = t;
		bool inside = true;

		for (int i = p->nd - 1; i >= 0; i--) {
			const int64_t tap = rest % w->sizes[2 + i];
			int64_t pos;

			rest /= w->sizes[2 + i];
			wi[2 + i] = tap;
			if (p->transposed) {
				pos = at[2 + i] + p->pad[i] - tap * p->dil[i];
				inside = inside && pos >= 0 && pos % p->stride[i] == 0;
				pos /= p->stride[i];
			} else {
				pos = at[2 + i] * p->stride[i] - p->pad[i] + tap * p->dil[i];
			}
			inside = inside && pos >= 0 && pos < x->sizes[2 + i];
			xi[2 + i] = pos;
		}
		for (int64_t c = 0; inside && c < icg; c++) {
			double v;

			xi[1] = g * icg + c;
			wi[0] = p->transposed ? g * icg + c : at[1];
			wi[1] = p->transposed ? at[1] - g * ocg : c;
			v = get(x, xi, p->nd + 2) * get(w, wi, p->nd + 2);
			sum += v;
			*scale += fabs(v);
		}
	}
	return sum;
}

static void compare(const struct params *p, const struct pb_rt_tensor *x,
		    const struct pb_rt_tensor *w, const struct pb_rt_tensor *b,
		    const struct pb_rt_tensor *y)
{
	for (int64_t n = 0; n < y->numel; n++) {
		int64_t at[5], rest = n;
		double scale, want, got;

		for (int i = y->ndim - 1; i >= 0; i--) {
			at[i] = rest % y->sizes[i];
			rest /= y->sizes[i];
		}
		want = naive(p, x, w, b, at, &scale);
		got = get(y, at, y->ndim);
		if (!close_to(y->dtype, got, want, scale))
			fail_msg("%d-d %s groups %lld stride %lld pad %lld dilation %lld "
				 "transposed %d kernel %lld, channels "
				 "%lld -> %lld, element %lld: got %g, want %g",
				 p->nd, pb_rt_dtype_name(y->dtype), (long long)p->groups,
				 (long long)p->stride[0], (long long)p->pad[0],
				 (long long)p->dil[0], p->transposed, (long long)w->sizes[2],
				 (long long)x->sizes[1], (long long)y->sizes[1], (long long)n, got,
				 want);
	}
}

static struct pb_rt_tensor *convolve(const struct params *p, struct pb_rt_tensor *x,
				     struct pb_rt_tensor *w, struct pb_rt_tensor *b)
{
	struct pb_rt_tensor *y = NULL;

	if (aoti_torch_cpu_convolution(x, w, b ? &b : NULL, p->stride, p->nd, p->pad, p->nd, p->dil,
				       p->nd, p->transposed, p->out_pad, p->nd, p->groups, &y))
		return NULL;
	return y;
}

/* A tensor in channels-last memory. */
static struct pb_rt_tensor *draw_channels_last(int32_t dtype, int ndim, const int64_t *sizes)
{
	int64_t strides[5], step = sizes[1] > 1 ? sizes[1] : 1;
	struct pb_rt_tensor *t;

	strides[1] = 1;
	for (int i = ndim - 1; i >= 2; i--) {
		strides[i] = step;
		step *= sizes[i] > 1 ? sizes[i] : 1;
	}
	strides[0] = step;
	t = pb_rt_empty(dtype, ndim, sizes, strides);
	if (t && t->numel)
		fill_storage(t);
	return t;
}

static struct pb_rt_tensor *draw_layout(int32_t dtype, int ndim, const int64_t *sizes)
{
	switch (draw_int(0, 3)) {
	case 0:
		return draw_tensor(dtype, ndim, sizes, true);
	case 1:
		return draw_channels_last(dtype, ndim, sizes);
	default:
		return draw_contiguous(dtype, ndim, sizes);
	}
}

static void one_drawn(int32_t dtype, int64_t most_channels, int64_t most_size)
{
	struct params p = {.nd = (int)draw_int(1, 3), .transposed = draw_int(0, 3) == 0};
	const bool depthwise = draw_int(0, 3) == 0;
	int64_t xs[5], ws[5], icg, ocg;
	struct pb_rt_tensor *x, *w, *b, *y;

	p.groups = depthwise ? draw_int(1, most_channels) : draw_int(1, 3);
	icg = depthwise ? 1 : draw_int(1, most_channels);
	ocg = depthwise ? draw_int(1, 2) : draw_int(1, most_channels);
	xs[0] = draw_int(1, 3);
	xs[1] = p.groups * icg;
	ws[0] = p.transposed ? p.groups * icg : p.groups * ocg;
	ws[1] = p.transposed ? ocg : icg;
	for (int i = 0; i < p.nd; i++) {
		p.stride[i] = draw_int(1, 3);
		p.dil[i] = draw_int(1, 2);
		p.pad[i] = draw_int(0, 2);
		p.out_pad[i] = p.transposed ? draw_int(0, p.stride[i] - 1) : 0;
		ws[2 + i] = draw_int(1, 4);
		xs[2 + i] = draw_int(1, most_size);
		if (p.transposed) /* at least one output */
			while ((xs[2 + i] - 1) * p.stride[i] - 2 * p.pad[i] +
				       p.dil[i] * (ws[2 + i] - 1) + p.out_pad[i] + 1 <
			       1)
				xs[2 + i]++;
		else
			while (xs[2 + i] + 2 * p.pad[i] < p.dil[i] * (ws[2 + i] - 1) + 1)
				xs[2 + i]++;
	}
	x = draw_layout(dtype, p.nd + 2, xs);
	w = draw_layout(dtype, p.nd + 2, ws);
	b = draw_int(0, 1) ? draw_tensor(dtype, 1, (int64_t[]){p.groups * ocg}, true) : NULL;
	w->storage->constant = draw_int(0, 1);
	for (int i = 0; i < 2; i++) {
		y = convolve(&p, x, w, b);
		if (!y)
			fail_msg("refused: %s", pb_rt_last_error());
		compare(&p, x, w, b, y);
		pb_rt_delete(y);
	}
	pb_rt_delete(x);
	pb_rt_delete(w);
	pb_rt_delete(b);
	pb_rt_cache_clear();
}

static void test_drawn(void **state)
{
	const int32_t dtypes[] = {PB_RT_F32, PB_RT_F32,	 PB_RT_F32, PB_RT_F32,
				  PB_RT_F64, PB_RT_BF16, PB_RT_F16};

	(void)state;
	draw_state = 21;
	for (int i = 0; i < 1500; i++)
		one_drawn(dtypes[draw_int(0, 6)], 4, 7);
}

/* Wide enough for whole panels and several blocks. */
static void test_drawn_large(void **state)
{
	(void)state;
	draw_state = 22;
	for (int i = 0; i < 60; i++)
		one_drawn(PB_RT_F32, 24, 11);
	pb_rt_set_threads(2);
	for (int i = 0; i < 10; i++)
		one_drawn(PB_RT_F32, 40, 9);
	pb_rt_set_threads(1);
}

/* Large enough to be shared by threads, in both layouts, weights packed or not. */
static void test_depthwise_threads(void **state)
{
	struct params p = {2, 37, {1, 1}, {1, 1}, {1, 1}, {0, 0}, false};
	const int64_t xs[4] = {2, p.groups, 33, 31}, ws[4] = {p.groups, 1, 3, 3};

	(void)state;
	draw_state = 24;
	pb_rt_set_threads(3);
	for (int i = 0; i < 8; i++) {
		struct pb_rt_tensor *x = i & 1 ? draw_channels_last(PB_RT_F32, 4, xs)
					       : draw_contiguous(PB_RT_F32, 4, xs);
		struct pb_rt_tensor *w = i & 2 ? draw_channels_last(PB_RT_F32, 4, ws)
					       : draw_contiguous(PB_RT_F32, 4, ws);

		w->storage->constant = i < 4;
		p.stride[0] = p.stride[1] = i % 3 ? 1 : 2;
		for (int again = 0; again < 2; again++) {
			struct pb_rt_tensor *y = convolve(&p, x, w, NULL);

			assert_non_null(y);
			compare(&p, x, w, NULL, y);
			pb_rt_delete(y);
		}
		pb_rt_delete(x);
		pb_rt_delete(w);
		pb_rt_cache_clear();
	}
	pb_rt_set_threads(1);
}

/* @size is the width; images are a little higher. */
static void one_2d(int64_t n, int64_t ic, int64_t oc, int64_t size, int64_t k, int64_t stride,
		   int64_t pad, bool last, bool constant)
{
	const struct params p = {2, 1, {stride, stride}, {pad, pad}, {1, 1}, {0, 0}, false};
	const int64_t xs[4] = {n, ic, size + 1, size}, ws[4] = {oc, ic, k, k};
	struct pb_rt_tensor *x =
		last ? draw_channels_last(PB_RT_F32, 4, xs) : draw_contiguous(PB_RT_F32, 4, xs);
	struct pb_rt_tensor *w = last && !constant ? draw_channels_last(PB_RT_F32, 4, ws)
						   : draw_contiguous(PB_RT_F32, 4, ws);
	struct pb_rt_tensor *b = draw_contiguous(PB_RT_F32, 1, &oc), *y;

	w->storage->constant = constant;
	y = convolve(&p, x, w, b);
	assert_non_null(y);
	compare(&p, x, w, b, y);
	assert_int_equal(last ? 1 : y->sizes[2] * y->sizes[3], y->strides[1]);
	pb_rt_delete(x);
	pb_rt_delete(w);
	pb_rt_delete(b);
	pb_rt_delete(y);
	pb_rt_cache_clear();
}

/* Layers as image models have them. */
static void test_model_layers(void **state)
{
	(void)state;
	draw_state = 23;
	for (int i = 0; i < 4; i++) {
		const bool last = i % 2, constant = i / 2;

		one_2d(1, 3, 16, 33, 7, 2, 3, last, constant);
		one_2d(2, 16, 32, 14, 3, 1, 1, last, constant);
		one_2d(2, 16, 32, 14, 3, 2, 1, last, constant);
		one_2d(2, 16, 32, 14, 1, 2, 0, last, constant);
		one_2d(2, 32, 70, 7, 3, 1, 1, last, constant);
		one_2d(1, 40, 20, 9, 1, 1, 0, last, constant);
		one_2d(3, 3, 24, 32, 8, 8, 0, last, constant);
	}
}

/* Every shape of tile: rows of 1 to 31 positions, channels that fill panels and that do not,
 * several chunks of k and blocks of positions; one tap with many positions, and few channels. */
static void test_tiles(void **state)
{
	(void)state;
	draw_state = 25;
	for (int last = 0; last < 2; last++) {
		for (int64_t size = 1; size < 32; size++)
			one_2d(1, 2, 1 + 5 * size % 67, size, 3, 1, 1, last, size % 2);
		one_2d(1, 70, 65, 5, 3, 1, 1, last, false);
		one_2d(1, 70, 65, 5, 3, 1, 1, last, true);
		one_2d(1, 3, 40, 40, 3, 1, 1, last, false);
		one_2d(1, 20, 9, 25, 1, 1, 0, last, true);
		one_2d(2, 1, 9, 25, 1, 1, 0, last, true);
		one_2d(2, 9, 1, 25, 1, 1, 0, last, false);
		one_2d(1, 9, 3, 12, 3, 1, 1, last, false);
	}
}

/* The rule of PyTorch: channels last if input or weight is, plain otherwise and for every empty
 * input. */
static void check_format(struct pb_rt_tensor *x, struct pb_rt_tensor *w, bool want_last)
{
	const struct params p = {2, 1, {1, 1}, {1, 1}, {1, 1}, {0, 0}, false};
	struct pb_rt_tensor *y = convolve(&p, x, w, NULL);

	assert_non_null(y);
	assert_int_equal(want_last ? 1 : y->sizes[2] * y->sizes[3], y->strides[1]);
	assert_int_equal(want_last ? y->sizes[1] : 1, y->strides[3]);
	pb_rt_delete(x);
	pb_rt_delete(w);
	pb_rt_delete(y);
}

static void test_memory_format(void **state)
{
	const int64_t xs[4] = {2, 3, 5, 6}, ws[4] = {4, 3, 3, 3}, none[4] = {0, 3, 5, 6};
	const int64_t xs1[4] = {2, 1, 5, 6}, ws1[4] = {4, 1, 3, 3};

	(void)state;
	draw_state = 24;
	check_format(draw_contiguous(PB_RT_F32, 4, xs), draw_contiguous(PB_RT_F32, 4, ws), false);
	check_format(draw_channels_last(PB_RT_F32, 4, xs), draw_contiguous(PB_RT_F32, 4, ws), true);
	check_format(draw_contiguous(PB_RT_F32, 4, xs), draw_channels_last(PB_RT_F32, 4, ws), true);
	check_format(draw_channels_last(PB_RT_F64, 4, xs), draw_contiguous(PB_RT_F64, 4, ws), true);
	check_format(draw_channels_last(PB_RT_BF16, 4, xs), draw_contiguous(PB_RT_BF16, 4, ws),
		     true);
	check_format(draw_contiguous(PB_RT_F32, 4, xs1), draw_contiguous(PB_RT_F32, 4, ws1), false);
	check_format(draw_channels_last(PB_RT_F32, 4, none), draw_contiguous(PB_RT_F32, 4, ws),
		     false);
}

static void test_empty_batch(void **state)
{
	const struct params p = {2, 1, {1, 1}, {0, 0}, {1, 1}, {0, 0}, false};
	struct pb_rt_tensor *x = pb_rt_empty(PB_RT_F32, 4, (int64_t[]){0, 3, 5, 5}, NULL);
	struct pb_rt_tensor *w = draw_contiguous(PB_RT_F32, 4, (int64_t[]){4, 3, 3, 3});
	struct pb_rt_tensor *y = convolve(&p, x, w, NULL);

	(void)state;
	assert_non_null(y);
	assert_int_equal(0, y->numel);
	assert_int_equal(4, y->sizes[1]);
	assert_int_equal(3, y->sizes[3]);
	pb_rt_delete(x);
	pb_rt_delete(w);
	pb_rt_delete(y);
}

/* One number for all dimensions, as PyTorch expands it. */
static void test_single_parameters(void **state)
{
	const struct params p = {2, 1, {2, 2}, {1, 1}, {1, 1}, {0, 0}, false};
	struct pb_rt_tensor *x = draw_contiguous(PB_RT_F32, 4, (int64_t[]){1, 3, 9, 9});
	struct pb_rt_tensor *w = draw_contiguous(PB_RT_F32, 4, (int64_t[]){4, 3, 3, 3}), *y = NULL;

	(void)state;
	assert_int_equal(0, aoti_torch_cpu_convolution(x, w, NULL, p.stride, 1, p.pad, 1, p.dil, 1,
						       0, p.out_pad, 1, 1, &y));
	compare(&p, x, w, NULL, y);
	pb_rt_delete(x);
	pb_rt_delete(w);
	pb_rt_delete(y);
}

static void test_errors_name_the_shapes(void **state)
{
	struct params p = {2, 1, {1, 1}, {0, 0}, {1, 1}, {0, 0}, false};
	struct pb_rt_tensor *x = draw_contiguous(PB_RT_F32, 4, (int64_t[]){1, 3, 2, 2});
	struct pb_rt_tensor *w = draw_contiguous(PB_RT_F32, 4, (int64_t[]){4, 5, 3, 3});
	struct pb_rt_tensor *w2 = draw_contiguous(PB_RT_F32, 4, (int64_t[]){4, 3, 3, 3});

	(void)state;
	assert_null(convolve(&p, x, w, NULL));
	assert_non_null(strstr(pb_rt_last_error(),
			       "expected input[1, 3, 2, 2] to have 5 channels, but got 3"));
	assert_null(convolve(&p, x, w2, NULL));
	assert_non_null(
		strstr(pb_rt_last_error(), "Kernel size can't be greater than actual input size"));
	p.groups = 0;
	assert_null(convolve(&p, x, w2, NULL));
	p.groups = 1;
	p.stride[1] = 0;
	assert_null(convolve(&p, x, w2, NULL));
	pb_rt_delete(x);
	pb_rt_delete(w);
	pb_rt_delete(w2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_drawn),
		cmocka_unit_test(test_drawn_large),
		cmocka_unit_test(test_depthwise_threads),
		cmocka_unit_test(test_model_layers),
		cmocka_unit_test(test_tiles),
		cmocka_unit_test(test_memory_format),
		cmocka_unit_test(test_empty_batch),
		cmocka_unit_test(test_single_parameters),
		cmocka_unit_test(test_errors_name_the_shapes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
