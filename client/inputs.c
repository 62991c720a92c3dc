/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inputs to where the worker can read them: in place if they lie in the lane in the strides that
 * the package was compiled for, else copied, elements only.
 */
#include <string.h>

#include "client/internal.h"
#include "ipc/checked.h"

/* A protected tensor is copied: what the model writes must show in outputs that are views of it, and not in itself. */
static bool lies_in_lane(const struct pb_lane_client *l, const struct pt2box_tensor *t)
{
	return t->storage && t->storage->lane == l && !t->storage->down && !t->info.readonly;
}

/* Strides that the worker will see: what the package declares, else the tensor's own if it has no
 * holes. */
static bool choose_strides(const struct pb_run *r, uint32_t i, const struct pt2box_tensor_info *f,
			   int64_t *ret)
{
	uint64_t bytes;

	if (r->m->has_signature &&
	    pb_strides_wanted(&r->m->manifest->inputs[i], f->ndim, f->sizes, ret))
		return true;
	if (!pb_tensor_extent(f->ndim, f->sizes, f->strides, 1, &bytes))
		return false;
	/* Holes belong to somebody else: their bytes are not for the model. */
	if (bytes == (uint64_t)f->numel || lies_in_lane(r->m->lane, r->in[i]))
		memcpy(ret, f->strides, (size_t)f->ndim * sizeof(*ret));
	else
		pb_strides_contiguous(f->ndim, f->sizes, ret);
	return true;
}

/* Bytes of a tensor without holes and with no element twice; else 0. */
static uint64_t dense_bytes(const struct pt2box_tensor_info *f)
{
	uint64_t bytes, elem = pt2box_dtype_size(f->dtype);

	if (!pb_tensor_extent(f->ndim, f->sizes, f->strides, elem, &bytes) ||
	    bytes != (uint64_t)f->numel * elem)
		return 0;
	return bytes;
}

static pb_status copy_input(struct pb_run *r, uint32_t i, struct pb_lane_tensor *d,
			    struct pt2box_error *err)
{
	const struct pt2box_tensor_info *f = &r->in[i]->info;
	size_t elem = pt2box_dtype_size(f->dtype);
	struct pb_block *b;
	uint64_t bytes;
	pb_status st;

	d->segment = 0;
	d->offset = 0;
	if (!pb_tensor_extent(f->ndim, f->sizes, d->strides, elem, &bytes))
		return pb_error_set(err, PT2BOX_BAD_TENSOR,
				    "input %u is too large with the package's strides", i);
	if (bytes == 0)
		return PT2BOX_OK;
	st = pb_lane_client_alloc(r->m->lane, false, bytes, &b, err);
	if (st)
		return st;
	r->slot->in_block[i] = b;
	r->slot->in_lent[i] = false;
	d->segment = b->seg->id;
	d->offset = b->offset;
	if (bytes == (uint64_t)f->numel * elem &&
	    pb_strides_equal(f->ndim, f->sizes, f->strides, d->strides))
		memcpy(pb_block_data(b), f->data, bytes);
	else
		pb_copy_strided(f->ndim, f->sizes, elem, pb_block_data(b), d->strides, f->data,
				f->strides);
	return PT2BOX_OK;
}

pb_status pb_run_place_input(struct pb_run *r, uint32_t i, struct pt2box_error *err)
{
	struct pt2box_tensor *t = r->in[i];
	const struct pt2box_tensor_info *f = &t->info;
	struct pb_lane_tensor *d = &r->slot->in[i];
	bool same;

	d->dtype = f->dtype;
	d->ndim = f->ndim;
	d->down = false;
	memcpy(d->sizes, f->sizes, (size_t)f->ndim * sizeof(f->sizes[0]));
	if (!choose_strides(r, i, f, d->strides))
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "input %u is too large", i);
	same = pb_strides_equal(f->ndim, f->sizes, f->strides, d->strides);
	r->slot->in_same[i] = same ? dense_bytes(f) : 0;
	if (!lies_in_lane(r->m->lane, t) || !same)
		return copy_input(r, i, d, err);
	memcpy(d->strides, f->strides, (size_t)f->ndim * sizeof(f->strides[0]));
	d->segment = t->storage->block->seg->id;
	d->offset = (uint64_t)((uint8_t *)f->data - t->storage->block->seg->base);
	r->slot->in_block[i] = t->storage->block;
	r->slot->in_lent[i] = true;
	return PT2BOX_OK;
}
