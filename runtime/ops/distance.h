/* SPDX-License-Identifier: Apache-2.0 */
/* Distances between rows, and the product of three tensors: c_shim_cpu.h of torch 2.13.0. */
#ifndef PT2BOX_RUNTIME_OPS_DISTANCE_H
#define PT2BOX_RUNTIME_OPS_DISTANCE_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError aoti_torch_cpu__cdist_forward(AtenTensorHandle x1, AtenTensorHandle x2,
							 double p, int64_t *compute_mode,
							 AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu__pdist_forward(AtenTensorHandle self, double p,
							 AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu__trilinear(AtenTensorHandle i1, AtenTensorHandle i2,
						     AtenTensorHandle i3, const int64_t *expand1,
						     int64_t expand1_len_, const int64_t *expand2,
						     int64_t expand2_len_, const int64_t *expand3,
						     int64_t expand3_len_, const int64_t *sumdim,
						     int64_t sumdim_len_, int64_t unroll_dim,
						     AtenTensorHandle *ret0);

#ifdef __cplusplus
}
#endif
#endif
