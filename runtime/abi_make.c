/* SPDX-License-Identifier: Apache-2.0 */
/* Handles of the C ABI: made, shared, assigned, ended. */
#include <string.h>

#include "runtime/abi.h"
#include "runtime/opaque.h"
#include "runtime/tensor.h"

static AOTITorchError made(struct pb_rt_tensor *t, AtenTensorHandle *ret)
{
	if (!t)
		return 1;
	*ret = t;
	return 0;
}

/* The index may be anything: for a CPU it means nothing. */
static int check_cpu(int32_t device_type)
{
	return device_type == 0 ? 0 : pb_rt_fail("device type %d is not the CPU", device_type);
}

AOTITorchError aoti_torch_delete_tensor_object(AtenTensorHandle t)
{
	pb_rt_delete(t);
	return 0;
}

AOTITorchError aoti_torch_new_uninitialized_tensor(AtenTensorHandle *ret)
{
	return made(pb_rt_uninitialized(), ret);
}

AOTITorchError aoti_torch_new_tensor_handle(AtenTensorHandle t, AtenTensorHandle *ret)
{
	struct pb_rt_tensor *n = pb_rt_uninitialized();

	if (n)
		pb_rt_assign(n, t);
	return made(n, ret);
}

AOTITorchError aoti_torch_assign_tensors_out(AtenTensorHandle src, AtenTensorHandle *ret)
{
	return aoti_torch_new_tensor_handle(src, ret);
}

AOTITorchError aoti_torch_assign_tensors(AtenTensorHandle src, AtenTensorHandle dst)
{
	pb_rt_assign(dst, src);
	return 0;
}

/* In spite of its name no copy of the contents. */
AOTITorchError aoti_torch_tensor_copy_(AtenTensorHandle src, AtenTensorHandle dst)
{
	return aoti_torch_assign_tensors(src, dst);
}

AOTITorchError aoti_torch_empty_strided(int64_t ndim, const int64_t *sizes, const int64_t *strides,
					int32_t dtype, int32_t device_type, int32_t device_index,
					AtenTensorHandle *ret)
{
	(void)device_index;
	return check_cpu(device_type) ? 1 : made(pb_rt_empty(dtype, ndim, sizes, strides), ret);
}

/* Pinning serves copies to a GPU; without one it is plain memory. */
AOTITorchError aoti_torch_empty_strided_pinned(int64_t ndim, const int64_t *sizes,
					       const int64_t *strides, int32_t dtype,
					       int32_t device_type, int32_t device_index,
					       AtenTensorHandle *ret)
{
	return aoti_torch_empty_strided(ndim, sizes, strides, dtype, device_type, device_index,
					ret);
}

AOTITorchError aoti_torch_create_tensor_from_blob(void *data, int64_t ndim, const int64_t *sizes,
						  const int64_t *strides, int64_t offset,
						  int32_t dtype, int32_t device_type,
						  int32_t device_index, AtenTensorHandle *ret)
{
	(void)device_index;
	return check_cpu(device_type)
		       ? 1
		       : made(pb_rt_from_blob(data, dtype, ndim, sizes, strides, offset), ret);
}

AOTITorchError aoti_torch_create_tensor_from_blob_v2(void *data, int64_t ndim, const int64_t *sizes,
						     const int64_t *strides, int64_t offset,
						     int32_t dtype, int32_t device_type,
						     int32_t device_index, AtenTensorHandle *ret,
						     int32_t layout, const uint8_t *opaque_metadata,
						     int64_t opaque_metadata_size)
{
	if (layout == aoti_torch_layout__mkldnn())
		return check_cpu(device_type)
			       ? 1
			       : made(pb_rt_from_opaque(
					      (const char *)data +
						      offset * (int64_t)pb_rt_dtype_size(dtype),
					      dtype, ndim, sizes, opaque_metadata,
					      opaque_metadata_size),
				      ret);
	if (layout != aoti_torch_layout_strided())
		return pb_rt_fail("a tensor of layout %d; only strided ones are supported", layout);
	return aoti_torch_create_tensor_from_blob(data, ndim, sizes, strides, offset, dtype,
						  device_type, device_index, ret);
}

