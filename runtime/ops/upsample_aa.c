/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Resizing of images with antialiasing, called by name: first along the width, then along the height. As torch 2.13.0's
 * aten/src/ATen/native/cpu/UpSampleKernel.cpp: weights in the type that sums are made in, and for uint8 in 16-bit integers.
 */
#include <math.h>
#include <string.h>

#include "runtime/ops/layout.h"
#include "runtime/proxy.h"

typedef double filter_fn(double x);

static double linear(double x)
{
	x = fabs(x);
	return x < 1 ? 1 - x : 0;
}

/* Of each output along one dimension: which inputs, how many, with what weights. */
struct taps {
	int64_t n_out, most;
	int64_t *from, *count;
	double *weights; /* [n_out][most] */
	int shift;	 /* of uint8: weights are integers times 2^shift */
	void *memory;
};

static double to_float(double v, bool wide)
{
	return wide ? v : (double)(float)v;
}

static double scale_of(int64_t in, int64_t out, bool align, const struct pt2box_op_value *given)
{
	if (in == out) /* PyTorch leaves such a dimension alone, whatever scale is given. */
		return 1;
	if (align)
		return out > 1 ? (double)(in - 1) / (double)(out - 1) : 0;
	if (given->kind != PT2BOX_OP_NONE && given->v.f > 0)
		return 1 / given->v.f;
	return (double)in / (double)out;
}

static int taps_init(struct taps *t, int64_t n_out, int64_t most)
{
	const size_t n = (size_t)n_out;
	size_t doubles;

	if (__builtin_mul_overflow(n, (size_t)most, &doubles) || doubles > SIZE_MAX / 64)
		return pb_rt_fail("upsample: %lld outputs of up to %lld inputs each are too many", (long long)n_out,
				  (long long)most);
	t->memory = pb_rt_scratch(doubles * sizeof(double) + 2 * n * sizeof(int64_t) + 1);
	if (!t->memory)
		return 1;
	t->n_out = n_out;
	t->most = most;
	t->weights = t->memory;
	t->from = (int64_t *)(t->weights + doubles);
	t->count = t->from + n;
	return 0;
}

static int64_t below(int64_t v, int64_t most)
{
	return v < most ? v : most;
}

/* @wide: weights are doubles; else floats. */
static int make_taps(struct taps *t, int64_t n_in, int64_t n_out, double scale, filter_fn *filter, int taps, bool wide)
{
	const double support = scale >= 1 ? taps * 0.5 * scale : taps * 0.5, inv = scale >= 1 ? 1 / scale : 1;
	double most = ceil(support) * 2 + 1;

	if (!(most < 1e9))
		return pb_rt_fail("upsample: a scale of %g is not possible", scale);
	if (taps_init(t, n_out, (int64_t)most))
		return 1;
	for (int64_t i = 0; i < n_out; i++) {
		const double center = to_float(scale * ((double)i + 0.5), wide);
		double *w = t->weights + i * t->most, total = 0;
		int64_t from = (int64_t)(center - support + 0.5), end = (int64_t)(center + support + 0.5), n;

		from = from < 0 ? 0 : from;
		n = below(end, n_in) - from;
		n = n < 0 ? 0 : below(n, t->most);
		for (int64_t k = 0; k < n; k++) {
			w[k] = to_float(filter(((double)(k + from) - center + 0.5) * inv), wide);
			total += w[k];
		}
		for (int64_t k = 0; k < n && total != 0; k++)
			w[k] = to_float(w[k] / total, wide);
		t->from[i] = from;
		t->count[i] = n_in == n_out ? 1 : n; /* with a second one, of weight 0, an infinity would become NaN */
	}
	return 0;
}

/* As many bits as the largest weight leaves in 16. */
static void to_integers(struct taps *t)
{
	double largest = 0;

	for (int64_t i = 0; i < t->n_out; i++)
		for (int64_t k = 0; k < t->count[i]; k++)
			largest = fmax(largest, t->weights[i * t->most + k]);
	for (t->shift = 0; t->shift < 22; t->shift++)
		if ((int)(0.5 + largest * (1 << (t->shift + 1))) >= 1 << 15)
			break;
	for (int64_t i = 0; i < t->n_out; i++)
		for (int64_t k = 0; k < t->count[i]; k++) {
			double *w = &t->weights[i * t->most + k];

			*w = trunc(*w * (1 << t->shift) + (*w < 0 ? -0.5 : 0.5));
		}
}

static double rounded_byte(double sum, int shift)
{
	const int64_t v = ((int64_t)sum + (shift ? INT64_C(1) << (shift - 1) : 0)) >> shift;

	return v < 0 ? 0 : v > 255 ? 255 : (double)v;
}

/* Doubles [outer][n_in][inner] -> [outer][n_out][inner]; what is between the two passes has the tensor's type. */
static void along(const struct taps *t, const double *in, double *out, int64_t outer, int64_t n_in, int64_t inner, bool bytes)
{
	for (int64_t o = 0; o < outer; o++)
		for (int64_t i = 0; i < t->n_out; i++)
			for (int64_t k = 0; k < inner; k++) {
				const double *from = in + (o * n_in + t->from[i]) * inner + k, *w = t->weights + i * t->most;
				double sum = 0;

				for (int64_t j = 0; j < t->count[i]; j++)
					sum += from[j * inner] * w[j];
				out[(o * t->n_out + i) * inner + k] = bytes ? rounded_byte(sum, t->shift) : sum;
			}
}

