/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qconv_pointwise and its binary form: channels last throughout, as oneDNN has it there. A row of
 * the product is an output position; its entries are taps, and channels within a tap. What a tap
 * reads outside the input is the zero point.
 */
#include <string.h>

#include "runtime/ops/conv.h"
#include "runtime/ops/gemm.h"
#include "runtime/ops/gemm_s8.h"
#include "runtime/ops/layout.h"
#include "runtime/ops/parallel.h"
#include "runtime/ops/quant.h"

struct conv {
	struct pb_quant q;
	struct pb_conv_lists lists;
	int64_t batch, icg, ocg, taps;
	int64_t in[3], out[3], kernel[3], stride[3], pad[3], dilation[3];
	const uint8_t *x; /* channels last, dense */
	int64_t group;	  /* of the product that runs */
};

static int64_t entry(const int64_t *list, int64_t len, int d, int64_t none)
{
	return d < 0 || len <= 0 ? none : list[len == 1 ? 0 : d];
}

static int geometry(struct conv *c)
{
	const struct pb_rt_tensor *x = c->q.x, *w = c->q.w;
	const struct pb_conv_lists *l = &c->lists;
	const int nd = x->ndim - 2;
	/* One dimension is packed as two, of height 1. */
	const bool as_2d = nd == 1 && w->ndim == 4 && w->sizes[2] == 1;

	if (x->dtype != PB_RT_U8)
		return pb_rt_fail("%s: Input tensor should have uint8 (unsigned char) data type, "
				  "not %s",
				  c->q.op, pb_rt_dtype_name(x->dtype));
	if (nd < 1 || nd > 3 || (x->ndim != w->ndim && !as_2d) || l->groups <= 0 ||
	    x->sizes[1] != w->sizes[1] * l->groups || w->sizes[0] % l->groups)
		return pb_rt_fail("%s: input %s, weight %s and %lld groups do not fit each other",
				  c->q.op, PB_SHAPE(x), PB_SHAPE(w), (long long)l->groups);
	c->batch = x->sizes[0];
	c->icg = w->sizes[1];
	c->ocg = w->sizes[0] / l->groups;
	c->taps = 1;
	for (int i = 0; i < 3; i++) {
		const int d = i - (3 - nd);
		int64_t span;

		c->in[i] = d < 0 ? 1 : x->sizes[2 + d];
		c->kernel[i] = d < 0 ? 1 : w->sizes[w->ndim - nd + d];
		c->stride[i] = entry(l->stride, l->n_stride, d, 1);
		c->pad[i] = entry(l->padding, l->n_padding, d, 0);
		c->dilation[i] = entry(l->dilation, l->n_dilation, d, 1);
		span = c->dilation[i] * (c->kernel[i] - 1) + 1;
		if (c->stride[i] <= 0 || c->dilation[i] <= 0 || c->pad[i] < 0 ||
		    c->kernel[i] <= 0 || c->in[i] + 2 * c->pad[i] < span)
			return pb_rt_fail("%s: the kernel of weight %s does not fit input %s, or "
					  "its stride, padding or dilation is not positive",
					  c->q.op, PB_SHAPE(w), PB_SHAPE(x));
		c->out[i] = (c->in[i] + 2 * c->pad[i] - span) / c->stride[i] + 1;
		c->taps *= c->kernel[i];
	}
	return 0;
}

/* A new tensor, channels last. */
static struct pb_rt_tensor *dense(const struct pb_rt_tensor *x, int32_t dtype, int64_t channels,
				  const int64_t spatial[3])
{
	const int nd = x->ndim - 2;
	int64_t sizes[5] = {x->sizes[0], channels}, strides[5], step = channels > 1 ? channels : 1;

	strides[1] = 1;
	for (int d = nd - 1; d >= 0; d--) {
		sizes[2 + d] = spatial[d + 3 - nd];
		strides[2 + d] = step;
		step *= sizes[2 + d] > 1 ? sizes[2 + d] : 1;
	}
	strides[0] = step;
	return pb_rt_empty(dtype, x->ndim, sizes, strides);
}

/* ---- rows of input ---- */

/* Where the first tap of an output position reads: batch, depth, height, width. */
struct origin {
	int64_t n, d, h, w;
};

static struct origin origin_of(const struct conv *c, int64_t row)
{
	const int64_t plane = row / c->out[2], volume = plane / c->out[1];

