/* SPDX-License-Identifier: Apache-2.0 */
/* Views, as aten/src/ATen/native/TensorShape.cpp and TensorUtils.cpp
 * (computeStride). */
#include "runtime/ops/views.h"

#include <string.h>

#include "runtime/abi.h"
#include "runtime/ops/layout.h"

static int made(struct pb_rt_tensor *t, AtenTensorHandle *ret)
{
	if (!t)
		return 1;
	*ret = t;
	return 0;
}

/* ---- parts ---- */

AOTI_EXPORT AOTITorchError aoti_torch_cpu_narrow(AtenTensorHandle self, int64_t dim, int64_t start,
						 int64_t length, AtenTensorHandle *ret0)
{
	int64_t sizes[PB_RT_MAX_DIMS];
	int d;

	if (self->ndim == 0)
		return pb_rt_fail("narrow() cannot be applied to a 0-dim tensor.");
	if (length < 0)
		return pb_rt_fail("narrow(): length must be non-negative.");
	if (pb_wrap_dim(dim, self->ndim, &d))
		return 1;
	if (start < -self->sizes[d] || start > self->sizes[d])
		return pb_rt_fail("start out of range (expected to be in range of [%lld, %lld], "
				  "but got %lld)",
				  (long long)-self->sizes[d], (long long)self->sizes[d],
				  (long long)start);
	start += start < 0 ? self->sizes[d] : 0;
	if (length > self->sizes[d] - start)
		return pb_rt_fail("start (%lld) + length (%lld) exceeds dimension size (%lld).",
				  (long long)start, (long long)length, (long long)self->sizes[d]);
	memcpy(sizes, self->sizes, sizeof(sizes));
	sizes[d] = length;
	return made(pb_rt_alias(self, self->ndim, sizes, self->strides,
				self->offset + start * self->strides[d]),
		    ret0);
}

