/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Convolution as matrix products.
 *
 * Planes with few output channels: y[oc, positions] = W[oc, (c, taps)] * X[(c, taps), positions].
 * The input of a group is first copied into padded planes, one per phase of the stride; then every
 * tap of every channel reads positions at unit stride, and panels of X are made by whole-vector
 * copies without any bounds check (implicit im2col).
 *
 * One tap: the input is the matrix.
 */
#include "runtime/ops/conv.h"

#include <string.h>

#include "runtime/ops/gemm.h"
#include "runtime/ops/phases.h"
#include "runtime/tensor.h"

#define MAX_NR 64

static int64_t min64(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* ---- planes ---- */

struct planes {
	struct pb_phases ph;
	const float *padded; /* planes of one group of one image */
	const int64_t *tap;  /* offset of row (c, taps) in padded */
	int64_t positions;
};

/* A panel row in runs: positions that are neighbours in the output are neighbours in the padded
 * planes. */
struct runs {
	int n;
	int at[MAX_NR];	     /* column in the panel */
	int64_t src[MAX_NR]; /* position in the plane */
};

static void find_runs(const struct planes *pl, int64_t j0, int nr, struct runs *r)
{
	int64_t j = j0;
	const int64_t end = min64(j0 + nr, pl->positions);

	r->n = 0;
	while (j < end) {
		r->at[r->n] = (int)(j - j0);
		r->src[r->n++] = pb_phases_position(&pl->ph, j);
		j += pl->ph.run - j % pl->ph.run;
	}
}

/*
 * Every run copies a whole panel row from its column on; what it writes too much is overwritten by
 * the next run or the next row. The buffer has one row to spare (pb_gemm_run sees to that), and so
 * have the planes.
 */
#define COPY_ROWS(NR)                                                                          \
	static void copy_rows##NR(const struct runs *r, const float *base, const int64_t *tap, \
				  int64_t kc, float *dst)                                      \
	{                                                                                      \
		for (int64_t p = 0; p < kc; p++, dst += NR) {                                  \
			const float *src = base + tap[p];                                      \
                                                                                               \
			for (int i = 0; i < r->n; i++) {                                       \
				float row[NR];                                                 \
                                                                                               \
				memcpy(row, src + r->src[i], sizeof(row));                     \
				memcpy(dst + r->at[i], row, sizeof(row));                      \
			}                                                                      \
		}                                                                              \
	}

COPY_ROWS(8)
COPY_ROWS(16)
COPY_ROWS(32)

static void pack_planes(const void *ctx, int64_t k0, int64_t kc, int64_t j0, int64_t nc, void *dst)
{
	const struct planes *pl = ctx;
	const int nr = pb_gemm_isa()->nr[0];
	float *out = dst;

	for (int64_t j = 0; j < nc; j += nr, out += kc * nr) {
		struct runs r;

		find_runs(pl, j0 + j, nr, &r);
		if (nr == 32)
			copy_rows32(&r, pl->padded, pl->tap + k0, kc, out);
		else if (nr == 16)
			copy_rows16(&r, pl->padded, pl->tap + k0, kc, out);
		else
			copy_rows8(&r, pl->padded, pl->tap + k0, kc, out);
	}
}

static void fill_taps(const struct pb_conv *c, const struct pb_phases *ph, int64_t *tap)
{
	const int64_t taps = c->kernel[0] * c->kernel[1] * c->kernel[2];

	for (int64_t ch = 0; ch < c->icg; ch++)
		for (int64_t t = 0; t < taps; t++)
			tap[ch * taps + t] = ch * ph->channel + pb_phases_tap(ph, c, t);
}

/* One image and group. */
static int planes_product(const struct pb_conv *c, int64_t n, int64_t g, struct planes *pl)
{
	const int64_t k = c->icg * c->kernel[0] * c->kernel[1] * c->kernel[2];
	const int64_t oc0 = g * c->ocg;
	struct pb_gemm p = {
		.m = c->ocg,
		.n = pl->positions,
		.k = k,
		.a = {(const float *)c->w + oc0 * k, k, 1, PB_RT_F32},
		.pack_b = pack_planes,
		.pack_ctx = pl,
		.c = (float *)c->y + n * c->ys[0] + oc0 * c->ys[1],
		.c_rs = c->ys[1],
		.c_cs = 1,
		.alpha = 1,
	};

	if (c->bias) {
		p.self = (const float *)c->bias + oc0;
		p.self_rs = 1;
		p.beta = 1;
	}
	return pb_gemm_run(&p);
}

