/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Convolutions that are no good matrix product: depthwise, transposed (a product followed by a
 * scatter of its columns), and reference loops in double for everything rare.
 */
#include "runtime/ops/conv.h"

#include <string.h>

#include "runtime/ops/gemm.h"
#include "runtime/ops/parallel.h"
#include "runtime/ops/phases.h"
#include "runtime/tensor.h"

static int64_t tap_count(const struct pb_conv *c)
{
	return c->kernel[0] * c->kernel[1] * c->kernel[2];
}

/* ---- depthwise ---- */

struct depthwise {
	const struct pb_conv *c;
	int parts;
	/* Planes: the input of one group with its padding, for each part. */
	struct pb_phases ph;
	const int64_t *tap;
	float *planes;
	/* Rows: weights by tap, then by channel; for each part pointers to the taps that are inside. */
	const float *w;
	const float **taps;
};

static int depthwise_parts(const struct pb_conv *c)
{
	return pb_parallel_threads(2.0 * (double)(c->batch * c->groups * c->ocg) *
				   (double)(c->out[0] * c->out[1] * c->out[2]) *
				   (double)tap_count(c));
}

static void depthwise_plane(const struct depthwise *d, int64_t n, int64_t oc, const float *plane)
{
	const struct pb_conv *c = d->c;
	const int64_t taps = tap_count(c), positions = c->out[0] * c->out[1] * c->out[2];
	const float *w = (const float *)c->w + oc * c->ws[0];
	float *y = (float *)c->y + n * c->ys[0] + oc * c->ys[1];
	const float bias = c->bias ? ((const float *)c->bias)[oc] : 0;

	for (int64_t j = 0; j < positions; j += d->ph.run)
		pb_gemm_isa()->taps_row(y + j, plane + pb_phases_position(&d->ph, j), d->tap, w,
					taps, bias, d->ph.run);
}

static void depthwise_planes_part(void *arg, int part)
{
	const struct depthwise *d = arg;
	const struct pb_conv *c = d->c;
	const int64_t items = c->batch * c->groups;
	float *plane = d->planes + part * d->ph.channel;

	for (int64_t i = items * part / d->parts; i < items * (part + 1) / d->parts; i++) {
		const int64_t n = i / c->groups, g = i % c->groups;

		pb_phases_fill(&d->ph, c, n, g, 1, plane);
		for (int64_t j = 0; j < c->ocg; j++)
			depthwise_plane(d, n, g * c->ocg + j, plane);
	}
}

static int depthwise_planes(const struct pb_conv *c)
{
	struct depthwise d = {.c = c, .parts = depthwise_parts(c)};
	const int64_t taps = tap_count(c);
	int64_t *tap;

	pb_phases_init(&d.ph, c);
	tap = pb_rt_scratch(taps * sizeof(*tap) + d.parts * d.ph.channel * sizeof(float));
	if (!tap)
		return 1;
	for (int64_t t = 0; t < taps; t++)
		tap[t] = pb_phases_tap(&d.ph, c, t);
	d.tap = tap;
	d.planes = (float *)(tap + taps);
	pb_parallel(d.parts, depthwise_planes_part, &d);
	pb_rt_scratch_free(tap);
	return 0;
}

/* Channels last, one output per channel. */
static void depthwise_position(const struct depthwise *d, int64_t pos, const float *image,
			       const float **xp, float *y)
{
	const struct pb_conv *c = d->c;
	const float **wp = xp + tap_count(c), *w = d->w;
	const int64_t w0 = pos % c->out[2] * c->stride[2] - c->pad[2];
	const int64_t h0 = pos / c->out[2] % c->out[1] * c->stride[1] - c->pad[1];
	const int64_t d0 = pos / c->out[2] / c->out[1] * c->stride[0] - c->pad[0];
	int64_t used = 0;

	for (int64_t td = 0; td < c->kernel[0]; td++) {
		for (int64_t th = 0; th < c->kernel[1]; th++) {
			for (int64_t tw = 0; tw < c->kernel[2]; tw++, w += c->groups) {
				const int64_t id = d0 + td * c->dilation[0];
				const int64_t ih = h0 + th * c->dilation[1];
				const int64_t iw = w0 + tw * c->dilation[2];

				if (id < 0 || ih < 0 || iw < 0 || id >= c->in[0] ||
				    ih >= c->in[1] || iw >= c->in[2])
					continue;
				xp[used] = image + id * c->xs[2] + ih * c->xs[3] + iw * c->xs[4];
				wp[used++] = w;
			}
		}
	}
	pb_gemm_isa()->taps_channels(y, xp, wp, used, c->bias, c->groups);
}

