/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Samples of the gamma, Dirichlet, binomial and normal distributions, called by name. As torch 2.13.0's
 * aten/src/ATen/native/{Distributions.h,Distributions.cpp}: the same steps, so that a seed gives the same numbers.
 * The gamma sampler there is NumPy's (MIT, Robert Kern), the binomial one TensorFlow's (Apache-2.0).
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "runtime/ops/layout.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/random_draw.h"
#include "runtime/proxy.h"

static bool is_single_or_double(int32_t dtype)
{
	return dtype == PB_RT_F32 || dtype == PB_RT_F64;
}

/* What an intermediate of the tensor's own type keeps of @v. */
static double in_type(double v, int32_t dtype)
{
	return dtype == PB_RT_F64 ? v : (double)(float)v;
}

static double smallest(int32_t dtype)
{
	return dtype == PB_RT_F64 ? DBL_MIN : (double)FLT_MIN;
}

/* ---- gamma (Marsaglia and Tsang, 2000) ---- */

/* Numbers that PyTorch holds in @dtype are rounded to it; those that it holds in double are not. */
static double sample_gamma(double alpha, int32_t dtype)
{
	double scale = 1, d, c;

	if (alpha < 1) {
		if (alpha == 0)
			return 0;
		scale = pow(1 - pb_draw_uniform01(), in_type(1 / alpha, dtype));
		alpha = in_type(alpha + 1, dtype);
	}
	d = in_type(alpha - (double)(1.0f / 3.0f), dtype);
	c = 1 / sqrt(9 * d);
	for (;;) {
		double x, y, v, u;

		do {
			x = pb_draw_normal01();
			y = 1 + c * x;
		} while (y <= 0);
		v = y * y * y;
		u = 1 - pb_draw_uniform01();
		if (u < 1 - (double)0.0331f * (x * x) * (x * x))
			return scale * d * v;
		if (log(u) < 0.5 * (x * x) + d * (1 - v + log(v)))
			return scale * d * v;
	}
}

/* A double for each element of @from, drawn in the order of indices. */
static struct pb_rt_tensor *gammas(const struct pb_rt_tensor *from, int32_t dtype)
{
	struct pb_rt_tensor *t = pb_clone_as(from, PB_RT_F64);

	for (int64_t i = 0; t && i < t->numel; i++) {
		double *v = (double *)pb_rt_data(t) + i;

		*v = isnan(*v) ? NAN : fmax(smallest(dtype), in_type(sample_gamma(*v, dtype), dtype));
	}
	return t;
}

static int give(const struct pb_proxy_call *c, int32_t dtype, struct pb_rt_tensor *wide)
{
	int rc = !wide;

	if (!rc) {
		c->ret[0] = pb_rt_empty(dtype, wide->ndim, wide->sizes, NULL);
		rc = !c->ret[0] || pb_rt_copy(c->ret[0], wide);
	}
	pb_rt_delete(wide);
	return rc;
}

int pb_op_standard_gamma(const struct pb_proxy_call *c)
{
	const struct pb_rt_tensor *alpha = pb_arg(c, 0);

	if (!is_single_or_double(alpha->dtype))
		return pb_not_implemented("gamma_cpu", alpha->dtype);
	return give(c, alpha->dtype, gammas(alpha, alpha->dtype));
}

/* Neither end of [0, 1] is given. */
static double inside(double v, int32_t dtype)
{
	const double most = dtype == PB_RT_F64 ? nextafter(1, 0) : (double)nextafterf(1, 0);

	v = in_type(v, dtype);
	v = v < smallest(dtype) ? smallest(dtype) : v;
	return most < v ? most : v;
}

int pb_op_sample_dirichlet(const struct pb_proxy_call *c)
{
	const struct pb_rt_tensor *alpha = pb_arg(c, 0);
	const int64_t n = alpha->ndim ? alpha->sizes[alpha->ndim - 1] : 1;
	struct pb_rt_tensor *t;

	if (!is_single_or_double(alpha->dtype))
		return pb_not_implemented("dirichlet", alpha->dtype);
	t = gammas(alpha, PB_RT_F64);
	for (int64_t row = 0; t && row < t->numel; row += n) {
		double *v = (double *)pb_rt_data(t) + row, sum = 0;

		for (int64_t i = 0; i < n; i++)
			sum += v[i];
		for (int64_t i = 0; i < n; i++)
			v[i] = inside(v[i] / sum, alpha->dtype);
	}
	return give(c, alpha->dtype, t);
}

/* ---- binomial ---- */

static double stirling_tail(double k)
{
	static const double known[] = {0.0810614667953272,  0.0413406959554092,  0.0276779256849983, 0.02079067210376509,
				       0.0166446911898211,  0.0138761288230707,  0.0118967099458917, 0.0104112652619720,
				       0.00925546218271273, 0.00833056343336287};
	const double square = (k + 1) * (k + 1);

	if (k < 10)
		return known[(size_t)k];
	return (1.0 / 12 - (1.0 / 360 - 1.0 / 1260 / square) / square) / (k + 1);
}

static double by_inversion(double count, double prob)
{
	const double log_prob = log1p(-prob);
	double sum = 0, n = 0;

	for (;;) {
		sum += ceil(log(pb_draw_uniform01()) / log_prob);
		if (sum > count)
			return n;
		n++;
	}
}

