/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The draws of ATen/core/TransformationHelper.h, DistributionsHelper.h and
 * native/cpu/DistributionTemplates.h, in their order, so that a seed gives PyTorch's numbers.
 */
#include "runtime/ops/random_draw.h"

#include <math.h>

#include "runtime/convert.h"
#include "runtime/ops/gemm.h"
#include "runtime/ops/layout.h"
#include "runtime/ops/walk.h"
#include "runtime/random.h"

/* Ranges from here on take 64 bits, so that the remainder is nearly even. */
#define WIDE_RANGE (UINT64_C(1) << 28)

/* ---- one number ---- */

static int64_t draw_int(const struct pb_draw *d)
{
	const uint64_t r = d->range >= WIDE_RANGE ? pb_rt_random64() : pb_rt_random32();

	return (int64_t)(r % d->range + (uint64_t)d->base);
}

static double uniform_double(double from, double to)
{
	const double x = (double)(pb_rt_random64() & ((UINT64_C(1) << 53) - 1)) * 0x1p-53;

	return x * (to - from) + from;
}

static float uniform_float(float from, float to)
{
	const float x = (float)(pb_rt_random32() & ((UINT32_C(1) << 24) - 1)) * 0x1p-24f;

	return x * (to - from) + from;
}

static double draw_uniform(const struct pb_draw *d, int32_t dtype)
{
	float x;

	if (dtype == PB_RT_F64)
		return uniform_double(d->from, d->to);
	x = uniform_float((float)d->from, (float)d->to);
	if (pb_is_16bit(dtype)) {
		uint16_t narrow;

		/* Rounded up to the end of the range, which is not in it. */
		pb_gemm_round(&narrow, dtype, &x, 1);
		pb_gemm_widen(&x, &narrow, dtype, 1);
		x = x == (float)d->to ? (float)d->from : x;
	}
	return (double)x;
}

/* Box-Muller makes two; the second one is kept for the next call, until a seed. */
static double draw_normal(const struct pb_draw *d)
{
	static double kept;
	static uint64_t kept_epoch = UINT64_MAX;
	double u1, u2, r, theta;

	if (kept_epoch == pb_rt_random_epoch()) {
		kept_epoch = UINT64_MAX;
		return kept * d->to + d->from;
	}
	u1 = uniform_double(0, 1);
	u2 = uniform_double(0, 1);
	r = sqrt(-2 * log1p(-u2));
	theta = 2 * M_PI * u1;
	kept = r * sin(theta);
	kept_epoch = pb_rt_random_epoch();
	return r * cos(theta) * d->to + d->from;
}

double pb_draw_uniform01(void)
{
	return uniform_double(0, 1);
}

double pb_draw_normal01(void)
{
	return draw_normal(&(struct pb_draw){.kind = PB_DRAW_NORMAL, .from = 0, .to = 1});
}

/* -log1p(-u) and not -log(u): u may be 0, but never 1. */
static double draw_exponential(const struct pb_draw *d)
{
	return -1 / d->to * log1p(-uniform_double(0, 1));
}

static double draw_float(const struct pb_draw *d, int32_t dtype)
{
	switch (d->kind) {
	case PB_DRAW_NORMAL:
		return draw_normal(d);
	case PB_DRAW_BERNOULLI:
		return uniform_double(0, 1) < d->to;
	case PB_DRAW_EXPONENTIAL:
		return draw_exponential(d);
	default:
		return draw_uniform(d, dtype);
	}
}

/* ---- a tensor, in the order of its memory ---- */

static int store_int(char *p, int32_t dtype, int64_t v)
{
	return pb_rt_convert(p, dtype, 1, &v, PB_RT_I64, 1, 1);
}

