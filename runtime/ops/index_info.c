/* SPDX-License-Identifier: Apache-2.0 */
/* See index_info.h. Rules of aten/src/ATen/native/{TensorAdvancedIndexing.cpp,IndexingUtils.h}. */
#include "runtime/ops/index_info.h"

#include "runtime/ops/layout.h"
#include "runtime/ops/nonzero.h"
#include "runtime/ops/walk.h"

static bool is_mask(const struct pb_rt_tensor *t)
{
	return t->dtype == PB_RT_BOOL || t->dtype == PB_RT_U8;
}

static int add_index_take(struct pb_index *ix, struct pb_rt_tensor *t, int dim)
{
	if (!t)
		return 1;
	ix->idx[ix->n] = t;
	ix->dims[ix->n++] = dim;
	return 0;
}

/* One index for each dimension of the mask: the columns of its nonzero. */
static int add_mask(struct pb_index *ix, const struct pb_rt_tensor *self,
		    const struct pb_rt_tensor *mask, int dim)
{
	AtenTensorHandle rows = NULL;
	int rc = 0;

	for (int i = 0; i < mask->ndim; i++)
		if (dim + i >= self->ndim || mask->sizes[i] != self->sizes[dim + i])
			return pb_rt_fail("The shape of the mask %s at index %d does not match the "
					  "shape of the indexed "
					  "tensor %s at index %d",
					  PB_SHAPE(mask), i, PB_SHAPE(self), dim + i);
	if (mask->ndim == 0)
		return pb_rt_fail("indexing by a mask without dimensions is not supported");
	if (aoti_torch_cpu_nonzero((AtenTensorHandle)mask, &rows))
		return 1;
	for (int i = 0; i < mask->ndim && !rc; i++)
		rc = add_index_take(ix,
				    pb_rt_alias(rows, 1, rows->sizes, &rows->strides[0],
						rows->offset + i * rows->strides[1]),
				    dim + i);
	pb_rt_delete(rows);
	return rc;
}

static int collect(struct pb_index *ix, const struct pb_rt_tensor *self,
		   const struct pb_rt_tensor *const *indices, int64_t n)
{
	int dim = 0;

	if (n > self->ndim)
		return pb_rt_fail("too many indices for tensor of dimension %d (got %lld)",
				  self->ndim, (long long)n);
	for (int64_t i = 0; i < n; i++) {
		const struct pb_rt_tensor *t = indices[i];

		if (!t) {
			dim++;
			continue;
		}
		if (is_mask(t)) {
			if (add_mask(ix, self, t, dim))
				return 1;
			dim += t->ndim;
			ix->one_mask = true;
			ix->mask_dtype = t->dtype;
			continue;
		}
		if (t->dtype != PB_RT_I64 && t->dtype != PB_RT_I32)
			return pb_rt_fail(
				"tensors used as indices must be long, int, byte or bool tensors");
		if (dim >= self->ndim)
			return pb_rt_fail("too many indices for tensor of dimension %d (got %d)",
					  self->ndim, dim + 1);
		if (add_index_take(ix, pb_new_handle(t), dim++))
			return 1;
	}
	for (int64_t i = 0, seen = 0; i < n; i++)
		if (indices[i] && (seen++ || !is_mask(indices[i])))
			ix->one_mask = false;
	return ix->n ? 0 : pb_rt_fail("at least one index must be given");
}

/* All index tensors as one shape; the text of a failure as IndexingUtils has it. */
static int broadcast(struct pb_index *ix, int *ret_ndim, int64_t *ret_sizes)
{
	char text[512] = "";
	size_t used = 0;

	if (!pb_broadcast((const struct pb_rt_tensor *const *)ix->idx, ix->n, ret_ndim, ret_sizes))
		return 0;
	for (int i = 0; i < ix->n && used < sizeof(text) - 1; i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s", i ? ", " : "",
					 PB_SHAPE(ix->idx[i]));
	return pb_rt_fail(
		"shape mismatch: indexing tensors could not be broadcast together with shapes %s",
		text);
}

static bool adjacent(const struct pb_index *ix)
{
	for (int i = 1; i < ix->n; i++)
		if (ix->dims[i] != ix->dims[i - 1] + 1)
			return false;
	return true;
}

static bool is_indexed(const struct pb_index *ix, int dim)
{
	for (int i = 0; i < ix->n; i++)
		if (ix->dims[i] == dim)
			return true;
	return false;
}