	return (struct origin){volume / c->out[0], volume % c->out[0] * c->stride[0] - c->pad[0],
			       plane % c->out[1] * c->stride[1] - c->pad[1],
			       row % c->out[2] * c->stride[2] - c->pad[2]};
}

/* The line of input that taps (kd, kh, ...) read from, or NULL outside the input. */
static const uint8_t *line(const struct conv *c, const struct origin *o, int64_t kd, int64_t kh)
{
	const int64_t d = o->d + kd * c->dilation[0], h = o->h + kh * c->dilation[1];

	if (d < 0 || d >= c->in[0] || h < 0 || h >= c->in[1])
		return NULL;
	return c->x + ((o->n * c->in[0] + d) * c->in[1] + h) * c->in[2] * c->icg * c->lists.groups;
}

/* All channels that tap @kw along a line reads, or NULL. */
static const uint8_t *pixel(const struct conv *c, const struct origin *o, const uint8_t *from,
			    int64_t kw)
{
	const int64_t w = o->w + kw * c->dilation[2];

	return from && w >= 0 && w < c->in[2] ? from + w * c->icg * c->lists.groups : NULL;
}

/* Taps along a line that lie side by side, all inside: one copy. */
static bool is_run(const struct conv *c, const struct origin *o, const uint8_t *from)
{
	return from && c->lists.groups == 1 && c->dilation[2] == 1 && o->w >= 0 &&
	       o->w + c->kernel[2] <= c->in[2];
}

static uint8_t *fill_line(const struct conv *c, const struct origin *o, const uint8_t *from,
			  uint8_t *to)
{
	if (is_run(c, o, from)) {
		const size_t bytes = (size_t)(c->kernel[2] * c->icg);

		memcpy(to, from + o->w * c->icg, bytes);
		return to + bytes;
	}
	for (int64_t kw = 0; kw < c->kernel[2]; kw++, to += c->icg) {
		const uint8_t *p = pixel(c, o, from, kw);

		if (p)
			memcpy(to, p + c->group * c->icg, (size_t)c->icg);
		else
			memset(to, c->q.zero, (size_t)c->icg);
	}
	return to;
}

static void fill(const void *ctx, int64_t row, int64_t rows, uint8_t *dst, int64_t stride)
{
	const struct conv *c = (const struct conv *)((const char *)ctx - offsetof(struct conv, q));

	for (int64_t i = 0; i < rows; i++) {
		const struct origin o = origin_of(c, row + i);
		uint8_t *to = dst + i * stride;

		for (int64_t kd = 0; kd < c->kernel[0]; kd++)
			for (int64_t kh = 0; kh < c->kernel[1]; kh++)
				to = fill_line(c, &o, line(c, &o, kd, kh), to);
	}
}

static void finish(const void *ctx, int64_t row, int64_t rows, int64_t col, int64_t cols,
		   const int32_t *acc, int64_t stride, float *tmp)
{
	const struct conv *c = (const struct conv *)((const char *)ctx - offsetof(struct conv, q));

	pb_quant_finish(ctx, row, rows, c->group * c->ocg + col, cols, acc, stride, tmp);
}

/* ---- products, one a group ---- */

struct packing {
	const struct conv *c;
	const struct pb_rt_tensor *w;
	const int64_t *rows;
	int64_t group;
};

static void pack(const void *ctx, void *dst)
{
	const struct packing *p = ctx;
	const int64_t k = p->c->icg * p->c->taps;

	pb_gemm_s8_pack((const int8_t *)pb_rt_data(p->w) + p->group * p->c->ocg * k, p->rows, k, k,
			p->c->ocg, dst);
}

