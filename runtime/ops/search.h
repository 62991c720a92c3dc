/* SPDX-License-Identifier: Apache-2.0 */
/* Search in sorted tensors, of the C ABI (c_shim_cpu.h of torch 2.13.0). */
#ifndef PT2BOX_RUNTIME_OPS_SEARCH_H
#define PT2BOX_RUNTIME_OPS_SEARCH_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError aoti_torch_cpu_searchsorted_Tensor(
	AtenTensorHandle sorted_sequence, AtenTensorHandle self, int32_t out_int32, int32_t right,
	const char **side, AtenTensorHandle *sorter, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_searchsorted_Scalar(AtenTensorHandle sorted_sequence,
							      double self, int32_t out_int32,
							      int32_t right, const char **side,
							      AtenTensorHandle *sorter,
							      AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_bucketize_Tensor(AtenTensorHandle self,
							   AtenTensorHandle boundaries,
							   int32_t out_int32, int32_t right,
							   AtenTensorHandle *ret0);

#ifdef __cplusplus
}
#endif
#endif
