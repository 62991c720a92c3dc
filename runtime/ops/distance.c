/* SPDX-License-Identifier: Apache-2.0 */
/*
 * _cdist_forward and _pdist_forward: the rules of torch 2.13.0's
 * aten/src/ATen/native/{Distance.cpp,cpu/DistanceOpsKernel.cpp}. Euclidean distances of many rows
 * are made from a product, as there: |a|^2 + |b|^2 - 2 ab, which loses digits between close rows.
 */
#include "runtime/ops/distance.h"

#include <math.h>
#include <string.h>

#include "runtime/ops/gemm.h"
#include "runtime/ops/layout.h"
#include "runtime/tensor.h"

enum metric { ZERO, ONE, TWO, INF, POWER };

/* More rows than this make a product worthwhile, says PyTorch. */
#define MANY_ROWS 25

static enum metric metric_of(double p)
{
	return p == 0 ? ZERO : p == 1 ? ONE : p == 2 ? TWO : isinf(p) ? INF : POWER;
}

#define DISTANCE(name, type, abs_fn, sqrt_fn, pow_fn)                                      \
	static type name(const type *a, const type *b, int64_t n, enum metric m, double p) \
	{                                                                                  \
		type s = 0;                                                                \
		for (int64_t i = 0; i < n; i++) {                                          \
			const type d = abs_fn(a[i] - b[i]);                                \
			switch (m) {                                                       \
			case ZERO:                                                         \
				s += isnan(d) ? d : d != 0;                                \
				break;                                                     \
			case ONE:                                                          \
				s += d;                                                    \
				break;                                                     \
			case TWO:                                                          \
				s += d * d;                                                \
				break;                                                     \
			case INF:                                                          \
				s = isnan(s) || s > d ? s : d;                             \
				break;                                                     \
			case POWER:                                                        \
				s += pow_fn(d, (type)p);                                   \
				break;                                                     \
			}                                                                  \
		}                                                                          \
		return m == TWO ? sqrt_fn(s) : m == POWER ? pow_fn(s, (type)(1 / p)) : s;  \
	}

DISTANCE(distance_f32, float, fabsf, sqrtf, powf)
DISTANCE(distance_f64, double, fabs, sqrt, pow)

struct rows {
	const char *a, *b;
	char *out;
	int64_t na, nb, n; /* rows of each, columns */
	bool f64;
};

static void direct(const struct rows *r, double p)
{
	const enum metric m = metric_of(p);

	for (int64_t i = 0; i < r->na; i++)
		for (int64_t j = 0; j < r->nb; j++) {
			const int64_t at = i * r->nb + j;

			if (r->f64)
				((double *)r->out)[at] =
					distance_f64((const double *)r->a + i * r->n,
						     (const double *)r->b + j * r->n, r->n, m, p);
			else
				((float *)r->out)[at] =
					distance_f32((const float *)r->a + i * r->n,
						     (const float *)r->b + j * r->n, r->n, m, p);
		}
}

#define NORMS(name, type)                                                              \
	static void name(const type *x, int64_t rows, int64_t n, type *ret)            \
	{                                                                              \
		for (int64_t i = 0; i < rows; i++) {                                   \
			type s = 0;                                                    \
			for (int64_t k = 0; k < n; k++)                                \
				s += x[i * n + k] * x[i * n + k];                      \
			ret[i] = s;                                                    \
		}                                                                      \
	}                                                                              \
	/* c holds -2 ab; clamped, since it may come out below 0. */                   \
	static void name##_root(type *c, const type *na, const type *nb, int64_t rows, \
				int64_t cols)                                          \
	{                                                                              \
		for (int64_t i = 0; i < rows; i++)                                     \
			for (int64_t j = 0; j < cols; j++) {                           \
				type *v = c + i * cols + j;                            \
				const type s = *v + na[i] + nb[j];                     \
				*v = s < 0 ? 0 : (type)sqrt((double)s);                \
			}                                                              \
	}

NORMS(norms_f32, float)
NORMS(norms_f64, double)

