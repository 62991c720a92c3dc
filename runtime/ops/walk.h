/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walking several tensors over one index space, the last dimension fastest. Offsets are in
 *elements. What is done at a position is the caller's loop, so that no function pointer is called
 *per element.
 *
 *	for (; w.left; pb_walk_next(&w))
 *		out[w.off[0]] = in[w.off[1]];
 */
#ifndef PT2BOX_RUNTIME_OPS_WALK_H
#define PT2BOX_RUNTIME_OPS_WALK_H

#include <string.h>

#include "runtime/tensor.h"

#define PB_WALK_TENSORS 5

struct pb_walk {
	int ndim, n;
	int64_t left; /* positions to come, this one included */
	int64_t off[PB_WALK_TENSORS];
	int64_t sizes[PB_RT_MAX_DIMS], at[PB_RT_MAX_DIMS];
	int64_t strides[PB_WALK_TENSORS][PB_RT_MAX_DIMS];
};

static inline void pb_walk_init(struct pb_walk *w, int ndim, const int64_t *sizes)
{
	w->ndim = ndim;
	w->n = 0;
	w->left = 1;
	for (int d = 0; d < ndim; d++) {
		w->sizes[d] = sizes[d];
		w->at[d] = 0;
		w->left *= sizes[d];
	}
}

/* Returns the number of the tensor, which indexes off[]. */
static inline int pb_walk_add(struct pb_walk *w, const int64_t *strides)
{
	memcpy(w->strides[w->n], strides, (size_t)w->ndim * sizeof(*strides));
	w->off[w->n] = 0;
	return w->n++;
}

/* Takes dimension @dim out of the walk: what is left are lines along it. */
static inline void pb_walk_drop(struct pb_walk *w, int dim)
{
	w->left = 1;
	for (int d = 0; d < w->ndim; d++)
		if (d != dim)
			w->left *= w->sizes[d];
	w->ndim--;
	for (int d = dim; d < w->ndim; d++) {
		w->sizes[d] = w->sizes[d + 1];
		for (int k = 0; k < w->n; k++)
			w->strides[k][d] = w->strides[k][d + 1];
	}
}

static inline void pb_walk_next(struct pb_walk *w)
{
	w->left--;
	for (int d = w->ndim - 1; d >= 0; d--) {
		if (++w->at[d] < w->sizes[d]) {
			for (int k = 0; k < w->n; k++)
				w->off[k] += w->strides[k][d];
			return;
		}
		w->at[d] = 0;
		for (int k = 0; k < w->n; k++)
			w->off[k] -= (w->sizes[d] - 1) * w->strides[k][d];
	}
}

/* Orders dimensions by the strides of the first tensor, for walks whose order does not matter.
 * Before the first step. */
static inline void pb_walk_by_stride(struct pb_walk *w)
{
	for (int i = 1; i < w->ndim; i++) {
		for (int d = i; d > 0 && w->strides[0][d] > w->strides[0][d - 1]; d--) {
			const int64_t size = w->sizes[d];

			w->sizes[d] = w->sizes[d - 1];
			w->sizes[d - 1] = size;
			for (int k = 0; k < w->n; k++) {
				const int64_t stride = w->strides[k][d];

				w->strides[k][d] = w->strides[k][d - 1];
				w->strides[k][d - 1] = stride;
			}
		}
	}
}

/* Merges dimensions that every tensor steps through evenly. Only before the first step. */
static inline void pb_walk_merge(struct pb_walk *w)
{
	int k = -1;

	for (int d = 0; d < w->ndim; d++) {
		bool even = k >= 0;

		if (w->sizes[d] == 1)
			continue;
		for (int i = 0; i < w->n && even; i++)
			even = w->strides[i][k] == w->strides[i][d] * w->sizes[d];
		if (!even)
			k++;
		w->sizes[k] = even ? w->sizes[k] * w->sizes[d] : w->sizes[d];
		for (int i = 0; i < w->n; i++)
			w->strides[i][k] = w->strides[i][d];
	}
	w->ndim = k + 1;
}

/* The innermost dimension becomes the caller's loop of *ret_n steps; strides are in
 * ret_strides[tensor]. */
static inline void pb_walk_inner(struct pb_walk *w, int64_t *ret_n, int64_t *ret_strides)
{
	const int d = w->ndim - 1;

	*ret_n = d < 0 ? w->left > 0 : w->sizes[d];
	for (int i = 0; i < w->n; i++)
		ret_strides[i] = d < 0 ? 1 : w->strides[i][d];
	if (d >= 0)
		pb_walk_drop(w, d);
}

#endif
