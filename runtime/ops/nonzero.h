/* SPDX-License-Identifier: Apache-2.0 */
/* Positions of what is not zero, and selection by masks, of the C ABI (c_shim_cpu.h of
 * torch 2.13.0). */
#ifndef PT2BOX_RUNTIME_OPS_NONZERO_H
#define PT2BOX_RUNTIME_OPS_NONZERO_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError aoti_torch_cpu_nonzero(AtenTensorHandle self, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_nonzero(AtenTensorHandle self, AtenTensorHandle *out);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_nonzero_static(AtenTensorHandle self, int64_t size,
							 int64_t fill_value,
							 AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_masked_select(AtenTensorHandle self,
							AtenTensorHandle mask,
							AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_masked_scatter(AtenTensorHandle self,
							 AtenTensorHandle mask,
							 AtenTensorHandle source,
							 AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_repeat_interleave_Tensor(AtenTensorHandle repeats,
								   int64_t *output_size,
								   AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_repeat_interleave_Tensor(AtenTensorHandle repeats,
							       int64_t *output_size,
							       AtenTensorHandle *out);

#ifdef __cplusplus
}
#endif
#endif
