/* SPDX-License-Identifier: Apache-2.0 */
/* Tensor.copy_ against element by element loops: every pair of types, drawn layouts, broadcasting,
 * float8 by search. */
#include <complex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "runtime/convert.h"
#include "runtime/hooks.h"
#include "tests/unit/runtime/draw.h"

static const int32_t dtypes[] = {
	PB_RT_U8,  PB_RT_I8,  PB_RT_I16,  PB_RT_I32,  PB_RT_I64,  PB_RT_F16, PB_RT_F32, PB_RT_F64,
	PB_RT_C32, PB_RT_C64, PB_RT_C128, PB_RT_BOOL, PB_RT_BF16, PB_RT_U16, PB_RT_U32, PB_RT_U64};
#define N_DTYPES ((int)(sizeof(dtypes) / sizeof(dtypes[0])))

static float bf16_value(uint16_t bits)
{
	uint32_t u = (uint32_t)bits << 16;
	float f;

	memcpy(&f, &u, sizeof(f));
	return f;
}

static uint16_t bf16_bits(float f)
{
	uint32_t u;

	memcpy(&u, &f, sizeof(u));
	if (f != f)
		return 0x7fc0;
	return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

static bool is_complex(int32_t dtype)
{
	return dtype >= PB_RT_C32 && dtype <= PB_RT_C128;
}

/* One element converted by C's own rules, straight from one type to the other. */
#define STORE_AS(type)                          \
	do {                                    \
		type out = (type)v;             \
		memcpy(dst, &out, sizeof(out)); \
	} while (0)
#define STORE_EACH(re, im, from_complex)                                               \
	do {                                                                           \
		const __typeof__(re) v = (re);                                         \
		switch (to) {                                                          \
		case PB_RT_U8:                                                         \
			STORE_AS(uint8_t);                                             \
			break;                                                         \
		case PB_RT_I8:                                                         \
			STORE_AS(int8_t);                                              \
			break;                                                         \
		case PB_RT_I16:                                                        \
			STORE_AS(int16_t);                                             \
			break;                                                         \
		case PB_RT_I32:                                                        \
			STORE_AS(int32_t);                                             \
			break;                                                         \
		case PB_RT_I64:                                                        \
			STORE_AS(int64_t);                                             \
			break;                                                         \
		case PB_RT_U16:                                                        \
			STORE_AS(uint16_t);                                            \
			break;                                                         \
		case PB_RT_U32:                                                        \
			STORE_AS(uint32_t);                                            \
			break;                                                         \
		case PB_RT_U64:                                                        \
			STORE_AS(uint64_t);                                            \
			break;                                                         \
		case PB_RT_F32:                                                        \
			STORE_AS(float);                                               \
			break;                                                         \
		case PB_RT_F64:                                                        \
			STORE_AS(double);                                              \
			break;                                                         \
		case PB_RT_F16: {                                                      \
			_Float16 out = (_Float16)(float)v;                             \
			memcpy(dst, &out, 2);                                          \
			break;                                                         \
		}                                                                      \
		case PB_RT_BF16: {                                                     \
			uint16_t out = bf16_bits((float)v);                            \
			memcpy(dst, &out, 2);                                          \
			break;                                                         \
		}                                                                      \
		case PB_RT_C32: {                                                      \
			_Float16 out[2] = {(_Float16)(float)v, (_Float16)(float)(im)}; \
			memcpy(dst, out, 4);                                           \
			break;                                                         \
		}                                                                      \
		case PB_RT_C64: {                                                      \
			float out[2] = {(float)v, (float)(im)};                        \
			memcpy(dst, out, 8);                                           \
			break;                                                         \
		}                                                                      \
		case PB_RT_C128: {                                                     \
			double out[2] = {(double)v, (double)(im)};                     \
			memcpy(dst, out, 16);                                          \
			break;                                                         \
		}                                                                      \
		default:                                                               \
			*(uint8_t *)dst = v != 0 || (from_complex && (im) != 0);       \
		}                                                                      \
	} while (0)
#define LOAD_AS(type)                       \
	do {                                \
		type x;                     \
		memcpy(&x, src, sizeof(x)); \
		STORE_EACH(x, 0, false);    \
	} while (0)

static void naive_convert(void *dst, int32_t to, const void *src, int32_t from)
{
	_Float16 h[2];
	double d[2];
	float f[2];

	switch (from) {
	case PB_RT_U8:
	case PB_RT_BOOL:
		LOAD_AS(uint8_t);
		break;
	case PB_RT_I8:
		LOAD_AS(int8_t);
		break;
	case PB_RT_I16:
		LOAD_AS(int16_t);
		break;
	case PB_RT_I32:
		LOAD_AS(int32_t);
		break;
	case PB_RT_I64:
		LOAD_AS(int64_t);
		break;
	case PB_RT_U16:
		LOAD_AS(uint16_t);
		break;
	case PB_RT_U32:
		LOAD_AS(uint32_t);
		break;
	case PB_RT_U64:
		LOAD_AS(uint64_t);
		break;
	case PB_RT_F32:
		LOAD_AS(float);
		break;
	case PB_RT_F64:
		LOAD_AS(double);
		break;
	case PB_RT_F16:
		memcpy(h, src, 2);
		STORE_EACH((float)h[0], 0, false);
		break;
	case PB_RT_BF16:
		f[0] = bf16_value(*(const uint16_t *)src);
		STORE_EACH(f[0], 0, false);
		break;
	case PB_RT_C32:
		memcpy(h, src, 4);
		STORE_EACH((float)h[0], (float)h[1], true);
		break;
	case PB_RT_C64:
		memcpy(f, src, 8);
		STORE_EACH(f[0], f[1], true);
		break;
	default:
		memcpy(d, src, 16);
		STORE_EACH(d[0], d[1], true);
	}
}

/* Values that fit every type (floats too large for an integer are the next test), with what rounds
 * twice if done wrong. */
static void fill_values(void *data, int32_t dtype, int64_t n)
{
	static const double reals[] = {
		0, 1, 0.5, 1.5, 2.5, 3.75, 100.99, 126, 1e-5, 0.0999755859375, 65, 33.33};
	static const int64_t ints[] = {0, 1, 2, 100, 127, 64};
	const size_t size = pb_rt_dtype_size(dtype);

	for (int64_t i = 0; i < n; i++) {
		char *p = (char *)data + i * (int64_t)size;
		double re = reals[draw_int(0, 11)], im = reals[draw_int(0, 11)], z[2] = {re, im};
		int64_t v = ints[draw_int(0, 5)];

		if (is_complex(dtype))
			naive_convert(p, dtype, z, PB_RT_C128);
		else if (dtype == PB_RT_BOOL)
			*p = (char)draw_int(0, 1);
		else if (dtype <= PB_RT_I64 || dtype >= PB_RT_U16)
			naive_convert(p, dtype, &v, PB_RT_I64);
		else
			naive_convert(p, dtype, &re, PB_RT_F64);
	}
	if (dtype == PB_RT_I64 && n > 3) {
		((int64_t *)data)[0] =
			INT64_C(0x1000000800000001); /* float32 of this through double is wrong */
		((int64_t *)data)[1] = -5;
		((int64_t *)data)[2] = INT64_MIN;
	}
	if (dtype == PB_RT_U64 && n > 3)
		((uint64_t *)data)[0] = UINT64_C(0xfffffffffffff801);
	if (dtype == PB_RT_F64 && n > 3)
		((double *)data)[0] =
			1.00048828125 + 1e-12; /* float16: PyTorch rounds through float32 */
}

static void test_every_pair_of_types(void **state)
{
	enum { N = 600 };

	(void)state;
	for (int i = 0; i < N_DTYPES; i++) {
		for (int k = 0; k < N_DTYPES; k++) {
			const int64_t src_step = draw_int(1, 3), dst_step = draw_int(1, 3);
			const size_t from = pb_rt_dtype_size(dtypes[i]),
				     to = pb_rt_dtype_size(dtypes[k]);
			char *src = calloc(N * 3, from), *dst = calloc(N * 3, to), want[16];

			fill_values(src, dtypes[i], N * 3);
			assert_int_equal(0, pb_rt_convert(dst, dtypes[k], dst_step, src, dtypes[i],
							  src_step, N));
			for (int64_t e = 0; e < N; e++) {
				naive_convert(want, dtypes[k], src + (size_t)(e * src_step) * from,
					      dtypes[i]);
				if (memcmp(want, dst + (size_t)(e * dst_step) * to, to) != 0)
					fail_msg("element %d, %s to %s", (int)e,
						 pb_rt_dtype_name(dtypes[i]),
						 pb_rt_dtype_name(dtypes[k]));
			}
			free(src);
			free(dst);
		}
	}
}

/* Too large for the integer: what x86 gives, and thus PyTorch there. */
static void test_out_of_range(void **state)
{
	const float v[] = {3e9f, -3e9f, 1e30f, -1e30f, NAN, INFINITY, -1, 255.5f};
	const int32_t i32[] = {INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN,
			       INT32_MIN, INT32_MIN, -1,	255};
	int32_t got32[8];
	int64_t got64[8];
	uint8_t got8[8];
	bool got1[8];

	(void)state;
	assert_int_equal(0, pb_rt_convert(got32, PB_RT_I32, 1, v, PB_RT_F32, 1, 8));
	assert_memory_equal(got32, i32, sizeof(i32));
	assert_int_equal(0, pb_rt_convert(got64, PB_RT_I64, 1, v, PB_RT_F32, 1, 8));
	assert_true(got64[0] == 3000000000 && got64[1] == -3000000000);
	assert_true(got64[2] == INT64_MIN && got64[4] == INT64_MIN && got64[6] == -1);
	assert_int_equal(0, pb_rt_convert(got32, PB_RT_U32, 1, v, PB_RT_F32, 1, 8));
	assert_true((uint32_t)got32[0] == 3000000000u && got32[1] == INT32_MIN && got32[2] == 0 &&
		    got32[5] == 0);
	assert_int_equal(0, pb_rt_convert(got64, PB_RT_U64, 1, v, PB_RT_F32, 1, 8));
	assert_true(got64[2] == 0 && got64[3] == INT64_MIN && got64[5] == 0 && got64[6] == -1);
	assert_int_equal(0, pb_rt_convert(got8, PB_RT_U8, 1, v, PB_RT_F32, 1, 8));
	assert_int_equal(got8[6], 255);
	assert_int_equal(got8[7], 255);
	assert_int_equal(0, pb_rt_convert(got1, PB_RT_BOOL, 1, v, PB_RT_F32, 1, 8));
	assert_true(got1[4] && got1[6]);
}

static void copy_and_compare(struct pb_rt_tensor *dst, const struct pb_rt_tensor *src)
{
	int64_t at[4] = {0};
	int n = dst->ndim;

	assert_int_equal(0, pb_rt_copy(dst, src));
	for (int64_t e = 0; e < dst->numel; e++) {
		int64_t i = e;
		char want[16], *got;

		for (int d = n - 1; d >= 0; d--) {
			at[d] = i % dst->sizes[d];
			i /= dst->sizes[d];
		}
		naive_convert(want, dst->dtype,
			      (char *)pb_rt_data(src) +
				      index_of(src, at, n) * (int64_t)pb_rt_dtype_size(src->dtype),
			      src->dtype);
		got = (char *)pb_rt_data(dst) +
		      index_of(dst, at, n) * (int64_t)pb_rt_dtype_size(dst->dtype);
		assert_memory_equal(got, want, pb_rt_dtype_size(dst->dtype));
	}
}

static void test_drawn_layouts(void **state)
{
	static const int32_t few[] = {PB_RT_F32, PB_RT_F32, PB_RT_BF16,
				      PB_RT_I64, PB_RT_U8,  PB_RT_F64};

	(void)state;
	for (int round = 0; round < 2000; round++) {
		const int n = (int)draw_int(0, 4), less = (int)draw_int(0, n);
		int64_t sizes[4], src_sizes[4];
		struct pb_rt_tensor *dst, *src;

		for (int i = 0; i < n; i++) {
			sizes[i] = draw_int(1, 6);
			src_sizes[i] = draw_int(0, 3) ? sizes[i] : 1;
		}
		dst = draw_tensor(few[draw_int(0, 5)], n, sizes, false);
		src = draw_tensor(few[draw_int(0, 5)], n - less, src_sizes + less, true);
		for (int64_t i = 0;
		     i < (int64_t)(src->storage->bytes / pb_rt_dtype_size(src->dtype)); i++)
			set_at(src, i - src->offset, fabs(get_at(src, i - src->offset)));
		copy_and_compare(dst, src);
		pb_rt_delete(dst);
		pb_rt_delete(src);
	}
}

/* Gaps between the elements of the destination stay as they are. */
static void test_gaps_are_kept(void **state)
{
	struct pb_rt_tensor *base = pb_rt_empty(PB_RT_I32, 1, (int64_t[]){20}, NULL);
	struct pb_rt_tensor *dst = pb_rt_alias(base, 2, (int64_t[]){3, 2}, (int64_t[]){6, 2}, 1);
	struct pb_rt_tensor *src = pb_rt_empty(PB_RT_I32, 0, NULL, NULL);
	int32_t *v = pb_rt_data(base);

	(void)state;
	memset(v, 0xff, 80);
	*(int32_t *)pb_rt_data(src) = 7;
	assert_int_equal(0, pb_rt_copy(dst, src));
	for (int i = 0; i < 20; i++)
		assert_int_equal(v[i],
				 i % 6 == 1 || (i % 6 == 3 && i < 18) ? (i == 19 ? -1 : 7) : -1);
	pb_rt_delete(dst);
	pb_rt_delete(base);
	pb_rt_delete(src);
}

static void test_wrong_shapes(void **state)
{
	struct pb_rt_tensor *a = draw_contiguous(PB_RT_F32, 2, (int64_t[]){2, 3});
	struct pb_rt_tensor *b = draw_contiguous(PB_RT_F32, 2, (int64_t[]){3, 2});
	struct pb_rt_tensor *c = draw_contiguous(PB_RT_F32, 3, (int64_t[]){2, 2, 3}),
			    *u = pb_rt_uninitialized();

	(void)state;
	assert_int_equal(1, pb_rt_copy(a, b));
	assert_non_null(strstr(pb_rt_last_error(), "[3, 2]"));
	assert_int_equal(1, pb_rt_copy(a, c));
	assert_int_equal(0, pb_rt_copy(c, a));
	assert_int_equal(0, pb_rt_copy(a, a));
	assert_int_equal(1, pb_rt_copy(a, u));
	assert_int_equal(1, pb_rt_copy(u, a));
	pb_rt_delete(a);
	pb_rt_delete(b);
	pb_rt_delete(c);
	pb_rt_delete(u);
}

/* ---- float8 ---- */

static const int32_t f8_types[] = {PB_RT_F8_E5M2, PB_RT_F8_E4M3FN, PB_RT_F8_E5M2FNUZ,
				   PB_RT_F8_E4M3FNUZ};

static void test_f8_round_trip(void **state)
{
	(void)state;
	assert_true(pb_rt_f8_to_float(0x7e, PB_RT_F8_E4M3FN) == 448);
	assert_true(pb_rt_f8_to_float(0x7b, PB_RT_F8_E5M2) == 57344);
	assert_true(pb_rt_f8_to_float(0x7f, PB_RT_F8_E4M3FNUZ) == 240);
	assert_true(pb_rt_f8_to_float(0x7f, PB_RT_F8_E5M2FNUZ) == 57344);
	assert_true(pb_rt_f8_to_float(0x01, PB_RT_F8_E4M3FN) == 0x1p-9f);
	assert_true(pb_rt_f8_to_float(0x01, PB_RT_F8_E5M2) == 0x1p-16f);
	assert_true(pb_rt_f8_to_float(127, PB_RT_F8_E8M0FNU) == 1);
	for (int k = 0; k < 4; k++)
		for (int bits = 0; bits < 256; bits++) {
			const float v = pb_rt_f8_to_float((uint8_t)bits, f8_types[k]);

			if (!isnan(v))
				assert_int_equal(pb_rt_f8_from_float(v, f8_types[k]), bits);
			else
				assert_true(isnan(pb_rt_f8_to_float(
					pb_rt_f8_from_float(v, f8_types[k]), f8_types[k])));
		}
}

/* The nearest pattern by search; of two equally near, the even one. */
static uint8_t nearest(float v, int32_t dtype)
{
	int best = 0;

	for (int bits = 0; bits < 128; bits++) {
		const double d = fabs((double)pb_rt_f8_to_float((uint8_t)bits, dtype) - v),
			     b = fabs((double)pb_rt_f8_to_float((uint8_t)best, dtype) - v);

		if (d < b || (d == b && (bits & 1) == 0))
			best = bits;
	}
	return (uint8_t)best;
}

static void test_f8_rounds_to_nearest_even(void **state)
{
	(void)state;
	for (int k = 0; k < 4; k++)
		for (int i = 0; i < 20000; i++) {
			float v = ldexpf((float)draw_int(0, 256) / 16, (int)draw_int(-20, 3));

			if (!(v < 224)) /* all types go further */
				continue;
			assert_int_equal(pb_rt_f8_from_float(v, f8_types[k]),
					 nearest(v, f8_types[k]));
			if (pb_rt_f8_from_float(v, f8_types[k]))
				assert_int_equal(pb_rt_f8_from_float(-v, f8_types[k]),
						 nearest(v, f8_types[k]) | 0x80);
		}
	assert_int_equal(pb_rt_f8_from_float(1e9f, PB_RT_F8_E5M2), 0x7c);
	assert_int_equal(pb_rt_f8_from_float(1e9f, PB_RT_F8_E4M3FN),
			 0x7e); /* saturates, unlike older versions */
	assert_int_equal(pb_rt_f8_from_float(-INFINITY, PB_RT_F8_E4M3FN), 0xfe);
	assert_int_equal(pb_rt_f8_from_float(NAN, PB_RT_F8_E4M3FN), 0x7f);
	assert_int_equal(pb_rt_f8_from_float(-1e9f, PB_RT_F8_E4M3FNUZ), 0x80);
	assert_int_equal(pb_rt_f8_from_float(-0.0f, PB_RT_F8_E4M3FNUZ), 0);
	assert_int_equal(pb_rt_f8_from_float(464, PB_RT_F8_E4M3FN),
			 0x7e); /* a tie: to 448, which is even */
	assert_int_equal(pb_rt_f8_from_float(465, PB_RT_F8_E4M3FN), 0x7e);
}

static void test_no_conversion(void **state)
{
	uint8_t a[4] = {0};
	float f[4];

	(void)state;
	assert_int_equal(1, pb_rt_convert(f, PB_RT_F32, 1, a, PB_RT_F4X2, 1, 4));
	assert_int_equal(1, pb_rt_convert(a, PB_RT_F4X2, 1, f, PB_RT_F32, 1, 4));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_pair_of_types),
		cmocka_unit_test(test_out_of_range),
		cmocka_unit_test(test_drawn_layouts),
		cmocka_unit_test(test_gaps_are_kept),
		cmocka_unit_test(test_wrong_shapes),
		cmocka_unit_test(test_f8_round_trip),
		cmocka_unit_test(test_f8_rounds_to_nearest_even),
		cmocka_unit_test(test_no_conversion),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