static void depthwise_rows_part(void *arg, int part)
{
	const struct depthwise *d = arg;
	const struct pb_conv *c = d->c;
	const int64_t positions = c->out[0] * c->out[1] * c->out[2], items = c->batch * positions;

	for (int64_t i = items * part / d->parts; i < items * (part + 1) / d->parts; i++)
		depthwise_position(d, i % positions,
				   (const float *)c->x + i / positions * c->xs[0],
				   d->taps + part * 2 * tap_count(c), (float *)c->y + i * c->groups);
}

/* With one channel each, both layouts of weights are rows of taps. */
static void weights_by_tap(const void *ctx, void *dst)
{
	const struct pb_conv *c = ctx;

	pb_gemm_isa()->transpose(dst, c->groups, c->w, tap_count(c), c->groups, tap_count(c));
}

static int depthwise_rows(const struct pb_conv *c)
{
	struct depthwise d = {.c = c, .parts = depthwise_parts(c)};
	const int64_t taps = tap_count(c), pointers = d.parts * 2 * taps;
	const struct pb_pack_key key = {c->w, {taps, c->groups, 0, 0, 0, 6}};
	const size_t bytes = taps * c->groups * sizeof(float);
	const void *packed = pb_pack_constant(c->w_tensor, &key, bytes, weights_by_tap, c);
	char *p = pb_rt_scratch(pointers * sizeof(*d.taps) + (packed ? 0 : bytes));

	if (!p)
		return 1;
	d.taps = (const float **)p;
	if (!packed)
		weights_by_tap(c, p + pointers * sizeof(*d.taps));
	d.w = packed ? packed : (const void *)(p + pointers * sizeof(*d.taps));
	pb_parallel(d.parts, depthwise_rows_part, &d);
	pb_rt_scratch_free(p);
	return 0;
}

int pb_conv_depthwise(const struct pb_conv *c)
{
	return c->ys[4] == 1 || c->groups == 1 ? depthwise_planes(c) : depthwise_rows(c);
}

/* ---- transposed ---- */

/* Output range of input positions i with 0 <= i * s + t - pad < out. */
static void valid_range(int64_t s, int64_t t, int64_t in, int64_t out, int64_t *ret_lo,
			int64_t *ret_hi)
{
	int64_t lo = t < 0 ? (-t + s - 1) / s : 0, hi = out - t > 0 ? (out - t - 1) / s + 1 : 0;

	if (hi > in)
		hi = in;
	*ret_lo = lo;
	*ret_hi = hi < lo ? lo : hi;
}

/* Adds the columns of one output channel and tap to the output plane. */
static void scatter_tap(const struct pb_conv *c, int64_t t, const float *cols, float *y)
{
	const int64_t tap[3] = {t / c->kernel[2] / c->kernel[1], t / c->kernel[2] % c->kernel[1],
				t % c->kernel[2]};
	int64_t at[3], lo[3], hi[3];

	for (int i = 0; i < 3; i++) {
		at[i] = tap[i] * c->dilation[i] - c->pad[i];
		valid_range(c->stride[i], at[i], c->in[i], c->out[i], &lo[i], &hi[i]);
	}
	for (int64_t d = lo[0]; d < hi[0]; d++) {
		for (int64_t h = lo[1]; h < hi[1]; h++) {
			const float *src = cols + (d * c->in[1] + h) * c->in[2];
			float *row = y +
				     ((d * c->stride[0] + at[0]) * c->out[1] + h * c->stride[1] +
				      at[1]) *
					     c->out[2] +
				     at[2];

			for (int64_t w = lo[2]; w < hi[2]; w++)
				row[w * c->stride[2]] += src[w];
		}
	}
}

