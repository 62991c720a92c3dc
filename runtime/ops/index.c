/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index.Tensor and index_put, as aten/src/ATen/native/TensorAdvancedIndexing.cpp and
 * cpu/IndexKernel.cpp. index_info.c has turned the indices into offsets; here blocks (the
 * dimensions after the indexed ones) are moved or added, in the order of the indices, so that the
 * last of several writes wins and sums round as PyTorch's do.
 */
#include "runtime/ops/index.h"

#include <complex.h>

#include "runtime/ops/gemm.h"
#include "runtime/ops/index_info.h"
#include "runtime/ops/layout.h"
#include "runtime/ops/walk.h"

enum verb { GET, PUT, ADD };

struct wide16 {
	uint64_t lo, hi;
};

/* @n elements: self at self[offsets[i]] (or i * self_stride without offsets), other at i *
 * other_stride. */
struct run {
	char *self, *other;
	const int64_t *offsets;
	int64_t self_stride, other_stride, n;
};

#define AT_SELF (r->offsets ? r->offsets[i] : i * r->self_stride)
#define EACH(type, statement)                                             \
	do {                                                              \
		for (int64_t i = 0; i < r->n; i++) {                      \
			type *s = (type *)r->self + AT_SELF,              \
			     *o = (type *)r->other + i * r->other_stride; \
			statement;                                        \
		}                                                         \
	} while (0)
#define MOVE(type)                           \
	do {                                 \
		if (get)                     \
			EACH(type, *o = *s); \
		else                         \
			EACH(type, *s = *o); \
	} while (0)

static void move(const struct run *r, size_t size, bool get)
{
	if (!r->offsets && r->self_stride == 1 && r->other_stride == 1) {
		memcpy(get ? r->other : r->self, get ? r->self : r->other, (size_t)r->n * size);
		return;
	}
	switch (size) {
	case 1:
		MOVE(uint8_t);
		break;
	case 2:
		MOVE(uint16_t);
		break;
	case 4:
		MOVE(uint32_t);
		break;
	case 8:
		MOVE(uint64_t);
		break;
	default:
		MOVE(struct wide16);
	}
}

static void add_16bit(uint16_t *s, const uint16_t *o, int32_t dtype)
{
	float a, b;

	pb_gemm_widen(&a, s, dtype, 1);
	pb_gemm_widen(&b, o, dtype, 1);
	a += b;
	pb_gemm_round(s, dtype, &a, 1);
}

static int add(const struct run *r, int32_t dtype)
{
	switch (dtype) {
	case PB_RT_BOOL:
		EACH(uint8_t, *s = *s || *o);
		break;
	case PB_RT_U8:
	case PB_RT_I8:
		EACH(uint8_t, *s = (uint8_t)(*s + *o));
		break;
	case PB_RT_I16:
		EACH(uint16_t, *s = (uint16_t)(*s + *o));
		break;
	case PB_RT_I32:
		EACH(uint32_t, *s += *o);
		break;
	case PB_RT_I64:
		EACH(uint64_t, *s += *o);
		break;
	case PB_RT_F32:
		EACH(float, *s += *o);
		break;
	case PB_RT_F64:
		EACH(double, *s += *o);
		break;
	case PB_RT_C64:
		EACH(float complex, *s += *o);
		break;
	case PB_RT_C128:
		EACH(double complex, *s += *o);
		break;
	case PB_RT_F16:
	case PB_RT_BF16:
		EACH(uint16_t, add_16bit(s, o, dtype));
		break;
	default:
		return pb_not_implemented("index_put", dtype);
	}
	return 0;
}

static int do_run(const struct run *r, int32_t dtype, enum verb verb)
{
	if (verb == ADD)
		return add(r, dtype);
	move(r, pb_rt_dtype_size(dtype), verb == GET);
	return 0;
}

/* ---- walking before, index and after dimensions ---- */

struct job {
	const struct pb_index *ix;
	char *self, *other;
	int32_t dtype;
	int64_t size;
	enum verb verb;
	struct pb_walk after; /* without its innermost dimension; tensor 0 self, 1 other */
	int64_t after_n, after_strides[2];
};

