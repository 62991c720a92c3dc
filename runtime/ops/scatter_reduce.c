/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scatter_reduce and index_reduce, as aten/src/ATen/native/TensorAdvancedIndexing.cpp. The loops
 * work on float, double or int64: other types are widened before and narrowed once after, which is
 * what PyTorch's accumulation buffer does for 16-bit floats and the same as wrapping for integers.
 */
#include <string.h>

#include "runtime/ops/layout.h"
#include "runtime/ops/scatter.h"
#include "runtime/ops/scatter_loops.h"

static int reduce_of(const char *name, enum pb_reduce *ret)
{
	static const char *const names[] = {"sum", "prod", "mean", "amax", "amin"};

	for (int i = 0; i < 5; i++) {
		if (!strcmp(name, names[i])) {
			*ret = (enum pb_reduce)i;
			return 0;
		}
	}
	return pb_rt_fail("reduce argument must be either sum, prod, mean, amax or amin, got %s",
			  name);
}

static int32_t wide_dtype(int32_t dtype)
{
	if (pb_is_16bit(dtype))
		return PB_RT_F32;
	return dtype == PB_RT_F32 || dtype == PB_RT_F64 ? dtype : PB_RT_I64;
}

/* What an element starts from when its own value is not to count. */
static double neutral(enum pb_reduce r, int32_t dtype)
{
	static const double top[] = {[PB_RT_U8] = 255,
				     [PB_RT_I8] = 127,
				     [PB_RT_I16] = 32767,
				     [PB_RT_I32] = 0x7fffffff,
				     [PB_RT_I64] = 0x1p63};

	if (r == PB_R_PROD)
		return 1;
	if (r != PB_R_AMAX && r != PB_R_AMIN)
		return 0;
	if (pb_is_float(dtype))
		return r == PB_R_AMAX ? -__builtin_inf() : __builtin_inf();
	if (dtype == PB_RT_BOOL)
		return r == PB_R_AMIN;
	if (r == PB_R_AMIN)
		return top[dtype];
	return dtype == PB_RT_U8 ? 0 : -top[dtype] - (dtype != PB_RT_I64);
}

static void fill(struct pb_rt_tensor *t, double value)
{
	char one[16];

	(void)pb_store_scalar(one, t->dtype, value);
	if (t->dtype == PB_RT_I64 && value == 0x1p63)
		*(int64_t *)one = INT64_MAX; /* no double is */
	for (int64_t i = 0; i < t->numel; i++)
		memcpy((char *)pb_rt_data(t) + i * (int64_t)pb_rt_dtype_size(t->dtype), one,
		       pb_rt_dtype_size(t->dtype));
}

/* A tensor of one element under every position of @index. */
static struct pb_rt_tensor *constant_like(const struct pb_rt_tensor *index, int32_t dtype,
					  double value)
{
	static const int64_t zeros[PB_RT_MAX_DIMS];
	struct pb_rt_tensor *one = pb_rt_empty(dtype, 0, NULL, NULL), *t = NULL;

	if (one) {
		fill(one, value);
		t = pb_rt_alias(one, index->ndim, index->sizes, zeros, 0);
	}
	pb_rt_delete(one);
	return t;
}

/* Floor division for integers. */
static void divide(struct pb_rt_tensor *sum, const struct pb_rt_tensor *count)
{
	for (int64_t i = 0; i < sum->numel; i++) {
		if (sum->dtype == PB_RT_F32) {
			const float c = ((float *)pb_rt_data(count))[i];

			((float *)pb_rt_data(sum))[i] /= c == 0 ? 1 : c;
		} else if (sum->dtype == PB_RT_F64) {
			const double c = ((double *)pb_rt_data(count))[i];

			((double *)pb_rt_data(sum))[i] /= c == 0 ? 1 : c;
		} else {
			int64_t *v = (int64_t *)pb_rt_data(sum) + i,
				c = ((int64_t *)pb_rt_data(count))[i];

			c = c == 0 ? 1 : c;
			if (c == -1)
				*v = (int64_t)(0 - (uint64_t)*v);
			else
				*v = *v / c - ((*v % c != 0) && ((*v < 0) != (c < 0)));
		}
	}
}

/* Through the element type and back: what a tensor of that type would hold. */
static int round_through(struct pb_rt_tensor *wide, int32_t dtype)
{
	struct pb_rt_tensor *narrow;
	int rc;

	if (wide->dtype == dtype)
		return 0;
	narrow = pb_clone_as(wide, dtype);
	rc = !narrow || pb_rt_copy(wide, narrow);
	pb_rt_delete(narrow);
	return rc;
}

struct reduction {
	enum pb_reduce r;
	bool include_self;
	int dim;
	int32_t dtype; /* of the tensors, whatever the arithmetic is in */
	const struct pb_rt_tensor *index, *src;
};

/* The number of elements that went into each mean; counts are of the tensors' own type, so they may
 * round or wrap. */
static int mean(const struct reduction *q, struct pb_rt_tensor *acc)
{
	struct pb_rt_tensor *count = pb_rt_empty(acc->dtype, acc->ndim, acc->sizes, NULL);
	struct pb_rt_tensor *ones = constant_like(q->index, acc->dtype, 1);
	int rc = !count || !ones || round_through(acc, q->dtype);

	if (!rc) {
		fill(count, q->include_self);
		rc = pb_scatter_apply(PB_R_SUM, count, q->dim, q->index, ones) ||
		     round_through(count, q->dtype);
	}
	if (!rc)
		divide(acc, count);
	pb_rt_delete(count);
	pb_rt_delete(ones);
	return rc;
}

