/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linear layers and convolutions with an epilogue, as packages compiled with freezing=True call
 * them: torch 2.13.0's shim_cpu.h. Weights are plain or were in oneDNN's layout (runtime/opaque.h).
 */
#ifndef PT2BOX_RUNTIME_OPS_FUSED_H
#define PT2BOX_RUNTIME_OPS_FUSED_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError aoti_torch_cpu__linear_pointwise(AtenTensorHandle X, AtenTensorHandle W,
							    AtenTensorHandle *B, const char *attr,
							    const double **scalars,
							    int64_t scalars_len_,
							    const char **algorithm,
							    AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu__linear_pointwise_binary(
	AtenTensorHandle X, AtenTensorHandle other, AtenTensorHandle W, AtenTensorHandle *B,
	const char *attr, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu__mkl_linear(AtenTensorHandle X, AtenTensorHandle W,
						      AtenTensorHandle origin_W,
						      AtenTensorHandle *B,
						      int64_t prepack_batch_size,
						      AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu__addmm_activation(AtenTensorHandle self,
							    AtenTensorHandle mat1,
							    AtenTensorHandle mat2, double beta,
							    double alpha, int32_t use_gelu,
							    AtenTensorHandle *ret0);

#define PB_CONV_LISTS                                                                             \
	const int64_t *padding, int64_t padding_len_, const int64_t *stride, int64_t stride_len_, \
		const int64_t *dilation, int64_t dilation_len_, int64_t groups
#define PB_CONV_UNARY                                                                      \
	const char **unary_attr, const double **unary_scalars, int64_t unary_scalars_len_, \
		const char **unary_algorithm

AOTI_EXPORT AOTITorchError aoti_torch_cpu_mkldnn__convolution_pointwise(
	AtenTensorHandle X, AtenTensorHandle W, AtenTensorHandle *B, PB_CONV_LISTS,
	const char *attr, const double **scalars, int64_t scalars_len_, const char **algorithm,
	AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_mkldnn__convolution_pointwise_binary(
	AtenTensorHandle X, AtenTensorHandle other, AtenTensorHandle W, AtenTensorHandle *B,
	PB_CONV_LISTS, const char *binary_attr, double *alpha, PB_CONV_UNARY,
	AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_mkldnn__convolution_pointwise_binary_(
	AtenTensorHandle other, AtenTensorHandle X, AtenTensorHandle W, AtenTensorHandle *B,
	PB_CONV_LISTS, const char *binary_attr, double *alpha, PB_CONV_UNARY,
	AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_mkldnn__convolution_transpose_pointwise(
	AtenTensorHandle X, AtenTensorHandle W, AtenTensorHandle *B, const int64_t *padding,
	int64_t padding_len_, const int64_t *output_padding, int64_t output_padding_len_,
	const int64_t *stride, int64_t stride_len_, const int64_t *dilation, int64_t dilation_len_,
	int64_t groups, const char *attr, const double **scalars, int64_t scalars_len_,
	const char **algorithm, AtenTensorHandle *ret0);

#ifdef __cplusplus
}
#endif
#endif
