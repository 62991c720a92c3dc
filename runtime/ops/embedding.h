/* SPDX-License-Identifier: Apache-2.0 */
/* Embedding bags of the C ABI (c_shim_cpu.h and shim_deprecated.h of torch 2.13.0), forward. */
#ifndef PT2BOX_RUNTIME_OPS_EMBEDDING_H
#define PT2BOX_RUNTIME_OPS_EMBEDDING_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError aoti_torch_cpu__embedding_bag(
	AtenTensorHandle weight, AtenTensorHandle indices, AtenTensorHandle offsets,
	int32_t scale_grad_by_freq, int64_t mode, int32_t sparse,
	AtenTensorHandle *per_sample_weights, int32_t include_last_offset, int64_t padding_idx,
	AtenTensorHandle *ret0, AtenTensorHandle *ret1, AtenTensorHandle *ret2,
	AtenTensorHandle *ret3);
AOTI_EXPORT AOTITorchError aoti_torch_cpu__embedding_bag_forward_only(
	AtenTensorHandle weight, AtenTensorHandle indices, AtenTensorHandle offsets,
	int32_t scale_grad_by_freq, int64_t mode, int32_t sparse,
	AtenTensorHandle *per_sample_weights, int32_t include_last_offset, int64_t padding_idx,
	AtenTensorHandle *ret0, AtenTensorHandle *ret1, AtenTensorHandle *ret2,
	AtenTensorHandle *ret3);
AOTI_EXPORT AOTITorchError
aoti_torch__embedding_bag(AtenTensorHandle weight, AtenTensorHandle indices,
			  AtenTensorHandle offsets, int32_t scale_grad_by_freq, int32_t mode,
			  int32_t sparse, AtenTensorHandle per_sample_weights,
			  int32_t include_last_offset, int32_t padding_idx, AtenTensorHandle *ret0,
			  AtenTensorHandle *ret1, AtenTensorHandle *ret2, AtenTensorHandle *ret3);

#ifdef __cplusplus
}
#endif
#endif
