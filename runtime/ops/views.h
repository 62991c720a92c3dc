/* SPDX-License-Identifier: Apache-2.0 */
/* Views, resizing and filling of the C ABI (c_shim_cpu.h of torch 2.13.0). */
#ifndef PT2BOX_RUNTIME_OPS_VIEWS_H
#define PT2BOX_RUNTIME_OPS_VIEWS_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError aoti_torch_cpu_narrow(AtenTensorHandle self, int64_t dim, int64_t start,
						 int64_t length, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_slice_Tensor(AtenTensorHandle self, int64_t dim,
						       int64_t *start, int64_t *end, int64_t step,
						       AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_permute(AtenTensorHandle self, const int64_t *dims,
						  int64_t dims_len_, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_squeeze_dim(AtenTensorHandle self, int64_t dim,
						      AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_reshape(AtenTensorHandle self, const int64_t *shape,
						  int64_t shape_len_, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_view_dtype(AtenTensorHandle self, int32_t dtype,
						     AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_view_as_real(AtenTensorHandle self,
						       AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_view_as_complex(AtenTensorHandle self,
							  AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_set__source_Tensor(AtenTensorHandle self,
							     AtenTensorHandle source);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_resize_(AtenTensorHandle self, const int64_t *size,
						  int64_t size_len_, int32_t *memory_format);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_resize_as_(AtenTensorHandle self,
						     AtenTensorHandle the_template,
						     int32_t *memory_format);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_fill__Scalar(AtenTensorHandle self, double value);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_hann_window(int64_t window_length, int32_t *dtype,
						      int32_t *layout, int32_t *device,
						      int32_t device_index_, int32_t *pin_memory,
						      AtenTensorHandle *ret0);

#ifdef __cplusplus
}
#endif
#endif
