/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scatter, as aten/src/ATen/native/TensorAdvancedIndexing.cpp and cpu/ScatterGatherKernel.cpp: the
 * loops, also those of reductions, the checks, and the operators that assign.
 */
#include "runtime/ops/scatter.h"

#include "runtime/ops/layout.h"
#include "runtime/ops/scatter_loops.h"
#include "runtime/ops/walk.h"

struct wide16 {
	uint64_t lo, hi;
};

/* A walk over the index, with the lines of self along the dimension. */
struct scatter {
	struct pb_walk w; /* tensor 0 self, 1 index, 2 src */
	char *self;
	const char *src;
	const int64_t *index;
	int64_t size, stride; /* of self, along the dimension */
	int dim;
	int64_t n,
		strides[3]; /* the inner loop; strides[0] is 0 where it runs along the dimension */
};

static int scatter_init(struct scatter *s, struct pb_rt_tensor *self, int dim,
			const struct pb_rt_tensor *index, const struct pb_rt_tensor *src)
{
	int64_t self_strides[PB_RT_MAX_DIMS];

	memcpy(self_strides, self->strides, sizeof(self_strides));
	self_strides[dim] = 0;
	*s = (struct scatter){.self = pb_rt_data(self),
			      .src = pb_rt_data(src),
			      .index = pb_rt_data(index),
			      .size = self->sizes[dim],
			      .stride = self->strides[dim],
			      .dim = dim};
	pb_walk_init(&s->w, index->ndim, index->sizes);
	pb_walk_add(&s->w, self_strides);
	pb_walk_add(&s->w, index->strides);
	pb_walk_add(&s->w, src->strides);
	pb_walk_inner(&s->w, &s->n, s->strides);
	if (index->ndim == 0)
		s->strides[0] = 0;
	return 0;
}

static int out_of_bounds(const struct scatter *s, int64_t i)
{
	return pb_rt_fail("index %lld is out of bounds for dimension %d with size %lld",
			  (long long)i, s->dim, (long long)s->size);
}

/* Names x (self's element) and y (src's). */
#define SCATTER_FN(name, type, statement)                                            \
	static int name(struct scatter *s)                                           \
	{                                                                            \
		for (; s->w.left; pb_walk_next(&s->w)) {                             \
			type *self = (type *)s->self + s->w.off[0];                  \
			const int64_t *index = s->index + s->w.off[1];               \
			const type *src = (const type *)s->src + s->w.off[2];        \
			for (int64_t i = 0; i < s->n; i++) {                         \
				const int64_t at = index[i * s->strides[1]];         \
				if (at < 0 || at >= s->size)                         \
					return out_of_bounds(s, at);                 \
				type *x = &self[i * s->strides[0] + at * s->stride]; \
				const type y = src[i * s->strides[2]];               \
				statement;                                           \
			}                                                            \
		}                                                                    \
		return 0;                                                            \
	}

SCATTER_FN(assign_1, uint8_t, *x = y)
SCATTER_FN(assign_2, uint16_t, *x = y)
SCATTER_FN(assign_4, uint32_t, *x = y)
SCATTER_FN(assign_8, uint64_t, *x = y)
SCATTER_FN(assign_16, struct wide16, *x = y)
SCATTER_FN(sum_i64, int64_t, *x = (int64_t)((uint64_t)*x + (uint64_t)y))
SCATTER_FN(sum_f32, float, *x += y)
SCATTER_FN(sum_f64, double, *x += y)
SCATTER_FN(prod_i64, int64_t, *x = (int64_t)((uint64_t)*x * (uint64_t)y))
SCATTER_FN(prod_f32, float, *x *= y)
SCATTER_FN(prod_f64, double, *x *= y)
/* NaN wins, whichever side it is on. */
SCATTER_FN(max_i64, int64_t, *x = *x < y ? y : *x)
SCATTER_FN(max_f32, float, *x = y != y || *x < y ? y : *x)
SCATTER_FN(max_f64, double, *x = y != y || *x < y ? y : *x)
SCATTER_FN(min_i64, int64_t, *x = y < *x ? y : *x)
SCATTER_FN(min_f32, float, *x = y != y || y < *x ? y : *x)
SCATTER_FN(min_f64, double, *x = y != y || y < *x ? y : *x)

typedef int scatter_fn(struct scatter *s);

static scatter_fn *assign_for(int32_t dtype)
{
	switch (pb_rt_dtype_size(dtype)) {
	case 1:
		return assign_1;
	case 2:
		return assign_2;
	case 4:
		return assign_4;
	case 8:
		return assign_8;
	default:
		return assign_16;
	}
}

static scatter_fn *fn_for(enum pb_reduce r, int32_t dtype)
{
	static scatter_fn *const fns[PB_R_ASSIGN][3] = {
		{sum_i64, sum_f32, sum_f64}, {prod_i64, prod_f32, prod_f64},
		{sum_i64, sum_f32, sum_f64}, {max_i64, max_f32, max_f64},
		{min_i64, min_f32, min_f64},
	};

	if (r == PB_R_ASSIGN)
		return assign_for(dtype);
	return fns[r][dtype == PB_RT_F32 ? 1 : dtype == PB_RT_F64 ? 2 : 0];
}

