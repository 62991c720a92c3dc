/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See opaque.h. The descriptor is the memory of oneDNN's struct dnnl_memory_desc (3.x, as in torch
 * 2.13.0: src/common/memory_desc.hpp there), followed by the number of groups, which
 * aten/src/ATen/native/mkldnn/MKLDNNCommon.cpp appends. A blocked layout is an outer array by
 * strides, whose elements are small blocks: the last dimension of a block is the innermost one.
 */
#include "runtime/opaque.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/alloc.h"
#include "runtime/hooks.h"
#include "runtime/ops/shape.h"

#define LAYOUT_MKLDNN 3
#define MD_DIMS 12
#define KIND_BLOCKED 2

struct descriptor {
	int32_t references, ndims;
	int64_t dims[MD_DIMS];
	int32_t data_type;
	int64_t padded_dims[MD_DIMS], padded_offsets[MD_DIMS], offset0;
	int32_t format_kind;
	int64_t strides[MD_DIMS];
	int32_t inner_nblks;
	int64_t inner_blks[MD_DIMS], inner_idxs[MD_DIMS];
	uint8_t union_rest[24]; /* other kinds of layout are larger */
	uint64_t extra_flags;
	int32_t compensation_mask;
	float scale_adjust;
	uint8_t rest[112];
};
_Static_assert(sizeof(struct descriptor) == 768, "the size of oneDNN's own");

/* With the number of groups, which the sizes given beside it have already. */
#define METADATA_BYTES ((int64_t)(sizeof(struct descriptor) + sizeof(int32_t)))

/* Sums of int8 weights, kept behind them: nothing that the elements depend on. */
#define EXTRA_COMPENSATION 1u
#define EXTRA_SCALE_ADJUST 2u
#define EXTRA_ASYMMETRIC 8u

static int32_t dtype_of(int32_t data_type)
{
	static const int32_t dtypes[] = {
		[1] = PB_RT_F16, [2] = PB_RT_BF16, [3] = PB_RT_F32, [4] = PB_RT_I32,
		[5] = PB_RT_I8,	 [6] = PB_RT_U8,   [7] = PB_RT_F64};

	return data_type > 0 && data_type < (int32_t)(sizeof(dtypes) / sizeof(dtypes[0]))
		       ? dtypes[data_type]
		       : -1;
}

/* Elements that the layout spans, padding included; 0 if the descriptor contradicts itself. */
static int64_t span_of(const struct descriptor *md)
{
	int64_t outer[MD_DIMS], block = 1, last = 0;

	memcpy(outer, md->padded_dims, sizeof(outer));
	for (int i = 0; i < md->inner_nblks; i++) {
		const int64_t d = md->inner_idxs[i], size = md->inner_blks[i];

		if (d < 0 || d >= md->ndims || size <= 0 || outer[d] % size ||
		    __builtin_mul_overflow(block, size, &block))
			return 0;
		outer[d] /= size;
	}
	for (int d = 0; d < md->ndims; d++) {
		int64_t reach;

		if (md->dims[d] <= 0 || md->padded_dims[d] < md->dims[d] || md->strides[d] < 0 ||
		    md->padded_offsets[d] != 0 || outer[d] <= 0 ||
		    __builtin_mul_overflow(outer[d] - 1, md->strides[d], &reach) ||
		    __builtin_add_overflow(last, reach, &last))
			return 0;
	}
	return __builtin_add_overflow(last, block, &last) ? 0 : last;
}

static int check(const struct descriptor *md, int32_t dtype, int64_t numel)
{
	const uint64_t known = EXTRA_COMPENSATION | EXTRA_SCALE_ADJUST | EXTRA_ASYMMETRIC;
	int64_t n = 1;

	if (md->format_kind != KIND_BLOCKED)
		return pb_rt_fail("a constant in a layout of oneDNN that is not blocked (kind %d): "
				  "compile without freezing",
				  md->format_kind);
	if (md->ndims < 1 || md->ndims > MD_DIMS || md->inner_nblks < 0 ||
	    md->inner_nblks > MD_DIMS || md->offset0 != 0 || span_of(md) == 0)
		return pb_rt_fail("a constant whose oneDNN descriptor contradicts itself");
	if (md->extra_flags & ~known ||
	    (md->extra_flags & EXTRA_SCALE_ADJUST && md->scale_adjust != 1))
		return pb_rt_fail("a constant that oneDNN has scaled for its own kernels (flags "
				  "%#llx): compile without freezing",
				  (unsigned long long)md->extra_flags);
	if (dtype_of(md->data_type) != dtype)
		return pb_rt_fail("a constant of %s whose oneDNN descriptor has data type %d",
				  pb_rt_dtype_name(dtype), md->data_type);
	for (int d = 0; d < md->ndims; d++)
		if (__builtin_mul_overflow(n, md->dims[d], &n))
			n = -1;
	return n == numel ? 0
			  : pb_rt_fail("a constant of %lld elements whose oneDNN descriptor has "
				       "%lld",
				       (long long)numel, (long long)n);
}

