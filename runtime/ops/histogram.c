/* SPDX-License-Identifier: Apache-2.0 */
/*
 * histc, histogram, _histogramdd: bins of equal width, whose edges are computed in the input's type
 * as torch 2.13.0's aten/src/ATen/native/{Histogram.cpp,cpu/HistogramKernel.cpp} do. All but histc
 * look at the edges themselves after the division, so that an element on an edge is in the right
 * bin.
 */
#include "runtime/ops/histogram.h"

#include <math.h>
#include <string.h>

#include "runtime/ops/gemm.h"
#include "runtime/ops/layout.h"
#include "runtime/proxy.h"
#include "runtime/tensor.h"

struct axis {
	int64_t bins;
	double lo, hi;
	void *edges; /* bins + 1 of the input's type */
};

struct histogram {
	const char *op;
	const struct pb_rt_tensor *x;	   /* contiguous, [points][dims] */
	const struct pb_rt_tensor *weight; /* contiguous, or NULL */
	int64_t points, dims;
	struct axis *axes;
	bool exact;    /* looks at the edges */
	int32_t dtype; /* of the input, before it was widened to x */
};

/* ---- edges ---- */

/* As linspace: from the nearer end, with one rounding. */
#define LINSPACE(name, type, fma_fn)                                                     \
	static void name(type *v, int64_t steps, type lo, type hi)                       \
	{                                                                                \
		const type step = steps > 1 ? (hi - lo) / (type)(steps - 1) : 0;         \
		for (int64_t i = 0; i < steps; i++)                                      \
			v[i] = i < steps / 2 ? fma_fn(step, (type)i, lo)                 \
					     : fma_fn(-step, (type)(steps - 1 - i), hi); \
	}

LINSPACE(linspace_f32, float, fmaf)
LINSPACE(linspace_f64, double, fma)

static double element(const struct pb_rt_tensor *t, int64_t i)
{
	return t->dtype == PB_RT_F64 ? ((const double *)pb_rt_data(t))[i]
				     : (double)((const float *)pb_rt_data(t))[i];
}

/* Range of the data along dimension @d; a NaN makes both NaN. */
static void data_range(const struct histogram *h, int64_t d, double *lo, double *hi)
{
	*lo = h->points ? element(h->x, d) : 0;
	*hi = h->points ? *lo : 1;
	for (int64_t i = 1; i < h->points; i++) {
		const double v = element(h->x, i * h->dims + d);

		if (isnan(v) || isnan(*lo)) {
			*lo = *hi = NAN;
			return;
		}
		*lo = v < *lo ? v : *lo;
		*hi = v > *hi ? v : *hi;
	}
}

static int check_range(const struct histogram *h, struct axis *a)
{
	if (!isfinite(a->lo) || !isfinite(a->hi))
		return pb_rt_fail("%s: range of [%g, %g] is not finite", h->op, a->lo, a->hi);
	if (a->lo > a->hi)
		return pb_rt_fail("%s: min should not exceed max, but got min %g max %g for "
				  "dimension %lld",
				  h->op, a->lo, a->hi, (long long)(a - h->axes));
	if (a->lo == a->hi) {
		a->lo -= h->exact ? 0.5 : 1;
		a->hi += h->exact ? 0.5 : 1;
	}
	return 0;
}

/* Ranges given, or of the data. */
static int set_axes(struct histogram *h, const int64_t *bins, const double *range, int64_t n_range)
{
	if (n_range && n_range != 2 * h->dims)
		return pb_rt_fail("%s: for a %lld-dimensional histogram range should have %lld "
				  "elements, but got %lld",
				  h->op, (long long)h->dims, (long long)(2 * h->dims),
				  (long long)n_range);
	for (int64_t d = 0; d < h->dims; d++) {
		struct axis *a = &h->axes[d];

		a->bins = bins[d];
		if (a->bins <= 0)
			return pb_rt_fail("%s(): bins must be > 0, but got %lld for dimension %lld",
					  h->op, (long long)a->bins, (long long)d);
		if (n_range) {
			a->lo = range[2 * d];
			a->hi = range[2 * d + 1];
		} else {
			data_range(h, d, &a->lo, &a->hi);
		}
		if (check_range(h, a))
			return 1;
		a->edges = pb_rt_scratch((size_t)(a->bins + 1) * sizeof(double));
		if (!a->edges)
			return 1;
		if (h->x->dtype == PB_RT_F64)
			linspace_f64(a->edges, a->bins + 1, a->lo, a->hi);
		else
			linspace_f32(a->edges, a->bins + 1, (float)a->lo, (float)a->hi);
	}
	return 0;
}

