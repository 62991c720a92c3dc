/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cumsum, cumprod, cummax, cummin, logcumsumexp, as aten/src/ATen/native/ReduceOps.cpp and
 * cpu/ReduceOpsKernel.cpp: one line at a time, float accumulated in double, 16-bit types in float,
 * integers wrapping. Results are contiguous.
 */
#include "runtime/ops/scan.h"

#include <complex.h>
#include <math.h>

#include "runtime/convert.h"
#include "runtime/ops/layout.h"
#include "runtime/ops/walk.h"

/* One line of @n elements, strides in elements. */
typedef void line_fn(void *out, int64_t os, const void *in, int64_t is, int64_t n);

#define SCAN_LINE(name, type, acc_type, init, step)                                    \
	static void name(void *out, int64_t os, const void *in, int64_t is, int64_t n) \
	{                                                                              \
		type *o = out;                                                         \
		const type *v = in;                                                    \
		acc_type acc = init;                                                   \
		for (int64_t i = 0; i < n; i++) {                                      \
			const type x = v[i * is];                                      \
			acc = step;                                                    \
			o[i * os] = (type)acc;                                         \
		}                                                                      \
	}

static double log_add(double x, double y)
{
	const double lo = isnan(x) || x < y ? x : y, hi = isnan(y) || x < y ? y : x;

	if (isnan(x) || isnan(y))
		return NAN;
	return lo != hi || isfinite(lo) ? log1p(exp(lo - hi)) + hi : x;
}

static float log_add_float(float x, float y)
{
	const float lo = x < y ? x : y, hi = x < y ? y : x;

	if (isnan(x) || isnan(y))
		return NAN;
	return lo != hi || isfinite(lo) ? log1pf(expf(lo - hi)) + hi : x;
}

/* As c10::complex multiplies: without C's rescue of infinities. */
static double complex complex_product(double complex x, double complex y)
{
	const double a = creal(x), b = cimag(x), c = creal(y), d = cimag(y);

	return CMPLX(a * c - b * d, a * d + b * c);
}

/* The line functions ending in _wide are for 16-bit types widened to float, which accumulate in
 * float. */
