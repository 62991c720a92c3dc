/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors as the caller sees them, and the memory that they share. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "client/internal.h"
#include "ipc/checked.h"

#define ALIGN 64u

/* ---- storage ---- */

pb_status pb_storage_new_map(int fd, uint64_t bytes, struct pb_storage **ret,
			     struct pt2box_error *err)
{
	struct pb_storage *s = calloc(1, sizeof(*s));

	if (!s)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a tensor");
	s->map = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
	if (s->map == MAP_FAILED) {
		free(s);
		return pb_error_sys(err, "cannot map %llu bytes", (unsigned long long)bytes);
	}
	s->refs = 1;
	s->map_bytes = bytes;
	*ret = s;
	return PT2BOX_OK;
}

struct pb_storage *pb_storage_new_heap(uint64_t bytes, uint8_t **ret_data)
{
	struct pb_storage *s;

	if (bytes > SIZE_MAX / 2)
		return NULL;
	s = malloc(sizeof(*s) + bytes + ALIGN);
	if (!s)
		return NULL;
	*s = (struct pb_storage){.refs = 1};
	*ret_data = (uint8_t *)(((uintptr_t)(s + 1) + ALIGN - 1) & ~(uintptr_t)(ALIGN - 1));
	return s;
}

struct pb_storage *pb_storage_new_block(struct pb_lane_client *l, bool down, struct pb_block *b)
{
	struct pb_storage *s = malloc(sizeof(*s));

	if (!s)
		return NULL;
	*s = (struct pb_storage){.refs = 1, .down = down, .lane = l, .block = b};
	atomic_fetch_add_explicit(&l->refs, 1, memory_order_relaxed);
	return s;
}

void pb_storage_unref(struct pb_storage *s)
{
	if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return;
	/* In a forked child the parent's lock may be held for ever: the records are left as they
	 * are. */
	if (s->lane && pb_connection_is_ours(s->lane->c)) {
		if (s->block)
			pb_lane_client_unref_block(s->lane, s->down, s->block);
		pb_lane_client_unref(s->lane);
	}
	if (s->map)
		munmap(s->map, s->map_bytes);
	free(s);
}

/* ---- tensors ---- */

uint8_t pb_tensor_nothing[ALIGN] __attribute__((aligned(ALIGN)));

bool pb_numel(int32_t ndim, const int64_t *sizes, int64_t *ret)
{
	int64_t n = 1;

	for (int32_t i = 0; i < ndim; i++)
		if (sizes[i] == 0) {
			*ret = 0;
			return true;
		}
	for (int32_t i = 0; i < ndim; i++)
		if (__builtin_mul_overflow(n, sizes[i], &n))
			return false;
	*ret = n;
	return true;
}

pb_status pb_tensor_new(int32_t dtype, int32_t ndim, const int64_t *sizes, const int64_t *strides,
			struct pt2box_tensor **ret, uint64_t *ret_bytes, struct pt2box_error *err)
{
	struct pt2box_tensor *t;
	struct pt2box_tensor_info *f;

	if (!pt2box_dtype_size(dtype))
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "there is no dtype %d", dtype);
	if (ndim < 0 || ndim > PT2BOX_MAX_DIMS)
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "a tensor has 0 to %d dimensions",
				    PT2BOX_MAX_DIMS);
	if (ndim && !sizes)
		return pb_error_set(err, PT2BOX_USAGE, "a tensor needs its sizes");
	for (int32_t i = 0; i < ndim; i++)
		if (sizes[i] < 0 || (strides && strides[i] < 0))
			return pb_error_set(err, PT2BOX_BAD_TENSOR,
					    "sizes and strides are not negative");
	t = malloc(sizeof(*t));
	if (!t)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a tensor");
	*t = (struct pt2box_tensor){.info = {.dtype = dtype, .ndim = ndim}};
	f = &t->info;
	if (ndim)
		memcpy(f->sizes, sizes, (size_t)ndim * sizeof(*sizes));
	if (ndim && strides)
		memcpy(f->strides, strides, (size_t)ndim * sizeof(*strides));
	else
		pb_strides_contiguous(ndim, f->sizes, f->strides);
	/* Strides of 0 let a model name more elements than any memory holds: who copies them multiplies. */
	if (!pb_numel(ndim, f->sizes, &f->numel) ||
	    (uint64_t)f->numel > INT64_MAX / pt2box_dtype_size(dtype) ||
	    !pb_tensor_extent(ndim, f->sizes, f->strides, pt2box_dtype_size(dtype), ret_bytes)) {
		free(t);
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "a tensor too large for any memory");
	}
	*ret = t;
	return PT2BOX_OK;
}

enum pt2box_status pt2box_tensor_alloc(struct pt2box_model *m, int32_t dtype, int32_t ndim,
				       const int64_t *sizes, struct pt2box_tensor **ret,
				       struct pt2box_error *err)
{
	struct pt2box_tensor *t = NULL;
	struct pb_block *b = NULL;
	uint64_t bytes;
	pb_status st;

	pb_error_clear(err);
	st = pb_model_check(m, err);
	if (!st)
		st = pb_tensor_new(dtype, ndim, sizes, NULL, &t, &bytes, err);
	if (st)
		return st;
	t->info.data = pb_tensor_nothing;
	if (bytes)
		st = pb_lane_client_alloc(m->lane, false, bytes, &b, err);
	if (!st && b) {
		t->storage = pb_storage_new_block(m->lane, false, b);
		t->info.data = pb_block_data(b);
		if (!t->storage) {
			pb_lane_client_unref_block(m->lane, false, b);
			st = pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a tensor");
		}
	}
	if (st) {
		free(t);
		return st;
	}
	*ret = t;
	return PT2BOX_OK;
}

enum pt2box_status pt2box_tensor_lend(int32_t dtype, int32_t ndim, const int64_t *sizes,
				      const int64_t *strides, void *data,
				      struct pt2box_tensor **ret, struct pt2box_error *err)
{
	struct pt2box_tensor *t;
	uint64_t bytes;
	pb_status st;

	pb_error_clear(err);
	st = pb_tensor_new(dtype, ndim, sizes, strides, &t, &bytes, err);
	if (st)
		return st;
	if (bytes && !data) {
		free(t);
		return pb_error_set(err, PT2BOX_USAGE, "a tensor with elements needs its memory");
	}
	t->info.data = data ? data : pb_tensor_nothing;
	*ret = t;
	return PT2BOX_OK;
}

void pt2box_tensor_protect(struct pt2box_tensor *t)
{
	t->info.readonly = 1;
}

const struct pt2box_tensor_info *pt2box_tensor_get_info(const struct pt2box_tensor *t)
{
	return &t->info;
}

int pt2box_tensor_input(const struct pt2box_tensor *t, size_t *ret_index, int64_t *ret_offset_bytes)
{
	if (!t->of_input)
		return 0;
	*ret_index = t->of_input - 1;
	*ret_offset_bytes = (int64_t)t->input_offset;
	return 1;
}

void pt2box_tensor_free(struct pt2box_tensor *t)
{
	if (!t)
		return;
	pb_storage_unref(t->storage);
	free(t);
}
