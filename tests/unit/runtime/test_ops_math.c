/* SPDX-License-Identifier: Apache-2.0 */
/* Elementwise arithmetic, search, pooling and random draws: naive loops over drawn tensors, and
 * numbers of torch 2.13.0. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "runtime/hooks.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/fft.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/pool.h"
#include "runtime/ops/random.h"
#include "runtime/ops/search.h"
#include "tests/unit/runtime/draw.h"

static void coordinates(const struct pb_rt_tensor *t, int64_t i, int64_t *at)
{
	for (int d = t->ndim - 1; d >= 0; d--) {
		at[d] = i % t->sizes[d];
		i /= t->sizes[d];
	}
}

/* Broadcasting, mixed dtypes, lines longer than a block of the conversion. */
static void test_add_and_mul(void **state)
{
	static const int32_t dtypes[] = {PB_RT_F32, PB_RT_F64, PB_RT_BF16, PB_RT_I64, PB_RT_U8};

	(void)state;
	draw_state = 51;
	for (int round = 0; round < 300; round++) {
		int64_t sizes[3] = {draw_int(1, 3), draw_int(1, 4),
				    draw_int(0, 9) ? draw_int(0, 5) : 700},
			small[3], at[3];
		struct pb_rt_tensor *a = draw_tensor(dtypes[draw_int(0, 4)], 3, sizes, true), *b;
		const int skip = (int)draw_int(0, 2);
		AtenTensorHandle sum = NULL, product = NULL;

		for (int d = 0; d < 3; d++)
			small[d] = draw_int(0, 3) ? sizes[d] : 1;
		b = draw_tensor(dtypes[draw_int(0, 4)], 3 - skip, small + skip, true);
		assert_int_equal(0, aoti_torch_cpu_add_Tensor(a, b, 2, &sum));
		assert_int_equal(0, aoti_torch_cpu_mul_Tensor(b, a, &product));
		for (int64_t i = 0; i < sum->numel; i++) {
			double x, y, scale;

			coordinates(sum, i, at);
			x = get(a, at, 3);
			y = get(b, at, 3);
			scale = fabs(x) + 2 * fabs(y);
			if (sum->dtype == PB_RT_U8)
				assert_int_equal((uint8_t)(int)(x + 2 * y),
						 (uint8_t)get(sum, at, 3));
			else
				assert_true(
					close_to(sum->dtype, get(sum, at, 3), x + 2 * y, scale));
			if (product->dtype != PB_RT_U8)
				assert_true(close_to(product->dtype, get(product, at, 3), x * y,
						     scale));
		}
		pb_rt_delete(a);
		pb_rt_delete(b);
		pb_rt_delete(sum);
		pb_rt_delete(product);
	}
}

/* uint8 and int8 have nothing in common but int16; what has to be converted loses its gaps before
 * strides are compared. */
static void test_promotion(void **state)
{
	struct pb_rt_tensor *a = draw_contiguous(PB_RT_U8, 3, (int64_t[]){1, 3, 2}), *b, *c, *base;
	AtenTensorHandle out = NULL;

	(void)state;
	b = draw_contiguous(PB_RT_I8, 3, a->sizes);
	base = draw_contiguous(PB_RT_F64, 1, (int64_t[]){18});
	c = pb_rt_alias(base, 3, a->sizes, (int64_t[]){12, 2, 6}, 0);
	assert_int_equal(0, aoti_torch_cpu_add_Tensor(a, b, 1, &out));
	assert_int_equal(PB_RT_I16, out->dtype);
	pb_rt_delete(out);
	pb_rt_delete(b);
	b = pb_rt_alias(base, 3, a->sizes, (int64_t[]){12, 4, 0}, 0);
	b->dtype = PB_RT_I64;
	assert_int_equal(0, aoti_torch_cpu_add_Tensor(b, c, 1, &out));
	assert_int_equal(2, out->strides[1]);
	assert_int_equal(1, out->strides[2]);
	pb_rt_delete(out);
	b->dtype = PB_RT_F64;
	assert_int_equal(0, aoti_torch_cpu_add_Tensor(b, c, 1, &out));
	assert_int_equal(1, out->strides[1]);
	assert_int_equal(3, out->strides[2]);
	pb_rt_delete(out);
	pb_rt_delete(a);
	pb_rt_delete(b);
	pb_rt_delete(c);
	pb_rt_delete(base);
}

