/* SPDX-License-Identifier: Apache-2.0 */
/* Pooling of the C ABI (c_shim_cpu.h of torch 2.13.0). */
#ifndef PT2BOX_RUNTIME_OPS_POOL_H
#define PT2BOX_RUNTIME_OPS_POOL_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError aoti_torch_cpu_max_pool2d_with_indices(
	AtenTensorHandle self, const int64_t *kernel_size, int64_t kernel_size_len_,
	const int64_t *stride, int64_t stride_len_, const int64_t *padding, int64_t padding_len_,
	const int64_t *dilation, int64_t dilation_len_, int32_t ceil_mode, AtenTensorHandle *ret0,
	AtenTensorHandle *ret1);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_max_pool3d_with_indices(
	AtenTensorHandle self, const int64_t *kernel_size, int64_t kernel_size_len_,
	const int64_t *stride, int64_t stride_len_, const int64_t *padding, int64_t padding_len_,
	const int64_t *dilation, int64_t dilation_len_, int32_t ceil_mode, AtenTensorHandle *ret0,
	AtenTensorHandle *ret1);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_avg_pool2d(
	AtenTensorHandle self, const int64_t *kernel_size, int64_t kernel_size_len_,
	const int64_t *stride, int64_t stride_len_, const int64_t *padding, int64_t padding_len_,
	int32_t ceil_mode, int32_t count_include_pad, int64_t *divisor_override,
	AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_avg_pool3d(
	AtenTensorHandle self, const int64_t *kernel_size, int64_t kernel_size_len_,
	const int64_t *stride, int64_t stride_len_, const int64_t *padding, int64_t padding_len_,
	int32_t ceil_mode, int32_t count_include_pad, int64_t *divisor_override,
	AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu__adaptive_avg_pool2d(AtenTensorHandle self,
							       const int64_t *output_size,
							       int64_t output_size_len_,
							       AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu__adaptive_avg_pool3d(AtenTensorHandle self,
							       const int64_t *output_size,
							       int64_t output_size_len_,
							       AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_adaptive_max_pool2d(AtenTensorHandle self,
							      const int64_t *output_size,
							      int64_t output_size_len_,
							      AtenTensorHandle *ret0,
							      AtenTensorHandle *ret1);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_adaptive_max_pool3d(AtenTensorHandle self,
							      const int64_t *output_size,
							      int64_t output_size_len_,
							      AtenTensorHandle *ret0,
							      AtenTensorHandle *ret1);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_max_unpool2d(AtenTensorHandle self,
						       AtenTensorHandle indices,
						       const int64_t *output_size,
						       int64_t output_size_len_,
						       AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_max_unpool3d(
	AtenTensorHandle self, AtenTensorHandle indices, const int64_t *output_size,
	int64_t output_size_len_, const int64_t *stride, int64_t stride_len_,
	const int64_t *padding, int64_t padding_len_, AtenTensorHandle *ret0);

#ifdef __cplusplus
}
#endif
#endif
