/* SPDX-License-Identifier: Apache-2.0 */
/* Indexing by tensors of the C ABI (c_shim_cpu.h and shim.h of torch 2.13.0). */
#ifndef PT2BOX_RUNTIME_OPS_INDEX_H
#define PT2BOX_RUNTIME_OPS_INDEX_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError aoti_torch_cpu_index_Tensor(AtenTensorHandle self,
						       const AtenTensorHandle **indices,
						       int64_t indices_len_,
						       AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_index_put(AtenTensorHandle self,
						    const AtenTensorHandle **indices,
						    int64_t indices_len_, AtenTensorHandle values,
						    int32_t accumulate, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_index_put_out(AtenTensorHandle out, AtenTensorHandle self,
						    const AtenTensorHandle *indices,
						    uint32_t num_indices, AtenTensorHandle values,
						    bool accumulate);

#ifdef __cplusplus
}
#endif
#endif
