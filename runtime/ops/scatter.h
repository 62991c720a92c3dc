/* SPDX-License-Identifier: Apache-2.0 */
/* Scatter of the C ABI (c_shim_cpu.h and shim.h of torch 2.13.0). */
#ifndef PT2BOX_RUNTIME_OPS_SCATTER_H
#define PT2BOX_RUNTIME_OPS_SCATTER_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError aoti_torch_cpu_scatter_src_out(AtenTensorHandle out,
							  AtenTensorHandle self, int64_t dim,
							  AtenTensorHandle index,
							  AtenTensorHandle src);
AOTI_EXPORT AOTITorchError aoti_torch_scatter_out(AtenTensorHandle out, AtenTensorHandle self,
						  int64_t dim, AtenTensorHandle index,
						  AtenTensorHandle src);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_scatter_value_out(AtenTensorHandle out,
							    AtenTensorHandle self, int64_t dim,
							    AtenTensorHandle index, double value);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_scatter_reduce_two_out(
	AtenTensorHandle out, AtenTensorHandle self, int64_t dim, AtenTensorHandle index,
	AtenTensorHandle src, const char *reduce, int32_t include_self);
AOTI_EXPORT AOTITorchError aoti_torch_scatter_reduce_out(AtenTensorHandle out,
							 AtenTensorHandle self, int64_t dim,
							 AtenTensorHandle index,
							 AtenTensorHandle src, const char *reduce,
							 int32_t include_self);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_index_reduce(AtenTensorHandle self, int64_t dim,
						       AtenTensorHandle index,
						       AtenTensorHandle source, const char *reduce,
						       int32_t include_self,
						       AtenTensorHandle *ret0);

#ifdef __cplusplus
}
#endif
#endif