int pb_scatter_apply(enum pb_reduce r, struct pb_rt_tensor *self, int dim,
		     const struct pb_rt_tensor *index, const struct pb_rt_tensor *src)
{
	struct scatter s;

	if (!index->numel)
		return 0;
	return scatter_init(&s, self, dim, index, src) || fn_for(r, self->dtype)(&s);
}

/* ---- checks ---- */

/* @src NULL: a value. */
static int check_shapes(const struct pb_rt_tensor *self, int dim, const struct pb_rt_tensor *index,
			const struct pb_rt_tensor *src)
{
	if (index->numel == 0)
		return 0;
	if ((index->ndim ? index->ndim : 1) != (self->ndim ? self->ndim : 1))
		return pb_rt_fail("Index tensor must have the same number of dimensions as self tensor, but they are %s and %s",
				  PB_SHAPE(index), PB_SHAPE(self));
	if (src && (index->ndim ? index->ndim : 1) != (src->ndim ? src->ndim : 1))
		return pb_rt_fail("Index tensor must have the same number of dimensions as src tensor, but they are %s and %s",
				  PB_SHAPE(index), PB_SHAPE(src));
	for (int d = 0; d < index->ndim; d++) {
		if (src && (index->sizes[d] > src->sizes[d] ||
			    (d != dim && index->sizes[d] > self->sizes[d])))
			return pb_rt_fail("Expected index %s to be no larger than self %s apart "
					  "from dimension %d and to "
					  "be no larger than src %s",
					  PB_SHAPE(index), PB_SHAPE(self), dim, PB_SHAPE(src));
		if (!src && d != dim && index->sizes[d] > self->sizes[d])
			return pb_rt_fail("Expected index %s to be no larger than self %s apart "
					  "from dimension %d",
					  PB_SHAPE(index), PB_SHAPE(self), dim);
	}
	return 0;
}

int pb_scatter_check(struct pb_rt_tensor *out, const struct pb_rt_tensor *self, int64_t dim,
		     const struct pb_rt_tensor *index, const struct pb_rt_tensor *src, int *ret_dim)
{
	if (pb_wrap_dim(dim, self->ndim, ret_dim))
		return 1;
	if (index->numel && index->dtype != PB_RT_I64 && index->dtype != PB_RT_I32)
		return pb_rt_fail("scatter(): Expected dtype int32/int64 for index");
	if (src && self->dtype != src->dtype)
		return pb_rt_fail("scatter(): Expected self.dtype to be equal to src.dtype");
	if (self->dtype != out->dtype)
		return pb_rt_fail("Expected out tensor to have dtype %s, but got %s instead",
				  pb_rt_dtype_name(self->dtype), pb_rt_dtype_name(out->dtype));
	if (check_shapes(self, *ret_dim, index, src))
		return 1;
	if (pb_no_internal_overlap(out) || pb_no_overlap(out, index) ||
	    (src && pb_no_overlap(out, src)))
		return 1;
	return 0;
}

int pb_scatter_start(struct pb_rt_tensor *out, const struct pb_rt_tensor *self)
{
	return pb_resize_output(out, self->ndim, self->sizes) || pb_rt_copy(out, self);
}

static int assign(struct pb_rt_tensor *out, const struct pb_rt_tensor *self, int64_t dim,
		  const struct pb_rt_tensor *index, const struct pb_rt_tensor *src, bool is_value)
{
	struct pb_rt_tensor *idx;
	int d, rc;

	if (pb_scatter_check(out, self, dim, index, is_value ? NULL : src, &d))
		return 1;
	idx = pb_as_dtype(index, PB_RT_I64);
	rc = !idx || pb_scatter_start(out, self) || pb_scatter_apply(PB_R_ASSIGN, out, d, idx, src);
	pb_rt_delete(idx);
	return rc;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_scatter_src_out(AtenTensorHandle out,
							  AtenTensorHandle self, int64_t dim,
							  AtenTensorHandle index,
							  AtenTensorHandle src)
{
	return assign(out, self, dim, index, src, false);
}

AOTI_EXPORT AOTITorchError aoti_torch_scatter_out(AtenTensorHandle out, AtenTensorHandle self,
						  int64_t dim, AtenTensorHandle index,
						  AtenTensorHandle src)
{
	return assign(out, self, dim, index, src, false);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_scatter_value_out(AtenTensorHandle out,
							    AtenTensorHandle self, int64_t dim,
							    AtenTensorHandle index, double value)
{
	static const int64_t zeros[PB_RT_MAX_DIMS];
	struct pb_rt_tensor *one = pb_rt_empty(self->dtype, 0, NULL, NULL), *src = NULL;
	int rc;

	if (!one)
		return 1;
	rc = pb_store_scalar(pb_rt_data(one), self->dtype, value);
	if (!rc)
		src = pb_rt_alias(one, index->ndim, index->sizes, zeros, 0);
	rc = !src || assign(out, self, dim, index, src, true);
	pb_rt_delete(src);
	pb_rt_delete(one);
	return rc;
}