static int64_t clamp(int64_t i, int64_t lo, int64_t hi)
{
	return i < lo ? lo : i > hi ? hi : i;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_slice_Tensor(AtenTensorHandle self, int64_t dim,
						       int64_t *start, int64_t *end, int64_t step,
						       AtenTensorHandle *ret0)
{
	int64_t sizes[PB_RT_MAX_DIMS], strides[PB_RT_MAX_DIMS], from = start ? *start : 0,
								to = end ? *end : INT64_MAX, n;
	int d;

	if (self->ndim == 0)
		return pb_rt_fail("slice() cannot be applied to a 0-dim tensor.");
	if (pb_wrap_dim(dim, self->ndim, &d))
		return 1;
	if (step <= 0)
		return pb_rt_fail("slice step must be positive");
	n = self->sizes[d];
	from = clamp(from < 0 ? from + n : from, 0, n);
	to = clamp(to < 0 ? to + n : to, from, n);
	memcpy(sizes, self->sizes, sizeof(sizes));
	memcpy(strides, self->strides, sizeof(strides));
	sizes[d] = (to - from) / step + ((to - from) % step != 0);
	if (__builtin_mul_overflow(strides[d], step, &strides[d]))
		return pb_rt_fail("slice: the step is too large");
	return made(pb_rt_alias(self, self->ndim, sizes, strides,
				self->offset + from * self->strides[d]),
		    ret0);
}

/* ---- dimensions ---- */

AOTI_EXPORT AOTITorchError aoti_torch_cpu_permute(AtenTensorHandle self, const int64_t *dims,
						  int64_t dims_len_, AtenTensorHandle *ret0)
{
	int64_t sizes[PB_RT_MAX_DIMS], strides[PB_RT_MAX_DIMS];
	bool seen[PB_RT_MAX_DIMS] = {false};

	if (dims_len_ != self->ndim)
		return pb_rt_fail("permute(sparse_coo): number of dimensions in the tensor input "
				  "does not match the length of "
				  "the desired ordering of dimensions i.e. input.dim() = %d is not "
				  "equal to len(dims) = %lld",
				  self->ndim, (long long)dims_len_);
	for (int i = 0; i < self->ndim; i++) {
		int d;

		if (pb_wrap_dim(dims[i], self->ndim, &d))
			return 1;
		if (seen[d])
			return pb_rt_fail("permute(): duplicate dims are not allowed.");
		seen[d] = true;
		sizes[i] = self->sizes[d];
		strides[i] = self->strides[d];
	}
	return made(pb_rt_alias(self, self->ndim, sizes, strides, self->offset), ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_squeeze_dim(AtenTensorHandle self, int64_t dim,
						      AtenTensorHandle *ret0)
{
	int64_t sizes[PB_RT_MAX_DIMS], strides[PB_RT_MAX_DIMS];
	int d, n = 0;

	if (pb_wrap_dim(dim, self->ndim, &d))
		return 1;
	if (self->ndim == 0 || self->sizes[d] != 1)
		return made(pb_new_handle(self), ret0);
	for (int i = 0; i < self->ndim; i++) {
		if (i == d)
			continue;
		sizes[n] = self->sizes[i];
		strides[n++] = self->strides[i];
	}
	return made(pb_rt_alias(self, n, sizes, strides, self->offset), ret0);
}

static int shape_error(const struct pb_rt_tensor *self, const int64_t *shape, int64_t n)
{
	struct pb_rt_tensor wanted = {.ndim = (int32_t)n};

	memcpy(wanted.sizes, shape, (size_t)n * sizeof(*shape));
	return pb_rt_fail("shape '%s' is invalid for input of size %lld", PB_SHAPE(&wanted),
			  (long long)self->numel);
}

/* Puts the size that -1 stands for. */
static int infer_size(const struct pb_rt_tensor *self, const int64_t *shape, int64_t n,
		      int64_t *ret_sizes)
{
	int64_t numel = 1, free_dim = -1;

	if (n < 0 || n > PB_RT_MAX_DIMS)
		return pb_rt_fail("reshape: %lld dimensions, at most %d are supported",
				  (long long)n, PB_RT_MAX_DIMS);
	for (int64_t i = 0; i < n; i++) {
		ret_sizes[i] = shape[i];
		if (shape[i] == -1) {
			if (free_dim >= 0)
				return pb_rt_fail("only one dimension can be inferred");
			free_dim = i;
		} else if (shape[i] < 0) {
			return pb_rt_fail("invalid shape dimension %lld at index %lld of shape",
					  (long long)shape[i], (long long)i);
		} else if (__builtin_mul_overflow(numel, shape[i], &numel)) {
			return shape_error(self, shape, n);
		}
	}
	if (free_dim < 0)
		return numel == self->numel ? 0 : shape_error(self, shape, n);
	if (numel == 0 && self->numel == 0) {
		struct pb_rt_tensor wanted = {.ndim = (int32_t)n};

		memcpy(wanted.sizes, shape, (size_t)n * sizeof(*shape));
		return pb_rt_fail("cannot reshape tensor of 0 elements into shape %s because the "
				  "unspecified dimension size "
				  "-1 can be any value and is ambiguous",
				  PB_SHAPE(&wanted));
	}
	if (numel == 0 || self->numel % numel)
		return shape_error(self, shape, n);
	ret_sizes[free_dim] = self->numel / numel;
	return 0;
}

/* Strides under which @t has the new shape without a copy, or false. */
static bool view_strides(const struct pb_rt_tensor *t, int n, const int64_t *sizes,
			 int64_t *ret_strides)
{
	int64_t base = t->ndim ? t->strides[t->ndim - 1] : 1, chunk = 1, used = 1;
	int v = n - 1;

	if (t->numel == 0 && t->ndim == n && !memcmp(t->sizes, sizes, (size_t)n * sizeof(*sizes))) {
		memcpy(ret_strides, t->strides, (size_t)n * sizeof(*sizes));
		return true;
	}
	if (t->numel == 0 || t->ndim == 0) {
		pb_format_strides(PB_FORMAT_CONTIGUOUS, n, sizes, ret_strides);
		return true;
	}
	for (int d = t->ndim - 1; d >= 0; d--) {
		chunk *= t->sizes[d];
		if (d > 0 && (t->sizes[d - 1] == 1 || t->strides[d - 1] == chunk * base))
			continue;
		for (; v >= 0 && (used < chunk || sizes[v] == 1); v--) {
			ret_strides[v] = used * base;
			used *= sizes[v];
		}
		if (used != chunk)
			return false;
		if (d > 0)
			base = t->strides[d - 1];
		chunk = used = 1;
	}
	return v == -1;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_reshape(AtenTensorHandle self, const int64_t *shape,
						  int64_t shape_len_, AtenTensorHandle *ret0)
{
	int64_t sizes[PB_RT_MAX_DIMS], strides[PB_RT_MAX_DIMS];
	struct pb_rt_tensor *copy;
	int rc;

	if (infer_size(self, shape, shape_len_, sizes))
		return 1;
	if (view_strides(self, (int)shape_len_, sizes, strides))
		return made(pb_rt_alias(self, shape_len_, sizes, strides, self->offset), ret0);
	copy = pb_clone_contiguous(self);
	rc = !copy || made(pb_rt_alias(copy, shape_len_, sizes, NULL, 0), ret0);
	pb_rt_delete(copy);
	return rc;
}

/* ---- dtypes ---- */

AOTI_EXPORT AOTITorchError aoti_torch_cpu_view_dtype(AtenTensorHandle self, int32_t dtype,
						     AtenTensorHandle *ret0)
{
	return aoti_torch_view_dtype(self, dtype, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_view_as_real(AtenTensorHandle self,
						       AtenTensorHandle *ret0)
{
	return aoti_torch_view_as_real(self, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_view_as_complex(AtenTensorHandle self,
							  AtenTensorHandle *ret0)
{
	const int32_t dtype = self->dtype == PB_RT_F16	 ? PB_RT_C32
			      : self->dtype == PB_RT_F32 ? PB_RT_C64
			      : self->dtype == PB_RT_F64 ? PB_RT_C128
							 : -1;
	int64_t strides[PB_RT_MAX_DIMS];
	const int last = self->ndim - 1;

	if (dtype < 0)
		return pb_rt_fail("view_as_complex is only supported for half, float and double "
				  "tensors, but got a tensor of "
				  "scalar type: %s",
				  pb_scalar_name(self->dtype));
	if (last < 0)
		return pb_rt_fail("Input tensor must have one or more dimensions");
	if (self->sizes[last] != 2)
		return pb_rt_fail("Tensor must have a last dimension of size 2");
	if (self->strides[last] != 1)
		return pb_rt_fail("Tensor must have a last dimension with stride 1");
	if (self->offset % 2)
		return pb_rt_fail("Tensor must have a storage_offset divisible by 2");
	for (int d = 0; d < last; d++) {
		if (self->strides[d] % 2 && self->sizes[d] != 1)
			return pb_rt_fail("Tensor must have a stride divisible by 2 for all but "
					  "last dimension");
		strides[d] = self->strides[d] / 2;
	}
	return made(pb_rt_view(self, dtype, last, self->sizes, strides, self->offset / 2), ret0);
}