/* The padding index counts neither in the sum nor in the mean's divisor. */
static void test_padding_of_bags(void **state)
{
	struct pb_rt_tensor *w = pb_rt_empty(PB_RT_F32, 2, (int64_t[]){3, 1}, NULL);
	struct pb_rt_tensor *i = pb_rt_empty(PB_RT_I64, 1, (int64_t[]){4}, NULL);
	struct pb_rt_tensor *offsets = pb_rt_empty(PB_RT_I64, 1, (int64_t[]){2}, NULL);
	AtenTensorHandle r[4] = {NULL};

	(void)state;
	for (int k = 0; k < 3; k++)
		set_at(w, k, 1 << k);
	for (int k = 0; k < 4; k++)
		set_at(i, k, k % 3);
	set_at(offsets, 0, 0);
	set_at(offsets, 1, 3);
	assert_int_equal(0, aoti_torch_cpu__embedding_bag(w, i, offsets, 0, 1, 0, NULL, 0, 1, &r[0],
							  &r[1], &r[2], &r[3]));
	assert_true(get_at(r[0], 0) == 2.5 && get_at(r[0], 1) == 1);
	assert_true(get_at(r[2], 0) == 2 && get_at(r[2], 1) == 1);
	for (int k = 0; k < 4; k++)
		pb_rt_delete(r[k]);
	set_at(i, 0, 3);
	assert_int_equal(1, aoti_torch_cpu__embedding_bag(w, i, offsets, 0, 1, 0, NULL, 0, 1, &r[0],
							  &r[1], &r[2], &r[3]));
	set_at(i, 0, 0);
	set_at(offsets, 1, 5);
	assert_int_equal(1, aoti_torch_cpu__embedding_bag(w, i, offsets, 0, 1, 0, NULL, 0, 1, &r[0],
							  &r[1], &r[2], &r[3]));
	pb_rt_delete(w);
	pb_rt_delete(i);
	pb_rt_delete(offsets);
}

static void test_shapes_that_do_not_go_together(void **state)
{
	struct pb_rt_tensor *a = draw_contiguous(PB_RT_F32, 2, (int64_t[]){2, 3});
	struct pb_rt_tensor *b = draw_contiguous(PB_RT_F32, 1, (int64_t[]){2});
	AtenTensorHandle out = NULL;

	(void)state;
	assert_int_equal(1, aoti_torch_cpu_add_Tensor(a, b, 1, &out));
	assert_string_equal("The size of tensor a (3) must match the size of tensor b (2) at "
			    "non-singleton dimension 1",
			    pb_rt_last_error());
	pb_rt_delete(a);
	pb_rt_delete(b);
}

/* Integer powers wrap and know negative exponents; a number makes floats of integers. */
static void test_powers(void **state)
{
	struct pb_rt_tensor *base = pb_rt_empty(PB_RT_I64, 1, (int64_t[]){4}, NULL);
	struct pb_rt_tensor *exp = pb_rt_empty(PB_RT_I64, 1, (int64_t[]){4}, NULL);
	static const int bases[] = {3, -1, 2, 1}, exps[] = {4, -3, -1, -9};
	static const int64_t want[] = {81, -1, 0, 1};
	AtenTensorHandle out = NULL;

	(void)state;
	for (int i = 0; i < 4; i++) {
		set_at(base, i, bases[i]);
		set_at(exp, i, exps[i]);
	}
	assert_int_equal(0, aoti_torch_cpu_pow_Tensor_Tensor(base, exp, &out));
	for (int i = 0; i < 4; i++)
		assert_int_equal(want[i], ((int64_t *)pb_rt_data(out))[i]);
	pb_rt_delete(out);
	assert_int_equal(0, aoti_torch_cpu_pow_Tensor_Scalar(base, 0.5, &out));
	assert_int_equal(PB_RT_F32, out->dtype);
	assert_true(isnan(get_at(out, 1)));
	pb_rt_delete(out);
	pb_rt_delete(base);
	pb_rt_delete(exp);
}

static void test_search(void **state)
{
	(void)state;
	draw_state = 52;
	for (int round = 0; round < 300; round++) {
		const int64_t rows = draw_int(1, 3), n = draw_int(0, 20), m = draw_int(1, 5);
		struct pb_rt_tensor *seq = draw_tensor(PB_RT_F32, 2, (int64_t[]){rows, n}, false);
		struct pb_rt_tensor *values = draw_tensor(PB_RT_F32, 2, (int64_t[]){rows, m}, true);
		const int right = (int)draw_int(0, 1);
		AtenTensorHandle out = NULL;

		for (int64_t r = 0; r < rows; r++) {
			double v = -5;

			for (int64_t i = 0; i < n; i++)
				set_at(seq, index_of(seq, (int64_t[]){r, i}, 2),
				       v += (double)draw_int(0, 1));
		}
		assert_int_equal(0, aoti_torch_cpu_searchsorted_Tensor(seq, values, 0, right, NULL,
								       NULL, &out));
		for (int64_t i = 0; i < rows * m; i++) {
			const double v = get(values, (int64_t[]){i / m, i % m}, 2);
			int64_t want = 0;

			for (int64_t k = 0; k < n; k++) {
				const double s = get(seq, (int64_t[]){i / m, k}, 2);

				want += right ? s <= v : s < v;
			}
			assert_int_equal(want, (int64_t)get_at(out, i));
		}
		pb_rt_delete(seq);
		pb_rt_delete(values);
		pb_rt_delete(out);
	}
}

