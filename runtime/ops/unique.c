/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unique, of elements and of slices. As aten/src/ATen/native/Unique.cpp: sorted, of equal elements the first one stands
 * for all, and a NaN equals nothing.
 */
#include <string.h>

#include "runtime/ops/layout.h"
#include "runtime/ops/select.h"
#include "runtime/proxy.h"

/* What is found: groups of entries in an order; entry order[i] begins a group where begins[i]. */
struct groups {
	int64_t n, n_groups;
	int64_t *order;
	bool *begins;
};

static int groups_init(struct groups *g, int64_t n)
{
	*g = (struct groups){.n = n};
	g->order = pb_rt_scratch((size_t)n * sizeof(*g->order) + 1);
	g->begins = pb_rt_scratch((size_t)n + 1);
	return !g->order || !g->begins;
}

static void groups_free(struct groups *g)
{
	pb_rt_scratch_free(g->order);
	pb_rt_scratch_free(g->begins);
}

/* Inverse (shape of @like, or one a entry) and counts; empty ones where they were not asked for. */
static int inverse_and_counts(const struct pb_proxy_call *c, const struct groups *g, int ndim, const int64_t *sizes,
			      bool inverse, bool counts)
{
	int64_t at = -1, *inv, *count;

	c->ret[1] = inverse ? pb_rt_empty(PB_RT_I64, ndim, sizes, NULL) : pb_rt_empty(PB_RT_I64, 1, &(int64_t){0}, NULL);
	c->ret[2] = pb_rt_empty(PB_RT_I64, 1, counts ? &g->n_groups : &(int64_t){0}, NULL);
	if (!c->ret[1] || !c->ret[2])
		return 1;
	inv = pb_rt_data(c->ret[1]);
	count = pb_rt_data(c->ret[2]);
	for (int64_t i = 0; i < g->n; i++) {
		at += g->begins[i];
		if (inverse)
			inv[g->order[i]] = at;
		if (!counts)
			continue;
		if (g->begins[i])
			count[at] = 0;
		count[at]++;
	}
	return 0;
}

/* ---- elements ---- */

static bool is_nan(uint64_t key, int32_t dtype)
{
	return pb_is_float(dtype) && key == pb_nan_key(dtype);
}

static int element_groups(struct groups *g, const struct pb_rt_tensor *flat, bool sort)
{
	struct pb_item *v;

	if (groups_init(g, flat->numel))
		return 1;
	v = pb_rt_scratch((size_t)flat->numel * 2 * sizeof(*v) + 1);
	if (!v)
		return 1;
	pb_items_of(v, pb_rt_data(flat), flat->dtype, 1, flat->numel, false);
	if (sort)
		pb_items_sort(v, v + flat->numel, flat->numel, flat->dtype);
	for (int64_t i = 0; i < flat->numel; i++) {
		g->order[i] = v[i].at;
		g->begins[i] = i == 0 || v[i].key != v[i - 1].key || is_nan(v[i].key, flat->dtype);
		g->n_groups += g->begins[i];
	}
	pb_rt_scratch_free(v);
	return 0;
}

static int unique_elements(const struct pb_proxy_call *c, bool sort, bool inverse, bool counts)
{
	const struct pb_rt_tensor *self = pb_arg(c, 0);
	const size_t size = pb_rt_dtype_size(self->dtype);
	struct pb_rt_tensor *flat;
	struct groups g = {0};
	int64_t at = 0;
	int rc;

	if (!pb_has_order(self->dtype))
		return pb_not_implemented(sort ? "unique" : "unique_consecutive", self->dtype);
	flat = pb_rt_contiguous(self);
	rc = !flat || element_groups(&g, flat, sort) ||
	     inverse_and_counts(c, &g, self->ndim, self->sizes, inverse, counts);
	if (!rc)
		c->ret[0] = pb_rt_empty(self->dtype, 1, &g.n_groups, NULL);
	rc = rc || !c->ret[0];
	for (int64_t i = 0; !rc && i < g.n; i++)
		if (g.begins[i])
			memcpy((char *)pb_rt_data(c->ret[0]) + size * (size_t)at++,
			       (char *)pb_rt_data(flat) + size * (size_t)g.order[i], size);
	groups_free(&g);
	pb_rt_delete(flat);
	return rc;
}

/* ---- slices ---- */

/* Rows of keys, compared one after the other. */
struct rows {
	const struct pb_item *items;
	int64_t width;
	int32_t dtype;
};

static int compare(const struct rows *r, int64_t a, int64_t b)
{
	const struct pb_item *x = r->items + a * r->width, *y = r->items + b * r->width;

	for (int64_t i = 0; i < r->width; i++)
		if (x[i].key != y[i].key)
			return x[i].key < y[i].key ? -1 : 1;
	return 0;
}

static bool has_nan(const struct rows *r, int64_t a)
{
	for (int64_t i = 0; i < r->width; i++)
		if (is_nan(r->items[a * r->width + i].key, r->dtype))
			return true;
	return false;
}

/* Stable merge sort of row numbers. */
static void sort_rows(const struct rows *r, int64_t *v, int64_t *tmp, int64_t n)
{
	int64_t half = n / 2, i = 0, k = half, to = 0;

	if (n < 2)
		return;
	sort_rows(r, v, tmp, half);
	sort_rows(r, v + half, tmp, n - half);
	while (i < half || k < n)
		tmp[to++] = k == n || (i < half && compare(r, v[i], v[k]) <= 0) ? v[i++] : v[k++];
	memcpy(v, tmp, (size_t)n * sizeof(*v));
}