static int product(struct conv *c, const struct pb_rt_tensor *w, const int64_t *rows,
		   int64_t positions)
{
	const struct packing p = {c, w, rows, c->group};
	const int64_t k = c->icg * c->taps;
	const size_t bytes = pb_gemm_s8_packed_bytes(k, c->ocg);
	const struct pb_pack_key key = {(const char *)pb_rt_data(w) + c->group * c->ocg * k,
					{k, c->ocg, c->icg, c->taps, w->dtype, 5}};
	const void *packed = pb_pack_constant(w, &key, bytes, pack, &p);
	void *own = packed ? NULL : pb_rt_scratch(bytes + 64);
	struct pb_gemm_s8 g = {
		.m = positions, .n = c->ocg, .k = k, .fill = fill, .finish = finish, .ctx = &c->q};
	int rc = 1;

	if (own)
		pack(&p, own);
	g.b = packed ? packed : own;
	if (g.b) {
		pb_quant_correct(&c->q, c->group * c->ocg, pb_gemm_s8_sums(g.b, k, c->ocg), c->ocg);
		rc = pb_gemm_s8_run(&g);
	}
	if (own)
		pb_rt_scratch_free(own);
	return rc;
}

static int products(struct conv *c, const struct pb_rt_tensor *w, int64_t positions)
{
	int64_t *rows = pb_rt_scratch((size_t)(c->icg * c->taps + 1) * sizeof(*rows));
	int rc = !rows;

	for (int64_t t = 0; t < c->taps && rows; t++)
		for (int64_t k = 0; k < c->icg; k++)
			rows[t * c->icg + k] = k * c->taps + t;
	for (c->group = 0; c->group < c->lists.groups && !rc; c->group++)
		rc = product(c, w, rows, positions);
	if (rows)
		pb_rt_scratch_free(rows);
	return rc;
}

/* ---- one channel a group ---- */

/* Rows of pointers of one thread, and its sums: channels, and as many floats. */
struct depthwise {
	struct conv *c;
	const int8_t **w;     /* [taps]: rows of channels */
	const uint8_t **x;    /* the same for each thread */
	const uint8_t *zeros; /* a row of zero points */
	int64_t positions, part;
	int32_t *acc;
};

/* What each tap of output position @row reads. */
static void set_taps(const struct depthwise *d, int64_t row, const uint8_t **x)
{
	const struct conv *c = d->c;
	const struct origin o = origin_of(c, row);

	for (int64_t kd = 0; kd < c->kernel[0]; kd++)
		for (int64_t kh = 0; kh < c->kernel[1]; kh++) {
			const uint8_t *from = line(c, &o, kd, kh);

			for (int64_t kw = 0; kw < c->kernel[2]; kw++, x++) {
				*x = pixel(c, &o, from, kw);
				*x = *x ? *x : d->zeros;
			}
		}
}

static void depthwise_part(void *arg, int part)
{
	const struct depthwise *d = arg;
	const struct conv *c = d->c;
	const int64_t n = c->q.n, begin = part * d->part;
	const uint8_t **x = d->x + part * c->taps;
	int32_t *acc = d->acc + 2 * n * part;

	for (int64_t r = begin; r < begin + d->part && r < d->positions; r++) {
		set_taps(d, r, x);
		pb_gemm_isa()->s8_taps(acc, x, d->w, c->taps, n);
		pb_quant_finish(&c->q, r, 1, 0, n, acc, n, (float *)(acc + n));
	}
}

static void transpose_taps(const struct conv *c, const struct pb_rt_tensor *w, int8_t *dst,
			   int32_t *sums)
{
	const int8_t *src = pb_rt_data(w);

	memset(sums, 0, (size_t)c->q.n * sizeof(*sums));
	for (int64_t i = 0; i < c->q.n; i++)
		for (int64_t t = 0; t < c->taps; t++) {
			dst[t * c->q.n + i] = src[i * c->taps + t];
			sums[i] += src[i * c->taps + t];
		}
}

static int depthwise(struct conv *c, const struct pb_rt_tensor *w, int64_t positions)
{
	const int64_t n = c->q.n;
	const int threads = pb_parallel_threads(2.0 * (double)(positions * n * c->taps));
	const size_t pointers = (size_t)(c->taps * (threads + 1)) * sizeof(void *);
	const size_t acc = (size_t)(2 * n * threads) * sizeof(int32_t);
	char *scratch = pb_rt_scratch(pointers + acc + (size_t)n * sizeof(int32_t) +
				      (size_t)(n * (c->taps + 1)));
	struct depthwise d = {.c = c, .positions = positions};
	int32_t *sums;
	int8_t *taps;

	if (!scratch)
		return 1;
	sums = (int32_t *)(scratch + pointers + acc);
	taps = (int8_t *)(sums + n);
	d.part = (positions + threads - 1) / threads;
	d.w = (const int8_t **)scratch;
	d.x = (const uint8_t **)scratch + c->taps;
	d.acc = (int32_t *)(scratch + pointers);
	d.zeros = (const uint8_t *)(taps + n * c->taps);
	memset(taps + n * c->taps, c->q.zero, (size_t)n);
	for (int64_t t = 0; t < c->taps; t++)
		d.w[t] = taps + t * n;
	transpose_taps(c, w, taps, sums);
	pb_quant_correct(&c->q, 0, sums, n);
	pb_parallel(threads, depthwise_part, &d);
	pb_rt_scratch_free(scratch);
	return 0;
}

