/* SPDX-License-Identifier: Apache-2.0 */
/* Histograms, and reductions of segments: c_shim_cpu.h of torch 2.13.0. */
#ifndef PT2BOX_RUNTIME_OPS_HISTOGRAM_H
#define PT2BOX_RUNTIME_OPS_HISTOGRAM_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError aoti_torch_cpu_histc(AtenTensorHandle self, int64_t bins, double min,
						double max, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_histogram_bin_ct(AtenTensorHandle self, int64_t bins,
							   const double **range, int64_t range_len_,
							   AtenTensorHandle *weight,
							   int32_t density, AtenTensorHandle *ret0,
							   AtenTensorHandle *ret1);
AOTI_EXPORT AOTITorchError aoti_torch_cpu__histogramdd_from_bin_cts(
	AtenTensorHandle self, const int64_t *bins, int64_t bins_len_, const double **range,
	int64_t range_len_, AtenTensorHandle *weight, int32_t density, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_segment_reduce(AtenTensorHandle data, const char *reduce,
							 AtenTensorHandle *lengths,
							 AtenTensorHandle *indices,
							 AtenTensorHandle *offsets, int64_t axis,
							 int32_t unsafe, double *initial,
							 AtenTensorHandle *ret0);

#ifdef __cplusplus
}
#endif
#endif
