/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sort, topk, kthvalue, mode, median, as
 * aten/src/ATen/native/{Sorting,cpu/SortingKernel,TensorCompare}.cpp. Every one turns lines into
 * keys (select.h), orders those, and takes the values from the elements themselves.
 */
#include "runtime/ops/sort.h"

#include "runtime/ops/layout.h"
#include "runtime/ops/select.h"
#include "runtime/ops/walk.h"

/* The lines of @in along a dimension with the lines of two results. */
struct lines {
	struct pb_walk w;
	struct pb_rt_tensor *values, *at;
	const struct pb_rt_tensor *in;
	int64_t n, in_stride, values_stride, at_stride;
	struct pb_item *items, *tmp;
};

static void lines_free(struct lines *l)
{
	pb_rt_scratch_free(l->items);
	pb_rt_delete(l->values);
	pb_rt_delete(l->at);
}

/* The results have the dimensions of @in; the walk leaves out @dim. */
static int lines_init(struct lines *l, const struct pb_rt_tensor *in, int dim)
{
	if (!l->values || !l->at)
		return 1;
	l->in = in;
	l->n = in->sizes[dim];
	l->in_stride = in->strides[dim];
	l->values_stride = l->values->strides[dim];
	l->at_stride = l->at->strides[dim];
	l->items = pb_rt_scratch((size_t)l->n * 2 * sizeof(*l->items) + 1);
	if (!l->items)
		return 1;
	l->tmp = l->items + l->n;
	pb_walk_init(&l->w, in->ndim, in->sizes);
	pb_walk_add(&l->w, in->strides);
	pb_walk_add(&l->w, l->values->strides);
	pb_walk_add(&l->w, l->at->strides);
	if (in->ndim)
		pb_walk_drop(&l->w, dim);
	return 0;
}

static void line_items(struct lines *l, bool descending)
{
	const int64_t size = (int64_t)pb_rt_dtype_size(l->in->dtype);

	pb_items_of(l->items, (const char *)pb_rt_data(l->in) + l->w.off[0] * size, l->in->dtype,
		    l->in_stride, l->n, descending);
}

#define TAKE(type)                      \
	for (int64_t i = 0; i < k; i++) \
	((type *)values)[i * l->values_stride] = ((const type *)in)[items[i].at * l->in_stride]

/* The first @k items are the line's results. */
static void line_results(struct lines *l, const struct pb_item *items, int64_t k)
{
	const int64_t size = (int64_t)pb_rt_dtype_size(l->in->dtype);
	const char *in = (const char *)pb_rt_data(l->in) + l->w.off[0] * size;
	char *values = (char *)pb_rt_data(l->values) + l->w.off[1] * size;
	int64_t *at = (int64_t *)pb_rt_data(l->at) + l->w.off[2];

	for (int64_t i = 0; i < k; i++)
		at[i * l->at_stride] = items[i].at;
	switch (size) {
	case 1:
		TAKE(uint8_t);
		break;
	case 2:
		TAKE(uint16_t);
		break;
	case 4:
		TAKE(uint32_t);
		break;
	default:
		TAKE(uint64_t);
	}
}

static int finish(struct lines *l, int rc, AtenTensorHandle *ret0, AtenTensorHandle *ret1)
{
	if (!rc) {
		*ret0 = l->values;
		*ret1 = l->at;
		l->values = l->at = NULL;
	}
	lines_free(l);
	return rc;
}

/* ---- sort ---- */

