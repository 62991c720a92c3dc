/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the operators of linear algebra share: batches of matrices in LAPACK's layout. Such a tensor has its last two
 * dimensions column by column and its batch dimensions contiguous, which is also how PyTorch lays results of linear
 * algebra out.
 */
#ifndef PT2BOX_RUNTIME_OPS_LAPACK_MATS_H
#define PT2BOX_RUNTIME_OPS_LAPACK_MATS_H

#include "runtime/ops/layout.h"
#include "runtime/proxy.h"

/* A batch of m x n matrices, column by column. */
struct pb_mats {
	char *data;
	int64_t batch;
	int m, n, ld; /* ld: max(1, m) */
	size_t step;  /* bytes from one matrix to the next */
	int32_t dtype;
};

/* LAPACK is there, and takes the dtype; else fails with PyTorch's words about @api. */
int pb_la_ready(const char *api, int32_t dtype);
/* At least two dimensions, each of which LAPACK can count; square, if so said. */
int pb_la_matrix(const char *api, const struct pb_rt_tensor *t, bool square);
/* Dtype of absolute values. */
int32_t pb_la_real(int32_t dtype);

/* New: batch dimensions of @like (the first @n_batch of its sizes), then m x n, column by column. */
struct pb_rt_tensor *pb_la_empty(int32_t dtype, int n_batch, const int64_t *batch, int64_t m, int64_t n);
/* The elements of @t, broadcast to the batch, in that layout; a negative @n_batch: its own. */
struct pb_rt_tensor *pb_la_clone(const struct pb_rt_tensor *t, int n_batch, const int64_t *batch);
/* A view with the last two dimensions exchanged. */
struct pb_rt_tensor *pb_la_transposed(const struct pb_rt_tensor *t);
/* The matrices of a tensor from the two above. */
struct pb_mats pb_la_mats(const struct pb_rt_tensor *t);
static inline void *pb_la_at(const struct pb_mats *a, int64_t i)
{
	return a->data + (size_t)i * a->step;
}

/* Batch dimensions of both, broadcast. */
int pb_la_batch(const struct pb_rt_tensor *a, const struct pb_rt_tensor *b, int *ret_n, int64_t *ret);
/* How much a function of LAPACK wants to work with, from the first element of its work array. */
int pb_la_work_size(const void *first, int32_t dtype);

/* Zeroes what is not in the upper (lower) triangle. */
void pb_la_keep_triangle(const struct pb_mats *a, bool upper);
void pb_la_identity(const struct pb_mats *a);
void pb_la_conjugate(const struct pb_mats *a);

/* Fails as torch._linalg_check_errors does if any of the int32 is not 0. */
int pb_la_check(const struct pb_rt_tensor *info, const char *api, bool is_matrix);

#endif
