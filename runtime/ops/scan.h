/* SPDX-License-Identifier: Apache-2.0 */
/* Running sums, products, maxima, minima of the C ABI (c_shim_cpu.h of torch 2.13.0). */
#ifndef PT2BOX_RUNTIME_OPS_SCAN_H
#define PT2BOX_RUNTIME_OPS_SCAN_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError aoti_torch_cpu_cumsum(AtenTensorHandle self, int64_t dim, int32_t *dtype,
						 AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_cumprod(AtenTensorHandle self, int64_t dim,
						  int32_t *dtype, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_cummax(AtenTensorHandle self, int64_t dim,
						 AtenTensorHandle *ret0, AtenTensorHandle *ret1);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_cummin(AtenTensorHandle self, int64_t dim,
						 AtenTensorHandle *ret0, AtenTensorHandle *ret1);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_logcumsumexp(AtenTensorHandle self, int64_t dim,
						       AtenTensorHandle *ret0);

#ifdef __cplusplus
}
#endif
#endif