static int sort(const struct pb_rt_tensor *self, int64_t dim, bool descending,
		AtenTensorHandle *ret0, AtenTensorHandle *ret1)
{
	struct lines l = {.items = NULL};
	int d, rc;

	if (pb_wrap_dim(dim, self->ndim, &d))
		return 1;
	if (pb_is_complex(self->dtype))
		return pb_rt_fail("Sort currently does not support complex dtypes on CPU");
	if (!pb_has_order(self->dtype))
		return pb_not_implemented("sort_stable", self->dtype);
	l.values = pb_empty_like(self, self->dtype);
	l.at = pb_empty_like(self, PB_RT_I64);
	rc = lines_init(&l, self, d);
	for (; !rc && self->numel && l.w.left; pb_walk_next(&l.w)) {
		line_items(&l, descending);
		pb_items_sort(l.items, l.tmp, l.n, self->dtype);
		line_results(&l, l.items, l.n);
	}
	return finish(&l, rc, ret0, ret1);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_sort(AtenTensorHandle self, int64_t dim,
					       int32_t descending, AtenTensorHandle *ret0,
					       AtenTensorHandle *ret1)
{
	return sort(self, dim, descending, ret0, ret1);
}

/* Sorting is stable on the CPU whether asked or not. */
AOTI_EXPORT AOTITorchError aoti_torch_cpu_sort_stable(AtenTensorHandle self, int32_t *stable,
						      int64_t dim, int32_t descending,
						      AtenTensorHandle *ret0,
						      AtenTensorHandle *ret1)
{
	(void)stable;
	return sort(self, dim, descending, ret0, ret1);
}

/* ---- topk ---- */

static void select_top(struct pb_item *v, int64_t n, int64_t k, bool sorted)
{
	if (k * 64 <= n) {
		pb_std_partial_sort(v, v + k, v + n);
		return;
	}
	pb_std_nth_element(v, v + k - 1, v + n);
	if (sorted)
		pb_std_sort(v, v + k - 1);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_topk(AtenTensorHandle self, int64_t k, int64_t dim,
					       int32_t largest, int32_t sorted,
					       AtenTensorHandle *ret0, AtenTensorHandle *ret1)
{
	struct lines l = {.items = NULL};
	int64_t sizes[PB_RT_MAX_DIMS];
	int d, rc;

	if (pb_wrap_dim(dim, self->ndim, &d))
		return 1;
	if (k < 0 || k > self->sizes[d])
		return pb_rt_fail("selected index k out of range");
	if (self->dtype == PB_RT_BOOL || pb_is_complex(self->dtype))
		return pb_rt_fail("topk does not support %s dtypes on CPU",
				  self->dtype == PB_RT_BOOL ? "bool" : "complex");
	if (!pb_has_order(self->dtype))
		return pb_not_implemented("topk_cpu", self->dtype);
	if (self->ndim == 0)
		k = 1;
	memcpy(sizes, self->sizes, sizeof(sizes));
	sizes[d] = k;
	l.values = pb_rt_empty(self->dtype, self->ndim, sizes, NULL);
	l.at = pb_rt_empty(PB_RT_I64, self->ndim, sizes, NULL);
	rc = lines_init(&l, self, d);
	for (; !rc && k && self->numel && l.w.left; pb_walk_next(&l.w)) {
		line_items(&l, largest);
		select_top(l.items, l.n, k, sorted);
		line_results(&l, l.items, k);
	}
	return finish(&l, rc, ret0, ret1);
}

/* ---- one value of a line ---- */

/* Results of one element a line: allocated with the dimension kept. */
static void one_of_each(struct lines *l, const struct pb_rt_tensor *self, int dim)
{
	int64_t sizes[PB_RT_MAX_DIMS];

	memcpy(sizes, self->sizes, sizeof(sizes));
	sizes[dim] = 1;
	l->values = pb_rt_empty(self->dtype, self->ndim, sizes, NULL);
	l->at = pb_rt_empty(PB_RT_I64, self->ndim, sizes, NULL);
}

static struct pb_rt_tensor *without_dim_take(struct pb_rt_tensor *t, int dim)
{
	int64_t sizes[PB_RT_MAX_DIMS];
	struct pb_rt_tensor *s;
	int n = 0;

	for (int d = 0; d < t->ndim; d++)
		if (d != dim)
			sizes[n++] = t->sizes[d];
	s = pb_rt_alias(t, n, sizes, NULL, t->offset);
	pb_rt_delete(t);
	return s;
}

static int finish_one(struct lines *l, int rc, int dim, bool keepdim, AtenTensorHandle *ret0,
		      AtenTensorHandle *ret1)
{
	if (!rc && !keepdim && l->values->ndim) {
		l->values = without_dim_take(l->values, dim);
		l->at = without_dim_take(l->at, dim);
		rc = !l->values || !l->at;
	}
	return finish(l, rc, ret0, ret1);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_kthvalue(AtenTensorHandle self, int64_t k, int64_t dim,
						   int32_t keepdim, AtenTensorHandle *ret0,
						   AtenTensorHandle *ret1)
{
	struct lines l = {.items = NULL};
	int d, rc;

	if (pb_wrap_dim(dim, self->ndim, &d))
		return 1;
	if (self->ndim && self->sizes[d] == 0)
		return pb_rt_fail("kthvalue(): Expected reduction dim %d to have non-zero size.",
				  d);
	if (k < 1 || k > self->sizes[d])
		return pb_rt_fail("kthvalue(): selected number k out of range for dimension %d", d);
	if (!pb_has_order(self->dtype) || (self->dtype == PB_RT_BOOL && self->ndim))
		return pb_not_implemented("kthvalue_cpu", self->dtype);
	one_of_each(&l, self, d);
	rc = lines_init(&l, self, d);
	for (; !rc && self->numel && l.w.left; pb_walk_next(&l.w)) {
		line_items(&l, false);
		pb_quick_select(l.items, l.n, k - 1);
		line_results(&l, l.items + k - 1, 1);
	}
	return finish_one(&l, rc, d, keepdim, ret0, ret1);
}

static int64_t count_nan(const struct pb_item *v, int64_t n, int32_t dtype)
{
	const uint64_t nan = pb_nan_key(dtype);
	int64_t c = 0;

	for (int64_t i = 0; i < n && pb_is_float(dtype); i++)
		c += v[i].key == nan;
	return c;
}

/*
 * PyTorch sorts by "<", which NaN breaks: up to 16 elements are std::sort's insertions, and the same comparisons give the same
 * order. Of longer lines its answer is an accident of where NaN lies; here NaN is last, and no mode unless all are.
 */
static void sort_for_mode(struct pb_item *v, int64_t n, bool nan, uint64_t nan_key)
{
	if (!nan || n > 16) {
		pb_std_sort(v, v + n);
		return;
	}
	for (int64_t i = 1; i < n; i++) {
		const struct pb_item value = v[i];
		const bool first = value.key < v[0].key && v[0].key != nan_key;
		int64_t k = i;

		while (k > 0 && (first || (value.key < v[k - 1].key && v[k - 1].key != nan_key))) {
			v[k] = v[k - 1];
			k--;
		}
		v[k] = value;
	}
}

/* The last item of the first longest run; NaN equals nothing. */
static const struct pb_item *longest_run(const struct pb_item *v, int64_t n, bool nan, uint64_t nan_key)
{
	const struct pb_item *best = v;
	int64_t run = 0, longest = 0;

	for (int64_t i = 0; i < n; i++) {
		run++;
		if (i < n - 1 && v[i].key == v[i + 1].key && !(nan && v[i].key == nan_key))
			continue;
		if (run > longest) {
			longest = run;
			best = &v[i];
		}
		run = 0;
	}
	return best;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_mode(AtenTensorHandle self, int64_t dim, int32_t keepdim,
					       AtenTensorHandle *ret0, AtenTensorHandle *ret1)
{
	struct lines l = {.items = NULL};
	int d, rc;
	bool nan;

	if (pb_wrap_dim(dim, self->ndim, &d))
		return 1;
	if (self->ndim && self->sizes[d] == 0)
		return pb_rt_fail("mode(): Expected reduction dim %d to have non-zero size.", d);
	if (!pb_has_order(self->dtype))
		return pb_not_implemented("mode", self->dtype);
	one_of_each(&l, self, d);
	rc = lines_init(&l, self, d);
	for (; !rc && self->numel && l.w.left; pb_walk_next(&l.w)) {
		line_items(&l, false);
		nan = count_nan(l.items, l.n, self->dtype) > 0;
		sort_for_mode(l.items, l.n, nan, pb_nan_key(self->dtype));
		line_results(&l, longest_run(l.items, l.n, nan, pb_nan_key(self->dtype)), 1);
	}
	return finish_one(&l, rc, d, keepdim, ret0, ret1);
}

/* ---- median of everything ---- */

static int median(const struct pb_rt_tensor *self, bool ignore_nan, AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *flat = NULL, *out;
	struct pb_item *v = NULL;
	int64_t nans, at;

	if (!pb_has_order(self->dtype) || (self->dtype == PB_RT_BOOL && self->numel))
		return pb_not_implemented("median_cpu", self->dtype);
	out = pb_rt_empty(self->dtype, 0, NULL, NULL);
	if (out && !self->numel) {
		*ret0 = out;
		return pb_store_scalar(pb_rt_data(out), self->dtype, __builtin_nan(""));
	}
	if (out)
		flat = pb_rt_contiguous(self);
	if (flat)
		v = pb_rt_scratch((size_t)self->numel * sizeof(*v));
	if (!v) {
		pb_rt_delete(out);
		pb_rt_delete(flat);
		return 1;
	}
	pb_items_of(v, pb_rt_data(flat), self->dtype, 1, self->numel, false);
	nans = count_nan(v, self->numel, self->dtype);
	at = nans == 0 || ignore_nan ? (self->numel - nans - 1) / 2 : self->numel - 1;
	pb_std_nth_element(v, v + (at < 0 ? 0 : at), v + self->numel);
	memcpy(pb_rt_data(out),
	       (const char *)pb_rt_data(flat) +
		       v[at < 0 ? 0 : at].at * (int64_t)pb_rt_dtype_size(self->dtype),
	       pb_rt_dtype_size(self->dtype));
	pb_rt_scratch_free(v);
	pb_rt_delete(flat);
	*ret0 = out;
	return 0;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_median(AtenTensorHandle self, AtenTensorHandle *ret0)
{
	return median(self, false, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_nanmedian(AtenTensorHandle self, AtenTensorHandle *ret0)
{
	return median(self, true, ret0);
}