/* Transformed rejection with squeeze (Hoermann, 1993). */
static double by_rejection(double count, double prob)
{
	const double stddev = sqrt(count * prob * (1 - prob)), b = 1.15 + 2.53 * stddev;
	const double a = -0.0873 + 0.0248 * b + 0.01 * prob, c = count * prob + 0.5, v_r = 0.92 - 4.2 / b;
	const double r = prob / (1 - prob), alpha = (2.83 + 5.1 / b) * stddev, m = floor((count + 1) * prob);

	for (;;) {
		const double u = pb_draw_uniform01() - 0.5, v = pb_draw_uniform01(), us = 0.5 - fabs(u);
		const double k = floor((2 * a / us + b) * u + c);

		if (k < 0 || k > count)
			continue;
		if (us >= 0.07 && v <= v_r)
			return k;
		if (log(v * alpha / (a / (us * us) + b)) <=
		    (m + 0.5) * log((m + 1) / (r * (count - m + 1))) + (count + 1) * log((count - m + 1) / (count - k + 1)) +
			    (k + 0.5) * log(r * (count - k + 1) / (k + 1)) + stirling_tail(m) + stirling_tail(count - m) -
			    stirling_tail(k) - stirling_tail(count - k))
			return k;
	}
}

static double sample_binomial(double count, double prob)
{
	const double rare = prob <= 0.5 ? prob : 1 - prob;
	double n;

	if (count <= 0 || prob <= 0)
		return 0;
	if (prob >= 1)
		return count;
	if (isnan(prob))
		return NAN;
	n = count * rare >= 10 ? by_rejection(count, rare) : by_inversion(count, rare);
	return prob <= 0.5 ? n : count - n;
}

/* PyTorch's result has the shape of @count: what is broadcast is @prob alone. */
int pb_op_binomial(const struct pb_proxy_call *c)
{
	const struct pb_rt_tensor *count = pb_arg(c, 0), *prob = pb_arg(c, 1);
	const struct pb_rt_tensor *both[] = {count, prob};
	int64_t sizes[PB_RT_MAX_DIMS];
	struct pb_rt_tensor *n, *p;
	int ndim, rc;

	if (!is_single_or_double(count->dtype))
		return pb_not_implemented("binomial_cpu", count->dtype);
	if (prob->dtype != count->dtype)
		return pb_rt_fail("Found dtype %s but expected %s", pb_scalar_name(count->dtype), pb_scalar_name(prob->dtype));
	if (pb_broadcast(both, 2, &ndim, sizes))
		return 1;
	if (ndim != count->ndim || memcmp(sizes, count->sizes, (size_t)ndim * sizeof(*sizes)) != 0)
		return pb_rt_fail("binomial: probabilities of %s for counts of %s", PB_SHAPE(prob), PB_SHAPE(count));
	n = pb_clone_as(count, PB_RT_F64);
	p = pb_rt_empty(PB_RT_F64, ndim, sizes, NULL);
	rc = !n || !p || pb_rt_copy(p, prob);
	for (int64_t i = 0; !rc && i < n->numel; i++)
		((double *)pb_rt_data(n))[i] =
			sample_binomial(((double *)pb_rt_data(n))[i], ((double *)pb_rt_data(p))[i]);
	pb_rt_delete(p);
	if (rc) {
		pb_rt_delete(n);
		return 1;
	}
	return give(c, count->dtype, n);
}

/* ---- normal ---- */

static double scalar(const struct pt2box_op_value *v)
{
	return v->kind == PT2BOX_OP_FLOAT ? v->v.f : (double)v->v.i;
}

int pb_op_normal(const struct pb_proxy_call *c)
{
	const struct pb_draw d = {.kind = PB_DRAW_NORMAL, .from = scalar(&c->args[1]), .to = scalar(&c->args[2])};
	const int32_t dtype = (int32_t)pb_arg_int(c, 3);

	if (!pb_is_float(dtype))
		return pb_not_implemented("normal_kernel_cpu", dtype);
	if (d.to < 0)
		return pb_rt_fail("expected non-negative standard deviation, but got std=%.1f", d.to);
	if (c->args[0].count > PB_RT_MAX_DIMS)
		return pb_rt_fail("normal: more than %d dimensions", PB_RT_MAX_DIMS);
	c->ret[0] = pb_rt_empty(dtype, c->args[0].count, c->args[0].v.ints, NULL);
	return !c->ret[0] || pb_draw_fill(c->ret[0], &d);
}

/* The mean is added to what was drawn and rounded, as PyTorch does. */
int pb_op_normal_means(const struct pb_proxy_call *c)
{
	const struct pb_rt_tensor *mean = pb_arg(c, 0);
	const struct pb_draw d = {.kind = PB_DRAW_NORMAL, .from = 0, .to = scalar(&c->args[1])};
	struct pb_rt_tensor *drawn;
	int rc;

	if (d.to < 0)
		return pb_rt_fail("normal expects std >= 0.0, but found std %g", d.to);
	drawn = pb_rt_empty(mean->dtype, mean->ndim, mean->sizes, NULL);
	rc = !drawn || (drawn->numel && pb_draw_fill(drawn, &d)) || /* nothing is drawn: any type */
	     aoti_torch_cpu_add_Tensor(drawn, (struct pb_rt_tensor *)mean, 1, &c->ret[0]);
	pb_rt_delete(drawn);
	return rc;
}
