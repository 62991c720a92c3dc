/* SPDX-License-Identifier: Apache-2.0 */
/* Elementwise arithmetic of the C ABI (c_shim_cpu.h and c_shim_aten.h of torch 2.13.0). */
#ifndef PT2BOX_RUNTIME_OPS_POINTWISE_H
#define PT2BOX_RUNTIME_OPS_POINTWISE_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError aoti_torch_cpu_add_Scalar(AtenTensorHandle self, double other,
						     double alpha, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_add_Tensor(AtenTensorHandle self, AtenTensorHandle other,
						     double alpha, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_aten_subtract_Tensor(AtenTensorHandle self,
							   AtenTensorHandle other, double alpha,
							   AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_mul_Scalar(AtenTensorHandle self, double other,
						     AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_mul_Tensor(AtenTensorHandle self, AtenTensorHandle other,
						     AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_abs(AtenTensorHandle self, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_angle(AtenTensorHandle self, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_polar(AtenTensorHandle abs, AtenTensorHandle angle,
						AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_gcd(AtenTensorHandle self, AtenTensorHandle other,
					      AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_pow_Scalar(double self, AtenTensorHandle exponent,
						     AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_pow_Tensor_Scalar(AtenTensorHandle self, double exponent,
							    AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_pow_Tensor_Tensor(AtenTensorHandle self,
							    AtenTensorHandle exponent,
							    AtenTensorHandle *ret0);

#ifdef __cplusplus
}
#endif
#endif
