/* SPDX-License-Identifier: Apache-2.0 */
/* Scaled dot product attention of the C ABI (torch 2.13.0's flash attention for CPU, forward). */
#ifndef PT2BOX_RUNTIME_OPS_ATTENTION_H
#define PT2BOX_RUNTIME_OPS_ATTENTION_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError aoti_torch_cpu__scaled_dot_product_flash_attention_for_cpu(
	AtenTensorHandle query, AtenTensorHandle key, AtenTensorHandle value, double dropout_p,
	int32_t is_causal, AtenTensorHandle *attn_mask, double *scale, AtenTensorHandle *ret0,
	AtenTensorHandle *ret1);

#ifdef __cplusplus
}
#endif
#endif
