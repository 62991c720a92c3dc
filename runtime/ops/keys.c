/* SPDX-License-Identifier: Apache-2.0 */
/* Keys that order elements, and the stable sort by them; see select.h. */
#include <string.h>

#include "runtime/convert.h"
#include "runtime/ops/layout.h"
#include "runtime/ops/select.h"

#define INSERTION_MAX 48

bool pb_has_order(int32_t dtype)
{
	return dtype <= PB_RT_I64 || dtype == PB_RT_BOOL || pb_is_float(dtype) ||
	       dtype == PB_RT_U16 || dtype == PB_RT_U32 || dtype == PB_RT_U64;
}

static uint64_t float_key(uint32_t bits)
{
	if ((bits & 0x7fffffff) > 0x7f800000)
		return UINT32_MAX;
	if (bits == 0x80000000)
		bits = 0;
	return bits & 0x80000000 ? (uint32_t)~bits : bits | 0x80000000;
}

static uint64_t double_key(uint64_t bits)
{
	const uint64_t sign = 1ull << 63;

	if ((bits & ~sign) > 0x7ff0000000000000ull)
		return UINT64_MAX;
	if (bits == sign)
		bits = 0;
	return bits & sign ? ~bits : bits | sign;
}

/* Keys have 32 significant bits, or 64 for the widest types. */
static bool is_wide(int32_t dtype)
{
	return dtype == PB_RT_I64 || dtype == PB_RT_U64 || dtype == PB_RT_F64;
}

uint64_t pb_nan_key(int32_t dtype)
{
	return is_wide(dtype) ? UINT64_MAX : UINT32_MAX;
}

union block {
	int64_t i[PB_CONVERT_BLOCK];
	uint64_t bits64[PB_CONVERT_BLOCK];
	uint32_t bits32[PB_CONVERT_BLOCK];
};

static void block_keys(struct pb_item *items, const union block *b, int32_t dtype, int64_t n)
{
	if (dtype == PB_RT_F64)
		for (int64_t i = 0; i < n; i++)
			items[i].key = double_key(b->bits64[i]);
	else if (pb_is_float(dtype))
		for (int64_t i = 0; i < n; i++)
			items[i].key = float_key(b->bits32[i]);
	else if (dtype == PB_RT_I64)
		for (int64_t i = 0; i < n; i++)
			items[i].key = b->bits64[i] ^ (1ull << 63);
	else if (dtype == PB_RT_U64 || dtype == PB_RT_U32)
		for (int64_t i = 0; i < n; i++)
			items[i].key = b->bits64[i];
	else
		for (int64_t i = 0; i < n; i++)
			items[i].key = (uint64_t)(b->i[i] + INT64_C(0x80000000));
}

void pb_items_of(struct pb_item *items, const void *line, int32_t dtype, int64_t stride, int64_t n,
		 bool descending)
{
	const int64_t step = stride * (int64_t)pb_rt_dtype_size(dtype);
	const int32_t wide = dtype == PB_RT_F64 || dtype == PB_RT_U64 ? dtype
			     : pb_is_float(dtype)		      ? PB_RT_F32
								      : PB_RT_I64;
	const uint64_t flip = !descending ? 0 : pb_nan_key(dtype);
	union block b;

	for (int64_t i = 0; i < n; i += PB_CONVERT_BLOCK) {
		const int64_t m = n - i < PB_CONVERT_BLOCK ? n - i : PB_CONVERT_BLOCK;

		(void)pb_rt_convert(&b, wide, 1, (const char *)line + i * step, dtype, stride, m);
		block_keys(items + i, &b, dtype, m);
		for (int64_t k = i; k < i + m; k++) {
			items[k].key ^= flip;
			items[k].at = k;
		}
	}
}

/* ---- stable sort ---- */

static void insertion(struct pb_item *v, int64_t n)
{
	for (int64_t i = 1; i < n; i++) {
		const struct pb_item x = v[i];
		int64_t k = i;

		for (; k > 0 && x.key < v[k - 1].key; k--)
			v[k] = v[k - 1];
		v[k] = x;
	}
}

/* By the byte at @shift; false if it is the same in all. */
static bool radix_pass(struct pb_item *dst, const struct pb_item *src, int64_t n, int shift)
{
	int64_t count[256] = {0}, at = 0;

	for (int64_t i = 0; i < n; i++)
		count[src[i].key >> shift & 255]++;
	if (count[src[0].key >> shift & 255] == n)
		return false;
	for (int i = 0; i < 256; i++) {
		const int64_t c = count[i];

		count[i] = at;
		at += c;
	}
	for (int64_t i = 0; i < n; i++)
		dst[count[src[i].key >> shift & 255]++] = src[i];
	return true;
}

void pb_items_sort(struct pb_item *items, struct pb_item *tmp, int64_t n, int32_t dtype)
{
	struct pb_item *from = items, *to = tmp;
	const int bits = is_wide(dtype) ? 64 : 32;

	if (n <= INSERTION_MAX) {
		insertion(items, n);
		return;
	}
	for (int shift = 0; shift < bits; shift += 8) {
		if (radix_pass(to, from, n, shift)) {
			struct pb_item *t = from;

			from = to;
			to = t;
		}
	}
	if (from != items)
		memcpy(items, from, (size_t)n * sizeof(*items));
}
