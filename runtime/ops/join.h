/* SPDX-License-Identifier: Apache-2.0 */
/* Concatenation and padding of the C ABI (c_shim_cpu.h and c_shim_aten.h of torch 2.13.0). */
#ifndef PT2BOX_RUNTIME_OPS_JOIN_H
#define PT2BOX_RUNTIME_OPS_JOIN_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError aoti_torch_cpu_cat(const AtenTensorHandle *tensors, int64_t tensors_len_,
					      int64_t dim, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_pad(AtenTensorHandle self, const int64_t *pad,
					      int64_t pad_len_, const char *mode, double *value,
					      AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_aten_pad(AtenTensorHandle self, const int64_t *pad,
					       int64_t pad_len_, const char *mode, double *value,
					       AtenTensorHandle *ret0);

#ifdef __cplusplus
}
#endif
#endif
