/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random tensors for the operator tests: drawn values, layouts (permuted, sliced, offset,
 * broadcast) and element access as double, so that a naive loop can be the reference for every
 * dtype. Seeds are fixed: a failure repeats.
 */
#ifndef PT2BOX_TESTS_UNIT_RUNTIME_DRAW_H
#define PT2BOX_TESTS_UNIT_RUNTIME_DRAW_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "runtime/ops/gemm.h"
#include "runtime/tensor.h"

static uint64_t draw_state = 1;

static inline uint64_t draw_bits(void)
{
	draw_state ^= draw_state << 13;
	draw_state ^= draw_state >> 7;
	draw_state ^= draw_state << 17;
	return draw_state * 0x2545f4914f6cdd1dull;
}

static inline int64_t draw_int(int64_t lo, int64_t hi)
{
	return lo + (int64_t)((draw_bits() >> 33) % (uint64_t)(hi - lo + 1));
}

static inline double draw_unit(void)
{
	return (double)(draw_bits() >> 11) / 9007199254740992.0 * 2 - 1;
}

static inline double get_at(const struct pb_rt_tensor *t, int64_t i)
{
	const void *p = (const char *)pb_rt_data(t) + i * (int64_t)pb_rt_dtype_size(t->dtype);
	float f;

	switch (t->dtype) {
	case PB_RT_F64:
		return *(const double *)p;
	case PB_RT_F32:
		return *(const float *)p;
	case PB_RT_BF16:
	case PB_RT_F16:
		pb_gemm_widen(&f, p, t->dtype, 1);
		return f;
	case PB_RT_I64:
		return (double)*(const int64_t *)p;
	case PB_RT_I32:
		return *(const int32_t *)p;
	case PB_RT_I8:
		return *(const int8_t *)p;
	default:
		return *(const uint8_t *)p;
	}
}

static inline void set_at(struct pb_rt_tensor *t, int64_t i, double v)
{
	void *p = (char *)pb_rt_data(t) + i * (int64_t)pb_rt_dtype_size(t->dtype);
	const float f = (float)v;

	switch (t->dtype) {
	case PB_RT_F64:
		*(double *)p = v;
		break;
	case PB_RT_F32:
		*(float *)p = f;
		break;
	case PB_RT_BF16:
	case PB_RT_F16:
		pb_gemm_round(p, t->dtype, &f, 1);
		break;
	case PB_RT_I64:
		*(int64_t *)p = (int64_t)v;
		break;
	case PB_RT_I32:
		*(int32_t *)p = (int32_t)v;
		break;
	case PB_RT_I8:
		*(int8_t *)p = (int8_t)v;
		break;
	default:
		*(uint8_t *)p = (uint8_t)v;
	}
}

/* Element index of coordinates, missing leading coordinates and size-1 dims broadcast. */
static inline int64_t index_of(const struct pb_rt_tensor *t, const int64_t *at, int n)
{
	int64_t off = 0;

	for (int d = 0; d < t->ndim; d++)
		off += (t->sizes[d] == 1 ? 0 : at[n - t->ndim + d]) * t->strides[d];
	return off;
}

static inline double get(const struct pb_rt_tensor *t, const int64_t *at, int n)
{
	return get_at(t, index_of(t, at, n));
}

static inline bool is_integer(int32_t dtype)
{
	return dtype <= PB_RT_I64;
}

/* Every element of the storage, so that what lies between the elements is no accident. */
static inline void fill_storage(struct pb_rt_tensor *t)
{
	const int64_t n = (int64_t)(t->storage->bytes / pb_rt_dtype_size(t->dtype));

	for (int64_t i = 0; i < n; i++)
		set_at(t, i - t->offset,
		       is_integer(t->dtype) ? (double)draw_int(-3, 3) : draw_unit());
}

/*
 * A tensor of @sizes with a drawn layout: contiguous, any permutation, with gaps between elements,
 * or with broadcast (stride 0) dims where @may_overlap.
 */
static inline struct pb_rt_tensor *draw_tensor(int32_t dtype, int ndim, const int64_t *sizes,
					       bool may_overlap)
{
	int order[PB_RT_MAX_DIMS];
	int64_t strides[PB_RT_MAX_DIMS] = {0}, step = 1,
		offset = draw_int(0, 3) ? 0 : draw_int(1, 5);
	const bool permute = draw_int(0, 1), gaps = draw_int(0, 2) == 0;
	struct pb_rt_tensor *base, *t;

	for (int i = 0; i < ndim; i++)
		order[i] = ndim - 1 - i;
	for (int i = ndim - 1; i > 0 && permute; i--) {
		const int j = (int)draw_int(0, i), o = order[i];

		order[i] = order[j];
		order[j] = o;
	}
	for (int i = 0; i < ndim; i++) {
		if (may_overlap && draw_int(0, 9) == 0) {
			strides[order[i]] = 0;
			continue;
		}
		if (gaps && draw_int(0, 1))
			step *= draw_int(2, 3);
		strides[order[i]] = step;
		step *= sizes[order[i]] > 1 ? sizes[order[i]] : 1;
	}
	base = pb_rt_empty(dtype, 1, (int64_t[]){step + offset + 1}, NULL);
	if (!base)
		return NULL;
	fill_storage(base);
	t = pb_rt_alias(base, ndim, sizes, strides, offset);
	pb_rt_delete(base);
	return t;
}

static inline struct pb_rt_tensor *draw_contiguous(int32_t dtype, int ndim, const int64_t *sizes)
{
	struct pb_rt_tensor *t = pb_rt_empty(dtype, ndim, sizes, NULL);

	if (t && t->numel)
		fill_storage(t);
	return t;
}

/* Permitted error for a result of about @scale (the sum of the magnitudes that went in). */
static inline double tolerance(int32_t dtype, double value, double scale)
{
	const double eps = dtype == PB_RT_F64	 ? 1e-14
			   : dtype == PB_RT_F32	 ? 1e-6
			   : dtype == PB_RT_F16	 ? 1e-3
			   : dtype == PB_RT_BF16 ? 8e-3
						 : 0;

	const double sum = eps == 0	 ? 0
			   : eps < 1e-10 ? 4e-15
					 : 4e-7; /* of rounding while adding up */

	/* Half of a denormal step of float16. */
	return eps * fabs(value) * (eps > 1e-4 ? 1 : 4) + sum * scale +
	       (dtype == PB_RT_F16 ? 3e-8 : 0);
}

static inline bool close_to(int32_t dtype, double got, double want, double scale)
{
	if (isnan(want) || isnan(got))
		return isnan(want) && isnan(got);
	if (isinf(want) || isinf(got))
		return got == want;
	return fabs(got - want) <= tolerance(dtype, want, scale);
}

#endif
