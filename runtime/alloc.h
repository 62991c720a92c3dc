/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of the runtime: blocks that are kept by size for the next run, and the small headers over
 * them. Everything counts towards one limit; a refusal is an error of the call that asked.
 * Single-threaded, as tensor.h says.
 */
#ifndef PT2BOX_RUNTIME_ALLOC_H
#define PT2BOX_RUNTIME_ALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/tensor.h"

#define PB_RT_ALIGN 64

/* A block of at least @bytes, 64-byte aligned, uninitialized; NULL with the error set. */
void *pb_rt_block_new(uint64_t bytes);
/* Accepts NULL. The block is kept for the next one of its size. */
void pb_rt_block_free(void *p);

/* Headers, uninitialized; NULL with the error set. */
struct pb_rt_tensor *pb_rt_header_new(void);
void pb_rt_header_free(struct pb_rt_tensor *t);
struct pb_rt_storage *pb_rt_storage_header_new(void);
void pb_rt_storage_header_free(struct pb_rt_storage *s);
/* Calls @f for every storage in use. */
void pb_rt_storage_each(void (*f)(struct pb_rt_storage *s, void *arg), void *arg);

/* Count @bytes that somebody else allocates; false (error set) if they are over the limit. */
bool pb_rt_memory_charge(uint64_t bytes);
/* The same without blame: who asks can do without. */
bool pb_rt_memory_try_charge(uint64_t bytes);
void pb_rt_memory_uncharge(uint64_t bytes);
/* Record that memory was refused; returns NULL for convenience. */
void *pb_rt_memory_refuse(uint64_t bytes);
void pb_rt_memory_clear_refused(void);
/* Bytes charged now: in use, and kept for reuse. */
uint64_t pb_rt_memory_held(void);

/* Give back what is kept for reuse. */
void pb_rt_alloc_trim(void);
/* A run has ended: now and then gives back what no recent run has used. */
void pb_rt_alloc_age(void);

#endif