struct window {
	int64_t k, s, p, d;
};

/* Largest of the window and its position in the plane; NaN counts as largest. */
static double naive_max(const struct pb_rt_tensor *t, const struct window *w, const int64_t *at,
			int64_t *ret_at)
{
	double best = -INFINITY;
	int64_t pos[4] = {at[0], at[1]};

	for (int64_t y = 0; y < w[0].k; y++) {
		for (int64_t x = 0; x < w[1].k; x++) {
			pos[2] = at[2] * w[0].s - w[0].p + y * w[0].d;
			pos[3] = at[3] * w[1].s - w[1].p + x * w[1].d;
			if (pos[2] < 0 || pos[2] >= t->sizes[2] || pos[3] < 0 ||
			    pos[3] >= t->sizes[3])
				continue;
			if (get(t, pos, 4) > best || isnan(get(t, pos, 4))) {
				best = get(t, pos, 4);
				*ret_at = pos[2] * t->sizes[3] + pos[3];
			}
		}
	}
	return best;
}

static void test_max_pool(void **state)
{
	static const int32_t dtypes[] = {PB_RT_F32, PB_RT_F64, PB_RT_BF16, PB_RT_I64};

	(void)state;
	draw_state = 53;
	for (int round = 0; round < 200; round++) {
		struct window w[2];
		struct pb_rt_tensor *t = draw_tensor(
			dtypes[draw_int(0, 3)], 4,
			(int64_t[]){draw_int(1, 2), draw_int(1, 3), draw_int(5, 9), draw_int(5, 9)},
			true);
		AtenTensorHandle out = NULL, index = NULL;
		int64_t at[4], from = -1;

		for (int i = 0; i < 2; i++)
			w[i] = (struct window){draw_int(1, 3), draw_int(1, 3), 0, draw_int(1, 2)};
		w[0].p = draw_int(0, w[0].k / 2);
		w[1].p = draw_int(0, w[1].k / 2);
		assert_int_equal(
			0, aoti_torch_cpu_max_pool2d_with_indices(
				   t, (int64_t[]){w[0].k, w[1].k}, 2, (int64_t[]){w[0].s, w[1].s},
				   2, (int64_t[]){w[0].p, w[1].p}, 2, (int64_t[]){w[0].d, w[1].d},
				   2, (int32_t)draw_int(0, 1), &out, &index));
		for (int64_t i = 0; i < out->numel; i++) {
			coordinates(out, i, at);
			assert_true(get(out, at, 4) == naive_max(t, w, at, &from));
			assert_int_equal(from, (int64_t)get(index, at, 4));
		}
		pb_rt_delete(t);
		pb_rt_delete(out);
		pb_rt_delete(index);
	}
}

/* Against the sum that defines it: small factors, larger ones, and primes that go through a
 * convolution. */
