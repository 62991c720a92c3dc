/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules of PyTorch that are not arithmetic: which dtype, shape, strides and memory format a
 * result has, when an output is resized, when two tensors overlap. Models are compiled against
 * these, so a result of other strides is a wrong result.
 */
#ifndef PT2BOX_RUNTIME_OPS_LAYOUT_H
#define PT2BOX_RUNTIME_OPS_LAYOUT_H

#include "runtime/ops/shape.h"
#include "runtime/tensor.h"

enum pb_format { PB_FORMAT_CONTIGUOUS, PB_FORMAT_PRESERVE, PB_FORMAT_CL, PB_FORMAT_CL3D };

/* "Float", "Long": how PyTorch's messages name a dtype. */
const char *pb_scalar_name(int32_t dtype);
bool pb_is_integral(int32_t dtype); /* not bool */
bool pb_is_float(int32_t dtype);
bool pb_is_16bit(int32_t dtype);
bool pb_is_complex(int32_t dtype);
/* Fails with PyTorch's `"op" not implemented for 'Bool'`. */
int pb_not_implemented(const char *op, int32_t dtype);

/* Dtype of an operation on both (c10::promoteTypes). */
int32_t pb_promote(int32_t a, int32_t b);
/* The same for tensors, where one without dimensions yields to one with; NULL entries are passed
 * over. */
int32_t pb_result_type(const struct pb_rt_tensor *const *t, int64_t n);
/* For a tensor and a C++ double. */
int32_t pb_result_type_scalar(const struct pb_rt_tensor *t);

/* A dimension of a tensor of @ndim, counted from the end if negative; 0 dimensions count as one. */
int pb_wrap_dim(int64_t dim, int ndim, int *ret_dim);

/* The memory format that the strides of @t ask for. */
enum pb_format pb_suggested_format(const struct pb_rt_tensor *t);
void pb_format_strides(enum pb_format format, int ndim, const int64_t *sizes, int64_t *ret_strides);
struct pb_rt_tensor *pb_empty_format(int32_t dtype, int ndim, const int64_t *sizes,
				     enum pb_format format);
bool pb_is_dense(const struct pb_rt_tensor *t);
/* Strides of an empty_like(@t) that preserves the format. */
void pb_like_strides(const struct pb_rt_tensor *t, int64_t *ret_strides);
struct pb_rt_tensor *pb_empty_like(const struct pb_rt_tensor *t, int32_t dtype);
/* A copy with the strides of empty_like; with those of a contiguous tensor; converted to @dtype,
 * contiguous. */
struct pb_rt_tensor *pb_clone(const struct pb_rt_tensor *t);
struct pb_rt_tensor *pb_clone_contiguous(const struct pb_rt_tensor *t);
struct pb_rt_tensor *pb_clone_as(const struct pb_rt_tensor *t, int32_t dtype);
/* @t itself (another handle) if it has @dtype, else pb_clone_as. */
struct pb_rt_tensor *pb_as_dtype(const struct pb_rt_tensor *t, int32_t dtype);
struct pb_rt_tensor *pb_new_handle(const struct pb_rt_tensor *t);

#define PB_ITER_TENSORS 18

/* Operands of an elementwise operation (TensorIterator), to find the strides of its result. */
struct pb_iter {
	int ndim, n;
	int64_t sizes[PB_RT_MAX_DIMS];
	int64_t strides[PB_ITER_TENSORS][PB_RT_MAX_DIMS]; /* 0 where broadcast */
};

/* Common shape of the tensors, with PyTorch's error if there is none. */
int pb_broadcast(const struct pb_rt_tensor *const *t, int n, int *ret_ndim, int64_t *ret_sizes);
/* Strides of @t expanded to @ndim dimensions of @sizes; false if it cannot be. */
bool pb_expand_strides(const struct pb_rt_tensor *t, int ndim, const int64_t *sizes,
		       int64_t *ret_strides);
void pb_iter_output(const struct pb_iter *it, int64_t *ret_strides);
/* New tensor for the result of an elementwise operation on these; @promotes: those of another dtype
 * are converted first. */
struct pb_rt_tensor *pb_elementwise_empty(const struct pb_rt_tensor *const *t, int n, int32_t dtype,
					  bool promotes);

/* Makes @out have @sizes, contiguous if anything must change, as resize_output does. */
int pb_resize_output(struct pb_rt_tensor *out, int ndim, const int64_t *sizes);
bool pb_same_shape(const struct pb_rt_tensor *a, const struct pb_rt_tensor *b);

enum pb_overlap { PB_OVERLAP_NONE, PB_OVERLAP_FULL, PB_OVERLAP_PARTIAL, PB_OVERLAP_UNKNOWN };

enum pb_overlap pb_overlap(const struct pb_rt_tensor *a, const struct pb_rt_tensor *b);
/* Refuses an output whose elements share memory, or share it with @in. */
int pb_no_internal_overlap(const struct pb_rt_tensor *out);
int pb_no_overlap(const struct pb_rt_tensor *out, const struct pb_rt_tensor *in);

/* An element of @dtype from a double, as a Scalar is converted. */
int pb_store_scalar(void *dst, int32_t dtype, double value);

#endif
