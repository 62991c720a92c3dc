/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Samples of distributions that are tensors: multinomial, poisson. As aten/src/ATen/native/{Distributions.cpp,
 * cpu/MultinomialKernel.cpp}: the same numbers for the same seed.
 */
#include <math.h>
#include <string.h>

#include "runtime/ops/layout.h"
#include "runtime/ops/random_draw.h"
#include "runtime/ops/sort.h"
#include "runtime/proxy.h"

/* ---- multinomial ---- */

static int check_weights(const struct pb_rt_tensor *p, int64_t n_samples, bool replacement)
{
	const int64_t n = p->ndim ? p->sizes[p->ndim - 1] : 0;

	if (p->ndim < 1 || p->ndim > 2)
		return pb_rt_fail("prob_dist must be 1 or 2 dim");
	if (!pb_is_float(p->dtype))
		return pb_rt_fail("multinomial only supports floating-point dtypes for input, got: %s",
				  pb_scalar_name(p->dtype));
	if (n_samples <= 0)
		return pb_rt_fail("cannot sample n_sample <= 0 samples");
	if (!replacement && n_samples > n)
		return pb_rt_fail("cannot sample n_sample > prob_dist.size(-1) samples without replacement");
	if (n > (int64_t)1 << 24)
		return pb_rt_fail("number of categories cannot exceed 2^24");
	return 0;
}

/* Sums as the kernel makes them: in float for float and smaller. */
static int cumulative(const struct pb_rt_tensor *w, const void *row, int64_t n, double *cum)
{
	double sum = 0;

	for (int64_t i = 0; i < n; i++) {
		const double v = w->dtype == PB_RT_F64 ? ((const double *)row)[i] : ((const float *)row)[i];

		if (!(v >= 0))
			return pb_rt_fail("invalid multinomial distribution (encountering probability entry < 0)");
		if (!isfinite(v))
			return pb_rt_fail("invalid multinomial distribution (encountering probability entry = infinity or "
					  "NaN)");
		sum = w->dtype == PB_RT_F64 ? sum + v : (double)(float)((float)sum + (float)v);
		cum[i] = sum;
	}
	if (!(sum > 0))
		return pb_rt_fail("invalid multinomial distribution (sum of probabilities <= 0)");
	for (int64_t i = 0; i < n; i++)
		cum[i] = w->dtype == PB_RT_F64 ? cum[i] / sum : (double)((float)cum[i] / (float)sum);
	cum[n - 1] = 1;
	return 0;
}

static int64_t find(const double *cum, int64_t n, double u)
{
	int64_t left = 0, right = n;

	while (right > left) {
		const int64_t mid = left + (right - left) / 2;

		if (cum[mid] < u)
			left = mid + 1;
		else
			right = mid;
	}
	return left;
}

static int with_replacement(const struct pb_rt_tensor *w, int64_t n_samples, struct pb_rt_tensor *out)
{
	const int64_t n = w->sizes[w->ndim - 1], rows = w->ndim == 1 ? 1 : w->sizes[0];
	double *cum = pb_rt_scratch((size_t)n * sizeof(*cum) + 1);
	int rc = !cum || (rows && !n && pb_rt_fail("invalid multinomial distribution (sum of probabilities <= 0)"));

	for (int64_t r = 0; !rc && r < rows; r++) {
		rc = cumulative(w, (char *)pb_rt_data(w) + (size_t)(r * n) * pb_rt_dtype_size(w->dtype), n, cum);
		for (int64_t i = 0; !rc && i < n_samples; i++)
			((int64_t *)pb_rt_data(out))[r * n_samples + i] = find(cum, n, pb_draw_uniform01());
	}
	pb_rt_scratch_free(cum);
	return rc;
}

static double weight_at(const struct pb_rt_tensor *w, int64_t i)
{
	return w->dtype == PB_RT_F64 ? ((double *)pb_rt_data(w))[i] : ((float *)pb_rt_data(w))[i];
}

/* @w: contiguous. */
static int check_sums(const struct pb_rt_tensor *w)
{
	const int64_t n = w->sizes[w->ndim - 1], rows = w->ndim == 1 ? 1 : w->sizes[0];

	for (int64_t i = 0; i < w->numel; i++)
		if (!(weight_at(w, i) < INFINITY && weight_at(w, i) >= 0))
			return pb_rt_fail("probability tensor contains either `inf`, `nan` or element < 0");
	for (int64_t r = 0; r < rows; r++) {
		double sum = 0;

		for (int64_t i = r * n; i < (r + 1) * n; i++)
			sum += weight_at(w, i);
		if (sum == 0)
			return pb_rt_fail("invalid multinomial distribution (sum of probabilities <= 0)");
	}
	return 0;
}

