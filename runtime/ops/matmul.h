/* SPDX-License-Identifier: Apache-2.0 */
/* Matrix products of the C ABI: torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h of
 * torch 2.13.0. */
#ifndef PT2BOX_RUNTIME_OPS_MATMUL_H
#define PT2BOX_RUNTIME_OPS_MATMUL_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError aoti_torch_cpu_addmm_out(AtenTensorHandle out, AtenTensorHandle self,
						    AtenTensorHandle mat1, AtenTensorHandle mat2,
						    double beta, double alpha);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_mm_out(AtenTensorHandle out, AtenTensorHandle self,
						 AtenTensorHandle mat2);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_bmm_out(AtenTensorHandle out, AtenTensorHandle self,
						  AtenTensorHandle mat2);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_baddbmm_out(AtenTensorHandle out, AtenTensorHandle self,
						      AtenTensorHandle batch1,
						      AtenTensorHandle batch2, double beta,
						      double alpha);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_addbmm(AtenTensorHandle self, AtenTensorHandle batch1,
						 AtenTensorHandle batch2, double beta, double alpha,
						 AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_addmv(AtenTensorHandle self, AtenTensorHandle mat,
						AtenTensorHandle vec, double beta, double alpha,
						AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu__int_mm_out(AtenTensorHandle out, AtenTensorHandle self,
						      AtenTensorHandle mat2);

#ifdef __cplusplus
}
#endif
#endif