/* The usual ones without a conversion for every element. */
static bool fill_contiguous(struct pb_rt_tensor *t, const struct pb_draw *d)
{
	if (!pb_rt_is_contiguous(t))
		return false;
	if (d->kind == PB_DRAW_UNIFORM && t->dtype == PB_RT_F32)
		for (int64_t i = 0; i < t->numel; i++)
			((float *)pb_rt_data(t))[i] = uniform_float((float)d->from, (float)d->to);
	else if (d->kind == PB_DRAW_UNIFORM && t->dtype == PB_RT_F64)
		for (int64_t i = 0; i < t->numel; i++)
			((double *)pb_rt_data(t))[i] = uniform_double(d->from, d->to);
	else if (d->kind == PB_DRAW_INT && t->dtype == PB_RT_I64)
		for (int64_t i = 0; i < t->numel; i++)
			((int64_t *)pb_rt_data(t))[i] = draw_int(d);
	else
		return false;
	return true;
}

static int fill_serial(struct pb_rt_tensor *t, const struct pb_draw *d)
{
	const int64_t size = (int64_t)pb_rt_dtype_size(t->dtype);
	struct pb_walk w;

	if (fill_contiguous(t, d))
		return 0;
	pb_walk_init(&w, t->ndim, t->sizes);
	pb_walk_add(&w, t->strides);
	pb_walk_by_stride(&w);
	for (; w.left; pb_walk_next(&w)) {
		char *p = (char *)pb_rt_data(t) + w.off[0] * size;
		const int rc = d->kind == PB_DRAW_INT
				       ? store_int(p, t->dtype, draw_int(d))
				       : pb_store_scalar(p, t->dtype, draw_float(d, t->dtype));

		if (rc)
			return 1;
	}
	return 0;
}

/* Sixteen uniform numbers become normal ones: element i with element i + 8. */
#define NORMAL_16(name, type, log_fn, sqrt_fn, cos_fn, sin_fn)              \
	static void name(type *v, type mean, type std)                      \
	{                                                                   \
		for (int i = 0; i < 8; i++) {                               \
			const type radius = sqrt_fn(-2 * log_fn(1 - v[i])); \
			const type theta = (type)(2 * M_PI) * v[i + 8];     \
			v[i] = radius * cos_fn(theta) * std + mean;         \
			v[i + 8] = radius * sin_fn(theta) * std + mean;     \
		}                                                           \
	}

NORMAL_16(normal_16_f32, float, logf, sqrtf, cosf, sinf)
NORMAL_16(normal_16_f64, double, log, sqrt, cos, sin)

/* The last sixteen are drawn again where the length is not a multiple. */
#define FILL_NORMAL(name, type, uniform, block)                   \
	static void name(type *v, int64_t n, type mean, type std) \
	{                                                         \
		for (int64_t i = 0; i < n; i++)                   \
			v[i] = uniform;                           \
		for (int64_t i = 0; i + 16 <= n; i += 16)         \
			block(v + i, mean, std);                  \
		for (int i = 0; n % 16 && i < 16; i++)            \
			v[n - 16 + i] = uniform;                  \
		if (n % 16)                                       \
			block(v + n - 16, mean, std);             \
	}

FILL_NORMAL(fill_normal_f32, float, uniform_float(0, 1), normal_16_f32)
FILL_NORMAL(fill_normal_f64, double, uniform_double(0, 1), normal_16_f64)

static const char *const kernels[] = {
	[PB_DRAW_UNIFORM] = "check_uniform_bounds",
	[PB_DRAW_NORMAL] = "normal_kernel_cpu",
	[PB_DRAW_EXPONENTIAL] = "exponential_cpu",
};

int pb_draw_bernoulli(struct pb_rt_tensor *t, const struct pb_rt_tensor *p)
{
	const int64_t size = (int64_t)pb_rt_dtype_size(t->dtype);
	struct pb_walk w;

	pb_walk_init(&w, t->ndim, t->sizes);
	pb_walk_add(&w, t->strides);
	pb_walk_add(&w, p->strides);
	pb_walk_by_stride(&w);
	for (; w.left; pb_walk_next(&w)) {
		const bool one =
			p->dtype == PB_RT_F64
				? uniform_double(0, 1) < ((const double *)pb_rt_data(p))[w.off[1]]
				: uniform_float(0, 1) < ((const float *)pb_rt_data(p))[w.off[1]];

		if (pb_store_scalar((char *)pb_rt_data(t) + w.off[0] * size, t->dtype, one))
			return 1;
	}
	return 0;
}

