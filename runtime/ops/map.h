/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Elementwise operations: a function on contiguous blocks of one element type, called for tensors
 * of any dtypes and strides. Blocks are converted on the way where they have to be, so a function
 * is written once for each type that PyTorch computes in, not for each that it accepts.
 */
#ifndef PT2BOX_RUNTIME_OPS_MAP_H
#define PT2BOX_RUNTIME_OPS_MAP_H

#include "runtime/tensor.h"

#define PB_MAP_INPUTS 3

/* out[i] = f(in[0][i], in[1][i], ...) for i below @n; out may be one of the inputs. */
typedef void pb_map_fn(void *out, const void *const *in, int64_t n, const void *arg);

struct pb_map {
	pb_map_fn *fn;
	const void *arg;
	int n_in;
	const struct pb_rt_tensor *in[PB_MAP_INPUTS];
	int32_t in_dtype;  /* that fn reads */
	int32_t out_dtype; /* that fn writes */
	bool promotes;	   /* inputs are converted to the result's dtype first, which shows in its
			      strides */
};

/* Into @out, which has the broadcast shape. 0, or 1 with the error set. */
int pb_map_into(const struct pb_map *m, struct pb_rt_tensor *out);
/* Into a new tensor of @dtype, with the shape and strides of PyTorch's TensorIterator. */
struct pb_rt_tensor *pb_map_new(const struct pb_map *m, int32_t dtype);
/* The type that PyTorch computes @dtype in: int64 for integers and bool, float for 16-bit floats,
 * else itself. */
int32_t pb_compute_dtype(int32_t dtype);

#endif