/* ---- counting ---- */

/* Bin of @v, or -1 outside. Rightmost edge included. */
#define BIN(name, type)                                                        \
	static int64_t name(const struct axis *a, type v, bool exact)          \
	{                                                                      \
		const type *e = a->edges;                                      \
		const type lo = e[0], hi = e[a->bins];                         \
		int64_t i, end;                                                \
		if (!(v >= lo && v <= hi))                                     \
			return -1;                                             \
		i = (int64_t)((v - lo) * (type)a->bins / (hi - lo));           \
		if (exact) {                                                   \
			end = i + 2 < a->bins + 1 ? i + 2 : a->bins + 1;       \
			for (i = i > 0 ? i - 1 : 0; i < end && e[i] <= v; i++) \
				;                                              \
			i--;                                                   \
		}                                                              \
		return i >= a->bins ? a->bins - 1 : i;                         \
	}

BIN(bin_f32, float)
BIN(bin_f64, double)

/* 16-bit types: rounded after each step. */
static int64_t bin_16bit(const struct axis *a, float v, int32_t dtype)
{
	const float lo = ((float *)a->edges)[0], hi = ((float *)a->edges)[a->bins];
	float at = pb_gemm_rounded(v - lo, dtype);

	if (!(v >= lo && v <= hi))
		return -1;
	at = pb_gemm_rounded(at * pb_gemm_rounded((float)a->bins, dtype), dtype);
	at = pb_gemm_rounded(at / pb_gemm_rounded(hi - lo, dtype), dtype);
	return (int64_t)at >= a->bins ? a->bins - 1 : (int64_t)at;
}

static int64_t bin(const struct histogram *h, const struct axis *a, int64_t i)
{
	if (h->x->dtype == PB_RT_F64)
		return bin_f64(a, ((double *)pb_rt_data(h->x))[i], h->exact);
	if (pb_is_16bit(h->dtype))
		return bin_16bit(a, ((float *)pb_rt_data(h->x))[i], h->dtype);
	return bin_f32(a, ((float *)pb_rt_data(h->x))[i], h->exact);
}

static int64_t position(const struct histogram *h, int64_t point)
{
	int64_t at = 0;

	for (int64_t d = 0; d < h->dims; d++) {
		const struct axis *a = &h->axes[d];
		const int64_t b = bin(h, a, point * h->dims + d);

		if (b < 0)
			return -1;
		at = at * a->bins + b;
	}
	return at;
}

/* Sums in the input's type, one point after the other. */
static void count(const struct histogram *h, struct pb_rt_tensor *out)
{
	memset(pb_rt_data(out), 0, (size_t)out->numel * pb_rt_dtype_size(out->dtype));
	for (int64_t i = 0; i < h->points; i++) {
		const int64_t at = position(h, i);

		if (at < 0)
			continue;
		if (out->dtype == PB_RT_F64)
			((double *)pb_rt_data(out))[at] += h->weight ? element(h->weight, i) : 1;
		else
			((float *)pb_rt_data(out))[at] +=
				h->weight ? (float)element(h->weight, i) : 1;
	}
}

/* Divides by the total and by the volume of each bin. */
static void to_density(const struct histogram *h, struct pb_rt_tensor *out)
{
	double total = 0;

	for (int64_t i = 0; i < out->numel; i++)
		total += element(out, i);
	for (int64_t i = 0; i < out->numel; i++) {
		double volume = 1;
		int64_t rest = i;

		for (int64_t d = h->dims - 1; d >= 0; d--) {
			const struct axis *a = &h->axes[d];
			const int64_t b = rest % a->bins;

			rest /= a->bins;
			volume *= out->dtype == PB_RT_F64
					  ? ((double *)a->edges)[b + 1] - ((double *)a->edges)[b]
					  : (double)(((float *)a->edges)[b + 1] -
						     ((float *)a->edges)[b]);
		}
		if (out->dtype == PB_RT_F64)
			((double *)pb_rt_data(out))[i] /= total * volume;
		else
			((float *)pb_rt_data(out))[i] /= (float)(total * volume);
	}
}

