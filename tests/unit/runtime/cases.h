/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors from literals and comparisons with them, for the generated cases of operators (*_cases.inc). */
#ifndef PT2BOX_TESTS_UNIT_RUNTIME_CASES_H
#define PT2BOX_TESTS_UNIT_RUNTIME_CASES_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/convert.h"
#include "runtime/hooks.h"
#include "runtime/tensor.h"

static inline bool is_complex(int32_t dtype)
{
	return dtype == PB_RT_C64 || dtype == PB_RT_C128;
}

/* Element @at (of the storage) from one double, or from two. */
static inline void put(struct pb_rt_tensor *t, int64_t at, const double *v)
{
	char *p = (char *)t->storage->base + at * (int64_t)pb_rt_dtype_size(t->dtype);
	const int32_t from = is_complex(t->dtype)    ? PB_RT_C128
			     : t->dtype == PB_RT_I64 ? PB_RT_I64
						     : PB_RT_F64;
	const int64_t whole = from == PB_RT_I64 ? (int64_t)*v : 0;

	assert_int_equal(0,
			 pb_rt_convert(p, t->dtype, 1, from == PB_RT_I64 ? (const void *)&whole : v,
				       from, 1, 1));
}

/* Offset of the @i-th element in row-major order. */
static inline int64_t offset_of(const struct pb_rt_tensor *t, int64_t i)
{
	int64_t at = t->offset;

	for (int d = t->ndim - 1; d >= 0; d--) {
		at += i % t->sizes[d] * t->strides[d];
		i /= t->sizes[d];
	}
	return at;
}

static inline struct pb_rt_tensor *literal(int32_t dtype, int ndim, const int64_t *sizes,
				    const int64_t *strides, int64_t offset, const double *values)
{
	int64_t extent = offset + 1;
	struct pb_rt_tensor *base, *t;

	for (int d = 0; d < ndim; d++)
		extent += sizes[d] > 1 ? (sizes[d] - 1) * strides[d] : 0;
	base = pb_rt_empty(dtype, 1, &extent, NULL);
	assert_non_null(base);
	memset(base->storage->base, 1, (size_t)extent * pb_rt_dtype_size(dtype));
	t = pb_rt_alias(base, ndim, sizes, strides, offset);
	assert_non_null(t);
	pb_rt_delete(base);
	for (int64_t i = 0; i < t->numel; i++)
		put(t, offset_of(t, i), values + i * (is_complex(dtype) ? 2 : 1));
	return t;
}

static inline struct pb_rt_tensor *alias(const struct pb_rt_tensor *of, int32_t dtype, int ndim,
					 const int64_t *sizes, const int64_t *strides,
					 int64_t offset)
{
	struct pb_rt_tensor *t = pb_rt_view(of, dtype, ndim, sizes, strides, offset);

	assert_non_null(t);
	return t;
}

/* As a weight that was in oneDNN's layout. */
static inline struct pb_rt_tensor *frozen(struct pb_rt_tensor *t)
{
	t->layout = 3;
	return t;
}

/* By how much integers may differ that were rounded from numbers which may differ a little. */
static double int_slack;

static inline double unit_of(int32_t dtype)
{
	switch (dtype) {
	case PB_RT_F64:
	case PB_RT_C128:
		return 1e-14;
	case PB_RT_F32:
	case PB_RT_C64:
		return 1e-6;
	case PB_RT_F16:
		return 1e-3;
	case PB_RT_BF16:
		return 8e-3;
	default:
		return 0;
	}
}

static inline bool is_int(int32_t dtype)
{
	return dtype <= PB_RT_I64;
}

static inline bool alike(double got, double want, double tolerance)
{
	if (isnan(want) || isnan(got))
		return isnan(want) && isnan(got);
	if (isinf(want) || isinf(got))
		return got == want;
	return fabs(got - want) <= tolerance + tolerance * fabs(want);
}

static inline void contents(const struct pb_rt_tensor *t, const double *values, double tol)
{
	const int parts = is_complex(t->dtype) ? 2 : 1;

	for (int64_t i = 0; i < t->numel; i++) {
		double got[2];

		assert_int_equal(
			0,
			pb_rt_convert(got, parts == 2 ? PB_RT_C128 : PB_RT_F64, 1,
				      (const char *)t->storage->base +
					      offset_of(t, i) * (int64_t)pb_rt_dtype_size(t->dtype),
				      t->dtype, 1, 1));
		for (int k = 0; k < parts; k++)
			if (!alike(got[k], values[i * parts + k],
				   is_int(t->dtype) ? int_slack : tol * unit_of(t->dtype)))
				fail_msg("element %lld: got %.9g, want %.9g", (long long)i, got[k],
					 values[i * parts + k]);
	}
}

static inline void expect(const struct pb_rt_tensor *t, int32_t dtype, int ndim, const int64_t *sizes,
		   const int64_t *strides, const double *values, double tol)
{
	assert_non_null(t);
	assert_int_equal(dtype, t->dtype);
	assert_int_equal(ndim, t->ndim);
	for (int d = 0; d < ndim; d++) {
		assert_int_equal(sizes[d], t->sizes[d]);
		if (t->numel && sizes[d] > 1)
			assert_int_equal(strides[d], t->strides[d]);
	}
	contents(t, values, tol);
}

static inline void succeeds(int rc, const char *name)
{
	if (rc)
		fail_msg("%s: %s", name, pb_rt_last_error());
}

/* @message NULL: PyTorch words it otherwise. */
static inline void fails(int rc, const char *message)
{
	assert_int_equal(1, rc);
	if (message)
		assert_string_equal(message, pb_rt_last_error());
}

#endif