static int result_shape(struct pb_index *ix, const struct pb_rt_tensor *self)
{
	int64_t sizes[PB_RT_MAX_DIMS];
	int n_index;

	if (broadcast(ix, &n_index, sizes))
		return 1;
	if (self->ndim - ix->n + n_index > PB_RT_MAX_DIMS)
		return pb_rt_fail("indexing: the result has more than %d dimensions",
				  PB_RT_MAX_DIMS);
	ix->n_index = n_index;
	ix->n_before = adjacent(ix) ? ix->dims[0] : 0;
	for (int pass = 0; pass < 2; pass++) {
		for (int d = 0; d < self->ndim; d++) {
			if (is_indexed(ix, d) || (d < ix->n_before) != (pass == 0))
				continue;
			ix->sizes[ix->ndim] = self->sizes[d];
			ix->self_strides[ix->ndim++] = self->strides[d];
		}
		for (int d = 0; pass == 0 && d < n_index; d++) {
			ix->sizes[ix->ndim] = sizes[d];
			ix->self_strides[ix->ndim++] = 0;
		}
	}
	return 0;
}

static int64_t index_at(const struct pb_rt_tensor *t, int64_t at)
{
	return t->dtype == PB_RT_I64 ? ((const int64_t *)pb_rt_data(t))[at]
				     : ((const int32_t *)pb_rt_data(t))[at];
}

static int add_offsets(struct pb_index *ix, const struct pb_rt_tensor *self, int k)
{
	const struct pb_rt_tensor *t = ix->idx[k];
	const int64_t size = self->sizes[ix->dims[k]], stride = self->strides[ix->dims[k]];
	int64_t strides[PB_RT_MAX_DIMS], *offset = ix->offsets;
	struct pb_walk w;

	(void)pb_expand_strides(t, ix->n_index, ix->sizes + ix->n_before, strides);
	pb_walk_init(&w, ix->n_index, ix->sizes + ix->n_before);
	pb_walk_add(&w, strides);
	for (; w.left; pb_walk_next(&w)) {
		const int64_t i = index_at(t, w.off[0]);

		if (i < -size || i >= size)
			return pb_rt_fail(
				"index %lld is out of bounds for dimension %d with size %lld",
				(long long)i, k, (long long)size);
		*offset++ += (i < 0 ? i + size : i) * stride;
	}
	return 0;
}

static int make_offsets(struct pb_index *ix, const struct pb_rt_tensor *self)
{
	ix->n_offsets = 1;
	for (int d = 0; d < ix->n_index; d++)
		ix->n_offsets *= ix->sizes[ix->n_before + d];
	if (!ix->n_offsets)
		return 0;
	for (int k = 0; k < ix->n; k++)
		if (self->sizes[ix->dims[k]] == 0)
			return pb_rt_fail("index is out of bounds for dimension with size 0");
	ix->offsets = pb_rt_scratch((size_t)ix->n_offsets * sizeof(int64_t));
	if (!ix->offsets)
		return 1;
	memset(ix->offsets, 0, (size_t)ix->n_offsets * sizeof(int64_t));
	for (int k = 0; k < ix->n; k++)
		if (add_offsets(ix, self, k))
			return 1;
	return 0;
}

int pb_index_init(struct pb_index *ix, const struct pb_rt_tensor *self,
		  const struct pb_rt_tensor *const *indices, int64_t n)
{
	*ix = (struct pb_index){.n = 0};
	if (collect(ix, self, indices, n) || result_shape(ix, self) || make_offsets(ix, self)) {
		pb_index_deinit(ix);
		return 1;
	}
	return 0;
}

void pb_index_deinit(struct pb_index *ix)
{
	for (int i = 0; i < ix->n; i++)
		pb_rt_delete(ix->idx[i]);
	pb_rt_scratch_free(ix->offsets);
	ix->n = 0;
	ix->offsets = NULL;
}

void pb_index_result_strides(const struct pb_index *ix, int64_t *ret_strides)
{
	struct pb_iter it = {.ndim = ix->ndim, .n = 1 + ix->n};

	memcpy(it.sizes, ix->sizes, sizeof(it.sizes));
	memcpy(it.strides[0], ix->self_strides, sizeof(it.strides[0]));
	for (int k = 0; k < ix->n; k++)
		(void)pb_expand_strides(ix->idx[k], ix->n_index, ix->sizes + ix->n_before,
					it.strides[1 + k] + ix->n_before);
	pb_iter_output(&it, ret_strides);
}
