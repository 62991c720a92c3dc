/* SPDX-License-Identifier: Apache-2.0 */
/* Tensor headers: making them from sizes and strides that may be wrong, sharing storages, comparing
 * layouts. */
#include "runtime/tensor.h"

#include <string.h>

#include "runtime/alloc.h"
#include "runtime/storage.h"

struct dtype_row {
	uint8_t size;
	const char *name;
};

static const struct dtype_row dtypes[] = {
	[PB_RT_U8] = {1, "uint8"},
	[PB_RT_I8] = {1, "int8"},
	[PB_RT_I16] = {2, "int16"},
	[PB_RT_I32] = {4, "int32"},
	[PB_RT_I64] = {8, "int64"},
	[PB_RT_F16] = {2, "float16"},
	[PB_RT_F32] = {4, "float32"},
	[PB_RT_F64] = {8, "float64"},
	[PB_RT_C32] = {4, "complex32"},
	[PB_RT_C64] = {8, "complex64"},
	[PB_RT_C128] = {16, "complex128"},
	[PB_RT_BOOL] = {1, "bool"},
	[PB_RT_BF16] = {2, "bfloat16"},
	[PB_RT_F8_E5M2] = {1, "float8_e5m2"},
	[PB_RT_F8_E4M3FN] = {1, "float8_e4m3fn"},
	[PB_RT_F8_E5M2FNUZ] = {1, "float8_e5m2fnuz"},
	[PB_RT_F8_E4M3FNUZ] = {1, "float8_e4m3fnuz"},
	[PB_RT_U16] = {2, "uint16"},
	[PB_RT_U32] = {4, "uint32"},
	[PB_RT_U64] = {8, "uint64"},
	[PB_RT_F8_E8M0FNU] = {1, "float8_e8m0fnu"},
	[PB_RT_F4X2] = {1, "float4_e2m1fn_x2"},
};
#define N_DTYPES ((int32_t)(sizeof(dtypes) / sizeof(dtypes[0])))

size_t pb_rt_dtype_size(int32_t dtype)
{
	return dtype >= 0 && dtype < N_DTYPES ? dtypes[dtype].size : 0;
}

const char *pb_rt_dtype_name(int32_t dtype)
{
	return dtype >= 0 && dtype < N_DTYPES && dtypes[dtype].name ? dtypes[dtype].name : "?";
}

/* Fills dtype, sizes, strides and numel; 0, or 1 with the error set. The storage and the rest are
 * the caller's. */
static int set_layout(struct pb_rt_tensor *t, int32_t dtype, int64_t ndim, const int64_t *sizes,
		      const int64_t *strides)
{
	int64_t numel = 1;

	if (ndim < 0 || ndim > PB_RT_MAX_DIMS)
		return pb_rt_fail("a tensor of %lld dimensions; at most %d are supported",
				  (long long)ndim, PB_RT_MAX_DIMS);
	if (!pb_rt_dtype_size(dtype))
		return pb_rt_fail("dtype number %d is not supported", dtype);
	t->dtype = dtype;
	t->ndim = (int32_t)ndim;
	for (int i = 0; i < PB_RT_MAX_DIMS; i++)
		t->sizes[i] = t->strides[i] = 1;
	for (int64_t i = ndim - 1; i >= 0; i--) {
		if (sizes[i] < 0)
			return pb_rt_fail("a tensor with a negative size, %lld, in dimension %lld",
					  (long long)sizes[i], (long long)i);
		if (strides && strides[i] < 0)
			return pb_rt_fail(
				"a tensor with a negative stride, %lld, in dimension %lld",
				(long long)strides[i], (long long)i);
		t->sizes[i] = sizes[i];
		t->strides[i] = strides ? strides[i] : 1;
	}
	for (int64_t i = 0; i < ndim; i++)
		if (sizes[i] == 0)
			numel = 0;
	for (int64_t i = 0; i < ndim; i++)
		if (__builtin_mul_overflow(numel, sizes[i], &numel))
			return pb_rt_fail("a tensor with more elements than can be counted");
	t->numel = numel;
	for (int64_t i = ndim - 1, step = 1; !strides && i >= 0; i--) {
		t->strides[i] = step;
		/* As PyTorch does: a zero size counts as one here. */
		if (__builtin_mul_overflow(step, sizes[i] > 1 ? sizes[i] : 1, &step))
			return pb_rt_fail("a tensor with more elements than can be counted");
	}
	return 0;
}

int pb_rt_extent_bytes(const struct pb_rt_tensor *t, int64_t offset, uint64_t *ret_bytes)
{
	uint64_t last = (uint64_t)offset;

	*ret_bytes = 0;
	if (t->numel == 0)
		return 0;
	for (int i = 0; i < t->ndim; i++) {
		uint64_t reach;

		if (__builtin_mul_overflow((uint64_t)t->sizes[i] - 1, (uint64_t)t->strides[i],
					   &reach) ||
		    __builtin_add_overflow(last, reach, &last))
			return pb_rt_fail(
				"the strides of a tensor reach further than can be addressed");
	}
	if (__builtin_add_overflow(last, 1, &last) ||
	    __builtin_mul_overflow(last, pb_rt_dtype_size(t->dtype), ret_bytes) ||
	    *ret_bytes > INT64_MAX)
		return pb_rt_fail("the strides of a tensor reach further than can be addressed");
	return 0;
}