/* ---- views ---- */

AOTITorchError aoti_torch__alloc_from_pool(AtenTensorHandle t, int64_t offset_bytes, int32_t dtype,
					   int64_t ndim, const int64_t *sizes,
					   const int64_t *strides, AtenTensorHandle *ret)
{
	const int64_t size = (int64_t)pb_rt_dtype_size(dtype);

	if (t->offset != 0 || size == 0 || offset_bytes % size)
		return pb_rt_fail(
			"a pool must begin at its storage, and offsets in it be whole elements");
	return made(pb_rt_view(t, dtype, ndim, sizes, strides, offset_bytes / size), ret);
}

AOTITorchError aoti_torch__reinterpret_tensor(AtenTensorHandle t, int64_t ndim,
					      const int64_t *sizes, const int64_t *strides,
					      int64_t offset, AtenTensorHandle *ret)
{
	return made(pb_rt_alias(t, ndim, sizes, strides, t->offset + offset), ret);
}

/* Unlike _reinterpret_tensor this is checked against the storage, as in PyTorch. */
AOTITorchError aoti_torch_as_strided(AtenTensorHandle t, const int64_t *sizes,
				     const int64_t *strides, AtenTensorHandle *ret)
{
	struct pb_rt_tensor *v = pb_rt_alias(t, t->ndim, sizes, strides, t->offset);
	uint64_t bytes;

	if (!v)
		return 1;
	if (!pb_rt_extent_bytes(v, v->offset, &bytes) && bytes <= v->storage->bytes)
		return made(v, ret);
	pb_rt_fail("as_strided: the view is out of bounds for storage of size %llu",
		   (unsigned long long)v->storage->bytes);
	pb_rt_delete(v);
	return 1;
}

/* To a smaller type: the last dimension grows. */
static int view_smaller(AtenTensorHandle t, int32_t dtype, int64_t ratio, AtenTensorHandle *ret)
{
	int64_t strides[PB_RT_MAX_DIMS], sizes[PB_RT_MAX_DIMS];

	for (int i = 0; i < t->ndim; i++) {
		sizes[i] = t->sizes[i];
		strides[i] = t->strides[i] * ratio;
	}
	if (t->ndim == 0 || t->strides[t->ndim - 1] != 1)
		return pb_rt_fail("view: the last dimension must have stride 1 to view %s as %s",
				  pb_rt_dtype_name(t->dtype), pb_rt_dtype_name(dtype));
	sizes[t->ndim - 1] *= ratio;
	strides[t->ndim - 1] = 1;
	return made(pb_rt_view(t, dtype, t->ndim, sizes, strides, t->offset * ratio), ret);
}

static int view_larger(AtenTensorHandle t, int32_t dtype, int64_t ratio, AtenTensorHandle *ret)
{
	const int last = t->ndim - 1;
	int64_t strides[PB_RT_MAX_DIMS], sizes[PB_RT_MAX_DIMS];

	if (t->ndim == 0 || t->strides[last] != 1 || t->sizes[last] % ratio || t->offset % ratio)
		return pb_rt_fail("view: the last dimension does not fit to view %s as %s",
				  pb_rt_dtype_name(t->dtype), pb_rt_dtype_name(dtype));
	for (int i = 0; i < t->ndim; i++) {
		sizes[i] = t->sizes[i];
		strides[i] = t->strides[i] / ratio;
		if (i != last && t->strides[i] % ratio)
			return pb_rt_fail("view: the strides do not fit to view %s as %s",
					  pb_rt_dtype_name(t->dtype), pb_rt_dtype_name(dtype));
	}
	sizes[last] /= ratio;
	strides[last] = 1;
	return made(pb_rt_view(t, dtype, t->ndim, sizes, strides, t->offset / ratio), ret);
}

