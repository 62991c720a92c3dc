/* SPDX-License-Identifier: Apache-2.0 */
/* Normalisation: c_shim_cpu.h of torch 2.13.0. */
#ifndef PT2BOX_RUNTIME_OPS_NORM_H
#define PT2BOX_RUNTIME_OPS_NORM_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError aoti_torch_cpu__fused_rms_norm(
	AtenTensorHandle input, const int64_t *normalized_shape, int64_t normalized_shape_len_,
	AtenTensorHandle *weight, double *eps, AtenTensorHandle *ret0, AtenTensorHandle *ret1);

#ifdef __cplusplus
}
#endif
#endif