struct pb_rt_tensor *pb_rt_uninitialized(void)
{
	struct pb_rt_tensor *t = pb_rt_header_new();

	if (!t)
		return NULL;
	t->storage = NULL;
	t->offset = 0;
	t->layout = 0;
	t->device_type = 0;
	t->device_index = -1;
	(void)set_layout(t, PB_RT_F32, 1, (int64_t[]){0}, NULL);
	return t;
}

/* A header with everything but the storage; NULL with the error set. */
static struct pb_rt_tensor *header(int32_t dtype, int64_t ndim, const int64_t *sizes,
				   const int64_t *strides, int64_t offset)
{
	struct pb_rt_tensor *t = pb_rt_header_new();

	if (!t)
		return NULL;
	if (set_layout(t, dtype, ndim, sizes, strides)) {
		pb_rt_header_free(t);
		return NULL;
	}
	t->storage = NULL;
	t->offset = offset;
	t->layout = 0;
	t->device_type = 0;
	t->device_index = -1;
	return t;
}

struct pb_rt_tensor *pb_rt_empty(int32_t dtype, int64_t ndim, const int64_t *sizes,
				 const int64_t *strides)
{
	struct pb_rt_tensor *t = header(dtype, ndim, sizes, strides, 0);
	uint64_t bytes;

	if (!t)
		return NULL;
	if (!pb_rt_extent_bytes(t, 0, &bytes))
		t->storage = pb_rt_storage_new(bytes);
	if (!t->storage) {
		pb_rt_header_free(t);
		return NULL;
	}
	return t;
}

struct pb_rt_tensor *pb_rt_from_blob(void *data, int32_t dtype, int64_t ndim, const int64_t *sizes,
				     const int64_t *strides, int64_t offset)
{
	struct pb_rt_tensor *t;
	uint64_t bytes;

	if (offset < 0) {
		pb_rt_fail("a tensor with a negative offset, %lld", (long long)offset);
		return NULL;
	}
	t = header(dtype, ndim, sizes, strides, offset);
	if (!t)
		return NULL;
	if (!pb_rt_extent_bytes(t, offset, &bytes)) {
		if (bytes && !data)
			pb_rt_fail("no memory was given for a tensor of %lld elements",
				   (long long)t->numel);
		else
			t->storage = pb_rt_storage_borrow(data, bytes);
	}
	if (!t->storage) {
		pb_rt_header_free(t);
		return NULL;
	}
	return t;
}

struct pb_rt_tensor *pb_rt_view(const struct pb_rt_tensor *src, int32_t dtype, int64_t ndim,
				const int64_t *sizes, const int64_t *strides, int64_t offset)
{
	struct pb_rt_tensor *t;

	if (!src->storage || offset < 0) {
		pb_rt_fail(src->storage ? "a view with a negative offset"
					: "a view of a tensor that is not defined");
		return NULL;
	}
	t = header(dtype, ndim, sizes, strides, offset);
	if (!t)
		return NULL;
	t->storage = src->storage;
	t->storage->refs++;
	t->device_type = src->device_type;
	t->device_index = src->device_index;
	return t;
}

struct pb_rt_tensor *pb_rt_alias(const struct pb_rt_tensor *src, int64_t ndim, const int64_t *sizes,
				 const int64_t *strides, int64_t offset)
{
	return pb_rt_view(src, src->dtype, ndim, sizes, strides, offset);
}

void pb_rt_delete(struct pb_rt_tensor *t)
{
	if (!t)
		return;
	pb_rt_storage_unref(t->storage);
	pb_rt_header_free(t);
}

void pb_rt_assign(struct pb_rt_tensor *dst, const struct pb_rt_tensor *src)
{
	struct pb_rt_storage *old = dst->storage;

	if (dst == src)
		return;
	if (src->storage)
		src->storage->refs++;
	*dst = *src;
	pb_rt_storage_unref(old);
}

bool pb_rt_is_contiguous(const struct pb_rt_tensor *t)
{
	int64_t step = 1;

	if (t->numel == 0)
		return true;
	for (int i = t->ndim - 1; i >= 0; i--) {
		if (t->sizes[i] == 1)
			continue;
		if (t->strides[i] != step)
			return false;
		step *= t->sizes[i];
	}
	return true;
}

struct pb_rt_tensor *pb_rt_contiguous(const struct pb_rt_tensor *t)
{
	struct pb_rt_tensor *c;

	/* New strides: dimensions of one element may have had any. */
	if (pb_rt_is_contiguous(t))
		return pb_rt_alias(t, t->ndim, t->sizes, NULL, t->offset);
	c = pb_rt_empty(t->dtype, t->ndim, t->sizes, NULL);
	if (c && pb_rt_copy(c, t)) {
		pb_rt_delete(c);
		return NULL;
	}
	return c;
}
