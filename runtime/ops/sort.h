/* SPDX-License-Identifier: Apache-2.0 */
/* Sorting and selection of the C ABI (c_shim_cpu.h of torch 2.13.0). */
#ifndef PT2BOX_RUNTIME_OPS_SORT_H
#define PT2BOX_RUNTIME_OPS_SORT_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError aoti_torch_cpu_sort(AtenTensorHandle self, int64_t dim,
					       int32_t descending, AtenTensorHandle *ret0,
					       AtenTensorHandle *ret1);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_sort_stable(AtenTensorHandle self, int32_t *stable,
						      int64_t dim, int32_t descending,
						      AtenTensorHandle *ret0,
						      AtenTensorHandle *ret1);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_topk(AtenTensorHandle self, int64_t k, int64_t dim,
					       int32_t largest, int32_t sorted,
					       AtenTensorHandle *ret0, AtenTensorHandle *ret1);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_kthvalue(AtenTensorHandle self, int64_t k, int64_t dim,
						   int32_t keepdim, AtenTensorHandle *ret0,
						   AtenTensorHandle *ret1);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_mode(AtenTensorHandle self, int64_t dim, int32_t keepdim,
					       AtenTensorHandle *ret0, AtenTensorHandle *ret1);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_median(AtenTensorHandle self, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_nanmedian(AtenTensorHandle self, AtenTensorHandle *ret0);

#ifdef __cplusplus
}
#endif
#endif
