/* SPDX-License-Identifier: Apache-2.0 */
/* Strides: which ones a package takes, and copies between any two sets of them. */
#include <string.h>

#include "client/internal.h"

void pb_strides_contiguous(int32_t ndim, const int64_t *sizes, int64_t *ret)
{
	uint64_t s = 1;

	/* Unsigned: a product that overflows is found by who computes the extent. */
	for (int32_t i = ndim - 1; i >= 0; i--) {
		ret[i] = (int64_t)(s & INT64_MAX);
		s *= sizes[i] > 1 ? (uint64_t)sizes[i] : 1;
	}
}

bool pb_strides_wanted(const struct pb_sig_input *s, int32_t ndim, const int64_t *sizes,
		       int64_t *ret)
{
	uint64_t run = 1;

	if (s->ndim != ndim)
		return false;
	/* A dynamic stride follows from the sizes to its right, as the worker reckons too. */
	for (int32_t i = ndim - 1; i >= 0; i--) {
		ret[i] = s->dims[i].stride >= 0 ? s->dims[i].stride : (int64_t)(run & INT64_MAX);
		run = (uint64_t)ret[i] * (sizes[i] > 0 ? (uint64_t)sizes[i] : 1);
	}
	return true;
}

bool pb_strides_equal(int32_t ndim, const int64_t *sizes, const int64_t *a, const int64_t *b)
{
	for (int32_t i = 0; i < ndim; i++)
		if (sizes[i] == 0)
			return true;
	for (int32_t i = 0; i < ndim; i++)
		if (sizes[i] > 1 && a[i] != b[i])
			return false;
	return true;
}

struct dim {
	int64_t n, dst, src; /* strides in elements */
};

/* Dimensions of one element left out, those that follow each other on both sides joined. */
static int32_t collapse(int32_t ndim, const int64_t *sizes, const int64_t *dst, const int64_t *src,
			struct dim *d)
{
	int32_t k = 0;

	for (int32_t i = 0; i < ndim; i++) {
		if (sizes[i] == 1)
			continue;
		if (k && d[k - 1].dst == dst[i] * sizes[i] && d[k - 1].src == src[i] * sizes[i])
			d[k - 1] = (struct dim){d[k - 1].n * sizes[i], dst[i], src[i]};
		else
			d[k++] = (struct dim){sizes[i], dst[i], src[i]};
	}
	return k;
}

#define COPY_ROW(type)                                              \
	do {                                                        \
		type *to = (type *)(void *)dst;                     \
		const type *from = (const type *)(const void *)src; \
		for (int64_t i = 0; i < d->n; i++)                  \
			to[i * d->dst] = from[i * d->src];          \
		return;                                             \
	} while (0)

/* Element types of any alignment, as data from outside may be. */
typedef uint16_t u16 __attribute__((aligned(1), may_alias));
typedef uint32_t u32 __attribute__((aligned(1), may_alias));
typedef uint64_t u64 __attribute__((aligned(1), may_alias));
typedef struct {
	uint64_t a, b;
} __attribute__((packed, may_alias)) u128;

static void copy_row(const struct dim *d, size_t elem, uint8_t *dst, const uint8_t *src)
{
	if (d->dst == 1 && d->src == 1) {
		memcpy(dst, src, (size_t)d->n * elem);
		return;
	}
	switch (elem) {
	case 1:
		COPY_ROW(uint8_t);
	case 2:
		COPY_ROW(u16);
	case 4:
		COPY_ROW(u32);
	case 8:
		COPY_ROW(u64);
	default:
		COPY_ROW(u128);
	}
}

#define TILE 32

static int64_t at_most_tile(int64_t n)
{
	return n < TILE ? n : TILE;
}

/* Rows of one side are columns of the other: in tiles, or each element costs a line of the cache. */
static void copy_turned(const struct dim *d, size_t elem, uint8_t *dst, const uint8_t *src)
{
	for (int64_t i = 0; i < d[0].n; i += TILE)
		for (int64_t j = 0; j < d[1].n; j += TILE) {
			const struct dim tile[2] = {{at_most_tile(d[0].n - i), d[0].dst, d[0].src},
						    {at_most_tile(d[1].n - j), d[1].dst, d[1].src}};

			for (int64_t k = i; k < i + tile[0].n; k++)
				copy_row(&tile[1], elem, dst + (size_t)(k * d[0].dst + j * d[1].dst) * elem,
					 src + (size_t)(k * d[0].src + j * d[1].src) * elem);
		}
}

static void copy_dims(const struct dim *d, int32_t n, size_t elem, uint8_t *dst, const uint8_t *src)
{
	if (n == 1) {
		copy_row(d, elem, dst, src);
		return;
	}
	if (n == 2 && (d[0].src < d[1].src) != (d[0].dst < d[1].dst)) {
		copy_turned(d, elem, dst, src);
		return;
	}
	for (int64_t i = 0; i < d->n; i++)
		copy_dims(d + 1, n - 1, elem, dst + (size_t)(i * d->dst) * elem,
			  src + (size_t)(i * d->src) * elem);
}

void pb_copy_strided(int32_t ndim, const int64_t *sizes, size_t elem, void *dst,
		     const int64_t *dst_strides, const void *src, const int64_t *src_strides)
{
	struct dim d[PT2BOX_MAX_DIMS];
	int32_t n;

	for (int32_t i = 0; i < ndim; i++)
		if (sizes[i] == 0)
			return;
	n = collapse(ndim, sizes, dst_strides, src_strides, d);
	if (n == 0)
		memcpy(dst, src, elem);
	else
		copy_dims(d, n, elem, dst, src);
}
