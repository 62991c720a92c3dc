/* SPDX-License-Identifier: Apache-2.0 */
/* Products with weights of 4 or 8 bits that are widened on the way: c_shim_cpu.h and shim_cpu.h of
 * torch 2.13.0. */
#ifndef PT2BOX_RUNTIME_OPS_WEIGHT_ONLY_H
#define PT2BOX_RUNTIME_OPS_WEIGHT_ONLY_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError aoti_torch_cpu__weight_int4pack_mm_cpu_tensor(
	AtenTensorHandle X, AtenTensorHandle w, AtenTensorHandle qGroupSize,
	AtenTensorHandle qScaleAndZeros, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu__weight_int8pack_mm(AtenTensorHandle self,
							      AtenTensorHandle mat2,
							      AtenTensorHandle scales,
							      AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu__dyn_quant_pack_4bit_weight(
	AtenTensorHandle weights, AtenTensorHandle scales_zeros, AtenTensorHandle *bias,
	int64_t block_size, int64_t in_features, int64_t out_features, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu__dyn_quant_matmul_4bit(
	AtenTensorHandle inp, AtenTensorHandle packed_weights, int64_t block_size,
	int64_t in_features, int64_t out_features, AtenTensorHandle *ret0);

#ifdef __cplusplus
}
#endif
#endif
