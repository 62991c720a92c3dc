/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scatter, scatter_reduce, index_reduce, as aten/src/ATen/native/TensorAdvancedIndexing.cpp and
 * cpu/ScatterGatherKernel.cpp. Reductions work on float, double or int64: other types are widened
 * before and narrowed once after, which is what PyTorch's accumulation buffer does for 16-bit
 * floats and the same as wrapping for integers.
 */
#include "runtime/ops/scatter.h"

#include "runtime/ops/layout.h"
#include "runtime/ops/walk.h"

struct wide16 {
	uint64_t lo, hi;
};

enum reduce { R_SUM, R_PROD, R_MEAN, R_AMAX, R_AMIN, R_ASSIGN };

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

static scatter_fn *fn_for(enum reduce r, int32_t dtype)
{
	static scatter_fn *const fns[R_ASSIGN][3] = {
		{sum_i64, sum_f32, sum_f64}, {prod_i64, prod_f32, prod_f64},
		{sum_i64, sum_f32, sum_f64}, {max_i64, max_f32, max_f64},
		{min_i64, min_f32, min_f64},
	};

	if (r == R_ASSIGN)
		return assign_for(dtype);
	return fns[r][dtype == PB_RT_F32 ? 1 : dtype == PB_RT_F64 ? 2 : 0];
}

static int apply(enum reduce r, struct pb_rt_tensor *self, int dim,
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
		return pb_rt_fail(
			"Index tensor must have the same number of dimensions as self tensor");
	if (src && (index->ndim ? index->ndim : 1) != (src->ndim ? src->ndim : 1))
		return pb_rt_fail(
			"Index tensor must have the same number of dimensions as src tensor");
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

static int check(struct pb_rt_tensor *out, const struct pb_rt_tensor *self, int64_t dim,
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

/* Index values as int64, another handle. */
static struct pb_rt_tensor *long_index(const struct pb_rt_tensor *index)
{
	return pb_as_dtype(index, PB_RT_I64);
}

static int out_from_self(struct pb_rt_tensor *out, const struct pb_rt_tensor *self)
{
	return pb_resize_output(out, self->ndim, self->sizes) || pb_rt_copy(out, self);
}

static int assign(struct pb_rt_tensor *out, const struct pb_rt_tensor *self, int64_t dim,
		  const struct pb_rt_tensor *index, const struct pb_rt_tensor *src, bool is_value)
{
	struct pb_rt_tensor *idx;
	int d, rc;

	if (check(out, self, dim, index, is_value ? NULL : src, &d))
		return 1;
	idx = long_index(index);
	rc = !idx || out_from_self(out, self) || apply(R_ASSIGN, out, d, idx, src);
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

/* ---- reductions ---- */

static int reduce_of(const char *name, enum reduce *ret)
{
	static const char *const names[] = {"sum", "prod", "mean", "amax", "amin"};

	for (int i = 0; i < 5; i++) {
		if (!strcmp(name, names[i])) {
			*ret = (enum reduce)i;
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
static double neutral(enum reduce r, int32_t dtype)
{
	static const double top[] = {[PB_RT_U8] = 255,
				     [PB_RT_I8] = 127,
				     [PB_RT_I16] = 32767,
				     [PB_RT_I32] = 0x7fffffff,
				     [PB_RT_I64] = 0x1p63};

	if (r == R_PROD)
		return 1;
	if (r != R_AMAX && r != R_AMIN)
		return 0;
	if (pb_is_float(dtype))
		return r == R_AMAX ? -__builtin_inf() : __builtin_inf();
	if (dtype == PB_RT_BOOL)
		return r == R_AMIN;
	if (r == R_AMIN)
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
	enum reduce r;
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
		rc = apply(R_SUM, count, q->dim, q->index, ones) || round_through(count, q->dtype);
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
		rc = !start || apply(R_ASSIGN, acc, q->dim, q->index, start);
		pb_rt_delete(start);
	}
	if (rc)
		return 1;
	src = pb_as_dtype(q->src, acc->dtype);
	rc = !src || apply(q->r, acc, q->dim, q->index, src);
	pb_rt_delete(src);
	return rc || (q->r == R_MEAN && mean(q, acc));
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

	if (reduce_of(name, &q.r) || check(out, self, dim, index, src, &q.dim))
		return 1;
	if (self->dtype == PB_RT_BOOL && q.r == R_MEAN)
		return pb_not_implemented("scatter_gather_tensor_cpu_reduce_mean", self->dtype);
	if (!can_reduce(self->dtype))
		return pb_not_implemented("scatter_reduce", self->dtype);
	if (out_from_self(out, self))
		return 1;
	if (!index->numel)
		return 0;
	q.index = idx = long_index(index);
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
