/* SPDX-License-Identifier: Apache-2.0 */
/* resize_, set_, fill_ and windows, as aten/src/ATen/native/{Resize,TensorFactories}.cpp. */
#include <math.h>
#include <string.h>

#include "runtime/abi.h"
#include "runtime/ops/layout.h"
#include "runtime/ops/views.h"

AOTI_EXPORT AOTITorchError aoti_torch_cpu_set__source_Tensor(AtenTensorHandle self,
							     AtenTensorHandle source)
{
	if (self->dtype != source->dtype)
		return pb_rt_fail("set_: cannot set a tensor of type %s to one of type %s",
				  pb_scalar_name(self->dtype), pb_scalar_name(source->dtype));
	pb_rt_assign(self, source);
	return 0;
}

/*
 * The contents stay, in memory order, as far as both shapes reach. A storage that must grow is a
 * new one: other handles of the old storage keep that.
 */
static int resize(struct pb_rt_tensor *self, int64_t n, const int64_t *size, enum pb_format format)
{
	int64_t strides[PB_RT_MAX_DIMS], elements = self->offset + 1;
	struct pb_rt_tensor *grown = NULL, *t;
	uint64_t bytes = 0;
	int rc;

	if (n < 0 || n > PB_RT_MAX_DIMS || !self->storage)
		return pb_rt_fail("resize_: not a tensor, or more than %d dimensions",
				  PB_RT_MAX_DIMS);
	for (int64_t i = 0; i < n; i++)
		if (size[i] < 0 ||
		    __builtin_mul_overflow(elements, size[i] > 1 ? size[i] : 1, &elements))
			return pb_rt_fail(
				"resize_: a negative size, or more elements than can be counted");
	pb_format_strides(format, (int)n, size, strides);
	t = pb_rt_alias(self, n, size, strides, self->offset);
	if (!t)
		return 1;
	rc = pb_rt_extent_bytes(t, t->offset, &bytes);
	if (!rc && bytes > self->storage->bytes && self->storage->kind == PB_RT_BORROWED)
		rc = pb_rt_fail("Trying to resize storage that is not resizable");
	if (!rc && bytes > self->storage->bytes) {
		const int64_t count = (int64_t)(bytes / pb_rt_dtype_size(self->dtype));

		grown = pb_rt_empty(self->dtype, 1, &count, NULL);
		if (grown && self->storage->bytes)
			memcpy(pb_rt_data(grown), self->storage->base, self->storage->bytes);
		pb_rt_delete(t);
		t = grown ? pb_rt_alias(grown, n, size, strides, self->offset) : NULL;
		rc = !t;
	}
	if (!rc)
		pb_rt_assign(self, t);
	pb_rt_delete(t);
	pb_rt_delete(grown);
	return rc;
}

static int check_format(int32_t format, int64_t ndim, bool preserve_allowed)
{
	if (format == PB_FORMAT_CL && ndim != 4)
		return pb_rt_fail("required rank 4 tensor to use channels_last format");
	if (format == PB_FORMAT_CL3D && ndim != 5)
		return pb_rt_fail("required rank 5 tensor to use channels_last_3d format");
	if (format == PB_FORMAT_PRESERVE && !preserve_allowed)
		return pb_rt_fail("Unsupported memory format Preserve");
	return 0;
}

static bool has_shape(const struct pb_rt_tensor *t, const int64_t *size, int64_t n)
{
	return t->ndim == n && !memcmp(t->sizes, size, (size_t)n * sizeof(*size));
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_resize_(AtenTensorHandle self, const int64_t *size,
						  int64_t size_len_, int32_t *memory_format)
{
	const int32_t format = memory_format ? *memory_format : PB_FORMAT_CONTIGUOUS;

	if (memory_format && check_format(format, size_len_, false))
		return 1;
	/* The same shape keeps its strides unless a format is asked for. */
	if (!memory_format && has_shape(self, size, size_len_))
		return 0;
	return resize(self, size_len_, size, (enum pb_format)format);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_resize_as_(AtenTensorHandle self,
						     AtenTensorHandle the_template,
						     int32_t *memory_format)
{
	int32_t format = memory_format ? *memory_format : PB_FORMAT_CONTIGUOUS;

	if (memory_format && check_format(format, the_template->ndim, true))
		return 1;
	if (!memory_format && pb_same_shape(self, the_template))
		return 0;
	if (format == PB_FORMAT_PRESERVE)
		format = pb_suggested_format(the_template);
	return resize(self, the_template->ndim, the_template->sizes, (enum pb_format)format);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_fill__Scalar(AtenTensorHandle self, double value)
{
	return aoti_torch_aten_fill__Scalar(self, value);
}

/* ---- windows ---- */

/* Periodic: one more point is made and not shown, as PyTorch narrows it away. */
AOTI_EXPORT AOTITorchError aoti_torch_cpu_hann_window(int64_t window_length, int32_t *dtype,
						      int32_t *layout, int32_t *device,
						      int32_t device_index_, int32_t *pin_memory,
						      AtenTensorHandle *ret0)
{
	const int32_t type = dtype ? *dtype : PB_RT_F32;
	const double step = 3.14159265358979323846 * 2 / (double)window_length;
	struct pb_rt_tensor *t;

	(void)device_index_, (void)pin_memory;
	if (layout && *layout)
		return pb_rt_fail("hann_window is not implemented for sparse types");
	if (device && *device)
		return pb_rt_fail("hann_window: only the CPU is supported");
	if (!pb_is_float(type))
		return pb_rt_fail("hann_window expects floating point dtypes, got: %s",
				  pb_scalar_name(type));
	if (window_length < 0)
		return pb_rt_fail(
			"hann_window requires non-negative window_length, got window_length=%lld",
			(long long)window_length);
	t = pb_rt_empty(type, 1, &window_length, NULL);
	if (!t)
		return 1;
	for (int64_t i = 0; i < window_length; i++) {
		const double x = type == PB_RT_F64 ? cos((double)i * step)
						   : (double)cosf((float)i * (float)step);
		const double v = window_length == 1  ? 1
				 : type == PB_RT_F64 ? x * -0.5 + 0.5
						     : (double)((float)x * -0.5f + 0.5f);

		(void)pb_store_scalar((char *)pb_rt_data(t) + i * (int64_t)pb_rt_dtype_size(type),
				      type, v);
	}
	*ret0 = t;
	return 0;
}
