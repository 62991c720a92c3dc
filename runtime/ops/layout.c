/* SPDX-License-Identifier: Apache-2.0 */
/* See layout.h. Rules of c10/core/MemoryFormat.h,
 * aten/src/ATen/{TensorIterator,MemoryOverlap,ExpandUtils}.cpp. */
#include "runtime/ops/layout.h"

#include <string.h>

/* ---- dimensions and memory formats ---- */

int pb_wrap_dim(int64_t dim, int ndim, int *ret_dim)
{
	const int n = ndim ? ndim : 1;

	if (dim < -n || dim >= n)
		return pb_rt_fail("Dimension out of range (expected to be in range of [%d, %d], "
				  "but got %lld)",
				  -n, n - 1, (long long)dim);
	*ret_dim = (int)(dim < 0 ? dim + n : dim);
	return 0;
}

/* Dimensions from the innermost, as channels last has them. */
static const int cl_order[] = {1, 3, 2, 0}, cl3d_order[] = {1, 4, 3, 2, 0};

/* c10's is_channels_last_strides: strides grow in @order; ambiguous cases are not channels last. */
static bool strides_like(const struct pb_rt_tensor *t, const int *order)
{
	int64_t min = 0;

	if (t->strides[1] == 0)
		return false;
	for (int i = 0; i < t->ndim; i++) {
		const int d = order[i];

		if (t->sizes[d] == 0 || t->strides[d] < min)
			return false;
		if (d == 0 && min == t->strides[1])
			return false;
		min = t->strides[d];
		if (t->sizes[d] > 1)
			min *= t->sizes[d];
	}
	return true;
}

enum pb_format pb_suggested_format(const struct pb_rt_tensor *t)
{
	if (t->ndim == 4 && strides_like(t, cl_order))
		return PB_FORMAT_CL;
	if (t->ndim == 5 && strides_like(t, cl3d_order))
		return PB_FORMAT_CL3D;
	return PB_FORMAT_CONTIGUOUS;
}

void pb_format_strides(enum pb_format format, int ndim, const int64_t *sizes, int64_t *ret_strides)
{
	int64_t step = 1;

	for (int i = 0; i < ndim; i++) {
		const int d = format == PB_FORMAT_CL	 ? cl_order[i]
			      : format == PB_FORMAT_CL3D ? cl3d_order[i]
							 : ndim - 1 - i;

		ret_strides[d] = step;
		if (__builtin_mul_overflow(step, sizes[d] > 1 ? sizes[d] : 1, &step))
			step = 0; /* pb_rt_empty refuses the shape */
	}
}

struct pb_rt_tensor *pb_empty_format(int32_t dtype, int ndim, const int64_t *sizes,
				     enum pb_format format)
{
	int64_t strides[PB_RT_MAX_DIMS];

	if (ndim > PB_RT_MAX_DIMS || format == PB_FORMAT_CONTIGUOUS)
		return pb_rt_empty(dtype, ndim, sizes, NULL);
	pb_format_strides(format, ndim, sizes, strides);
	return pb_rt_empty(dtype, ndim, sizes, strides);
}

bool pb_is_dense(const struct pb_rt_tensor *t)
{
	int order[PB_RT_MAX_DIMS], n = 0;
	int64_t step = 1;

	if (t->ndim == 1)
		return t->sizes[0] < 2 || t->strides[0] == 1;
	for (int d = 0; d < t->ndim; d++) {
		int i = n++;

		/* Dimensions of no or one element go last: they end the loop below. */
		for (; i > 0 && t->sizes[d] >= 2 &&
		       (t->sizes[order[i - 1]] < 2 || t->strides[order[i - 1]] > t->strides[d]);
		     i--)
			order[i] = order[i - 1];
		order[i] = d;
	}
	for (int i = 0; i < n; i++) {
		if (t->sizes[order[i]] < 2)
			return true;
		if (t->strides[order[i]] != step)
			return false;
		step *= t->sizes[order[i]];
	}
	return true;
}

/* at::infer_dense_strides: the order of the strides without their gaps. */
static void dense_strides(const struct pb_rt_tensor *t, int64_t *ret_strides)
{
	int perm[PB_RT_MAX_DIMS];
	int64_t step = 1;

	for (int i = 0; i < t->ndim; i++)
		perm[i] = t->ndim - 1 - i;
	for (int i = 1; i < t->ndim; i++) {
		int at = i;

		for (int j = i - 1; j >= 0; j--) {
			const int64_t a = t->strides[perm[j]], b = t->strides[perm[at]];
			const bool ambiguous = a == 0 || b == 0 ||
					       (a == b && t->sizes[perm[j]] <= t->sizes[perm[at]]);

			if (ambiguous)
				continue;
			if (a < b)
				break;
			const int p = perm[j];

			perm[j] = perm[at];
			perm[at] = p;
			at = j;
		}
	}
	for (int i = 0; i < t->ndim; i++) {
		ret_strides[perm[i]] = step;
		if (t->sizes[perm[i]] > 1)
			step *= t->sizes[perm[i]];
	}
}

void pb_like_strides(const struct pb_rt_tensor *t, int64_t *ret_strides)
{
	if (pb_is_dense(t))
		memcpy(ret_strides, t->strides, sizeof(t->strides));
	else
		dense_strides(t, ret_strides);
}

struct pb_rt_tensor *pb_empty_like(const struct pb_rt_tensor *t, int32_t dtype)
{
	int64_t strides[PB_RT_MAX_DIMS];

	pb_like_strides(t, strides);
	return pb_rt_empty(dtype, t->ndim, t->sizes, strides);
}

/* ---- copies ---- */

static struct pb_rt_tensor *copy_into_take(struct pb_rt_tensor *dst, const struct pb_rt_tensor *src)
{
	if (dst && pb_rt_copy(dst, src)) {
		pb_rt_delete(dst);
		return NULL;
	}
	return dst;
}

struct pb_rt_tensor *pb_clone(const struct pb_rt_tensor *t)
{
	return copy_into_take(pb_empty_like(t, t->dtype), t);
}

struct pb_rt_tensor *pb_clone_contiguous(const struct pb_rt_tensor *t)
{
	return pb_clone_as(t, t->dtype);
}

struct pb_rt_tensor *pb_clone_as(const struct pb_rt_tensor *t, int32_t dtype)
{
	return copy_into_take(pb_rt_empty(dtype, t->ndim, t->sizes, NULL), t);
}

struct pb_rt_tensor *pb_new_handle(const struct pb_rt_tensor *t)
{
	return pb_rt_alias(t, t->ndim, t->sizes, t->strides, t->offset);
}

struct pb_rt_tensor *pb_as_dtype(const struct pb_rt_tensor *t, int32_t dtype)
{
	return t->dtype == dtype ? pb_new_handle(t) : pb_clone_as(t, dtype);
}