/* One block, at element offsets of both. */
static int do_block(const struct job *j, int64_t self_at, int64_t other_at)
{
	struct pb_walk w = j->after;
	struct run r = {.self_stride = j->after_strides[0],
			.other_stride = j->after_strides[1],
			.n = j->after_n};

	for (; w.left; pb_walk_next(&w)) {
		r.self = j->self + (self_at + w.off[0]) * j->size;
		r.other = j->other + (other_at + w.off[1]) * j->size;
		if (do_run(&r, j->dtype, j->verb))
			return 1;
	}
	return 0;
}

/* All index tuples under one position of the dimensions before. */
static int do_tuples(const struct job *j, const int64_t *other_strides, int64_t self_at,
		     int64_t other_at)
{
	const struct pb_index *ix = j->ix;
	const bool elements = j->after_n == 1 && j->after.ndim == 0;
	const int64_t *offsets = ix->offsets;
	struct pb_walk w;
	int64_t n, stride;

	pb_walk_init(&w, ix->n_index, ix->sizes + ix->n_before);
	pb_walk_add(&w, other_strides + ix->n_before);
	pb_walk_merge(&w);
	pb_walk_inner(&w, &n, &stride);
	for (; w.left; pb_walk_next(&w), offsets += n) {
		const int64_t at = other_at + w.off[0];

		if (elements) {
			const struct run r = {j->self + self_at * j->size,
					      j->other + at * j->size,
					      offsets,
					      0,
					      stride,
					      n};

			if (do_run(&r, j->dtype, j->verb))
				return 1;
			continue;
		}
		for (int64_t i = 0; i < n; i++)
			if (do_block(j, self_at + offsets[i], at + i * stride))
				return 1;
	}
	return 0;
}

static int do_index(const struct pb_index *ix, struct pb_rt_tensor *self,
		    struct pb_rt_tensor *other, const int64_t *other_strides, enum verb verb)
{
	const int first_after = ix->n_before + ix->n_index;
	struct job j = {.ix = ix,
			.self = pb_rt_data(self),
			.other = pb_rt_data(other),
			.dtype = self->dtype,
			.size = (int64_t)pb_rt_dtype_size(self->dtype),
			.verb = verb};
	struct pb_walk before;