static int round_to(double *v, int64_t n, int32_t dtype)
{
	struct pb_rt_tensor *wide = pb_rt_from_blob(v, PB_RT_F64, 1, &n, NULL, 0), *narrow;
	int rc = 1;

	narrow = wide ? pb_clone_as(wide, dtype) : NULL;
	if (narrow)
		rc = pb_rt_copy(wide, narrow);
	pb_rt_delete(wide);
	pb_rt_delete(narrow);
	return rc;
}

struct resize {
	const struct pb_rt_tensor *in;
	int64_t h, w; /* of the output */
	struct taps across, down;
};

static int both_ways(const struct resize *r, const double *in, double *between, struct pb_rt_tensor *out)
{
	const struct pb_rt_tensor *x = r->in;
	const int64_t planes = x->sizes[0] * x->sizes[1], rows = planes * x->sizes[2];
	const bool bytes = x->dtype == PB_RT_U8;
	struct pb_rt_tensor *wide = pb_rt_empty(PB_RT_F64, 4, out->sizes, NULL);
	int rc = !wide;

	if (!rc) {
		along(&r->across, in, between, rows, x->sizes[3], 1, bytes);
		rc = x->dtype != PB_RT_F64 && round_to(between, rows * r->w, x->dtype);
	}
	if (!rc) {
		along(&r->down, between, pb_rt_data(wide), planes, x->sizes[2], r->w, bytes);
		rc = pb_rt_copy(out, wide);
	}
	pb_rt_delete(wide);
	return rc;
}

static int resize(struct resize *r, struct pb_rt_tensor *out)
{
	const int64_t rows = r->in->sizes[0] * r->in->sizes[1] * r->in->sizes[2];
	struct pb_rt_tensor *wide = pb_clone_as(r->in, PB_RT_F64);
	struct pb_rt_tensor *between = pb_rt_empty(PB_RT_F64, 2, (int64_t[]){rows, r->w}, NULL);
	int rc = !wide || !between || both_ways(r, pb_rt_data(wide), pb_rt_data(between), out);

	pb_rt_delete(wide);
	pb_rt_delete(between);
	return rc;
}

static int check(const struct pb_proxy_call *c)
{
	const struct pb_rt_tensor *x = pb_arg(c, 0);
	bool empty = x->ndim != 4;

	if (c->args[1].count != 2)
		return pb_rt_fail("It is expected output_size equals to 2, but got size %u", c->args[1].count);
	if (x->ndim != 4)
		return pb_rt_fail("It is expected input_size equals to 4, but got size %d", x->ndim);
	for (int d = 1; d < 4; d++)
		empty |= x->sizes[d] == 0;
	if (x->sizes[2] <= 0 || x->sizes[3] <= 0 || c->args[1].v.ints[0] <= 0 || c->args[1].v.ints[1] <= 0)
		return pb_rt_fail("Input and output sizes should be greater than 0, but got input (H: %lld, W: %lld) output (H: "
				  "%lld, W: %lld)",
				  (long long)x->sizes[2], (long long)x->sizes[3], (long long)c->args[1].v.ints[0],
				  (long long)c->args[1].v.ints[1]);
	if (empty)
		return pb_rt_fail("Non-empty 4D data tensor expected but got a tensor with sizes %s", PB_SHAPE(x));
	if (x->dtype != PB_RT_F32 && x->dtype != PB_RT_F64 && x->dtype != PB_RT_U8)
		return pb_not_implemented("compute_index_ranges_weights", x->dtype);
	return 0;
}

static int upsample(const struct pb_proxy_call *c, filter_fn *filter, int taps)
{
	const struct pb_rt_tensor *x = pb_arg(c, 0);
	const bool align = pb_arg_bool(c, 2), wide = x->dtype == PB_RT_F64 || x->dtype == PB_RT_U8;
	struct resize r = {.in = x};
	int rc;

	if (check(c))
		return 1;
	r.h = c->args[1].v.ints[0];
	r.w = c->args[1].v.ints[1];
	rc = make_taps(&r.across, x->sizes[3], r.w, to_float(scale_of(x->sizes[3], r.w, align, &c->args[4]), wide), filter, taps,
		       wide) ||
	     make_taps(&r.down, x->sizes[2], r.h, to_float(scale_of(x->sizes[2], r.h, align, &c->args[3]), wide), filter, taps,
		       wide);
	if (!rc && x->dtype == PB_RT_U8) {
		to_integers(&r.across);
		to_integers(&r.down);
	}
	if (!rc)
		c->ret[0] = pb_empty_format(x->dtype, 4, (int64_t[]){x->sizes[0], x->sizes[1], r.h, r.w},
					    pb_suggested_format(x));
	rc = rc || !c->ret[0] || (c->ret[0]->numel && resize(&r, c->ret[0]));
	if (r.across.memory)
		pb_rt_scratch_free(r.across.memory);
	if (r.down.memory)
		pb_rt_scratch_free(r.down.memory);
	return rc;
}

int pb_op_upsample_bilinear2d_aa(const struct pb_proxy_call *c)
{
	return upsample(c, linear, 2);
}
