/* SPDX-License-Identifier: Apache-2.0 */
/* What scatter.c does for the reductions in scatter_reduce.c. */
#ifndef PT2BOX_RUNTIME_OPS_SCATTER_LOOPS_H
#define PT2BOX_RUNTIME_OPS_SCATTER_LOOPS_H

#include "runtime/tensor.h"

enum pb_reduce { PB_R_SUM, PB_R_PROD, PB_R_MEAN, PB_R_AMAX, PB_R_AMIN, PB_R_ASSIGN };

/* PyTorch's checks of shapes, dtypes and overlap. @src NULL: a value. */
int pb_scatter_check(struct pb_rt_tensor *out, const struct pb_rt_tensor *self, int64_t dim,
		     const struct pb_rt_tensor *index, const struct pb_rt_tensor *src,
		     int *ret_dim);
/* @out becomes a copy of @self, resized if need be. */
int pb_scatter_start(struct pb_rt_tensor *out, const struct pb_rt_tensor *self);
/* Every element of @src into @self where the int64 @index says. Reductions only of float32, float64
 * and int64. */
int pb_scatter_apply(enum pb_reduce r, struct pb_rt_tensor *self, int dim,
		     const struct pb_rt_tensor *index, const struct pb_rt_tensor *src);

#endif
