/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tensors of the libtorch-free runtime: what an AtenTensorHandle points to.
 *
 * A tensor is a small header (dtype, sizes, strides, offset) over a storage that may be shared by
 * several tensors. The handle has an identity apart from its contents: the proxy executor and
 * assign functions put new contents into an existing handle. Nothing here is thread safe: a
 * container is driven by one thread, and OpenMP regions inside a model only touch data. Owns
 * tensors and storages; leaves numerics to runtime/ops/.
 */
#ifndef PT2BOX_RUNTIME_TENSOR_H
#define PT2BOX_RUNTIME_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

/* PyTorch allows 64; the deepest tensor in real packages has 8. More is a clear error. */
#define PB_RT_MAX_DIMS 16

enum pb_rt_storage_kind {
	PB_RT_BORROWED, /* memory of somebody else, never freed here */
	PB_RT_OWNED,	/* from the runtime's allocator */
	PB_RT_WINDOW,	/* inside the output window of the run in flight */
};

struct pb_rt_storage {
	void *base;
	uint64_t bytes;
	uint32_t refs;
	uint32_t alloc_seq; /* number of the allocation within the run, from 0; UINT32_MAX outside
			       runs */
	uint32_t run;	    /* the run that alloc_seq counts in */
	enum pb_rt_storage_kind kind;
	bool constant; /* contents never change while the container lives: packed copies may be
			  cached */
};

struct AtenTensorOpaque {
	struct pb_rt_storage *storage; /* NULL: uninitialized tensor object */
	int32_t dtype;		       /* c10 ScalarType number */
	int32_t ndim;
	int64_t offset; /* elements from storage->base */
	int64_t numel;
	int32_t layout; /* 0 strided, 3 mkldnn */
	int32_t device_type;
	int32_t device_index;
	int64_t sizes[PB_RT_MAX_DIMS];	 /* unused entries are 1 */
	int64_t strides[PB_RT_MAX_DIMS]; /* elements; unused entries are 1 */
};

/* Short name used inside the runtime. */
#define pb_rt_tensor AtenTensorOpaque

/* Element size in bytes, 0 for a dtype the runtime does not know. */
size_t pb_rt_dtype_size(int32_t dtype);
/* "float32", "bfloat16", ...; "?" if unknown. */
const char *pb_rt_dtype_name(int32_t dtype);

/* Pointer to element 0 of @t (base + offset); NULL for zero bytes. */
static inline void *pb_rt_data(const struct pb_rt_tensor *t);

/*
 * New tensor with its own storage (uninitialized memory, 64-byte aligned). sizes/strides have ndim
 * entries and may be NULL when ndim is 0; strides NULL means contiguous. Returns NULL with the
 * error set (overflow, memory refused).
 */
struct pb_rt_tensor *pb_rt_empty(int32_t dtype, int64_t ndim, const int64_t *sizes,
				 const int64_t *strides);
/* New tensor over the storage of @src. */
struct pb_rt_tensor *pb_rt_alias(const struct pb_rt_tensor *src, int64_t ndim, const int64_t *sizes,
				 const int64_t *strides, int64_t offset);
/* The same with another dtype; @offset counts in elements of it. */
struct pb_rt_tensor *pb_rt_view(const struct pb_rt_tensor *src, int32_t dtype, int64_t ndim,
				const int64_t *sizes, const int64_t *strides, int64_t offset);
/* New tensor over memory of somebody else: @data is where the storage begins, element 0 is @offset
 * further. */
struct pb_rt_tensor *pb_rt_from_blob(void *data, int32_t dtype, int64_t ndim, const int64_t *sizes,
				     const int64_t *strides, int64_t offset);
/* A handle without contents, to be assigned to. */
struct pb_rt_tensor *pb_rt_uninitialized(void);
/* Bytes of a storage that holds @t at @offset elements; 0 if @t has no element. 0, or 1 with the
 * error set. */
int pb_rt_extent_bytes(const struct pb_rt_tensor *t, int64_t offset, uint64_t *ret_bytes);
/* Frees handle and, with the last one, the storage. Accepts NULL. */
void pb_rt_delete(struct pb_rt_tensor *t);
/* Give the contents of @src to the handle @dst (both stay valid). */
void pb_rt_assign(struct pb_rt_tensor *dst, const struct pb_rt_tensor *src);

bool pb_rt_is_contiguous(const struct pb_rt_tensor *t);
/* A contiguous tensor with the contents of @t: a new handle either way, sharing storage when
 * already contiguous. */
struct pb_rt_tensor *pb_rt_contiguous(const struct pb_rt_tensor *t);
/* Elementwise copy with any strides, broadcasting size-1 and missing leading dims of src,
 * converting dtypes as Tensor.copy_ does. dst and src may overlap only if identical. 0 or 1 (error
 * set). */
int pb_rt_copy(struct pb_rt_tensor *dst, const struct pb_rt_tensor *src);

/* Scratch memory of at least @bytes, 64-byte aligned, from the same pool as tensors; NULL with the
 * error set. */
void *pb_rt_scratch(size_t bytes);
void pb_rt_scratch_free(void *p);

/* Record the reason of a failure, printf style; returns 1 (AOTI_TORCH_FAILURE), so `return
 * pb_rt_fail(...)`. */
int pb_rt_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Forget it. */
void pb_rt_clear_error(void);

/* Threads the runtime may use (1 unless told otherwise). */
int pb_rt_threads(void);

static inline void *pb_rt_data(const struct pb_rt_tensor *t)
{
	if (!t->storage || !t->storage->base)
		return NULL;
	return (char *)t->storage->base + (uint64_t)t->offset * pb_rt_dtype_size(t->dtype);
}

#ifdef __cplusplus
}
#endif
#endif
