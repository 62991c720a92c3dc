/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pooling as windows: for every output position along a dimension, the input positions under it.
 * Two spatial dimensions are seen as three. What differs between the operators is how windows are
 * made and what is done in them.
 */
#ifndef PT2BOX_RUNTIME_OPS_POOL_PLAN_H
#define PT2BOX_RUNTIME_OPS_POOL_PLAN_H

#include "runtime/tensor.h"

struct pb_window {
	int64_t lo, hi, step; /* input positions lo, lo + step, ... below hi */
	int64_t full;	      /* positions with those in the padding, for averages that count it */
};

struct pb_pool {
	const char *op;
	int spatial; /* 2 or 3 */
	int64_t planes_n, planes_c, in[3], out[3];
	struct pb_window *windows[3];
	int64_t divisor; /* of averages, 0: the number of elements */
	bool count_pad, adaptive, averages;
	bool batch_of_one; /* how an input without a batch finds its memory format */
};

/* Arguments of a window along each dimension, as the C ABI gives them: one number for all, or one
 * each. */
struct pb_pool_args {
	const int64_t *kernel, *stride, *pad, *dilation;
	int64_t n_kernel, n_stride, n_pad, n_dilation;
	bool ceil;
};

/* Shape of the input, and windows; 0, or 1 with the error set (then nothing is held). */
int pb_pool_init(struct pb_pool *p, const char *op, int spatial, const struct pb_rt_tensor *self,
		 const struct pb_pool_args *args);
int pb_pool_init_adaptive(struct pb_pool *p, const char *op, int spatial,
			  const struct pb_rt_tensor *self, const int64_t *output_size, int64_t n);
void pb_pool_deinit(struct pb_pool *p);

/* Both need an input of a dtype they know; results are new, in the input's memory format. */
int pb_pool_max(const struct pb_pool *p, const struct pb_rt_tensor *self,
		AtenTensorHandle *ret_values, AtenTensorHandle *ret_indices);
int pb_pool_avg(const struct pb_pool *p, const struct pb_rt_tensor *self, AtenTensorHandle *ret0);

#endif