static void axes_free(struct histogram *h)
{
	for (int64_t d = 0; h->axes && d < h->dims; d++)
		if (h->axes[d].edges)
			pb_rt_scratch_free(h->axes[d].edges);
	if (h->axes)
		pb_rt_scratch_free(h->axes);
}

/* @sizes of the result: bins of each dimension. */
static int run(struct histogram *h, const int64_t *bins, const double *range, int64_t n_range,
	       bool density, struct pb_rt_tensor **ret)
{
	const size_t bytes = (size_t)h->dims * sizeof(*h->axes);
	struct pb_rt_tensor *out;

	h->axes = pb_rt_scratch(bytes + 1);
	if (!h->axes)
		return 1;
	memset(h->axes, 0, bytes);
	if (set_axes(h, bins, range, n_range))
		return 1;
	out = pb_rt_empty(h->x->dtype, h->dims, bins, NULL);
	if (!out)
		return 1;
	if (out->numel)
		count(h, out);
	if (density)
		to_density(h, out);
	*ret = out;
	return 0;
}

static int check_dtype(const char *op, const struct pb_rt_tensor *self)
{
	if (self->dtype == PB_RT_F32 || self->dtype == PB_RT_F64)
		return 0;
	return pb_not_implemented(op, self->dtype);
}

/* ---- the operators ---- */

AOTI_EXPORT AOTITorchError aoti_torch_cpu_histc(AtenTensorHandle self, int64_t bins, double min,
						double max, AtenTensorHandle *ret0)
{
	struct histogram h = {.op = "torch.histc", .dims = 1, .dtype = self->dtype};
	struct pb_rt_tensor *x, *out = NULL, *counts = NULL;
	double range[2] = {min, max};

	if (bins <= 0)
		return pb_rt_fail("torch.histc(): bins must be > 0, but got %lld for dimension 0",
				  (long long)bins);
	if (!pb_is_float(self->dtype))
		return pb_not_implemented("histogram_cpu", self->dtype);
	if (min > max)
		return pb_rt_fail("torch.histc: max must be larger than min");
	x = self->dtype == PB_RT_F64 ? pb_rt_contiguous(self) : pb_clone_as(self, PB_RT_F32);
	if (!x)
		return 1;
	h.x = x;
	h.points = x->numel;
	if (min == max && h.points)
		data_range(&h, 0, &range[0], &range[1]);
	if (!run(&h, &bins, range, 2, false, &counts))
		out = pb_as_dtype(counts, self->dtype);
	axes_free(&h);
	pb_rt_delete(x);
	pb_rt_delete(counts);
	if (!out)
		return 1;
	*ret0 = out;
	return 0;
}

static int check_weight(const struct histogram *h, const struct pb_rt_tensor *self,
			const struct pb_rt_tensor *weight)
{
	if (!weight)
		return 0;
	if (weight->dtype != self->dtype)
		return pb_rt_fail("%s: if weight tensor is provided, input tensor and weight "
				  "tensor should have the same dtype, but got input(%s), and "
				  "weight(%s)",
				  h->op, pb_scalar_name(self->dtype),
				  pb_scalar_name(weight->dtype));
	return weight->numel == h->points
		       ? 0
		       : pb_rt_fail("%s: weight %s does not have one element for each point of "
				    "input %s",
				    h->op, PB_SHAPE(weight), PB_SHAPE(self));
}

static int with_weight(struct histogram *h, const struct pb_rt_tensor *self,
		       const struct pb_rt_tensor *weight, const int64_t *bins, const double *range,
		       int64_t n_range, bool density, struct pb_rt_tensor **ret,
		       struct pb_rt_tensor **ret_edges)
{
	struct pb_rt_tensor *x, *w = NULL;
	int rc;