static int transposed_group(const struct pb_conv *c, int64_t n, int64_t g, float *cols)
{
	const int64_t taps = tap_count(c), m = c->ocg * taps;
	const int64_t in = c->in[0] * c->in[1] * c->in[2], out = c->out[0] * c->out[1] * c->out[2];
	const struct pb_gemm p = {
		.m = m,
		.n = in,
		.k = c->icg,
		.a = {(const float *)c->w + g * c->icg * m, 1, m, PB_RT_F32},
		.b = {(const float *)c->x + n * c->xs[0] + g * c->icg * c->xs[1], c->xs[1], 1,
		      PB_RT_F32},
		.c = cols,
		.c_rs = in,
		.c_cs = 1,
		.alpha = 1,
	};

	if (pb_gemm_run(&p))
		return 1;
	for (int64_t i = 0; i < c->ocg; i++) {
		const int64_t oc = g * c->ocg + i;
		const float bias = c->bias ? ((const float *)c->bias)[oc] : 0;
		float *y = (float *)c->y + n * c->ys[0] + oc * c->ys[1];

		for (int64_t j = 0; j < out; j++)
			y[j] = bias;
		for (int64_t t = 0; t < taps; t++)
			scatter_tap(c, t, cols + (i * taps + t) * in, y);
	}
	return 0;
}

int pb_conv_transposed(const struct pb_conv *c)
{
	const int64_t in = c->in[0] * c->in[1] * c->in[2];
	float *cols = pb_rt_scratch((c->ocg * tap_count(c) * in + 1) * sizeof(float));
	int rc = !cols;

	for (int64_t n = 0; n < c->batch && !rc; n++)
		for (int64_t g = 0; g < c->groups && !rc; g++)
			rc = transposed_group(c, n, g, cols);
	if (cols)
		pb_rt_scratch_free(cols);
	return rc;
}

/* ---- reference ---- */

static double load(const void *p, int32_t dtype, int64_t i)
{
	return dtype == PB_RT_F64 ? ((const double *)p)[i] : (double)((const float *)p)[i];
}

/* Input coordinate that meets output @o under tap @t, or -1. */
static int64_t input_at(const struct pb_conv *c, int i, int64_t o, int64_t t)
{
	int64_t x;

	if (!c->transposed) {
		x = o * c->stride[i] - c->pad[i] + t * c->dilation[i];
	} else {
		x = o + c->pad[i] - t * c->dilation[i];
		if (x < 0 || x % c->stride[i])
			return -1;
		x /= c->stride[i];
	}
	return x >= 0 && x < c->in[i] ? x : -1;
}

static double reference_element(const struct pb_conv *c, int64_t n, int64_t oc, const int64_t o[3])
{
	const int64_t g = oc / c->ocg;
	double acc = c->bias ? load(c->bias, c->dtype, oc) : 0;

	for (int64_t t = 0; t < tap_count(c); t++) {
		const int64_t tap[3] = {t / c->kernel[2] / c->kernel[1],
					t / c->kernel[2] % c->kernel[1], t % c->kernel[2]};
		int64_t x = n * c->xs[0], w = 0;
		bool inside = true;

		for (int i = 0; i < 3; i++) {
			const int64_t at = input_at(c, i, o[i], tap[i]);

			inside = inside && at >= 0;
			x += at * c->xs[2 + i];
			w += tap[i] * c->ws[2 + i];
		}
		for (int64_t ic = 0; inside && ic < c->icg; ic++) {
			const int64_t wi = c->transposed ? (g * c->icg + ic) * c->ws[0] +
								   (oc - g * c->ocg) * c->ws[1]
							 : oc * c->ws[0] + ic * c->ws[1];

			acc += load(c->x, c->dtype, x + (g * c->icg + ic) * c->xs[1]) *
			       load(c->w, c->dtype, w + wi);
		}
	}
	return acc;
}

int pb_conv_reference(const struct pb_conv *c)
{
	for (int64_t n = 0; n < c->batch; n++) {
		for (int64_t oc = 0; oc < c->groups * c->ocg; oc++) {
			for (int64_t j = 0; j < c->out[0] * c->out[1] * c->out[2]; j++) {
				const int64_t o[3] = {j / c->out[2] / c->out[1],
						      j / c->out[2] % c->out[1], j % c->out[2]};
				const int64_t y = n * c->ys[0] + oc * c->ys[1] + o[0] * c->ys[2] +
						  o[1] * c->ys[3] + o[2] * c->ys[4];
				const double v = reference_element(c, n, oc, o);

				if (c->dtype == PB_RT_F64)
					((double *)c->y)[y] = v;
				else
					((float *)c->y)[y] = (float)v;
			}
		}
	}
	return 0;
}
