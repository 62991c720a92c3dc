/* SPDX-License-Identifier: Apache-2.0 */
/* qlinear_pointwise and its binary form: an input of any rank times [in, out]. */
#include <string.h>

#include "runtime/ops/gemm.h"
#include "runtime/ops/gemm_s8.h"
#include "runtime/ops/layout.h"
#include "runtime/ops/quant.h"

struct linear {
	struct pb_quant q;
	const void *x; /* contiguous */
	int64_t k;
};

/* Signed bytes become unsigned ones that are larger by 128, as the zero point is then. */
static void fill(const void *ctx, int64_t row, int64_t rows, uint8_t *dst, int64_t stride)
{
	const struct linear *l =
		(const struct linear *)((const char *)ctx - offsetof(struct linear, q));
	const uint8_t flip = l->q.x->dtype == PB_RT_I8 ? 0x80 : 0;

	for (int64_t i = 0; i < rows; i++) {
		const uint8_t *src = (const uint8_t *)l->x + (row + i) * l->k;

		if (!flip)
			memcpy(dst + i * stride, src, (size_t)l->k);
		else
			for (int64_t p = 0; p < l->k; p++)
				dst[i * stride + p] = src[p] ^ flip;
	}
}

struct packing {
	const struct pb_rt_tensor *w;
	const int64_t *rows;
};

static void pack(const void *ctx, void *dst)
{
	const struct packing *p = ctx;

	pb_gemm_s8_pack(pb_rt_data(p->w), p->rows, p->w->strides[1], p->w->sizes[0], p->w->sizes[1],
			dst);
}

/* Kept if the weight is constant, else in *own. */
static const void *packed_weight(const struct pb_rt_tensor *w, void **own)
{
	const int64_t k = w->sizes[0], n = w->sizes[1];
	const struct pb_pack_key key = {pb_rt_data(w),
					{k, n, w->strides[0], w->strides[1], w->dtype, 4}};
	const size_t bytes = pb_gemm_s8_packed_bytes(k, n);
	int64_t *rows = pb_rt_scratch((size_t)(k + 1) * sizeof(*rows));
	const struct packing p = {w, rows};
	const void *packed = NULL;

	*own = NULL;
	for (int64_t i = 0; i < k && rows; i++)
		rows[i] = i * w->strides[0];
	if (rows)
		packed = pb_pack_constant(w, &key, bytes, pack, &p);
	if (rows && !packed)
		packed = *own = pb_rt_scratch(bytes + 64);
	if (*own)
		pack(&p, *own);
	if (rows)
		pb_rt_scratch_free(rows);
	return packed;
}

static int compute(struct linear *l, struct pb_rt_tensor *out)
{
	const int64_t n = l->q.n;
	struct pb_rt_tensor *x = pb_rt_contiguous(l->q.x);
	void *own = NULL;
	const void *packed = x ? packed_weight(l->q.w, &own) : NULL;
	int rc = 1;

	if (packed) {
		const struct pb_gemm_s8 g = {.m = out->numel / n,
					     .n = n,
					     .k = l->k,
					     .b = packed,
					     .fill = fill,
					     .finish = pb_quant_finish,
					     .ctx = &l->q};

		l->x = pb_rt_data(x);
		l->q.out = out;
		pb_quant_correct(&l->q, 0, pb_gemm_s8_sums(packed, l->k, n), n);
		rc = pb_gemm_s8_run(&g);
	}
	if (own)
		pb_rt_scratch_free(own);
	pb_rt_delete(x);
	return rc;
}

static int linear(struct linear *l, AtenTensorHandle *ret0)
{
	const struct pb_rt_tensor *x = l->q.x, *w = l->q.w;
	struct pb_rt_tensor *out = NULL;
	int64_t sizes[PB_RT_MAX_DIMS];
	int rc;

	if (x->ndim < 1 || w->ndim != 2 || x->sizes[x->ndim - 1] != w->sizes[0])
		return pb_rt_fail("%s: input %s and weight %s do not fit each other", l->q.op,
				  PB_SHAPE(x), PB_SHAPE(w));
	l->k = w->sizes[0];
	memcpy(sizes, x->sizes, sizeof(sizes));
	sizes[x->ndim - 1] = w->sizes[1];
	rc = pb_quant_init(&l->q, w->sizes[1]);
	l->q.zero += x->dtype == PB_RT_I8 ? 128 : 0;
	if (!rc) {
		out = pb_rt_empty(pb_quant_out_dtype(&l->q), x->ndim, sizes, NULL);
		rc = !out || pb_quant_other(&l->q, out) || (out->numel && compute(l, out));
	}
	pb_quant_deinit(&l->q);
	if (rc) {
		pb_rt_delete(out);
		return 1;
	}
	return pb_quant_result_take(&l->q, out, ret0);
}

#define IN                                                                            \
	.x = X, .x_scale = act_scale, .x_zero = act_zero_point, .w = onednn_weight,   \
	.w_scales = weight_scales, .w_zeros = weight_zero_points, .b = B ? *B : NULL, \
	.out_scale = output_scale, .out_zero = output_zero_point, .out_dtype = output_dtype

AOTI_EXPORT AOTITorchError aoti_torch_cpu__qlinear_pointwise_tensor(
	PB_QUANT_IN, AtenTensorHandle *B, double output_scale, int64_t output_zero_point,
	const int32_t *output_dtype, const char *post_op_name, const double **post_op_args,
	int64_t post_op_args_len_, const char *post_op_algorithm, AtenTensorHandle *ret0)
{
	struct linear l = {.q = {.op = "qlinear_pointwise", IN}};

	return pb_epilogue_unary(&l.q.post, l.q.op, post_op_name, post_op_args, post_op_args_len_,
				 post_op_algorithm) ||
	       linear(&l, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__qlinear_pointwise_binary_tensor(
	PB_QUANT_IN, AtenTensorHandle *other, AtenTensorHandle *B, double output_scale,
	int64_t output_zero_point, const int32_t *output_dtype, double other_scale,
	int64_t other_zero_point, const char *binary_post_op, double binary_alpha,
	const char *unary_post_op, const double **unary_post_op_args,
	int64_t unary_post_op_args_len_, const char *unary_post_op_algorithm,
	AtenTensorHandle *ret0)
{
	struct linear l = {.q = {.op = "qlinear_pointwise.binary",
				 IN,
				 .other = other ? *other : NULL,
				 .other_scale = other_scale,
				 .other_zero = other_zero_point}};

	return pb_quant_binary(&l.q, binary_post_op, binary_alpha) ||
	       pb_epilogue_unary(&l.q.post, l.q.op, unary_post_op, unary_post_op_args,
				 unary_post_op_args_len_, unary_post_op_algorithm) ||
	       linear(&l, ret0);
}