static void test_fourier(void **state)
{
	static const int64_t lengths[] = {1,  2,  3,  4,  5,  8,   12,	49,
					  60, 61, 62, 67, 97, 128, 134, 210};

	(void)state;
	draw_state = 54;
	for (size_t c = 0; c < sizeof(lengths) / sizeof(lengths[0]); c++) {
		const int64_t n = lengths[c], half = n / 2 + 1;
		struct pb_rt_tensor *t = draw_tensor(PB_RT_F64, 2, (int64_t[]){n, 2}, false);
		AtenTensorHandle out = NULL, back = NULL;

		assert_int_equal(0, aoti_torch_cpu__fft_r2c(t, (int64_t[]){0}, 1, 1, 1, &out));
		assert_int_equal(half, out->sizes[0]);
		for (int64_t k = 0; k < 2 * half; k++) {
			const double *got = (double *)pb_rt_data(out) +
					    2 * (k / 2 * out->strides[0] + k % 2 * out->strides[1]);
			double re = 0, im = 0;

			for (int64_t i = 0; i < n; i++) {
				const double x = get(t, (int64_t[]){i, k % 2}, 2),
					     angle = 2 * M_PI * (double)(i * (k / 2) % n) /
						     (double)n;

				re += x * cos(angle);
				im -= x * sin(angle);
			}
			assert_true(fabs(got[0] - re / sqrt((double)n)) < 1e-13 * (double)n);
			assert_true(fabs(got[1] - im / sqrt((double)n)) < 1e-13 * (double)n);
		}
		pb_rt_delete(out);
		assert_int_equal(0, aoti_torch_cpu__fft_r2c(t, (int64_t[]){0, 1}, 2, 0, 0, &out));
		assert_int_equal(0,
				 aoti_torch_cpu__fft_c2c(out, (int64_t[]){0, 1}, 2, 2, 0, &back));
		for (int64_t i = 0; i < 2 * n; i++) {
			const double *got =
				(double *)pb_rt_data(back) +
				2 * (i / 2 * back->strides[0] + i % 2 * back->strides[1]);

			assert_true(fabs(got[0] - get(t, (int64_t[]){i / 2, i % 2}, 2)) <
				    1e-13 * (double)n);
			assert_true(fabs(got[1]) < 1e-13 * (double)n);
		}
		pb_rt_delete(t);
		pb_rt_delete(out);
		pb_rt_delete(back);
	}
}

/* torch.manual_seed(11): rand(3), randint(0, 100, (4,)), randperm(6), randn(16)[:2]. */
static void test_draws_are_those_of_torch(void **state)
{
	static const float uniform[] = {0.14904171228408813f, 0.4865531325340271f,
					0.985661506652832f};
	static const int integers[] = {27, 33, 47, 1}, order[] = {0, 3, 5, 4, 1, 2};
	static const float normal[] = {0.5486093759536743f, -0.18795619904994965f};
	int32_t i64 = PB_RT_I64;
	AtenTensorHandle out = NULL;

	(void)state;
	pb_rt_seed(11);
	assert_int_equal(0,
			 aoti_torch_cpu_rand((int64_t[]){3}, 1, NULL, NULL, NULL, 0, NULL, &out));
	for (int i = 0; i < 3; i++)
		assert_true(((float *)pb_rt_data(out))[i] == uniform[i]);
	pb_rt_delete(out);
	assert_int_equal(
		0, aoti_torch_cpu_randint(100, (int64_t[]){4}, 1, &i64, NULL, NULL, 0, NULL, &out));
	for (int i = 0; i < 4; i++)
		assert_int_equal(integers[i], (int)get_at(out, i));
	pb_rt_delete(out);
	assert_int_equal(0, aoti_torch_cpu_randperm(6, &i64, NULL, NULL, 0, NULL, &out));
	for (int i = 0; i < 6; i++)
		assert_int_equal(order[i], (int)get_at(out, i));
	pb_rt_delete(out);
	assert_int_equal(0,
			 aoti_torch_cpu_randn((int64_t[]){16}, 1, NULL, NULL, NULL, 0, NULL, &out));
	for (int i = 0; i < 2; i++)
		assert_true(fabs(get_at(out, i) - (double)normal[i]) < 1e-5);
	pb_rt_delete(out);
}

/* The second number of a pair does not outlive a seed. */
static void test_a_seed_forgets(void **state)
{
	AtenTensorHandle a = NULL, b = NULL;

	(void)state;
	pb_rt_seed(5);
	assert_int_equal(0, aoti_torch_cpu_randn((int64_t[]){1}, 1, NULL, NULL, NULL, 0, NULL, &a));
	pb_rt_seed(5);
	assert_int_equal(0, aoti_torch_cpu_randn((int64_t[]){1}, 1, NULL, NULL, NULL, 0, NULL, &b));
	assert_true(get_at(a, 0) == get_at(b, 0));
	pb_rt_delete(a);
	pb_rt_delete(b);
	assert_int_equal(
		1, aoti_torch_cpu_randint(0, (int64_t[]){1}, 1, NULL, NULL, NULL, 0, NULL, &a));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_add_and_mul),
		cmocka_unit_test(test_promotion),
		cmocka_unit_test(test_padding_of_bags),
		cmocka_unit_test(test_shapes_that_do_not_go_together),
		cmocka_unit_test(test_powers),
		cmocka_unit_test(test_search),
		cmocka_unit_test(test_max_pool),
		cmocka_unit_test(test_fourier),
		cmocka_unit_test(test_draws_are_those_of_torch),
		cmocka_unit_test(test_a_seed_forgets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
