/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See select.h. The std_ functions are libstdc++'s bits/stl_algo.h and bits/stl_heap.h in C (the
 * algorithms have not changed since GCC 4.9); quick select is aten/src/ATen/native/Sorting.cpp's.
 */
#include "runtime/ops/select.h"

static bool less(const struct pb_item *a, const struct pb_item *b)
{
	return a->key < b->key;
}

static void swap(struct pb_item *a, struct pb_item *b)
{
	const struct pb_item t = *a;

	*a = *b;
	*b = t;
}

/* ---- heaps ---- */

static void push_heap(struct pb_item *first, int64_t hole, int64_t top, struct pb_item value)
{
	int64_t parent = (hole - 1) / 2;

	while (hole > top && less(&first[parent], &value)) {
		first[hole] = first[parent];
		hole = parent;
		parent = (hole - 1) / 2;
	}
	first[hole] = value;
}

static void adjust_heap(struct pb_item *first, int64_t hole, int64_t len, struct pb_item value)
{
	const int64_t top = hole;
	int64_t second = hole;

	while (second < (len - 1) / 2) {
		second = 2 * (second + 1);
		if (less(&first[second], &first[second - 1]))
			second--;
		first[hole] = first[second];
		hole = second;
	}
	if ((len & 1) == 0 && second == (len - 2) / 2) {
		second = 2 * (second + 1);
		first[hole] = first[second - 1];
		hole = second - 1;
	}
	push_heap(first, hole, top, value);
}

static void make_heap(struct pb_item *first, struct pb_item *last)
{
	const int64_t len = last - first;

	for (int64_t parent = (len - 2) / 2; len >= 2; parent--) {
		adjust_heap(first, parent, len, first[parent]);
		if (parent == 0)
			return;
	}
}

static void pop_heap(struct pb_item *first, struct pb_item *last, struct pb_item *result)
{
	const struct pb_item value = *result;

	*result = *first;
	adjust_heap(first, 0, last - first, value);
}

static void heap_select(struct pb_item *first, struct pb_item *middle, struct pb_item *last)
{
	make_heap(first, middle);
	for (struct pb_item *i = middle; i < last; i++)
		if (less(i, first))
			pop_heap(first, middle, i);
}

static void sort_heap(struct pb_item *first, struct pb_item *last)
{
	while (last - first > 1) {
		last--;
		pop_heap(first, last, last);
	}
}

void pb_std_partial_sort(struct pb_item *first, struct pb_item *middle, struct pb_item *last)
{
	if (first == middle)
		return;
	heap_select(first, middle, last);
	sort_heap(first, middle);
}

/* ---- insertion sort ---- */

static void linear_insert(struct pb_item *last)
{
	const struct pb_item value = *last;
	struct pb_item *next = last - 1;

	while (less(&value, next)) {
		*last = *next;
		last = next--;
	}
	*last = value;
}

static void insertion_sort(struct pb_item *first, struct pb_item *last)
{
	if (first == last)
		return;
	for (struct pb_item *i = first + 1; i != last; i++) {
		const struct pb_item value = *i;

		if (!less(i, first)) {
			linear_insert(i);
			continue;
		}
		for (struct pb_item *p = i; p != first; p--)
			*p = *(p - 1);
		*first = value;
	}
}

/* ---- introsort and introselect ---- */

static void median_to_first(struct pb_item *result, struct pb_item *a, struct pb_item *b,
			    struct pb_item *c)
{
	if (less(a, b)) {
		if (less(b, c))
			swap(result, b);
		else if (less(a, c))
			swap(result, c);
		else
			swap(result, a);
	} else if (less(a, c)) {
		swap(result, a);
	} else if (less(b, c)) {
		swap(result, c);
	} else {
		swap(result, b);
	}
}

static struct pb_item *partition_pivot(struct pb_item *first, struct pb_item *last)
{
	struct pb_item *mid = first + (last - first) / 2, *lo = first + 1, *hi = last;

	median_to_first(first, first + 1, mid, last - 1);
	for (;;) {
		while (less(lo, first))
			lo++;
		hi--;
		while (less(first, hi))
			hi--;
		if (!(lo < hi))
			return lo;
		swap(lo, hi);
		lo++;
	}
}

static int depth_limit(int64_t n)
{
	return n > 0 ? 2 * (63 - __builtin_clzll((unsigned long long)n)) : 0;
}

static void introsort(struct pb_item *first, struct pb_item *last, int depth)
{
	while (last - first > 16) {
		struct pb_item *cut;

		if (depth-- == 0) {
			pb_std_partial_sort(first, last, last);
			return;
		}
		cut = partition_pivot(first, last);
		introsort(cut, last, depth);
		last = cut;
	}
}

void pb_std_sort(struct pb_item *first, struct pb_item *last)
{
	if (first == last)
		return;
	introsort(first, last, depth_limit(last - first));
	if (last - first <= 16) {
		insertion_sort(first, last);
		return;
	}
	insertion_sort(first, first + 16);
	for (struct pb_item *i = first + 16; i != last; i++)
		linear_insert(i);
}

void pb_std_nth_element(struct pb_item *first, struct pb_item *nth, struct pb_item *last)
{
	int depth = depth_limit(last - first);

	if (first == last || nth == last)
		return;
	while (last - first > 3) {
		struct pb_item *cut;

		if (depth-- == 0) {
			heap_select(first, nth + 1, last);
			swap(first, nth);
			return;
		}
		cut = partition_pivot(first, last);
		if (cut <= nth)
			first = cut;
		else
			last = cut;
	}
	insertion_sort(first, last);
}

/* ---- PyTorch's quick select ---- */

void pb_quick_select(struct pb_item *v, int64_t n, int64_t k)
{
	int64_t l = 0, r = n - 1;

	while (r > l) {
		int64_t i = l + 1, j = r;
		struct pb_item pivot;

		if (r == l + 1) {
			if (less(&v[r], &v[l]))
				swap(&v[l], &v[r]);
			return;
		}
		swap(&v[l + (r - l) / 2], &v[l + 1]);
		if (less(&v[r], &v[l + 1]))
			swap(&v[l + 1], &v[r]);
		if (less(&v[r], &v[l]))
			swap(&v[l], &v[r]);
		if (less(&v[l], &v[l + 1]))
			swap(&v[l + 1], &v[l]);
		pivot = v[l];
		for (;;) {
			do
				i++;
			while (less(&v[i], &pivot));
			do
				j--;
			while (less(&pivot, &v[j]));
			if (j < i)
				break;
			swap(&v[i], &v[j]);
		}
		swap(&v[l], &v[j]);
		if (j <= k)
			l = i;
		if (j >= k)
			r = j - 1;
	}
}
