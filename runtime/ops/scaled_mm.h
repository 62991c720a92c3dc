/* SPDX-License-Identifier: Apache-2.0 */
/* Products of 8-bit floats with scales, and products of groups of rows: c_shim_cpu.h of torch
 * 2.13.0. */
#ifndef PT2BOX_RUNTIME_OPS_SCALED_MM_H
#define PT2BOX_RUNTIME_OPS_SCALED_MM_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError aoti_torch_cpu__scaled_mm(
	AtenTensorHandle self, AtenTensorHandle mat2, AtenTensorHandle scale_a,
	AtenTensorHandle scale_b, AtenTensorHandle *bias, AtenTensorHandle *scale_result,
	int32_t *out_dtype, int32_t use_fast_accum, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu__scaled_mm_out(
	AtenTensorHandle out, AtenTensorHandle self, AtenTensorHandle mat2,
	AtenTensorHandle scale_a, AtenTensorHandle scale_b, AtenTensorHandle *bias,
	AtenTensorHandle *scale_result, int32_t *out_dtype, int32_t use_fast_accum);
AOTI_EXPORT AOTITorchError aoti_torch_cpu__grouped_mm(AtenTensorHandle self, AtenTensorHandle mat2,
						      AtenTensorHandle *offs,
						      AtenTensorHandle *bias, int32_t *out_dtype,
						      AtenTensorHandle *ret0);

#ifdef __cplusplus
}
#endif
#endif
