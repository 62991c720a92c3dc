/* SPDX-License-Identifier: Apache-2.0 */
/* Fourier transforms of the C ABI (c_shim_cpu.h and shim_deprecated.h of torch 2.13.0). */
#ifndef PT2BOX_RUNTIME_OPS_FFT_H
#define PT2BOX_RUNTIME_OPS_FFT_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError aoti_torch_cpu__fft_r2c(AtenTensorHandle self, const int64_t *dim,
						   int64_t dim_len_, int64_t normalization,
						   int32_t onesided, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu__fft_c2c(AtenTensorHandle self, const int64_t *dim,
						   int64_t dim_len_, int64_t normalization,
						   int32_t forward, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch__fft_c2c(AtenTensorHandle self, const int64_t *dim_ptr,
					       int64_t dim_size, int64_t normalization,
					       int32_t forward, AtenTensorHandle *ret);

#ifdef __cplusplus
}
#endif
#endif
