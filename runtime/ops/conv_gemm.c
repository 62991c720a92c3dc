/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Convolution as matrix products, in two forms.
 *
 * Planes (NCHW): y[oc, positions] = W[oc, (c, taps)] * X[(c, taps), positions]. The input of a
 * group is first copied into padded planes, one per phase of the stride; then every tap of every
 * channel reads positions at unit stride, and panels of X are made by whole-vector copies without
 * any bounds check (implicit im2col).
 *
 * Rows (channels last): y[positions, oc] = X[positions, (taps, c)] * W^T, blocks of rows gathered
 * by runs of channels, W^T packed and cached when constant.
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

/* 1x1, stride 1, no padding over dense planes: the input is the matrix. */
static bool pointwise(const struct pb_conv *c)
{
	for (int i = 0; i < 3; i++)
		if (c->kernel[i] != 1 || c->stride[i] != 1 || c->pad[i] != 0)
			return false;
	return (c->in[2] == 1 || c->xs[4] == 1) && (c->in[1] == 1 || c->xs[3] == c->in[2]) &&
	       (c->in[0] == 1 || c->xs[2] == c->in[1] * c->in[2]);
}

static int pointwise_product(const struct pb_conv *c, int64_t n, int64_t g)
{
	const int64_t oc0 = g * c->ocg;
	struct pb_gemm p = {
		.m = c->ocg,
		.n = c->in[0] * c->in[1] * c->in[2],
		.k = c->icg,
		.a = {(const float *)c->w + oc0 * c->icg, c->icg, 1, PB_RT_F32},
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

int pb_conv_planes(const struct pb_conv *c)
{
	const int64_t k = c->icg * c->kernel[0] * c->kernel[1] * c->kernel[2];
	const bool direct = pointwise(c);
	struct planes pl = {.positions = c->out[0] * c->out[1] * c->out[2]};
	size_t plane_bytes;
	char *scratch = NULL;
	int rc = 0;

	if (!direct) {
		pb_phases_init(&pl.ph, c);
		plane_bytes = (c->icg * pl.ph.channel + MAX_NR) * sizeof(float);
		scratch = pb_rt_scratch(plane_bytes + k * sizeof(int64_t) + 64);
		if (!scratch)
			return 1;
		pl.padded = (float *)scratch;
		pl.tap = (int64_t *)(scratch + ((plane_bytes + 63) & ~(size_t)63));
		fill_taps(c, &pl.ph, (int64_t *)pl.tap);
		memset(scratch + plane_bytes - MAX_NR * sizeof(float), 0, MAX_NR * sizeof(float));
	}
	for (int64_t n = 0; n < c->batch && !rc; n++) {
		for (int64_t g = 0; g < c->groups && !rc; g++) {
			if (!direct)
				pb_phases_fill(&pl.ph, c, n, g * c->icg, c->icg, (float *)scratch);
			rc = direct ? pointwise_product(c, n, g) : planes_product(c, n, g, &pl);
		}
	}
	if (scratch)
		pb_rt_scratch_free(scratch);
	return rc;
}

/* ---- rows ---- */

/* W^T of one group: row (tap, channel), column oc. */
struct weight_rows {
	const struct pb_conv *c;
	int64_t g;
};

static void fill_weight_rows(const void *ctx, void *dst)
{
	const struct weight_rows *wr = ctx;
	const struct pb_conv *c = wr->c;
	const int nr = pb_gemm_isa()->nr[0];
	const int64_t k = c->icg * c->kernel[0] * c->kernel[1] * c->kernel[2];
	const float *w = (const float *)c->w + wr->g * c->ocg * c->ws[0];
	float *out = dst;

	for (int64_t j0 = 0; j0 < c->ocg; j0 += nr, out += k * nr) {
		float *row = out;

		for (int64_t d = 0; d < c->kernel[0]; d++)
			for (int64_t h = 0; h < c->kernel[1]; h++)
				for (int64_t x = 0; x < c->kernel[2]; x++)
					for (int64_t ic = 0; ic < c->icg; ic++, row += nr) {
						const float *src = w + d * c->ws[2] + h * c->ws[3] +
								   x * c->ws[4] + ic * c->ws[1];

						for (int j = 0; j < nr; j++)
							row[j] = j0 + j < c->ocg
									 ? src[(j0 + j) * c->ws[0]]
									 : 0;
					}
	}
}

/* Input coordinates of output @o in each dimension for tap 0. */
static void gather_row(const struct pb_conv *c, int64_t pos, const float *image, float *dst)
{
	const int64_t w0 = pos % c->out[2] * c->stride[2] - c->pad[2];
	const int64_t h0 = pos / c->out[2] % c->out[1] * c->stride[1] - c->pad[1];
	const int64_t d0 = pos / c->out[2] / c->out[1] * c->stride[0] - c->pad[0];

	for (int64_t td = 0; td < c->kernel[0]; td++) {
		const int64_t d = d0 + td * c->dilation[0];

		for (int64_t th = 0; th < c->kernel[1]; th++) {
			const int64_t h = h0 + th * c->dilation[1];

			for (int64_t tw = 0; tw < c->kernel[2]; tw++, dst += c->icg) {
				const int64_t w = w0 + tw * c->dilation[2];

				if (d < 0 || h < 0 || w < 0 || d >= c->in[0] || h >= c->in[1] ||
				    w >= c->in[2])
					memset(dst, 0, c->icg * sizeof(float));
				else
					memcpy(dst,
					       image + d * c->xs[2] + h * c->xs[3] + w * c->xs[4],
					       c->icg * sizeof(float));
			}
		}
	}
}

struct rows_job {
	const struct pb_conv *c;
	const void *packed;
	float *block; /* gathered rows, NULL when the input is the matrix */
	int64_t block_rows;
	int64_t k;
};

static int rows_block(const struct rows_job *job, int64_t g, int64_t r0, int64_t m)
{
	const struct pb_conv *c = job->c;
	const int64_t positions = c->out[0] * c->out[1] * c->out[2];
	const int64_t out_row = c->groups * c->ocg;
	struct pb_gemm p = {
		.m = m,
		.n = c->ocg,
		.k = job->k,
		.a = {job->block, job->k, 1, PB_RT_F32},
		.b = {NULL, 0, 0, PB_RT_F32},
		.b_packed = job->packed,
		.c = (float *)c->y + r0 * out_row + g * c->ocg,
		.c_rs = out_row,
		.c_cs = 1,
		.alpha = 1,
	};

	if (job->block) {
		for (int64_t i = 0; i < m; i++)
			gather_row(c, (r0 + i) % positions,
				   (const float *)c->x + (r0 + i) / positions * c->xs[0] +
					   g * c->icg,
				   job->block + i * job->k);
	} else {
		p.a.p = (const float *)c->x + r0 * c->groups * c->icg + g * c->icg;
		p.a.rs = c->groups * c->icg;
	}
	if (c->bias) {
		p.self = (const float *)c->bias + g * c->ocg;
		p.self_cs = 1;
		p.beta = 1;
	}
	return pb_gemm_run(&p);
}

static bool pointwise_rows(const struct pb_conv *c)
{
	for (int i = 0; i < 3; i++)
		if (c->kernel[i] != 1 || c->stride[i] != 1 || c->pad[i] != 0)
			return false;
	return true;
}

int pb_conv_rows(const struct pb_conv *c)
{
	const int64_t taps = c->kernel[0] * c->kernel[1] * c->kernel[2];
	const int64_t total = c->batch * c->out[0] * c->out[1] * c->out[2];
	const bool direct = pointwise_rows(c);
	struct rows_job job = {.c = c, .k = taps * c->icg};
	const size_t packed_bytes = pb_gemm_packed_bytes(job.k, c->ocg, PB_RT_F32);
	int rc = 0;

	/* About 256 KiB of gathered rows, a multiple of every tile height: they stay in L2. */
	job.block_rows = direct ? total : 65536 / (job.k + 1) / 12 * 12;
	if (job.block_rows < 48)
		job.block_rows = 48;
	job.block_rows = min64(job.block_rows, total);
	if (!direct) {
		job.block = pb_rt_scratch(job.block_rows * job.k * sizeof(float));
		if (!job.block)
			return 1;
	}
	for (int64_t g = 0; g < c->groups && !rc; g++) {
		const struct weight_rows wr = {c, g};
		const struct pb_pack_key key = {
			(const float *)c->w + g * c->ocg * c->ws[0],
			{job.k, c->ocg, c->ws[0], c->ws[1], c->ws[4], -1 - taps}};
		void *temp = NULL;

		job.packed =
			pb_pack_constant(c->w_tensor, &key, packed_bytes, fill_weight_rows, &wr);
		if (!job.packed) {
			job.packed = temp = pb_rt_scratch(packed_bytes);
			rc = !temp;
			if (temp)
				fill_weight_rows(&wr, temp);
		}
		for (int64_t r = 0; r < total && !rc; r += job.block_rows)
			rc = rows_block(&job, g, r, min64(job.block_rows, total - r));
		if (temp)
			pb_rt_scratch_free(temp);
	}
	if (job.block)
		pb_rt_scratch_free(job.block);
	return rc;
}