	for (int d = 0; d < ix->ndim; d++)
		if (ix->sizes[d] == 0)
			return 0;
	pb_walk_init(&j.after, ix->ndim - first_after, ix->sizes + first_after);
	pb_walk_add(&j.after, ix->self_strides + first_after);
	pb_walk_add(&j.after, other_strides + first_after);
	pb_walk_merge(&j.after);
	pb_walk_inner(&j.after, &j.after_n, j.after_strides);
	pb_walk_init(&before, ix->n_before, ix->sizes);
	pb_walk_add(&before, ix->self_strides);
	pb_walk_add(&before, other_strides);
	for (; before.left; pb_walk_next(&before))
		if (do_tuples(&j, other_strides, before.off[0], before.off[1]))
			return 1;
	return 0;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_index_Tensor(AtenTensorHandle self,
						       const AtenTensorHandle **indices,
						       int64_t indices_len_, AtenTensorHandle *ret0)
{
	const struct pb_rt_tensor *list[PB_RT_MAX_DIMS];
	int64_t strides[PB_RT_MAX_DIMS];
	struct pb_rt_tensor *out;
	struct pb_index ix;

	if (indices_len_ > PB_RT_MAX_DIMS)
		return pb_rt_fail("too many indices for tensor of dimension %d (got %lld)",
				  self->ndim, (long long)indices_len_);
	for (int64_t i = 0; i < indices_len_; i++)
		list[i] = indices[i] ? *indices[i] : NULL;
	if (pb_index_init(&ix, self, list, indices_len_))
		return 1;
	pb_index_result_strides(&ix, strides);
	out = pb_rt_empty(self->dtype, ix.ndim, ix.sizes, strides);
	if (out && do_index(&ix, self, out, out->strides, GET)) {
		pb_rt_delete(out);
		out = NULL;
	}
	pb_index_deinit(&ix);
	*ret0 = out ? out : *ret0;
	return !out;
}

/* ---- index_put ---- */

/* The values as they are put, another handle: of the dtype of self, and not in its memory. */
static struct pb_rt_tensor *values_for(const struct pb_index *ix, const struct pb_rt_tensor *self,
				       const struct pb_rt_tensor *values, bool accumulate)
{
	const bool fills = ix->one_mask && values->numel == 1 && !accumulate;

	if (fills && ix->mask_dtype != PB_RT_BOOL) {
		pb_rt_fail("masked_fill_ only supports boolean masks, but got mask with dtype "
			   "unsigned char");
		return NULL;
	}
	if (values->dtype != self->dtype && !fills) {
		pb_rt_fail("Index put requires the source and destination dtypes match, got %s for "
			   "the destination and "
			   "%s for the source.",
			   pb_scalar_name(self->dtype), pb_scalar_name(values->dtype));
		return NULL;
	}
	if (values->dtype == self->dtype && pb_overlap(self, values) == PB_OVERLAP_NONE)
		return pb_new_handle(values);
	return pb_clone_as(values, self->dtype);
}

static int put(struct pb_rt_tensor *self, const struct pb_rt_tensor *const *indices, int64_t n,
	       const struct pb_rt_tensor *values, bool accumulate)
{
	int64_t strides[PB_RT_MAX_DIMS];
	struct pb_rt_tensor *v;
	struct pb_index ix;
	int rc;

	if (pb_index_init(&ix, self, indices, n))
		return 1;
	v = values_for(&ix, self, values, accumulate);
	rc = !v;
	if (!rc && !pb_expand_strides(v, ix.ndim, ix.sizes, strides)) {
		const struct pb_rt_tensor result = {.ndim = ix.ndim};
		struct pb_rt_tensor shape = result;

		memcpy(shape.sizes, ix.sizes, sizeof(shape.sizes));
		rc = pb_rt_fail("shape mismatch: value tensor of shape %s cannot be broadcast to "
				"indexing result of shape %s",
				PB_SHAPE(values), PB_SHAPE(&shape));
	}
	if (!rc)
		rc = do_index(&ix, self, v, strides, accumulate ? ADD : PUT);
	pb_rt_delete(v);
	pb_index_deinit(&ix);
	return rc;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_index_put(AtenTensorHandle self,
						    const AtenTensorHandle **indices,
						    int64_t indices_len_, AtenTensorHandle values,
						    int32_t accumulate, AtenTensorHandle *ret0)
{
	const struct pb_rt_tensor *list[PB_RT_MAX_DIMS];
	struct pb_rt_tensor *out;

	if (indices_len_ > PB_RT_MAX_DIMS)
		return pb_rt_fail("too many indices for tensor of dimension %d (got %lld)",
				  self->ndim, (long long)indices_len_);
	for (int64_t i = 0; i < indices_len_; i++)
		list[i] = indices[i] ? *indices[i] : NULL;
	out = pb_clone(self);
	if (!out)
		return 1;
	if (put(out, list, indices_len_, values, accumulate)) {
		pb_rt_delete(out);
		return 1;
	}
	*ret0 = out;
	return 0;
}

/* Inductor calls this with out and self the same; what is put may then be a view of them. */
AOTI_EXPORT AOTITorchError aoti_torch_index_put_out(AtenTensorHandle out, AtenTensorHandle self,
						    const AtenTensorHandle *indices,
						    uint32_t num_indices, AtenTensorHandle values,
						    bool accumulate)
{
	struct pb_rt_tensor *result;
	int rc;

	if (pb_overlap(out, self) == PB_OVERLAP_FULL && pb_same_shape(out, self) &&
	    out->dtype == self->dtype)
		return put(out, (const struct pb_rt_tensor *const *)indices, num_indices, values,
			   accumulate);
	result = pb_clone(self);
	if (!result)
		return 1;
	rc = put(result, (const struct pb_rt_tensor *const *)indices, num_indices, values,
		 accumulate) ||
	     pb_resize_output(out, result->ndim, result->sizes) || pb_rt_copy(out, result);
	pb_rt_delete(result);
	return rc;
}
