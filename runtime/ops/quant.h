/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quantised linear layers and convolutions, as packages quantised for x86 call them: torch 2.13.0's
 * shim_cpu.h. quant.c has the operators' common part: from exact sums to the result.
 */
#ifndef PT2BOX_RUNTIME_OPS_QUANT_H
#define PT2BOX_RUNTIME_OPS_QUANT_H

#include "runtime/aoti.h"
#include "runtime/ops/epilogue.h"
#include "runtime/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PB_QUANT_IN                                                                      \
	AtenTensorHandle X, AtenTensorHandle act_scale, AtenTensorHandle act_zero_point, \
		AtenTensorHandle onednn_weight, AtenTensorHandle weight_scales,          \
		AtenTensorHandle weight_zero_points
#define PB_QUANT_LISTS                                                                            \
	const int64_t *stride, int64_t stride_len_, const int64_t *padding, int64_t padding_len_, \
		const int64_t *dilation, int64_t dilation_len_, int64_t groups

AOTI_EXPORT AOTITorchError aoti_torch_cpu__qlinear_pointwise_tensor(
	PB_QUANT_IN, AtenTensorHandle *B, double output_scale, int64_t output_zero_point,
	const int32_t *output_dtype, const char *post_op_name, const double **post_op_args,
	int64_t post_op_args_len_, const char *post_op_algorithm, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu__qlinear_pointwise_binary_tensor(
	PB_QUANT_IN, AtenTensorHandle *other, AtenTensorHandle *B, double output_scale,
	int64_t output_zero_point, const int32_t *output_dtype, double other_scale,
	int64_t other_zero_point, const char *binary_post_op, double binary_alpha,
	const char *unary_post_op, const double **unary_post_op_args,
	int64_t unary_post_op_args_len_, const char *unary_post_op_algorithm,
	AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu__qconv_pointwise_tensor(
	PB_QUANT_IN, AtenTensorHandle *B, PB_QUANT_LISTS, double output_scale,
	int64_t output_zero_point, const int32_t *output_dtype, const char *attr,
	const double **post_op_args, int64_t post_op_args_len_, const char **algorithm,
	AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu__qconv2d_pointwise_binary_tensor(
	PB_QUANT_IN, AtenTensorHandle accum, AtenTensorHandle *B, PB_QUANT_LISTS,
	double output_scale, int64_t output_zero_point, const int32_t *output_dtype,
	double accum_scale, int64_t accum_zero_point, const char *binary_attr, double *alpha,
	const char **unary_attr, const double **unary_scalars, int64_t unary_scalars_len_,
	const char **unary_algorithm, AtenTensorHandle *ret0);

/* ---- for quant_linear.c and quant_conv.c ---- */

struct pb_quant {
	const char *op;
	const struct pb_rt_tensor *x, *x_scale, *x_zero, *w, *w_scales, *w_zeros, *b;
	double out_scale, other_scale;
	int64_t out_zero, other_zero;
	const int32_t *out_dtype; /* NULL: that of x */
	const struct pb_rt_tensor *other;
	bool sums; /* other is added to in place, and is the result */
	struct pb_epilogue post;

	/* From pb_quant_init(): n numbers each. */
	int64_t n;
	int32_t zero;
	float *scale, *bias;
	int32_t *minus;
	float *other_rows; /* of pb_quant_other(): as many as the result has, in its order */
	struct pb_rt_tensor *out;
};

/* Checks types, reads scales and zero points for @n columns. 0, or 1 with the error set; deinit
 * either way. */
int pb_quant_init(struct pb_quant *q, int64_t n);
void pb_quant_deinit(struct pb_quant *q);
int pb_quant_binary(struct pb_quant *q, const char *attr, double alpha);
int32_t pb_quant_out_dtype(const struct pb_quant *q);
/* Reads other in the order of @out; needs the shape of it. */
int pb_quant_other(struct pb_quant *q, const struct pb_rt_tensor *out);
/* minus[col + i] = zero point * sums[i] */
void pb_quant_correct(struct pb_quant *q, int64_t col, const int32_t *sums, int64_t n);
/* What pb_gemm_s8_run() calls: rows of the result are q->n long. @ctx is a struct pb_quant. */
void pb_quant_finish(const void *ctx, int64_t row, int64_t rows, int64_t col, int64_t cols,
		     const int32_t *acc, int64_t stride, float *tmp);
/* The result in @ret0: @out_take, or other after it was written to. */
int pb_quant_result_take(struct pb_quant *q, struct pb_rt_tensor *out_take, AtenTensorHandle *ret0);

#ifdef __cplusplus
}
#endif
#endif