int pb_draw_fill(struct pb_rt_tensor *t, const struct pb_draw *d)
{
	if (d->kind == PB_DRAW_BERNOULLI)
		return fill_serial(t, d);
	if (d->kind != PB_DRAW_INT && t->dtype != PB_RT_F32 && t->dtype != PB_RT_F64 &&
	    (d->kind == PB_DRAW_NORMAL || !pb_is_16bit(t->dtype)))
		return pb_not_implemented(kernels[d->kind], t->dtype);
	if (d->kind != PB_DRAW_NORMAL || t->numel < 16 || !pb_rt_is_contiguous(t))
		return fill_serial(t, d);
	if (t->dtype == PB_RT_F32)
		fill_normal_f32(pb_rt_data(t), t->numel, (float)d->from, (float)d->to);
	else
		fill_normal_f64(pb_rt_data(t), t->numel, d->from, d->to);
	return 0;
}

/* ---- ranges of integers ---- */

/* Position of the highest bit. */
static int log2_floor(uint64_t x)
{
	return x ? 63 - __builtin_clzll(x) : 0;
}

/* Bounds that floats of @digits bits can hold, as PyTorch narrows them. */
static void float_bounds(int digits, int64_t *from, int64_t *to)
{
	const double unit_to = ldexp(1, log2_floor((uint64_t)*to - 1) - digits + 1);
	const double last =
		unit_to > 1 ? nearbyint((double)(*to - 1) / unit_to) * unit_to : (double)(*to - 1);
	const uint64_t low = *from < 0 ? 0 - ((uint64_t)*from + 1) : (uint64_t)*from + 1;
	const double unit_from = ldexp(1, log2_floor(low) - digits + 1);
	const double first = unit_from > 1 ? nearbyint((double)(*from + 1) / unit_from) * unit_from
					   : (double)(*from + 1);

	if (*to > 1 && last >= (double)*to)
		*to -= (int64_t)unit_to;
	if (first < (double)*from)
		*from = (int64_t)first + (int64_t)unit_from;
}

static int check_int_bounds(int32_t dtype, int64_t low, int64_t high)
{
	const int bits = 8 * (int)pb_rt_dtype_size(dtype);
	const int64_t min = dtype == PB_RT_U8 || dtype == PB_RT_BOOL ? 0
			    : bits == 64			     ? INT64_MIN
								     : -(INT64_C(1) << (bits - 1));
	const int64_t max = dtype == PB_RT_BOOL ? 1
			    : dtype == PB_RT_U8 ? 255
			    : bits == 64	? INT64_MAX
						: (INT64_C(1) << (bits - 1)) - 1;

	if (low < min || low > max)
		return pb_rt_fail("from is out of bounds for %s", pb_rt_dtype_name(dtype));
	if (high - 1 > max)
		return pb_rt_fail("to - 1 is out of bounds for %s", pb_rt_dtype_name(dtype));
	return 0;
}

int pb_draw_range(int64_t low, int64_t high, int32_t dtype, struct pb_draw *ret)
{
	if (low >= high)
		return pb_rt_fail(
			"random_ expects 'from' to be less than 'to', but got from=%lld >= to=%lld",
			(long long)low, (long long)high);
	if (pb_is_float(dtype))
		float_bounds(dtype == PB_RT_F64	  ? 53
			     : dtype == PB_RT_F32 ? 24
			     : dtype == PB_RT_F16 ? 11
						  : 8,
			     &low, &high);
	else if (dtype > PB_RT_I64 && dtype != PB_RT_BOOL)
		return pb_not_implemented("random_from_to", dtype);
	else if (check_int_bounds(dtype, low, high))
		return 1;
	if (low >= high)
		return pb_rt_fail("random_ expects 'from' casted to dtype to be less than 'to' "
				  "casted to dtype, but got from=%lld "
				  ">= to=%lld",
				  (long long)low, (long long)high);
	*ret = (struct pb_draw){
		.kind = PB_DRAW_INT, .range = (uint64_t)high - (uint64_t)low, .base = low};
	return 0;
}