static int by_product(const struct rows *r)
{
	const int32_t dtype = r->f64 ? PB_RT_F64 : PB_RT_F32;
	const size_t size = r->f64 ? 8 : 4;
	const struct pb_gemm g = {
		.m = r->na,
		.n = r->nb,
		.k = r->n,
		.f64 = r->f64,
		.a = {r->a, r->n, 1, dtype},
		.b = {r->b, 1, r->n, dtype},
		.c = r->out,
		.c_rs = r->nb,
		.c_cs = 1,
		.alpha = -2,
	};
	char *norms = pb_rt_scratch((size_t)(r->na + r->nb) * size);
	int rc = !norms || pb_gemm_run(&g);

	if (!rc && r->f64) {
		norms_f64((const double *)r->a, r->na, r->n, (double *)norms);
		norms_f64((const double *)r->b, r->nb, r->n, (double *)norms + r->na);
		norms_f64_root((double *)r->out, (double *)norms, (double *)norms + r->na, r->na,
			       r->nb);
	} else if (!rc) {
		norms_f32((const float *)r->a, r->na, r->n, (float *)norms);
		norms_f32((const float *)r->b, r->nb, r->n, (float *)norms + r->na);
		norms_f32_root((float *)r->out, (float *)norms, (float *)norms + r->na, r->na,
			       r->nb);
	}
	if (norms)
		pb_rt_scratch_free(norms);
	return rc;
}

/* ---- cdist ---- */

static int check(const struct pb_rt_tensor *x1, const struct pb_rt_tensor *x2, double p,
		 int64_t mode)
{
	if (x1->ndim < 2 || x2->ndim < 2)
		return pb_rt_fail("cdist only supports at least 2D tensors, got %s and %s",
				  PB_SHAPE(x1), PB_SHAPE(x2));
	if (x1->sizes[x1->ndim - 1] != x2->sizes[x2->ndim - 1])
		return pb_rt_fail("cdist: X1 and X2 must have the same number of columns. X1: %lld X2: "
				  "%lld",
				  (long long)x1->sizes[x1->ndim - 1],
				  (long long)x2->sizes[x2->ndim - 1]);
	if (!pb_is_float(x1->dtype) || x1->dtype != x2->dtype || pb_is_16bit(x1->dtype))
		return pb_rt_fail("cdist: not implemented for %s and %s",
				  pb_rt_dtype_name(x1->dtype), pb_rt_dtype_name(x2->dtype));
	if (!(p >= 0))
		return pb_rt_fail("cdist only supports non-negative p values");
	if (mode < 0 || mode > 2)
		return pb_rt_fail("possible modes: 0, 1, 2, but was: %lld", (long long)mode);
	return 0;
}

/* @t with the batch dimensions of @sizes, contiguous. */
static struct pb_rt_tensor *expanded(const struct pb_rt_tensor *t, int ndim, const int64_t *batch)
{
	int64_t sizes[PB_RT_MAX_DIMS], strides[PB_RT_MAX_DIMS];
	struct pb_rt_tensor *view, *dense;

	memcpy(sizes, batch, sizeof(sizes));
	sizes[ndim - 2] = t->sizes[t->ndim - 2];
	sizes[ndim - 1] = t->sizes[t->ndim - 1];
	if (!pb_expand_strides(t, ndim, sizes, strides))
		return NULL;
	view = pb_rt_alias(t, ndim, sizes, strides, t->offset);
	dense = view ? pb_rt_contiguous(view) : NULL;
	pb_rt_delete(view);
	return dense;
}

static int batch_shape(const struct pb_rt_tensor *x1, const struct pb_rt_tensor *x2, int *ret_ndim,
		       int64_t *ret)
{
	const struct pb_rt_tensor *big = x1->ndim >= x2->ndim ? x1 : x2;
	const struct pb_rt_tensor *small = big == x1 ? x2 : x1;
	const int lead = big->ndim - small->ndim;

	*ret_ndim = big->ndim;
	for (int d = 0; d < big->ndim - 2; d++) {
		const int64_t a = big->sizes[d], b = d < lead ? 1 : small->sizes[d - lead];

		if (a != b && a != 1 && b != 1)
			return pb_rt_fail("The size of tensor a (%lld) must match the size of "
					  "tensor b (%lld) at non-singleton dimension %d",
					  (long long)(big == x1 ? a : b),
					  (long long)(big == x1 ? b : a), d);
		ret[d] = a == 1 ? b : a;
	}
	ret[big->ndim - 2] = x1->sizes[x1->ndim - 2];
	ret[big->ndim - 1] = x2->sizes[x2->ndim - 2];
	return 0;
}