int pb_conv_planes(const struct pb_conv *c)
{
	const int64_t k = c->icg * c->kernel[0] * c->kernel[1] * c->kernel[2];
	struct planes pl = {.positions = c->out[0] * c->out[1] * c->out[2]};
	size_t plane_bytes;
	char *scratch;
	int rc = 0;

	pb_phases_init(&pl.ph, c);
	plane_bytes = (c->icg * pl.ph.channel + MAX_NR) * sizeof(float);
	scratch = pb_rt_scratch(plane_bytes + k * sizeof(int64_t) + 64);
	if (!scratch)
		return 1;
	pl.padded = (float *)scratch;
	pl.tap = (int64_t *)(scratch + ((plane_bytes + 63) & ~(size_t)63));
	fill_taps(c, &pl.ph, (int64_t *)pl.tap);
	memset(scratch + plane_bytes - MAX_NR * sizeof(float), 0, MAX_NR * sizeof(float));
	for (int64_t n = 0; n < c->batch && !rc; n++) {
		for (int64_t g = 0; g < c->groups && !rc; g++) {
			pb_phases_fill(&pl.ph, c, n, g * c->icg, c->icg, (float *)scratch);
			rc = planes_product(c, n, g, &pl);
		}
	}
	pb_rt_scratch_free(scratch);
	return rc;
}

/* ---- one tap ---- */

static int product_of_planes(const struct pb_conv *c, int64_t n, int64_t g)
{
	const int64_t oc0 = g * c->ocg;
	struct pb_gemm p = {
		.m = c->ocg,
		.n = c->in[0] * c->in[1] * c->in[2],
		.k = c->icg,
		.a = {(const float *)c->w + oc0 * c->ws[0], c->ws[0], 1, PB_RT_F32},
		.b = {(const float *)c->x + n * c->xs[0] + g * c->icg * c->xs[1], c->xs[1], 1,
		      PB_RT_F32},
		.c = (float *)c->y + n * c->ys[0] + oc0 * c->ys[1],
		.c_rs = c->ys[1],
		.c_cs = 1,
		.alpha = 1,
	};

	if (c->bias) {
		p.self = (const float *)c->bias + oc0;
		p.self_rs = 1;
		p.beta = 1;
	}
	return pb_gemm_run(&p);
}

/* Channels last: all images are one matrix. */
static int product_of_rows(const struct pb_conv *c, int64_t g)
{
	const int64_t oc0 = g * c->ocg, ic = c->groups * c->icg, oc = c->groups * c->ocg;
	struct pb_gemm p = {
		.m = c->batch * c->out[0] * c->out[1] * c->out[2],
		.n = c->ocg,
		.k = c->icg,
		.a = {(const float *)c->x + g * c->icg, ic, 1, PB_RT_F32},
		.b = {(const float *)c->w + oc0 * c->ws[0], 1, c->ws[0], PB_RT_F32},
		.c = (float *)c->y + oc0,
		.c_rs = oc,
		.c_cs = 1,
		.alpha = 1,
	};

	p.b_packed = pb_gemm_constant(c->w_tensor, &p.b, p.k, p.n);
	if (c->bias) {
		p.self = (const float *)c->bias + oc0;
		p.self_cs = 1;
		p.beta = 1;
	}
	return pb_gemm_run(&p);
}

bool pb_conv_is_product(const struct pb_conv *c)
{
	for (int i = 0; i < 3; i++)
		if (c->kernel[i] != 1 || c->stride[i] != 1 || c->pad[i] != 0)
			return false;
	return true;
}

int pb_conv_product(const struct pb_conv *c)
{
	const bool rows = c->xs[4] != 1 || c->ys[4] != 1; /* either is 1 with one channel */
	int rc = 0;

	for (int64_t g = 0; g < c->groups && !rc; g++) {
		if (rows)
			rc = product_of_rows(c, g);
		for (int64_t n = 0; n < c->batch && !rows && !rc; n++)
			rc = product_of_planes(c, n, g);
	}
	return rc;
}
