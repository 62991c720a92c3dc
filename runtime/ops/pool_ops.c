/* SPDX-License-Identifier: Apache-2.0 */
/* The pooling operators: their arguments turned into windows (pool_plan.h), and unpooling. */
#include <string.h>

#include "runtime/ops/layout.h"
#include "runtime/ops/pool.h"
#include "runtime/ops/pool_plan.h"

static int max_pool(const char *op, int spatial, const struct pb_rt_tensor *self,
		    const struct pb_pool_args *args, AtenTensorHandle *ret0, AtenTensorHandle *ret1)
{
	struct pb_pool p;
	int rc;

	if (pb_pool_init(&p, op, spatial, self, args))
		return 1;
	p.batch_of_one = spatial == 3;
	rc = pb_pool_max(&p, self, ret0, ret1);
	pb_pool_deinit(&p);
	return rc;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_max_pool2d_with_indices(
	AtenTensorHandle self, const int64_t *kernel_size, int64_t kernel_size_len_,
	const int64_t *stride, int64_t stride_len_, const int64_t *padding, int64_t padding_len_,
	const int64_t *dilation, int64_t dilation_len_, int32_t ceil_mode, AtenTensorHandle *ret0,
	AtenTensorHandle *ret1)
{
	const struct pb_pool_args a = {kernel_size,  stride,	       padding,
				       dilation,     kernel_size_len_, stride_len_,
				       padding_len_, dilation_len_,    ceil_mode != 0};

	return max_pool("max_pool2d", 2, self, &a, ret0, ret1);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_max_pool3d_with_indices(
	AtenTensorHandle self, const int64_t *kernel_size, int64_t kernel_size_len_,
	const int64_t *stride, int64_t stride_len_, const int64_t *padding, int64_t padding_len_,
	const int64_t *dilation, int64_t dilation_len_, int32_t ceil_mode, AtenTensorHandle *ret0,
	AtenTensorHandle *ret1)
{
	const struct pb_pool_args a = {kernel_size,  stride,	       padding,
				       dilation,     kernel_size_len_, stride_len_,
				       padding_len_, dilation_len_,    ceil_mode != 0};

	return max_pool("max_pool3d", 3, self, &a, ret0, ret1);
}

static int avg_pool(const char *op, int spatial, const struct pb_rt_tensor *self,
		    const struct pb_pool_args *args, bool count_pad, const int64_t *divisor,
		    AtenTensorHandle *ret0)
{
	struct pb_pool p;
	int rc;

	if (divisor && *divisor == 0)
		return pb_rt_fail("divisor must be not zero");
	if (pb_pool_init(&p, op, spatial, self, args))
		return 1;
	p.count_pad = count_pad;
	p.averages = true;
	p.divisor = divisor ? *divisor : 0;
	rc = pb_pool_avg(&p, self, ret0);
	pb_pool_deinit(&p);
	return rc;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_avg_pool2d(
	AtenTensorHandle self, const int64_t *kernel_size, int64_t kernel_size_len_,
	const int64_t *stride, int64_t stride_len_, const int64_t *padding, int64_t padding_len_,
	int32_t ceil_mode, int32_t count_include_pad, int64_t *divisor_override,
	AtenTensorHandle *ret0)
{
	const struct pb_pool_args a = {.kernel = kernel_size,
				       .n_kernel = kernel_size_len_,
				       .stride = stride,
				       .n_stride = stride_len_,
				       .pad = padding,
				       .n_pad = padding_len_,
				       .ceil = ceil_mode != 0};

	return avg_pool("avg_pool2d", 2, self, &a, count_include_pad != 0, divisor_override, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_avg_pool3d(
	AtenTensorHandle self, const int64_t *kernel_size, int64_t kernel_size_len_,
	const int64_t *stride, int64_t stride_len_, const int64_t *padding, int64_t padding_len_,
	int32_t ceil_mode, int32_t count_include_pad, int64_t *divisor_override,
	AtenTensorHandle *ret0)
{
	const struct pb_pool_args a = {.kernel = kernel_size,
				       .n_kernel = kernel_size_len_,
				       .stride = stride,
				       .n_stride = stride_len_,
				       .pad = padding,
				       .n_pad = padding_len_,
				       .ceil = ceil_mode != 0};

	return avg_pool("avg_pool3d", 3, self, &a, count_include_pad != 0, divisor_override, ret0);
}

/* ---- adaptive ---- */

static int adaptive_avg(const char *op, int spatial, const struct pb_rt_tensor *self,
			const int64_t *size, int64_t n, AtenTensorHandle *ret0)
{
	struct pb_pool p;
	int rc;

	if (pb_pool_init_adaptive(&p, op, spatial, self, size, n))
		return 1;
	rc = pb_pool_avg(&p, self, ret0);
	pb_pool_deinit(&p);
	return rc;
}

static int adaptive_max(const char *op, int spatial, const struct pb_rt_tensor *self,
			const int64_t *size, int64_t n, AtenTensorHandle *ret0,
			AtenTensorHandle *ret1)
{
	struct pb_pool p;
	int rc;

	if (pb_pool_init_adaptive(&p, op, spatial, self, size, n))
		return 1;
	rc = pb_pool_max(&p, self, ret0, ret1);
	pb_pool_deinit(&p);
	return rc;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__adaptive_avg_pool2d(AtenTensorHandle self,
							       const int64_t *output_size,
							       int64_t output_size_len_,
							       AtenTensorHandle *ret0)
{
	return adaptive_avg("adaptive_avg_pool2d", 2, self, output_size, output_size_len_, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__adaptive_avg_pool3d(AtenTensorHandle self,
							       const int64_t *output_size,
							       int64_t output_size_len_,
							       AtenTensorHandle *ret0)
{
	return adaptive_avg("adaptive_avg_pool3d", 3, self, output_size, output_size_len_, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_adaptive_max_pool2d(AtenTensorHandle self,
							      const int64_t *output_size,
							      int64_t output_size_len_,
							      AtenTensorHandle *ret0,
							      AtenTensorHandle *ret1)
{
	return adaptive_max("adaptive_max_pool2d", 2, self, output_size, output_size_len_, ret0,
			    ret1);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_adaptive_max_pool3d(AtenTensorHandle self,
							      const int64_t *output_size,
							      int64_t output_size_len_,
							      AtenTensorHandle *ret0,
							      AtenTensorHandle *ret1)
{
	return adaptive_max("adaptive_max_pool3d", 3, self, output_size, output_size_len_, ret0,
			    ret1);
}

/* ---- unpooling ---- */

/* Values back to where the indices say, planes of zeros around them. All contiguous. */
static int unpool_planes(const struct pb_rt_tensor *self, const struct pb_rt_tensor *indices,
			 int spatial, struct pb_rt_tensor *out)
{
	const size_t size = pb_rt_dtype_size(self->dtype);
	const int64_t *at = pb_rt_data(indices);
	int64_t in_plane = 1, out_plane = 1;

	for (int d = self->ndim - spatial; d < self->ndim; d++) {
		in_plane *= self->sizes[d];
		out_plane *= out->sizes[d];
	}
	memset(pb_rt_data(out), 0, (size_t)out->numel * size);
	for (int64_t i = 0; i < self->numel; i++) {
		if (at[i] < 0 || at[i] >= out_plane)
			return pb_rt_fail("Found an invalid max index: %lld (output volumes are of "
					  "size %lldx%lld)",
					  (long long)at[i], (long long)out->sizes[out->ndim - 2],
					  (long long)out->sizes[out->ndim - 1]);
		memcpy((char *)pb_rt_data(out) + (i / in_plane * out_plane + at[i]) * (int64_t)size,
		       (const char *)pb_rt_data(self) + i * (int64_t)size, size);
	}
	return 0;
}

static int unpool(const char *op, int spatial, const struct pb_rt_tensor *self,
		  const struct pb_rt_tensor *indices, const int64_t *output_size, int64_t n,
		  enum pb_format format, AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *x, *at, *flat = NULL, *out = NULL;
	int64_t sizes[PB_RT_MAX_DIMS];
	int rc;

	if (indices->dtype != PB_RT_I64)
		return pb_rt_fail("elements in indices should be type int64 but got: %s",
				  pb_scalar_name(indices->dtype));
	if (n != spatial)
		return pb_rt_fail("There should be exactly %s elements in output_size, but got "
				  "%lld elements.",
				  spatial == 2 ? "two (height, width)"
					       : "three (depth, height, width)",
				  (long long)n);
	if (self->ndim != spatial + 1 && self->ndim != spatial + 2)
		return pb_rt_fail("%s: Input to %s should be a %dd or %dd Tensor, but got a tensor "
				  "with %d dimensions.",
				  op, op, spatial + 1, spatial + 2, self->ndim);
	if (!pb_same_shape(self, indices))
		return pb_rt_fail("Expected shape of indices to be same as that of the input "
				  "tensor (%s) but got indices tensor "
				  "with shape: %s",
				  PB_SHAPE(self), PB_SHAPE(indices));
	memcpy(sizes, self->sizes, sizeof(sizes));
	for (int i = 0; i < spatial; i++)
		sizes[self->ndim - spatial + i] = output_size[i];
	x = pb_rt_contiguous(self);
	at = pb_rt_contiguous(indices);
	if (x && at)
		flat = pb_rt_empty(self->dtype, self->ndim, sizes, NULL);
	rc = !flat || (flat->numel && unpool_planes(x, at, spatial, flat));
	if (!rc) {
		out = format == PB_FORMAT_CONTIGUOUS
			      ? pb_new_handle(flat)
			      : pb_empty_format(self->dtype, self->ndim, sizes, format);
		rc = !out || (format != PB_FORMAT_CONTIGUOUS && pb_rt_copy(out, flat));
	}
	pb_rt_delete(x);
	pb_rt_delete(at);
	pb_rt_delete(flat);
	if (rc)
		pb_rt_delete(out);
	else
		*ret0 = out;
	return rc;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_max_unpool2d(AtenTensorHandle self,
						       AtenTensorHandle indices,
						       const int64_t *output_size,
						       int64_t output_size_len_,
						       AtenTensorHandle *ret0)
{
	return unpool("max_unpooling2d_forward_out", 2, self, indices, output_size,
		      output_size_len_, pb_suggested_format(self), ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_max_unpool3d(
	AtenTensorHandle self, AtenTensorHandle indices, const int64_t *output_size,
	int64_t output_size_len_, const int64_t *stride, int64_t stride_len_,
	const int64_t *padding, int64_t padding_len_, AtenTensorHandle *ret0)
{
	(void)padding;
	if (stride_len_ != 3 || padding_len_ != 3)
		return pb_rt_fail("There should be exactly three elements (depth, height, width) "
				  "in stride and padding");
	for (int i = 0; i < 3; i++)
		if (stride[i] <= 0)
			return pb_rt_fail("strides should be greater than zero");
	return unpool("max_unpooling3d_forward_out", 3, self, indices, output_size,
		      output_size_len_, PB_FORMAT_CONTIGUOUS, ret0);
}