/* @acc is contiguous, of the wide type, and holds self. */
static int reduce_into(const struct reduction *q, struct pb_rt_tensor *acc)
{
	struct pb_rt_tensor *start, *src;
	int rc = 0;

	if (!q->include_self) {
		start = constant_like(q->index, acc->dtype, neutral(q->r, q->dtype));
		rc = !start || pb_scatter_apply(PB_R_ASSIGN, acc, q->dim, q->index, start);
		pb_rt_delete(start);
	}
	if (rc)
		return 1;
	src = pb_as_dtype(q->src, acc->dtype);
	rc = !src || pb_scatter_apply(q->r, acc, q->dim, q->index, src);
	pb_rt_delete(src);
	return rc || (q->r == PB_R_MEAN && mean(q, acc));
}

static int reduce(const struct reduction *q, struct pb_rt_tensor *out)
{
	const int32_t wide = wide_dtype(out->dtype);
	struct pb_rt_tensor *acc;
	int rc;

	if (out->dtype == wide && pb_rt_is_contiguous(out))
		return reduce_into(q, out);
	acc = pb_clone_as(out, wide);
	rc = !acc || reduce_into(q, acc) || pb_rt_copy(out, acc);
	pb_rt_delete(acc);
	return rc;
}

static bool can_reduce(int32_t dtype)
{
	return dtype <= PB_RT_I64 || dtype == PB_RT_BOOL || pb_is_float(dtype);
}

static int scatter_reduce(struct pb_rt_tensor *out, const struct pb_rt_tensor *self, int64_t dim,
			  const struct pb_rt_tensor *index, const struct pb_rt_tensor *src,
			  const char *name, bool include_self)
{
	struct reduction q = {.include_self = include_self, .dtype = self->dtype, .src = src};
	struct pb_rt_tensor *idx;
	int rc;

	if (reduce_of(name, &q.r) || pb_scatter_check(out, self, dim, index, src, &q.dim))
		return 1;
	if (self->dtype == PB_RT_BOOL && q.r == PB_R_MEAN)
		return pb_not_implemented("scatter_gather_tensor_cpu_reduce_mean", self->dtype);
	if (!can_reduce(self->dtype))
		return pb_not_implemented("scatter_reduce", self->dtype);
	if (pb_scatter_start(out, self))
		return 1;
	if (!index->numel)
		return 0;
	q.index = idx = pb_as_dtype(index, PB_RT_I64);
	rc = !idx || reduce(&q, out);
	pb_rt_delete(idx);
	return rc;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_scatter_reduce_two_out(
	AtenTensorHandle out, AtenTensorHandle self, int64_t dim, AtenTensorHandle index,
	AtenTensorHandle src, const char *reduce, int32_t include_self)
{
	return scatter_reduce(out, self, dim, index, src, reduce, include_self);
}

AOTI_EXPORT AOTITorchError aoti_torch_scatter_reduce_out(AtenTensorHandle out,
							 AtenTensorHandle self, int64_t dim,
							 AtenTensorHandle index,
							 AtenTensorHandle src, const char *reduce,
							 int32_t include_self)
{
	return scatter_reduce(out, self, dim, index, src, reduce, include_self);
}

/* ---- index_reduce: the index is one for whole slices ---- */

AOTI_EXPORT AOTITorchError aoti_torch_cpu_index_reduce(AtenTensorHandle self, int64_t dim,
						       AtenTensorHandle index,
						       AtenTensorHandle source, const char *reduce,
						       int32_t include_self, AtenTensorHandle *ret0)
{
	int64_t strides[PB_RT_MAX_DIMS] = {0};
	struct pb_rt_tensor *idx, *wide = NULL, *out = NULL;
	int d, rc;

	if (pb_wrap_dim(dim, self->ndim, &d))
		return 1;
	if (!strcmp(reduce, "sum"))
		return pb_rt_fail("index_reduce(): Expected reduce to be one of prod, mean, amax "
				  "or amin but got sum.");
	if (index->ndim > 1 || (index->dtype != PB_RT_I64 && index->dtype != PB_RT_I32))
		return pb_rt_fail("index_reduce_(): Index is supposed to be a vector, but got dim: "
				  "%d with type: %s",
				  index->ndim, pb_scalar_name(index->dtype));
	if (self->dtype != source->dtype)
		return pb_rt_fail(
			"index_reduce_(): self (%s) and source (%s) must have the same scalar type",
			pb_scalar_name(self->dtype), pb_scalar_name(source->dtype));
	if (self->ndim != source->ndim || index->numel != (source->ndim ? source->sizes[d] : 1))
		return pb_rt_fail("index_reduce_(): Number of indices (%lld) should be equal to "
				  "source.size(dim) (%lld)",
				  (long long)index->numel,
				  (long long)(source->ndim ? source->sizes[d] : 1));
	for (int i = 0; i < self->ndim; i++)
		if (i != d && self->sizes[i] != source->sizes[i])
			return pb_rt_fail("index_reduce_(): Source/destination tensor must have "
					  "same slice shapes. Got %s and %s",
					  PB_SHAPE(self), PB_SHAPE(source));
	idx = pb_rt_contiguous(index);
	strides[d] = 1;
	if (idx)
		wide = pb_rt_alias(idx, source->ndim, source->sizes, strides, idx->offset);
	if (wide)
		out = pb_clone_contiguous(self);
	rc = !out || scatter_reduce(out, out, dim, wide, source, reduce, include_self != 0);
	pb_rt_delete(idx);
	pb_rt_delete(wide);
	if (rc)
		pb_rt_delete(out);
	else
		*ret0 = out;
	return rc;
}