	if (check_dtype("histogramdd", self) || check_weight(h, self, weight))
		return 1;
	x = pb_rt_contiguous(self);
	if (weight)
		w = pb_rt_contiguous(weight);
	h->x = x;
	h->weight = w;
	rc = !x || (weight && !w) || run(h, bins, range, n_range, density, ret);
	if (!rc && ret_edges) {
		*ret_edges = pb_rt_empty(self->dtype, 1, (int64_t[]){bins[0] + 1}, NULL);
		if (*ret_edges)
			memcpy(pb_rt_data(*ret_edges), h->axes[0].edges,
			       (size_t)(bins[0] + 1) * pb_rt_dtype_size(self->dtype));
		else
			rc = 1;
		if (rc)
			pb_rt_delete(*ret);
	}
	axes_free(h);
	pb_rt_delete(x);
	pb_rt_delete(w);
	return rc;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_histogram_bin_ct(AtenTensorHandle self, int64_t bins,
							   const double **range, int64_t range_len_,
							   AtenTensorHandle *weight,
							   int32_t density, AtenTensorHandle *ret0,
							   AtenTensorHandle *ret1)
{
	struct histogram h = {
		.op = "torch.histogramdd", .dims = 1, .points = self->numel, .exact = true};
	struct pb_rt_tensor *out, *edges;

	if (with_weight(&h, self, weight ? *weight : NULL, &bins, range ? *range : NULL,
			range ? range_len_ : 0, density != 0, &out, &edges))
		return 1;
	*ret0 = out;
	*ret1 = edges;
	return 0;
}

/* Dimensions and points of @self, for @n_bins dimensions of bins. */
static int set_points(struct histogram *h, const struct pb_rt_tensor *self, int64_t n_bins)
{
	if (self->ndim < 2)
		return pb_rt_fail(
			"torch.histogramdd: input tensor should have at least 2 dimensions, "
			"but got %s",
			PB_SHAPE(self));
	h->dims = self->sizes[self->ndim - 1];
	if (n_bins != h->dims)
		return pb_rt_fail("torch.histogramdd: expected %lld sequences of bin edges for a "
				  "%lld-dimensional histogram but got %lld",
				  (long long)h->dims, (long long)h->dims, (long long)n_bins);
	h->points = h->dims ? self->numel / h->dims : 0;
	if (h->dims < 1 || h->dims > PB_RT_MAX_DIMS)
		return pb_rt_fail("torch.histogramdd: %lld dimensions are not supported",
				  (long long)h->dims);
	return 0;
}

static int copy_edges(const struct histogram *h, struct pb_rt_tensor **ret, uint32_t n_ret)
{
	if (n_ret != h->dims)
		return pb_rt_fail("torch.histogramdd: %u results for %lld dimensions", n_ret, (long long)h->dims);
	for (int64_t d = 0; d < h->dims; d++) {
		ret[d] = pb_rt_empty(h->x->dtype, 1, (int64_t[]){h->axes[d].bins + 1}, NULL);
		if (!ret[d])
			return 1;
		memcpy(pb_rt_data(ret[d]), h->axes[d].edges,
		       (size_t)(h->axes[d].bins + 1) * pb_rt_dtype_size(h->x->dtype));
	}
	return 0;
}

int pb_op_histogramdd_bin_edges(const struct pb_proxy_call *c)
{
	struct histogram h = {.op = "torch.histogramdd", .exact = true};
	const struct pb_rt_tensor *self = pb_arg(c, 0);
	struct pb_rt_tensor *x;
	int rc;

	if (self->ndim >= 2 && c->args[1].count != self->sizes[self->ndim - 1])
		return pb_rt_fail("histogramdd: The size of bins must be equal to the innermost dimension of the input.");
	if (check_dtype("histogramdd", self) || set_points(&h, self, c->args[1].count) ||
	    check_weight(&h, self, pb_arg(c, 3)))
		return 1;
	x = pb_rt_contiguous(self);
	h.x = x;
	h.axes = pb_rt_scratch((size_t)h.dims * sizeof(*h.axes));
	if (h.axes)
		memset(h.axes, 0, (size_t)h.dims * sizeof(*h.axes));
	rc = !x || !h.axes ||
	     set_axes(&h, c->args[1].v.ints, pb_arg_given(c, 2) ? c->args[2].v.floats : NULL,
		      pb_arg_given(c, 2) ? c->args[2].count : 0) ||
	     copy_edges(&h, c->ret, c->n_ret);
	axes_free(&h);
	pb_rt_delete(x);
	return rc;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__histogramdd_from_bin_cts(
	AtenTensorHandle self, const int64_t *bins, int64_t bins_len_, const double **range,
	int64_t range_len_, AtenTensorHandle *weight, int32_t density, AtenTensorHandle *ret0)
{
	struct histogram h = {.op = "torch.histogramdd", .exact = true};

	if (set_points(&h, self, bins_len_))
		return 1;
	return with_weight(&h, self, weight ? *weight : NULL, bins, range ? *range : NULL,
			   range ? range_len_ : 0, density != 0, ret0, NULL);
}