AOTITorchError aoti_torch_view_dtype(AtenTensorHandle t, int32_t dtype, AtenTensorHandle *ret)
{
	const int64_t from = (int64_t)pb_rt_dtype_size(t->dtype),
		      to = (int64_t)pb_rt_dtype_size(dtype);

	if (to == 0 || from == to)
		return made(pb_rt_view(t, dtype, t->ndim, t->sizes, t->strides, t->offset), ret);
	return from > to ? view_smaller(t, dtype, from / to, ret)
			 : view_larger(t, dtype, to / from, ret);
}

AOTITorchError aoti_torch_view_as_real(AtenTensorHandle t, AtenTensorHandle *ret)
{
	const int32_t dtype = t->dtype == PB_RT_C32   ? PB_RT_F16
			      : t->dtype == PB_RT_C64 ? PB_RT_F32
						      : PB_RT_F64;
	int64_t sizes[PB_RT_MAX_DIMS + 1], strides[PB_RT_MAX_DIMS + 1];

	if (t->dtype < PB_RT_C32 || t->dtype > PB_RT_C128)
		return pb_rt_fail("view_as_real is only supported for complex tensors");
	for (int i = 0; i < t->ndim; i++) {
		sizes[i] = t->sizes[i];
		strides[i] = t->strides[i] * 2;
	}
	sizes[t->ndim] = 2;
	strides[t->ndim] = 1;
	return made(pb_rt_view(t, dtype, t->ndim + 1, sizes, strides, t->offset * 2), ret);
}

/* ---- copies ---- */

/*
 * Strides of a clone: those of @t if it is dense and does not overlap itself; else dense ones with
 * its order of dimensions.
 */
static void preserved_strides(const struct pb_rt_tensor *t, int64_t *strides)
{
	int order[PB_RT_MAX_DIMS];
	int64_t step = 1;

	for (int i = 0; i < t->ndim; i++) {
		const int d = t->ndim - 1 - i;
		int k = i;

		/* Innermost first; equal strides, as of broadcast dimensions, keep the order of the
		 * dimensions. */
		for (; k > 0 && t->strides[order[k - 1]] > t->strides[d]; k--)
			order[k] = order[k - 1];
		order[k] = d;
	}
	for (int i = 0; i < t->ndim; i++) {
		strides[order[i]] = step;
		step *= t->sizes[order[i]] > 1 ? t->sizes[order[i]] : 1;
	}
}

static bool is_dense(const struct pb_rt_tensor *t, const int64_t *dense)
{
	for (int i = 0; i < t->ndim; i++)
		if (t->sizes[i] > 1 && t->strides[i] != dense[i])
			return false;
	return true;
}

static AOTITorchError filled(struct pb_rt_tensor *c, const struct pb_rt_tensor *t,
			     AtenTensorHandle *ret)
{
	if (!c)
		return 1;
	if (pb_rt_copy(c, t)) {
		pb_rt_delete(c);
		return 1;
	}
	*ret = c;
	return 0;
}

AOTITorchError aoti_torch_clone(AtenTensorHandle t, AtenTensorHandle *ret)
{
	int64_t strides[PB_RT_MAX_DIMS];

	if (!t->storage)
		return pb_rt_fail("a clone of a tensor that is not defined");
	preserved_strides(t, strides);
	return filled(pb_rt_empty(t->dtype, t->ndim, t->sizes,
				  is_dense(t, strides) ? t->strides : strides),
		      t, ret);
}

/* All memory that the tensor reaches over, also what lies between its elements. */
AOTITorchError aoti_torch_clone_preserve_strides(AtenTensorHandle t, AtenTensorHandle *ret)
{
	struct pb_rt_tensor *c;
	uint64_t bytes;

	if (!t->storage)
		return pb_rt_fail("a clone of a tensor that is not defined");
	if (pb_rt_extent_bytes(t, 0, &bytes))
		return 1;
	c = pb_rt_empty(t->dtype, t->ndim, t->sizes, t->strides);
	if (c && bytes)
		memcpy(c->storage->base, pb_rt_data(t), bytes);
	return made(c, ret);
}

AOTITorchError aoti_torch_copy_(AtenTensorHandle self, AtenTensorHandle src, int32_t non_blocking)
{
	(void)non_blocking;
	return pb_rt_copy(self, src);
}