/* Where index @i along dimension @d lies: dimensions do not interact, so offsets are sums. */
static int64_t offset_along(const struct descriptor *md, int d, int64_t i)
{
	int64_t offset = 0, block = 1;

	for (int k = md->inner_nblks - 1; k >= 0; k--) {
		if (md->inner_idxs[k] == d) {
			offset += i % md->inner_blks[k] * block;
			i /= md->inner_blks[k];
		}
		block *= md->inner_blks[k];
	}
	return offset + i * md->strides[d];
}

#define GATHER(type)                    \
	for (int64_t k = 0; k < n; k++) \
	((type *)dst)[k] = ((const type *)src)[at + last[k]]

static void gather(void *dst, const void *src, int64_t at, const int64_t *last, int64_t n,
		   size_t size)
{
	if (size == 1)
		GATHER(uint8_t);
	else if (size == 2)
		GATHER(uint16_t);
	else if (size == 4)
		GATHER(uint32_t);
	else
		GATHER(uint64_t);
}

/* Row by row; @last has the offsets along the last dimension. */
static void reorder(const struct descriptor *md, const char *src, char *dst, size_t size,
		    const int64_t *last)
{
	const int nd = md->ndims;
	int64_t at[MD_DIMS] = {0}, rows = 1;

	for (int d = 0; d < nd - 1; d++)
		rows *= md->dims[d];
	for (int64_t r = 0; r < rows; r++) {
		int64_t offset = 0;

		for (int d = 0; d < nd - 1; d++)
			offset += offset_along(md, d, at[d]);
		gather(dst, src, offset, last, md->dims[nd - 1], size);
		dst += md->dims[nd - 1] * (int64_t)size;
		for (int d = nd - 2; d >= 0 && ++at[d] == md->dims[d]; d--)
			at[d] = 0;
	}
}

static void *plain_copy(const struct descriptor *md, const void *data, size_t size, uint64_t bytes)
{
	const int64_t n = md->dims[md->ndims - 1];
	int64_t *last = pb_rt_scratch((size_t)n * sizeof(*last));
	void *dst = NULL;

	if (last && pb_rt_memory_charge(bytes)) {
		dst = aligned_alloc(PB_RT_ALIGN,
				    (bytes + PB_RT_ALIGN - 1) & ~(uint64_t)(PB_RT_ALIGN - 1));
		if (!dst) {
			pb_rt_memory_uncharge(bytes);
			pb_rt_memory_refuse(bytes);
		}
	}
	if (dst) {
		for (int64_t k = 0; k < n; k++)
			last[k] = offset_along(md, md->ndims - 1, k);
		reorder(md, data, dst, size, last);
	}
	if (last)
		pb_rt_scratch_free(last);
	return dst;
}

struct pb_rt_tensor *pb_rt_from_opaque(const void *data, int32_t dtype, int64_t ndim,
				       const int64_t *sizes, const uint8_t *metadata,
				       int64_t metadata_bytes)
{
	const size_t size = pb_rt_dtype_size(dtype);
	struct descriptor md;
	struct pb_rt_tensor *t;
	int64_t numel = 1;
	void *plain;

	if (!metadata || metadata_bytes != METADATA_BYTES) {
		pb_rt_fail("a constant in oneDNN's own layout with a descriptor of %lld bytes; "
			   "known are those of torch 2.13 with %lld: compile without freezing",
			   (long long)metadata_bytes, (long long)METADATA_BYTES);
		return NULL;
	}
	memcpy(&md, metadata, sizeof(md));
	for (int64_t d = 0; d < ndim; d++)
		if (sizes[d] < 0 || __builtin_mul_overflow(numel, sizes[d], &numel)) {
			pb_rt_fail("a constant in oneDNN's own layout of impossible size");
			return NULL;
		}
	if (!data || check(&md, dtype, numel))
		return NULL;
	plain = plain_copy(&md, data, size, (uint64_t)numel * size);
	if (!plain)
		return NULL;
	t = pb_rt_from_blob(plain, dtype, ndim, sizes, NULL, 0);
	if (!t)
		return NULL;
	t->layout = LAYOUT_MKLDNN;
	/* Without the promise it is only slower. */
	if (pb_rt_add_constants(plain, (uint64_t)numel * size))
		pb_rt_clear_error();
	return t;
}
