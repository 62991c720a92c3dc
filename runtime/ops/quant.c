/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See quant.h. With x = xs (q - xz) and w = ws r, the sum of x w is xs ws (sum of q r - xz sum of
 * r): exact until it is scaled. Then bias, other, activation in float, then the result's type. As
 * torch 2.13.0's aten/src/ATen/native/quantized/cpu/{qlinear,qconv}.cpp set oneDNN up.
 */
#include "runtime/ops/quant.h"

#include <math.h>
#include <string.h>

#include "runtime/convert.h"
#include "runtime/ops/gemm.h"
#include "runtime/ops/layout.h"

static bool is_8bit(int32_t dtype)
{
	return dtype == PB_RT_U8 || dtype == PB_RT_I8;
}

int32_t pb_quant_out_dtype(const struct pb_quant *q)
{
	return q->out_dtype ? *q->out_dtype : q->x->dtype;
}

static int check(const struct pb_quant *q)
{
	const int32_t out = pb_quant_out_dtype(q);

	if (!is_8bit(q->x->dtype) || q->w->dtype != PB_RT_I8)
		return pb_rt_fail("%s: input is %s and weight %s; supported are 8-bit integers "
				  "and int8",
				  q->op, pb_rt_dtype_name(q->x->dtype),
				  pb_rt_dtype_name(q->w->dtype));
	if (!is_8bit(out) && out != PB_RT_F32 && !pb_is_16bit(out))
		return pb_rt_fail("%s: results of %s are not supported", q->op,
				  pb_rt_dtype_name(out));
	if (q->x_scale->numel != 1 || (q->x_zero && q->x_zero->numel > 1))
		return pb_rt_fail("%s: the input must have one scale and zero point, not %s and %s",
				  q->op, PB_SHAPE(q->x_scale), PB_SHAPE(q->x_zero));
	if (q->w_scales->numel != 1 && q->w_scales->numel != q->n)
		return pb_rt_fail("%s: weight %s needs 1 or %lld scales, not %s", q->op,
				  PB_SHAPE(q->w), (long long)q->n, PB_SHAPE(q->w_scales));
	if (q->b && q->b->numel != q->n)
		return pb_rt_fail("%s: weight %s needs a bias of %lld elements, not %s", q->op,
				  PB_SHAPE(q->w), (long long)q->n, PB_SHAPE(q->b));
	return 0;
}

static int all_zero(const struct pb_quant *q)
{
	struct pb_rt_tensor *z;
	int rc = 0;

	if (!q->w_zeros || !q->w_zeros->numel)
		return 0;
	z = pb_clone_as(q->w_zeros, PB_RT_I64);
	if (!z)
		return 1;
	for (int64_t i = 0; i < z->numel && !rc; i++)
		if (((int64_t *)pb_rt_data(z))[i])
			rc = pb_rt_fail("%s: Weight zero points should be 0, but one is %lld",
					q->op, (long long)((int64_t *)pb_rt_data(z))[i]);
	pb_rt_delete(z);
	return rc;
}

/* @n floats of a tensor of 1 or n elements. */
static int spread(float *dst, const struct pb_rt_tensor *t, int64_t n)
{
	struct pb_rt_tensor *f = pb_clone_as(t, PB_RT_F32);

	if (!f)
		return 1;
	for (int64_t i = 0; i < n; i++)
		dst[i] = ((float *)pb_rt_data(f))[f->numel == 1 ? 0 : i];
	pb_rt_delete(f);
	return 0;
}

int pb_quant_init(struct pb_quant *q, int64_t n)
{
	float x_scale;
	int64_t zero = 0;

	q->n = n;
	q->scale = NULL;
	q->other_rows = NULL;
	q->out = NULL;
	if (check(q) || all_zero(q) || spread(&x_scale, q->x_scale, 1))
		return 1;
	if (q->x_zero && q->x_zero->numel &&
	    pb_rt_convert(&zero, PB_RT_I64, 1, pb_rt_data(q->x_zero), q->x_zero->dtype, 1, 1))
		return 1;
	if (q->x->dtype == PB_RT_U8 ? zero < 0 || zero > 255 : zero < -128 || zero > 127)
		return pb_rt_fail("%s: the zero point %lld is no %s", q->op, (long long)zero,
				  pb_rt_dtype_name(q->x->dtype));
	q->zero = (int32_t)zero;
	q->scale = pb_rt_scratch((size_t)(n + 1) * 3 * sizeof(float));
	if (!q->scale)
		return 1;
	q->bias = q->scale + n;
	q->minus = (int32_t *)(q->bias + n);
	if (spread(q->scale, q->w_scales, n))
		return 1;
	for (int64_t i = 0; i < n; i++)
		q->scale[i] *= x_scale;
	if (q->b)
		return spread(q->bias, q->b, n);
	memset(q->bias, 0, (size_t)n * sizeof(float));
	return 0;
}