/* @rows: n x width, contiguous. */
static int row_groups(struct groups *g, const struct pb_rt_tensor *rows, int64_t n, int64_t width, bool sort)
{
	struct pb_item *items = pb_rt_scratch((size_t)rows->numel * sizeof(*items) + 1);
	int64_t *tmp = pb_rt_scratch((size_t)n * sizeof(*tmp) + 1);
	const struct rows r = {items, width, rows->dtype};
	int rc = !items || !tmp || groups_init(g, n);

	if (!rc) {
		pb_items_of(items, pb_rt_data(rows), rows->dtype, 1, rows->numel, false);
		for (int64_t i = 0; i < n; i++)
			g->order[i] = i;
		if (sort)
			sort_rows(&r, g->order, tmp, n);
		for (int64_t i = 0; i < n; i++) {
			g->begins[i] = i == 0 || compare(&r, g->order[i - 1], g->order[i]) || has_nan(&r, g->order[i]);
			g->n_groups += g->begins[i];
		}
	}
	pb_rt_scratch_free(items);
	pb_rt_scratch_free(tmp);
	return rc;
}

/* A view of @t with dimension @dim first, or back from there. */
static struct pb_rt_tensor *moved(const struct pb_rt_tensor *t, int dim, bool back)
{
	int64_t sizes[PB_RT_MAX_DIMS], strides[PB_RT_MAX_DIMS];

	for (int d = 0; d < t->ndim; d++) {
		const int from = !back	   ? (d == 0 ? dim : d <= dim ? d - 1 : d)
				 : d < dim ? d + 1
					   : (d == dim ? 0 : d);

		sizes[d] = t->sizes[from];
		strides[d] = t->strides[from];
	}
	return pb_rt_alias(t, t->ndim, sizes, strides, t->offset);
}

static int may_be_unique(const struct pb_rt_tensor *self, int dim)
{
	int zeros = 0;

	for (int d = 0; d < self->ndim; d++)
		zeros += self->sizes[d] == 0;
	if (self->ndim && self->sizes[dim] == 0 && zeros != 1)
		return pb_rt_fail("Number of zero sized dimensions is more than one, so unique cannot be applied ");
	if ((!self->ndim || self->sizes[dim] != 0) && zeros)
		return pb_rt_fail("There are 0 sized dimensions, and they aren't selected, so unique cannot be applied");
	if (!pb_has_order(self->dtype))
		return pb_not_implemented("unique_dim", self->dtype);
	return 0;
}

/* The first row of each group, in the layout that index_select and a move of dimensions leave. */
static struct pb_rt_tensor *first_rows(const struct groups *g, const struct pb_rt_tensor *rows, int dim)
{
	const size_t bytes = g->n ? (size_t)(rows->numel / g->n) * pb_rt_dtype_size(rows->dtype) : 0;
	int64_t sizes[PB_RT_MAX_DIMS];
	struct pb_rt_tensor *t, *r;
	int64_t at = 0;

	memcpy(sizes, rows->sizes, sizeof(sizes));
	sizes[0] = g->n_groups;
	t = pb_rt_empty(rows->dtype, rows->ndim, sizes, NULL);
	for (int64_t i = 0; t && bytes && i < g->n; i++)
		if (g->begins[i])
			memcpy((char *)pb_rt_data(t) + bytes * (size_t)at++,
			       (char *)pb_rt_data(rows) + bytes * (size_t)g->order[i], bytes);
	r = t ? moved(t, dim, true) : NULL;
	pb_rt_delete(t);
	return r;
}

static int unique_slices(const struct pb_proxy_call *c, int64_t which, bool sort, bool inverse, bool counts)
{
	const struct pb_rt_tensor *self = pb_arg(c, 0);
	struct pb_rt_tensor *view = NULL, *rows = NULL;
	struct groups g = {0};
	int64_t n;
	int dim, rc;

	if (pb_wrap_dim(which, self->ndim, &dim) || may_be_unique(self, dim))
		return 1;
	if (!self->ndim)
		return unique_elements(c, sort, inverse, counts);
	view = moved(self, dim, false);
	rows = view ? pb_rt_contiguous(view) : NULL;
	n = self->sizes[dim];
	rc = !rows || row_groups(&g, rows, n, n ? rows->numel / n : 0, sort) ||
	     inverse_and_counts(c, &g, 1, &n, inverse, counts);
	if (!rc)
		c->ret[0] = first_rows(&g, rows, dim);
	groups_free(&g);
	pb_rt_delete(view);
	pb_rt_delete(rows);
	return rc || !c->ret[0];
}

/* ---- the operators ---- */

int pb_op_unique2(const struct pb_proxy_call *c)
{
	return unique_elements(c, true, pb_arg_bool(c, 2), pb_arg_bool(c, 3));
}

/* PyTorch makes inverse and counts whether or not they were asked for. */
int pb_op_unique_dim(const struct pb_proxy_call *c)
{
	return unique_slices(c, pb_arg_int(c, 1), true, true, true);
}

int pb_op_unique_consecutive(const struct pb_proxy_call *c)
{
	const struct pb_rt_tensor *self = pb_arg(c, 0);

	if (!pb_arg_given(c, 3))
		return unique_elements(c, false, pb_arg_bool(c, 1), pb_arg_bool(c, 2));
	/* One dimension is what the faster way without @dim does too; the rest as unique_dim. */
	if (self->ndim == 1 && pb_arg_int(c, 3) == 0)
		return unique_elements(c, false, pb_arg_bool(c, 1), pb_arg_bool(c, 2));
	return unique_slices(c, pb_arg_int(c, 3), false, true, true);
}
