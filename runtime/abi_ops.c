/* SPDX-License-Identifier: Apache-2.0 */
/* Filling, making filled tensors, and the older names of operators that runtime/ops has under newer
 * ones. */
#include <string.h>

#include "runtime/abi.h"
#include "runtime/ops/conv.h"
#include "runtime/ops/matmul.h"
#include "runtime/tensor.h"

AOTITorchError aoti_torch_aten_fill__Scalar(AtenTensorHandle self, double value)
{
	struct pb_rt_tensor *scalar = pb_rt_empty(PB_RT_F64, 0, NULL, NULL);
	int rc;

	if (!scalar)
		return 1;
	*(double *)pb_rt_data(scalar) = value;
	rc = pb_rt_copy(self, scalar);
	pb_rt_delete(scalar);
	return rc;
}

AOTITorchError aoti_torch_zero_(AtenTensorHandle self)
{
	if (!self->storage)
		return pb_rt_fail("zero_ of a tensor that is not defined");
	if (!pb_rt_is_contiguous(self))
		return aoti_torch_aten_fill__Scalar(self, 0);
	if (self->numel)
		memset(pb_rt_data(self), 0, (size_t)self->numel * pb_rt_dtype_size(self->dtype));
	return 0;
}

static int new_tensor(int32_t dtype, const int64_t *size, int64_t n, const int32_t *layout,
		      const int32_t *device, AtenTensorHandle *ret)
{
	struct pb_rt_tensor *t;

	if ((layout && *layout != 0) || (device && *device != 0))
		return pb_rt_fail("only strided tensors on the CPU are supported");
	t = pb_rt_empty(dtype, n, size, NULL);
	if (!t)
		return 1;
	*ret = t;
	return 0;
}

AOTITorchError aoti_torch_aten_full(const int64_t *size, int64_t size_len_, double fill_value,
				    int32_t *dtype, int32_t *layout, int32_t *device,
				    int32_t device_index_, int32_t *pin_memory,
				    AtenTensorHandle *ret0)
{
	AtenTensorHandle t = NULL;

	(void)device_index_;
	(void)pin_memory;
	if (new_tensor(dtype ? *dtype : PB_RT_F32, size, size_len_, layout, device, &t))
		return 1;
	if (aoti_torch_aten_fill__Scalar(t, fill_value)) {
		pb_rt_delete(t);
		return 1;
	}
	*ret0 = t;
	return 0;
}

AOTITorchError aoti_torch_aten_new_empty(AtenTensorHandle self, const int64_t *size,
					 int64_t size_len_, int32_t *dtype, int32_t *layout,
					 int32_t *device, int32_t device_index_,
					 int32_t *pin_memory, AtenTensorHandle *ret0)
{
	(void)device_index_;
	(void)pin_memory;
	return new_tensor(dtype ? *dtype : self->dtype, size, size_len_, layout, device, ret0);
}

/* PyTorch's has no memory until it is written to; nothing else tells it from other zeros. */
AOTITorchError aoti_torch_cpu__efficientzerotensor(const int64_t *size, int64_t size_len_,
						   int32_t *dtype, int32_t *layout, int32_t *device,
						   int32_t device_index_, int32_t *pin_memory,
						   AtenTensorHandle *ret0)
{
	return aoti_torch_aten_full(size, size_len_, 0, dtype, layout, device, device_index_,
				    pin_memory, ret0);
}

AOTITorchError aoti_torch_aten_new_zeros(AtenTensorHandle self, const int64_t *size,
					 int64_t size_len_, int32_t *dtype, int32_t *layout,
					 int32_t *device, int32_t device_index_,
					 int32_t *pin_memory, AtenTensorHandle *ret0)
{
	if (aoti_torch_aten_new_empty(self, size, size_len_, dtype, layout, device, device_index_,
				      pin_memory, ret0))
		return 1;
	return aoti_torch_zero_(*ret0);
}

AOTITorchError aoti_torch_aten_narrow(AtenTensorHandle self, int64_t dim, int64_t start,
				      int64_t length, AtenTensorHandle *ret0)
{
	int64_t sizes[PB_RT_MAX_DIMS];
	struct pb_rt_tensor *t;

	if (dim < -self->ndim || dim >= self->ndim)
		return pb_rt_fail("narrow: dimension %lld of a tensor of %d dimensions",
				  (long long)dim, self->ndim);
	dim += dim < 0 ? self->ndim : 0;
	if (start < 0)
		start += self->sizes[dim];
	if (start < 0 || length < 0 || start > self->sizes[dim] ||
	    length > self->sizes[dim] - start)
		return pb_rt_fail(
			"narrow: start (%lld) + length (%lld) exceeds dimension size (%lld)",
			(long long)start, (long long)length, (long long)self->sizes[dim]);
	memcpy(sizes, self->sizes, sizeof(sizes));
	sizes[dim] = length;
	t = pb_rt_alias(self, self->ndim, sizes, self->strides,
			self->offset + start * self->strides[dim]);
	if (!t)
		return 1;
	*ret0 = t;
	return 0;
}

/* ---- older names ---- */

AOTITorchError aoti_torch_addmm_out(AtenTensorHandle out, AtenTensorHandle self,
				    AtenTensorHandle mat1, AtenTensorHandle mat2, float beta,
				    float alpha)
{
	return aoti_torch_cpu_addmm_out(out, self, mat1, mat2, beta, alpha);
}

AOTITorchError aoti_torch_bmm_out(AtenTensorHandle out, AtenTensorHandle self,
				  AtenTensorHandle mat2)
{
	return aoti_torch_cpu_bmm_out(out, self, mat2);
}

AOTITorchError aoti_torch_mm_out(AtenTensorHandle out, AtenTensorHandle self, AtenTensorHandle mat2)
{
	return aoti_torch_cpu_mm_out(out, self, mat2);
}

/* The second product may read the memory of the first one's result only if the caller let them
 * overlap. */
AOTITorchError aoti_torch__mm_plus_mm_out(AtenTensorHandle out, AtenTensorHandle a,
					  AtenTensorHandle b, AtenTensorHandle c,
					  AtenTensorHandle d)
{
	if (aoti_torch_cpu_mm_out(out, a, b))
		return 1;
	return aoti_torch_cpu_addmm_out(out, out, c, d, 1, 1);
}

AOTITorchError aoti_torch_convolution(AtenTensorHandle input, AtenTensorHandle weight,
				      AtenTensorHandle bias, const int64_t *stride,
				      int64_t n_stride, const int64_t *padding, int64_t n_padding,
				      const int64_t *dilation, int64_t n_dilation, int transposed,
				      const int64_t *output_padding, int64_t n_output_padding,
				      int64_t groups, AtenTensorHandle *ret)
{
	return aoti_torch_cpu_convolution(input, weight, bias ? &bias : NULL, stride, n_stride,
					  padding, n_padding, dilation, n_dilation, transposed,
					  output_padding, n_output_padding, groups, ret);
}
