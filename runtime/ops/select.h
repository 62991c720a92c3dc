/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ordering of elements, whatever their dtype: each becomes a 64-bit key such that keys compare as
 * PyTorch compares the elements (NaN above everything, -0 equal to 0, descending by complement).
 * Selection follows libstdc++'s algorithms step by step, because topk's order among equals is
 * theirs.
 */
#ifndef PT2BOX_RUNTIME_OPS_SELECT_H
#define PT2BOX_RUNTIME_OPS_SELECT_H

#include "runtime/tensor.h"

struct pb_item {
	uint64_t key;
	int64_t at;
};

/* False for dtypes that have no order here (complex, float8). */
bool pb_has_order(int32_t dtype);
/* Keys of a line of @n elements and positions 0 .. n - 1. */
void pb_items_of(struct pb_item *items, const void *line, int32_t dtype, int64_t stride, int64_t n,
		 bool descending);
/* All keys NaN's: where a line has NaN, its key is this one or above (below, if descending). */
uint64_t pb_nan_key(int32_t dtype);

/* Stable; @tmp has room for @n items. */
void pb_items_sort(struct pb_item *items, struct pb_item *tmp, int64_t n, int32_t dtype);
/* std::partial_sort, std::nth_element, std::sort by key alone. */
void pb_std_partial_sort(struct pb_item *first, struct pb_item *middle, struct pb_item *last);
void pb_std_nth_element(struct pb_item *first, struct pb_item *nth, struct pb_item *last);
void pb_std_sort(struct pb_item *first, struct pb_item *last);
/* PyTorch's own quick select: item @k is what it would be in a sorted line. */
void pb_quick_select(struct pb_item *items, int64_t n, int64_t k);

#endif
