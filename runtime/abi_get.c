/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of PyTorch, and what can be asked of a handle. Several of these are called for every
 * tensor of every run. */
#include "runtime/abi.h"
#include "runtime/convert.h"
#include "runtime/tensor.h"

/* 2.13.0, as torch/csrc/stable/version.h encodes it. */
#define ABI_VERSION UINT64_C(0x020d000000000000)

#define DEFINE_CONST(name, number)      \
	int32_t aoti_torch_##name(void) \
	{                               \
		return number;          \
	}
PB_ABI_CONSTANTS(DEFINE_CONST)

uint64_t aoti_torch_abi_version(void)
{
	return ABI_VERSION;
}

size_t aoti_torch_dtype_element_size(int32_t dtype)
{
	return pb_rt_dtype_size(dtype);
}

/* Of no tensor too: when its inactive buffer is updated after it was freed, a container asks this of
 * folded constants that it has given up and not computed anew (update_array() after reset() in
 * model_container.h). libtorch crashes there. */
AOTITorchError aoti_torch_get_data_ptr(AtenTensorHandle t, void **ret)
{
	*ret = t ? pb_rt_data(t) : NULL;
	return 0;
}

AOTITorchError aoti_torch_get_storage_size(AtenTensorHandle t, int64_t *ret)
{
	if (!t->storage)
		return pb_rt_fail("a tensor that is not defined has no storage");
	*ret = (int64_t)t->storage->bytes;
	return 0;
}

AOTITorchError aoti_torch_get_storage_numel(AtenTensorHandle t, int64_t *ret)
{
	if (aoti_torch_get_storage_size(t, ret))
		return 1;
	*ret /= (int64_t)pb_rt_dtype_size(t->dtype);
	return 0;
}

AOTITorchError aoti_torch_get_storage_offset(AtenTensorHandle t, int64_t *ret)
{
	*ret = t->offset;
	return 0;
}

AOTITorchError aoti_torch_get_dim(AtenTensorHandle t, int64_t *ret)
{
	*ret = t->ndim;
	return 0;
}

AOTITorchError aoti_torch_get_numel(AtenTensorHandle t, int64_t *ret)
{
	*ret = t->numel;
	return 0;
}

AOTITorchError aoti_torch_get_sizes(AtenTensorHandle t, int64_t **ret)
{
	*ret = t->sizes;
	return 0;
}

AOTITorchError aoti_torch_get_strides(AtenTensorHandle t, int64_t **ret)
{
	*ret = t->strides;
	return 0;
}

/* Negative dimensions count from the end. */
static int entry(const struct pb_rt_tensor *t, const int64_t *list, int64_t d, int64_t *ret)
{
	if (d < -t->ndim || d >= t->ndim)
		return pb_rt_fail("Dimension out of range (expected to be in range of [%d, %d], "
				  "but got %lld)",
				  -t->ndim, t->ndim - 1, (long long)d);
	*ret = list[d < 0 ? d + t->ndim : d];
	return 0;
}

AOTITorchError aoti_torch_get_size(AtenTensorHandle t, int64_t d, int64_t *ret)
{
	return entry(t, t->sizes, d, ret);
}

AOTITorchError aoti_torch_get_stride(AtenTensorHandle t, int64_t d, int64_t *ret)
{
	return entry(t, t->strides, d, ret);
}

AOTITorchError aoti_torch_get_dtype(AtenTensorHandle t, int32_t *ret)
{
	*ret = t->dtype;
	return 0;
}

AOTITorchError aoti_torch_get_device_type(AtenTensorHandle t, int32_t *ret)
{
	*ret = t->device_type;
	return 0;
}

AOTITorchError aoti_torch_get_device_index(AtenTensorHandle t, int32_t *ret)
{
	*ret = t->device_index;
	return 0;
}

AOTITorchError aoti_torch_get_layout(AtenTensorHandle t, int32_t *ret)
{
	*ret = t->layout;
	return 0;
}

AOTITorchError aoti_torch_is_contiguous(AtenTensorHandle t, bool *ret)
{
	*ret = pb_rt_is_contiguous(t);
	return 0;
}

AOTITorchError aoti_torch_is_defined(AtenTensorHandle t, bool *ret)
{
	*ret = t->storage != NULL;
	return 0;
}

/* ---- the one element ---- */

static int item(const struct pb_rt_tensor *t, void *ret, int32_t dtype)
{
	if (!t->storage || t->numel != 1)
		return pb_rt_fail("a Tensor with %lld elements cannot be converted to Scalar",
				  t->storage ? (long long)t->numel : 0);
	return pb_rt_convert(ret, dtype, 1, pb_rt_data(t), t->dtype, 1, 1);
}

#define DEFINE_ITEM(name, type, dtype)                                       \
	AOTITorchError aoti_torch_item_##name(AtenTensorHandle t, type *ret) \
	{                                                                    \
		return item(t, ret, dtype);                                  \
	}
PB_ABI_ITEMS(DEFINE_ITEM)

#define DEFINE_SCALAR(name, type, number)                                                    \
	AOTITorchError aoti_torch_scalar_to_tensor_##name(type value, AtenTensorHandle *ret) \
	{                                                                                    \
		struct pb_rt_tensor *t = pb_rt_empty(number, 0, NULL, NULL);                 \
                                                                                             \
		if (!t)                                                                      \
			return 1;                                                            \
		*(type *)pb_rt_data(t) = value;                                              \
		*ret = t;                                                                    \
		return 0;                                                                    \
	}
PB_ABI_SCALARS(DEFINE_SCALAR)