void pb_quant_deinit(struct pb_quant *q)
{
	if (q->scale)
		pb_rt_scratch_free(q->scale);
	if (q->other_rows)
		pb_rt_scratch_free(q->other_rows);
}

int pb_quant_binary(struct pb_quant *q, const char *attr, double alpha)
{
	if (alpha != 1)
		return pb_rt_fail("%s: the alpha of a binary operation should be 1.0, not %g",
				  q->op, alpha);
	q->sums = attr && strcmp(attr, "sum") == 0;
	q->post.binary = PB_BINARY_NONE;
	if (!q->sums && attr && strcmp(attr, "none") != 0 && strcmp(attr, "add") != 0)
		return pb_rt_fail("%s: Unsupported binary post op \"%.40s\"", q->op, attr);
	if (attr && strcmp(attr, "none") != 0)
		q->post.binary = PB_BINARY_ADD;
	if (q->post.binary && !q->other)
		return pb_rt_fail("%s: \"%s\" without the other tensor", q->op, attr);
	return 0;
}

int pb_quant_other(struct pb_quant *q, const struct pb_rt_tensor *out)
{
	struct pb_rt_tensor *wide;
	float zero = (float)q->other_zero;
	int rc;

	if (!q->post.binary)
		return 0;
	if (q->other->numel != out->numel || (q->sums && q->other->dtype != out->dtype))
		return pb_rt_fail("%s: other is %s of %s, but the result is %s of %s", q->op,
				  pb_rt_dtype_name(q->other->dtype), PB_SHAPE(q->other),
				  pb_rt_dtype_name(out->dtype), PB_SHAPE(out));
	q->other_rows = pb_rt_scratch((size_t)(out->numel + 1) * sizeof(float));
	if (!q->other_rows)
		return 1;
	wide = pb_rt_from_blob(q->other_rows, PB_RT_F32, out->ndim, out->sizes, out->strides, 0);
	rc = !wide || pb_rt_copy(wide, q->other);
	pb_rt_delete(wide);
	for (int64_t i = 0; i < out->numel && !rc && is_8bit(q->other->dtype); i++)
		q->other_rows[i] = (q->other_rows[i] - zero) * (float)q->other_scale;
	return rc;
}

void pb_quant_correct(struct pb_quant *q, int64_t col, const int32_t *sums, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		q->minus[col + i] = q->zero * sums[i];
}

static void store(const struct pb_quant *q, int64_t at, float *row, int64_t n)
{
	const int32_t dtype = q->out->dtype;
	char *p = (char *)pb_rt_data(q->out) + at * (int64_t)pb_rt_dtype_size(dtype);

	if (is_8bit(dtype))
		pb_gemm_isa()->s8_quant((uint8_t *)p, row, (float)(1 / q->out_scale),
					(float)q->out_zero, dtype == PB_RT_U8 ? 0 : -128,
					dtype == PB_RT_U8 ? 255 : 127, n);
	else if (dtype == PB_RT_F32)
		memcpy(p, row, (size_t)n * sizeof(float));
	else
		pb_gemm_round(p, dtype, row, n);
}

void pb_quant_finish(const void *ctx, int64_t row, int64_t rows, int64_t col, int64_t cols,
		     const int32_t *acc, int64_t stride, float *tmp)
{
	const struct pb_quant *q = ctx;
	const struct pb_gemm_isa *isa = pb_gemm_isa();

	for (int64_t i = 0; i < rows; i++) {
		const int64_t at = (row + i) * q->n + col;

		isa->s8_dequant(tmp, acc + i * stride, q->minus + col, q->scale + col,
				q->bias + col, cols);
		for (int64_t j = 0; j < cols && q->other_rows; j++)
			tmp[j] += q->other_rows[at + j];
		isa->activate(tmp, cols, &q->post.act);
		store(q, at, tmp, cols);
	}
}

int pb_quant_result_take(struct pb_quant *q, struct pb_rt_tensor *out_take, AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *result = out_take;

	if (q->sums) {
		struct pb_rt_tensor *other = (struct pb_rt_tensor *)q->other;

		result = pb_rt_copy(other, out_take) ? NULL : pb_new_handle(other);
		pb_rt_delete(out_take);
	}
	if (!result)
		return 1;
	*ret0 = result;
	return 0;
}