/*
 * Each weight divided by a sample of the exponential distribution: the largest quotients are the samples. PyTorch draws
 * into a tensor with the strides of @p, in the order of memory.
 */
static struct pb_rt_tensor *race(const struct pb_rt_tensor *p, int32_t dtype)
{
	struct pb_rt_tensor *q = pb_empty_like(p, dtype);

	if (q && pb_rt_copy(q, p)) {
		pb_rt_delete(q);
		return NULL;
	}
	for (int64_t i = 0; q && i < q->numel; i++) {
		const double e = -log1p(-pb_draw_uniform01());

		if (dtype == PB_RT_F64)
			((double *)pb_rt_data(q))[i] /= e;
		else
			((float *)pb_rt_data(q))[i] /= (float)e;
	}
	return q;
}

int pb_op_multinomial(const struct pb_proxy_call *c)
{
	const struct pb_rt_tensor *p = pb_arg(c, 0);
	const int64_t n_samples = pb_arg_int(c, 1);
	const bool replacement = pb_arg_bool(c, 2);
	const int32_t dtype = p->dtype == PB_RT_F64 ? PB_RT_F64 : PB_RT_F32;
	struct pb_rt_tensor *w, *q = NULL, *values = NULL;
	int64_t sizes[2];
	int rc;

	if (check_weights(p, n_samples, replacement))
		return 1;
	w = pb_clone_as(p, dtype);
	if (!w)
		return 1;
	if (replacement && n_samples != 1) {
		sizes[0] = p->sizes[0];
		sizes[p->ndim - 1] = n_samples;
		c->ret[0] = pb_rt_empty(PB_RT_I64, p->ndim, sizes, NULL);
		rc = !c->ret[0] || with_replacement(w, n_samples, c->ret[0]);
	} else {
		rc = check_sums(w) || !(q = race(p, dtype)) ||
		     aoti_torch_cpu_topk(q, n_samples, -1, true, true, &values, &c->ret[0]);
	}
	pb_rt_delete(q);
	pb_rt_delete(values);
	pb_rt_delete(w);
	return rc;
}

/* ---- poisson ---- */

/* Transformed rejection (Hoermann, 1993), for rates of 10 and more. */
static double poisson_large(double rate)
{
	const double root = sqrt(rate), log_rate = log(rate);
	const double b = 0.931 + 2.53 * root, a = -0.059 + 0.02483 * b;
	const double inv_alpha = 1.1239 + 1.1328 / (b - 3.4), vr = 0.9277 - 3.6224 / (b - 2);

	for (;;) {
		const double u = pb_draw_uniform01() - 0.5, v = pb_draw_uniform01(), us = 0.5 - fabs(u);
		const double k = floor((2 * a / us + b) * u + rate + 0.43);

		if (us >= 0.07 && v <= vr)
			return k;
		if (k < 0 || (us < 0.013 && v > us))
			continue;
		if (log(v) + log(inv_alpha) - log(a / (us * us) + b) <= -rate + k * log_rate - lgamma(k + 1))
			return k;
	}
}

static double poisson_small(double rate)
{
	const double limit = exp(-rate);
	double product = 1;
	int64_t k = 0;

	for (;;) {
		product *= pb_draw_uniform01();
		if (!(product > limit))
			return (double)k;
		k++;
	}
}

int pb_op_poisson(const struct pb_proxy_call *c)
{
	const struct pb_rt_tensor *rates = pb_arg(c, 0);
	struct pb_rt_tensor *wide;
	int rc = 0;

	if (!pb_is_float(rates->dtype))
		return pb_not_implemented("poisson_cpu", rates->dtype);
	wide = pb_clone_as(rates, PB_RT_F64);
	c->ret[0] = pb_rt_empty(rates->dtype, rates->ndim, rates->sizes, NULL);
	for (int64_t i = 0; wide && i < wide->numel && !rc; i++) {
		double *v = (double *)pb_rt_data(wide) + i;

		if (!(*v >= 0))
			rc = pb_rt_fail("invalid Poisson rate, expected rate to be non-negative");
		else
			*v = *v >= 10 ? poisson_large(*v) : *v == 0 ? 0 : poisson_small(*v);
	}
	rc = rc || !wide || !c->ret[0] || pb_rt_copy(c->ret[0], wide);
	pb_rt_delete(wide);
	return rc;
}
