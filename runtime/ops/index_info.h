/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What indexing a tensor by tensors means: at::native's AdvancedIndex. The result has the
 * dimensions before the indexed ones, those of the indices, and those after; every index tuple is
 * one offset into the indexed tensor.
 */
#ifndef PT2BOX_RUNTIME_OPS_INDEX_INFO_H
#define PT2BOX_RUNTIME_OPS_INDEX_INFO_H

#include "runtime/tensor.h"

struct pb_index {
	int n; /* index tensors, after masks became several */
	struct pb_rt_tensor *idx[PB_RT_MAX_DIMS];
	int dims[PB_RT_MAX_DIMS]; /* the dimension each one indexes */
	bool one_mask;		  /* a single mask and nothing else */
	int32_t mask_dtype;	  /* of the last mask */

	int ndim, n_before, n_index; /* of the result; the rest comes after */
	int64_t sizes[PB_RT_MAX_DIMS];
	int64_t self_strides[PB_RT_MAX_DIMS]; /* 0 for the dimensions of the indices */

	int64_t n_offsets;
	int64_t *offsets; /* elements, one for each index tuple */
};

/* 0, or 1 with the error set (then nothing is held). */
int pb_index_init(struct pb_index *ix, const struct pb_rt_tensor *self,
		  const struct pb_rt_tensor *const *indices, int64_t n);
void pb_index_deinit(struct pb_index *ix);
/* Strides that PyTorch gives the result of self[indices]. */
void pb_index_result_strides(const struct pb_index *ix, int64_t *ret_strides);

#endif
