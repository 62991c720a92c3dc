/* SPDX-License-Identifier: Apache-2.0 */
/* Reductions of the C ABI (c_shim_aten.h of torch 2.13.0). */
#ifndef PT2BOX_RUNTIME_OPS_REDUCE_H
#define PT2BOX_RUNTIME_OPS_REDUCE_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError aoti_torch_aten_amax(AtenTensorHandle self, const int64_t *dim,
						int64_t dim_len_, int32_t keepdim,
						AtenTensorHandle *ret0);

#ifdef __cplusplus
}
#endif
#endif