static int run_batches(const struct pb_rt_tensor *a, const struct pb_rt_tensor *b,
		       struct pb_rt_tensor *out, double p, bool product)
{
	const int64_t size = (int64_t)pb_rt_dtype_size(out->dtype);
	struct rows r = {pb_rt_data(a),
			 pb_rt_data(b),
			 pb_rt_data(out),
			 out->sizes[out->ndim - 2],
			 out->sizes[out->ndim - 1],
			 a->sizes[a->ndim - 1],
			 out->dtype == PB_RT_F64};

	for (int64_t i = 0; i < out->numel / (r.na * r.nb); i++) {
		if (!product)
			direct(&r, p);
		else if (by_product(&r))
			return 1;
		r.a += r.na * r.n * size;
		r.b += r.nb * r.n * size;
		r.out += r.na * r.nb * size;
	}
	return 0;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__cdist_forward(AtenTensorHandle x1, AtenTensorHandle x2,
							 double p, int64_t *compute_mode,
							 AtenTensorHandle *ret0)
{
	const int64_t mode = compute_mode ? *compute_mode : 0;
	int64_t sizes[PB_RT_MAX_DIMS];
	struct pb_rt_tensor *a, *b, *out;
	bool product;
	int ndim, rc;

	if (check(x1, x2, p, mode) || batch_shape(x1, x2, &ndim, sizes))
		return 1;
	product = p == 2 && (mode == 1 || (mode == 0 && (sizes[ndim - 2] > MANY_ROWS ||
							 sizes[ndim - 1] > MANY_ROWS)));
	a = expanded(x1, ndim, sizes);
	b = expanded(x2, ndim, sizes);
	out = a && b ? pb_rt_empty(x1->dtype, ndim, sizes, NULL) : NULL;
	rc = !out;
	if (!rc && out->numel && a->numel == 0)
		memset(pb_rt_data(out), 0, (size_t)out->numel * pb_rt_dtype_size(out->dtype));
	else if (!rc && out->numel)
		rc = run_batches(a, b, out, p, product);
	pb_rt_delete(a);
	pb_rt_delete(b);
	if (rc)
		pb_rt_delete(out);
	else
		*ret0 = out;
	return rc;
}

/* ---- pdist: each pair of rows once ---- */

AOTI_EXPORT AOTITorchError aoti_torch_cpu__pdist_forward(AtenTensorHandle self, double p,
							 AtenTensorHandle *ret0)
{
	const enum metric m = metric_of(p);
	const int64_t n = self->ndim == 2 ? self->sizes[0] : 0, pairs = n * (n - 1) / 2;
	const struct pb_rt_tensor *x = self;
	struct pb_rt_tensor *out;
	int64_t at = 0;

	if (self->ndim != 2)
		return pb_rt_fail("pdist only supports 2D tensors, got %s", PB_SHAPE(self));
	if (!pb_rt_is_contiguous(self))
		return pb_rt_fail("_pdist_forward requires contiguous input");
	if (self->dtype != PB_RT_F32 && self->dtype != PB_RT_F64)
		return pb_not_implemented("pdist", self->dtype);
	out = pb_rt_empty(self->dtype, 1, &pairs, NULL);
	if (!out)
		return 1;
	for (int64_t i = 0; i < n; i++)
		for (int64_t j = i + 1; j < n; j++, at++) {
			const int64_t k = self->sizes[1];

			if (x->dtype == PB_RT_F64)
				((double *)pb_rt_data(out))[at] = distance_f64(
					(const double *)pb_rt_data(x) + i * k,
					(const double *)pb_rt_data(x) + j * k, k, m, p);
			else
				((float *)pb_rt_data(out))[at] =
					distance_f32((const float *)pb_rt_data(x) + i * k,
						     (const float *)pb_rt_data(x) + j * k, k, m, p);
		}
	*ret0 = out;
	return 0;
}
