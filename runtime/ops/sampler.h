/* SPDX-License-Identifier: Apache-2.0 */
/* Sampling of volumes, and pooling over drawn windows: c_shim_cpu.h of torch 2.13.0. */
#ifndef PT2BOX_RUNTIME_OPS_SAMPLER_H
#define PT2BOX_RUNTIME_OPS_SAMPLER_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError aoti_torch_cpu_grid_sampler_3d(
	AtenTensorHandle input, AtenTensorHandle grid, int64_t interpolation_mode,
	int64_t padding_mode, int32_t align_corners, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_fractional_max_pool2d(
	AtenTensorHandle self, const int64_t *kernel_size, int64_t kernel_size_len_,
	const int64_t *output_size, int64_t output_size_len_, AtenTensorHandle random_samples,
	AtenTensorHandle *ret0, AtenTensorHandle *ret1);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_fractional_max_pool3d(
	AtenTensorHandle self, const int64_t *kernel_size, int64_t kernel_size_len_,
	const int64_t *output_size, int64_t output_size_len_, AtenTensorHandle random_samples,
	AtenTensorHandle *ret0, AtenTensorHandle *ret1);

#ifdef __cplusplus
}
#endif
#endif