#define SCANS(op, init, step)                              \
	SCAN_LINE(op##_u8, uint8_t, uint64_t, init, step)  \
	SCAN_LINE(op##_i8, int8_t, uint64_t, init, step)   \
	SCAN_LINE(op##_i16, int16_t, uint64_t, init, step) \
	SCAN_LINE(op##_i32, int32_t, uint64_t, init, step) \
	SCAN_LINE(op##_i64, int64_t, uint64_t, init, step)

SCANS(sum, 0, acc + x)
SCANS(prod, 1, acc *x)
SCAN_LINE(sum_c64, float complex, double complex, 0, acc + x)
SCAN_LINE(sum_c128, double complex, double complex, 0, acc + x)
SCAN_LINE(prod_c64, float complex, double complex, 1, complex_product(acc, x))
SCAN_LINE(prod_c128, double complex, double complex, 1, complex_product(acc, x))
SCAN_LINE(sum_f32, float, double, 0, acc + x)
SCAN_LINE(sum_f64, double, double, 0, acc + x)
SCAN_LINE(sum_wide, float, float, 0, acc + x)
SCAN_LINE(prod_f32, float, double, 1, acc *x)
SCAN_LINE(prod_f64, double, double, 1, acc *x)
SCAN_LINE(prod_wide, float, float, 1, acc *x)
SCAN_LINE(lse_f32, float, double, -INFINITY, log_add(x, acc))
SCAN_LINE(lse_f64, double, double, -INFINITY, log_add(x, acc))
SCAN_LINE(lse_wide, float, float, -INFINITY, log_add_float(x, acc))

struct scan {
	const char *name;
	line_fn *u8, *i8, *i16, *i32, *i64, *c64, *c128, *f32, *f64, *wide;
};

#define SCAN_ROW(op)                                                                             \
	op##_u8, op##_i8, op##_i16, op##_i32, op##_i64, op##_c64, op##_c128, op##_f32, op##_f64, \
		op##_wide

static const struct scan sum = {"cumsum_out_cpu", SCAN_ROW(sum)};
static const struct scan prod = {"cumprod_out_cpu", SCAN_ROW(prod)};
static const struct scan lse = {
	.name = "logcumsumexp_out_cpu", .f32 = lse_f32, .f64 = lse_f64, .wide = lse_wide};

static line_fn *line_for(const struct scan *s, int32_t dtype)
{
	switch (dtype) {
	case PB_RT_U8:
		return s->u8;
	case PB_RT_I8:
		return s->i8;
	case PB_RT_I16:
		return s->i16;
	case PB_RT_I32:
		return s->i32;
	case PB_RT_I64:
		return s->i64;
	case PB_RT_C64:
		return s->c64;
	case PB_RT_C128:
		return s->c128;
	case PB_RT_F32:
		return s->f32;
	case PB_RT_F64:
		return s->f64;
	case PB_RT_F16:
	case PB_RT_BF16:
		return s->wide;
	default:
		return NULL;
	}
}

struct line_dims {
	struct pb_walk w;
	int64_t n, os, is;
};

/* Lines along @dim of two tensors of one shape. */
static struct line_dims lines_of(const struct pb_rt_tensor *out, const struct pb_rt_tensor *in,
				 int dim)
{
	struct line_dims l = {.n = in->sizes[dim], .os = out->strides[dim], .is = in->strides[dim]};

	pb_walk_init(&l.w, in->ndim, in->sizes);
	pb_walk_add(&l.w, out->strides);
	pb_walk_add(&l.w, in->strides);
	if (in->ndim)
		pb_walk_drop(&l.w, dim);
	return l;
}

static int scan_16bit(line_fn *line, struct pb_rt_tensor *out, const struct pb_rt_tensor *in,
		      int dim)
{
	struct line_dims l = lines_of(out, in, dim);
	float *tmp = pb_rt_scratch((size_t)l.n * sizeof(float));
	uint16_t *o = pb_rt_data(out);
	const uint16_t *v = pb_rt_data(in);

	if (!tmp)
		return 1;
	for (; l.w.left; pb_walk_next(&l.w)) {
		(void)pb_rt_convert(tmp, PB_RT_F32, 1, v + l.w.off[1], in->dtype, l.is, l.n);
		line(tmp, 1, tmp, 1, l.n);
		(void)pb_rt_convert(o + l.w.off[0], out->dtype, l.os, tmp, PB_RT_F32, 1, l.n);
	}
	pb_rt_scratch_free(tmp);
	return 0;
}

static int scan_lines(const struct scan *s, struct pb_rt_tensor *out, const struct pb_rt_tensor *in,
		      int dim)
{
	line_fn *line = line_for(s, in->dtype);
	const int64_t size = (int64_t)pb_rt_dtype_size(in->dtype);
	struct line_dims l;

	if (!line)
		return pb_not_implemented(s->name, in->dtype);
	if (!in->numel)
		return 0;
	if (pb_is_16bit(in->dtype))
		return scan_16bit(line, out, in, dim);
	l = lines_of(out, in, dim);
	for (; l.w.left; pb_walk_next(&l.w))
		line((char *)pb_rt_data(out) + l.w.off[0] * size, l.os,
		     (const char *)pb_rt_data(in) + l.w.off[1] * size, l.is, l.n);
	return 0;
}

static int scan(const struct scan *s, const struct pb_rt_tensor *self, int64_t dim, int32_t dtype,
		AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *in = NULL, *out;
	int d, rc;

	if (pb_wrap_dim(dim, self->ndim, &d))
		return 1;
	out = pb_rt_empty(dtype, self->ndim, self->sizes, NULL);
	if (out)
		in = pb_as_dtype(self, dtype);
	rc = !in || scan_lines(s, out, in, d);
	pb_rt_delete(in);
	if (rc) {
		pb_rt_delete(out);
		return 1;
	}
	*ret0 = out;
	return 0;
}

static int32_t sum_dtype(const struct pb_rt_tensor *self, const int32_t *dtype)
{
	if (dtype)
		return *dtype;
	return pb_is_integral(self->dtype) || self->dtype == PB_RT_BOOL ? PB_RT_I64 : self->dtype;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_cumsum(AtenTensorHandle self, int64_t dim, int32_t *dtype,
						 AtenTensorHandle *ret0)
{
	return scan(&sum, self, dim, sum_dtype(self, dtype), ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_cumprod(AtenTensorHandle self, int64_t dim,
						  int32_t *dtype, AtenTensorHandle *ret0)
{
	return scan(&prod, self, dim, sum_dtype(self, dtype), ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_logcumsumexp(AtenTensorHandle self, int64_t dim,
						       AtenTensorHandle *ret0)
{
	return scan(&lse, self, dim, self->dtype, ret0);
}

/* ---- cummax, cummin: positions from a widened line, values from the elements themselves ---- */

/* The last of equals wins, and NaN over everything. */
#define BEST_LINE(name, type, better)                                              \
	static void name(const void *line, int64_t *at, int64_t stride, int64_t n) \
	{                                                                          \
		const type *v = line;                                              \
		int64_t best = 0;                                                  \
		for (int64_t i = 0; i < n; i++) {                                  \
			const type x = v[i], y = v[best];                          \
			if (x != x || (y == y && (better)))                        \
				best = i;                                          \
			at[i * stride] = best;                                     \
		}                                                                  \
	}

BEST_LINE(max_i64, int64_t, x >= y)
BEST_LINE(max_f32, float, x >= y)
BEST_LINE(max_f64, double, x >= y)
BEST_LINE(min_i64, int64_t, x <= y)
BEST_LINE(min_f32, float, x <= y)
BEST_LINE(min_f64, double, x <= y)

typedef void best_fn(const void *line, int64_t *at, int64_t stride, int64_t n);

static int32_t wide_dtype(int32_t dtype)
{
	if (pb_is_16bit(dtype) || dtype == PB_RT_F32)
		return PB_RT_F32;
	return dtype == PB_RT_F64 ? PB_RT_F64 : PB_RT_I64;
}

static best_fn *best_for(int32_t wide, bool max)
{
	if (wide == PB_RT_F32)
		return max ? max_f32 : min_f32;
	if (wide == PB_RT_F64)
		return max ? max_f64 : min_f64;
	return max ? max_i64 : min_i64;
}

static void take_values(char *out, int64_t os, const char *in, int64_t is, const int64_t *at,
			int64_t n, size_t size)
{
	for (int64_t i = 0; i < n; i++)
		memcpy(out + i * os * (int64_t)size, in + at[i * os] * is * (int64_t)size, size);
}

/* @values and @at are contiguous, so their strides are the same. */
static int best_lines(struct pb_rt_tensor *values, struct pb_rt_tensor *at,
		      const struct pb_rt_tensor *in, int dim, bool max)
{
	struct line_dims l = lines_of(values, in, dim);
	const int32_t wide = wide_dtype(in->dtype);
	const size_t size = pb_rt_dtype_size(in->dtype);
	best_fn *best = best_for(wide, max);
	void *line = pb_rt_scratch((size_t)l.n * sizeof(double));

	if (!line)
		return 1;
	for (; l.w.left; pb_walk_next(&l.w)) {
		const char *v = (const char *)pb_rt_data(in) + l.w.off[1] * (int64_t)size;
		int64_t *pos = (int64_t *)pb_rt_data(at) + l.w.off[0];

		(void)pb_rt_convert(line, wide, 1, v, in->dtype, l.is, l.n);
		best(line, pos, l.os, l.n);
		take_values((char *)pb_rt_data(values) + l.w.off[0] * (int64_t)size, l.os, v, l.is,
			    pos, l.n, size);
	}
	pb_rt_scratch_free(line);
	return 0;
}

static int best(const char *name, const struct pb_rt_tensor *self, int64_t dim, bool max,
		AtenTensorHandle *ret0, AtenTensorHandle *ret1)
{
	struct pb_rt_tensor *values, *at = NULL;
	int d;

	if (self->ndim == 0 && (dim < -1 || dim > 0))
		return pb_rt_fail("%.6s(): Expected reduction dim -1 or 0 for scalar but got %lld",
				  name, (long long)dim);
	if (pb_wrap_dim(dim, self->ndim, &d))
		return 1;
	if (pb_is_complex(self->dtype) ||
	    !(pb_is_float(self->dtype) || self->dtype <= PB_RT_I64 || self->dtype == PB_RT_BOOL))
		return pb_not_implemented(name, self->dtype);
	values = pb_rt_empty(self->dtype, self->ndim, self->sizes, NULL);
	if (values)
		at = pb_rt_empty(PB_RT_I64, self->ndim, self->sizes, NULL);
	if (!at || (self->numel && best_lines(values, at, self, d, max))) {
		pb_rt_delete(values);
		pb_rt_delete(at);
		return 1;
	}
	*ret0 = values;
	*ret1 = at;
	return 0;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_cummax(AtenTensorHandle self, int64_t dim,
						 AtenTensorHandle *ret0, AtenTensorHandle *ret1)
{
	return best("cummax_cpu", self, dim, true, ret0, ret1);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_cummin(AtenTensorHandle self, int64_t dim,
						 AtenTensorHandle *ret0, AtenTensorHandle *ret1)
{
	return best("cummin_cpu", self, dim, false, ret0, ret1);
}
