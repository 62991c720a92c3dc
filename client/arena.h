/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The allocator of one direction of a lane. Its records are in private memory: nothing that a
 * worker writes can steer it. Blocks are counted, so that several tensors may share one. Not
 * locked: the lane's mutex is held by the caller.
 */
#ifndef PT2BOX_CLIENT_ARENA_H
#define PT2BOX_CLIENT_ARENA_H

#include <stdbool.h>
#include <stdint.h>

#define PB_ARENA_ALIGN 64u
#define PB_ARENA_BINS 48

struct pb_arena_segment {
	struct pb_arena_segment *next;
	uint32_t id;
	uint8_t *base;
	uint64_t bytes;
	uint64_t used;		 /* bytes of blocks in use */
	uint64_t empty_since_ns; /* while nothing is in use */
	struct pb_block *first;
};

struct pb_block {
	struct pb_arena_segment *seg;
	uint64_t offset, bytes;
	uint32_t refs;		      /* 0: free */
	struct pb_block *prev, *next; /* neighbours in the segment, by address */
	struct pb_block *bin_prev, *bin_next;
};

struct pb_arena {
	struct pb_arena_segment *segments;
	struct pb_block *bin[PB_ARENA_BINS]; /* free blocks by the logarithm of their size, the last
						freed first */
	struct pb_block *spare;		     /* records without a block */
	uint64_t bytes, used;
	uint32_t n_segments;
};

static inline uint8_t *pb_block_data(const struct pb_block *b)
{
	return b->seg->base + b->offset;
}

/* Add memory. false: no memory for the record. */
bool pb_arena_add(struct pb_arena *a, uint32_t id, uint8_t *base, uint64_t bytes);
/* Take an empty segment out; false if there is no such segment or it is in use. */
bool pb_arena_remove(struct pb_arena *a, uint32_t id);
/* A block with one reference; NULL if no free block is large enough, or, without a reserve, no
 * memory for a record. */
struct pb_block *pb_arena_alloc(struct pb_arena *a, uint64_t bytes);
/* Have @n records at hand, so that as many splits cannot fail. */
bool pb_arena_reserve(struct pb_arena *a, uint32_t n);
/* Cut a block with one reference in two; returns the second, with one reference. @at: a multiple of
 * PB_ARENA_ALIGN. */
struct pb_block *pb_arena_split(struct pb_arena *a, struct pb_block *b, uint64_t at);
void pb_arena_unref(struct pb_arena *a, struct pb_block *b);
void pb_arena_deinit(struct pb_arena *a);

#endif
