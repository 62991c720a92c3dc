/* SPDX-License-Identifier: Apache-2.0 */
/* Checked arithmetic on numbers that came from outside. Header only. */
#ifndef PT2BOX_IPC_CHECKED_H
#define PT2BOX_IPC_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

static inline bool pb_add_u64(uint64_t a, uint64_t b, uint64_t *ret)
{
	return !__builtin_add_overflow(a, b, ret);
}

static inline bool pb_mul_u64(uint64_t a, uint64_t b, uint64_t *ret)
{
	return !__builtin_mul_overflow(a, b, ret);
}

/* [offset, offset + len) lies inside [0, total). */
static inline bool pb_span_fits(uint64_t offset, uint64_t len, uint64_t total)
{
	return offset <= total && len <= total - offset;
}

/* Round up to a multiple of @align, a power of two; false on overflow. */
static inline bool pb_align_u64(uint64_t v, uint64_t align, uint64_t *ret)
{
	if (!pb_add_u64(v, align - 1, ret))
		return false;
	*ret &= ~(align - 1);
	return true;
}

/*
 * Bytes spanned by a strided tensor from element 0 on: (1 + sum((size - 1) * stride)) * elem. 0 if any size is 0.
 * false: negative size or stride, or overflow.
 */
static inline bool pb_tensor_extent(int32_t ndim, const int64_t *sizes, const int64_t *strides, uint64_t elem,
				    uint64_t *ret)
{
	uint64_t last = 0, part;
	bool empty = false;

	for (int32_t i = 0; i < ndim; i++) {
		if (sizes[i] < 0 || strides[i] < 0)
			return false;
		empty |= sizes[i] == 0;
	}
	if (empty) {
		*ret = 0;
		return true;
	}
	for (int32_t i = 0; i < ndim; i++) {
		if (!pb_mul_u64((uint64_t)sizes[i] - 1, (uint64_t)strides[i], &part) || !pb_add_u64(last, part, &last))
			return false;
	}
	return pb_add_u64(last, 1, &last) && pb_mul_u64(last, elem, ret);
}

#endif