/* ---- the operators ---- */

static int compute(struct conv *c, struct pb_rt_tensor *out)
{
	struct pb_rt_tensor *x = dense(c->q.x, c->q.x->dtype, c->icg * c->lists.groups, c->in);
	struct pb_rt_tensor *w = pb_rt_contiguous(c->q.w);
	const int64_t positions = out->numel / c->q.n;
	int rc = !x || !w || pb_rt_copy(x, c->q.x);

	if (!rc) {
		c->x = pb_rt_data(x);
		c->q.out = out;
		rc = c->icg == 1 && c->ocg == 1 && c->lists.groups > 1 ? depthwise(c, w, positions)
								       : products(c, w, positions);
	}
	pb_rt_delete(x);
	pb_rt_delete(w);
	return rc;
}

static int conv(struct conv *c, AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *out = NULL;
	int rc;

	if (geometry(c))
		return 1;
	rc = pb_quant_init(&c->q, c->q.w->sizes[0]);
	if (!rc) {
		out = dense(c->q.x, pb_quant_out_dtype(&c->q), c->q.n, c->out);
		rc = !out || pb_quant_other(&c->q, out) || (out->numel && compute(c, out));
	}
	pb_quant_deinit(&c->q);
	if (rc) {
		pb_rt_delete(out);
		return 1;
	}
	return pb_quant_result_take(&c->q, out, ret0);
}

#define IN                                                                            \
	.x = X, .x_scale = act_scale, .x_zero = act_zero_point, .w = onednn_weight,   \
	.w_scales = weight_scales, .w_zeros = weight_zero_points, .b = B ? *B : NULL, \
	.out_scale = output_scale, .out_zero = output_zero_point, .out_dtype = output_dtype
#define LISTS                                                                                    \
	{                                                                                        \
		.stride = stride, .padding = padding, .dilation = dilation,                      \
		.n_stride = stride_len_, .n_padding = padding_len_, .n_dilation = dilation_len_, \
		.groups = groups,                                                                \
	}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__qconv_pointwise_tensor(
	PB_QUANT_IN, AtenTensorHandle *B, PB_QUANT_LISTS, double output_scale,
	int64_t output_zero_point, const int32_t *output_dtype, const char *attr,
	const double **post_op_args, int64_t post_op_args_len_, const char **algorithm,
	AtenTensorHandle *ret0)
{
	struct conv c = {.q = {.op = "qconv_pointwise", IN}, .lists = LISTS};

	return pb_epilogue_unary(&c.q.post, c.q.op, attr, post_op_args, post_op_args_len_,
				 algorithm ? *algorithm : NULL) ||
	       conv(&c, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__qconv2d_pointwise_binary_tensor(
	PB_QUANT_IN, AtenTensorHandle accum, AtenTensorHandle *B, PB_QUANT_LISTS,
	double output_scale, int64_t output_zero_point, const int32_t *output_dtype,
	double accum_scale, int64_t accum_zero_point, const char *binary_attr, double *alpha,
	const char **unary_attr, const double **unary_scalars, int64_t unary_scalars_len_,
	const char **unary_algorithm, AtenTensorHandle *ret0)
{
	struct conv c = {.q = {.op = "qconv2d_pointwise.binary",
			       IN,
			       .other = accum,
			       .other_scale = accum_scale,
			       .other_zero = accum_zero_point},
			 .lists = LISTS};

	return pb_quant_binary(&c.q, binary_attr, alpha ? *alpha : 1) ||
	       pb_epilogue_unary(&c.q.post, c.q.op, unary_attr ? *unary_attr : NULL, unary_scalars,
				 unary_scalars_len_, unary_algorithm ? *unary_algorithm : NULL) ||
	       conv(&c, ret0);
}
