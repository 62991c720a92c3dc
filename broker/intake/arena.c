/* SPDX-License-Identifier: Apache-2.0 */
/* See arena.h. Small pieces share a chunk: a model has thousands of names. */
#include "broker/intake/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/checked.h"

#define CHUNK 16384u

struct pb_arena_chunk {
	struct pb_arena_chunk *next;
	size_t used, size;
	_Alignas(16) unsigned char data[];
};

void *pb_arena_take(struct pb_arena *a, size_t n, size_t size)
{
	struct pb_arena_chunk *c = a->chunks;
	uint64_t bytes;
	void *p;

	if (!pb_mul_u64(n ? n : 1, size, &bytes) || !pb_align_u64(bytes, 16, &bytes) || bytes > SIZE_MAX / 2)
		return NULL;
	if (!c || c->size - c->used < bytes) {
		size_t room = bytes > CHUNK ? bytes : CHUNK;

		c = calloc(1, sizeof(*c) + room);
		if (!c)
			return NULL;
		c->size = room;
		c->next = a->chunks;
		a->chunks = c;
	}
	p = c->data + c->used;
	c->used += bytes;
	return p;
}

char *pb_arena_text(struct pb_arena *a, const char *s, size_t bytes)
{
	char *p = pb_arena_take(a, bytes + 1, 1);

	if (p)
		memcpy(p, s, bytes);
	return p;
}

void pb_arena_deinit(struct pb_arena *a)
{
	while (a->chunks) {
		struct pb_arena_chunk *c = a->chunks;

		a->chunks = c->next;
		free(c);
	}
}
