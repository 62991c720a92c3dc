/* SPDX-License-Identifier: Apache-2.0 */
/* Filling tensors from the CPU generator. */
#ifndef PT2BOX_RUNTIME_OPS_RANDOM_DRAW_H
#define PT2BOX_RUNTIME_OPS_RANDOM_DRAW_H

#include "runtime/tensor.h"

enum pb_draw_kind {
	PB_DRAW_INT,
	PB_DRAW_UNIFORM,
	PB_DRAW_NORMAL,
	PB_DRAW_BERNOULLI,   /* 1 with probability to, else 0 */
	PB_DRAW_EXPONENTIAL, /* of rate to */
};

struct pb_draw {
	enum pb_draw_kind kind;
	uint64_t range;
	int64_t base;
	double from, to; /* also mean and standard deviation */
};

/* One number in [0, 1), one of the standard normal distribution. */
double pb_draw_uniform01(void);
double pb_draw_normal01(void);
/* In the order of the memory of @t. */
int pb_draw_fill(struct pb_rt_tensor *t, const struct pb_draw *d);
/* The same with probabilities from @p, which has the shape of @t and is float32 or float64. */
int pb_draw_bernoulli(struct pb_rt_tensor *t, const struct pb_rt_tensor *p);
/* Integers low .. high - 1 of a dtype, with PyTorch's checks. */
int pb_draw_range(int64_t low, int64_t high, int32_t dtype, struct pb_draw *ret);

#endif
