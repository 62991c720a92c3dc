/* SPDX-License-Identifier: Apache-2.0 */
/* See arena.h. Good fit from bins of powers of two, neighbours merged when a block is freed. */
#include "client/arena.h"

#include <stdlib.h>

#include "ipc/checked.h"
#include "ipc/lane.h"

static unsigned bin_of(uint64_t bytes)
{
	unsigned log = 63u - (unsigned)__builtin_clzll(bytes | 1);

	return log < PB_ARENA_BINS ? log : PB_ARENA_BINS - 1;
}

static void bin_put(struct pb_arena *a, struct pb_block *b)
{
	struct pb_block **head = &a->bin[bin_of(b->bytes)];

	b->bin_prev = NULL;
	b->bin_next = *head;
	if (*head)
		(*head)->bin_prev = b;
	*head = b;
}

static void bin_take(struct pb_arena *a, struct pb_block *b)
{
	if (b->bin_prev)
		b->bin_prev->bin_next = b->bin_next;
	else
		a->bin[bin_of(b->bytes)] = b->bin_next;
	if (b->bin_next)
		b->bin_next->bin_prev = b->bin_prev;
}

static struct pb_block *record_new(struct pb_arena *a)
{
	struct pb_block *b = a->spare;

	if (!b)
		return malloc(sizeof(*b));
	a->spare = b->next;
	return b;
}

static void record_put(struct pb_arena *a, struct pb_block *b)
{
	b->next = a->spare;
	a->spare = b;
}

bool pb_arena_reserve(struct pb_arena *a, uint32_t n)
{
	const struct pb_block *at = a->spare;

	for (; at && n; at = at->next)
		n--;
	while (n--) {
		struct pb_block *b = malloc(sizeof(*b));

		if (!b)
			return false;
		record_put(a, b);
	}
	return true;
}

bool pb_arena_add(struct pb_arena *a, uint32_t id, uint8_t *base, uint64_t bytes)
{
	struct pb_arena_segment *s = calloc(1, sizeof(*s)), **p = &a->segments;
	struct pb_block *b = record_new(a);

	bytes &= ~(uint64_t)(PB_ARENA_ALIGN - 1);
	if (!s || !b || bytes == 0) {
		free(s);
		free(b);
		return false;
	}
	*b = (struct pb_block){.seg = s, .bytes = bytes};
	*s = (struct pb_arena_segment){
		.id = id, .base = base, .bytes = bytes, .first = b, .empty_since_ns = pb_now_ns()};
	while (*p)
		p = &(*p)->next;
	*p = s;
	a->bytes += bytes;
	a->n_segments++;
	bin_put(a, b);
	return true;
}

bool pb_arena_remove(struct pb_arena *a, uint32_t id)
{
	for (struct pb_arena_segment **p = &a->segments; *p; p = &(*p)->next) {
		struct pb_arena_segment *s = *p;

		if (s->id != id || s->used)
			continue;
		*p = s->next;
		bin_take(a, s->first); /* an empty segment is one free block */
		record_put(a, s->first);
		a->bytes -= s->bytes;
		a->n_segments--;
		free(s);
		return true;
	}
	return false;
}

/* The block's own bin may hold smaller ones; any block of a higher bin fits. */
static struct pb_block *find(const struct pb_arena *a, uint64_t bytes)
{
	unsigned i = bin_of(bytes);

	for (struct pb_block *b = a->bin[i]; b; b = b->bin_next)
		if (b->bytes >= bytes)
			return b;
	for (i++; i < PB_ARENA_BINS; i++)
		if (a->bin[i])
			return a->bin[i];
	return NULL;
}

/* Cut @b after @at bytes; the new record is the upper part. */
static struct pb_block *cut(struct pb_arena *a, struct pb_block *b, uint64_t at)
{
	struct pb_block *upper = record_new(a);

	if (!upper)
		return NULL;
	*upper = (struct pb_block){.seg = b->seg,
				   .offset = b->offset + at,
				   .bytes = b->bytes - at,
				   .prev = b,
				   .next = b->next};
	if (b->next)
		b->next->prev = upper;
	b->next = upper;
	b->bytes = at;
	return upper;
}

struct pb_block *pb_arena_alloc(struct pb_arena *a, uint64_t bytes)
{
	struct pb_block *b, *rest;

	if (bytes == 0)
		bytes = 1;
	if (!pb_align_u64(bytes, PB_ARENA_ALIGN, &bytes))
		return NULL;
	b = find(a, bytes);
	if (!b || !pb_arena_reserve(a, 1))
		return NULL;
	bin_take(a, b);
	if (b->bytes > bytes) {
		rest = cut(a, b, bytes);
		bin_put(a, rest);
	}
	b->refs = 1;
	b->seg->used += b->bytes;
	a->used += b->bytes;
	return b;
}

struct pb_block *pb_arena_split(struct pb_arena *a, struct pb_block *b, uint64_t at)
{
	struct pb_block *upper = cut(a, b, at);

	if (upper)
		upper->refs = 1;
	return upper;
}

/* Merge a free block's upper neighbour into it. Neither is in a bin. */
static void absorb_next(struct pb_arena *a, struct pb_block *b)
{
	struct pb_block *n = b->next;

	b->bytes += n->bytes;
	b->next = n->next;
	if (b->next)
		b->next->prev = b;
	record_put(a, n);
}

void pb_arena_unref(struct pb_arena *a, struct pb_block *b)
{
	struct pb_arena_segment *s = b->seg;

	if (--b->refs)
		return;
	s->used -= b->bytes;
	a->used -= b->bytes;
	if (b->next && b->next->refs == 0) {
		bin_take(a, b->next);
		absorb_next(a, b);
	}
	if (b->prev && b->prev->refs == 0) {
		b = b->prev;
		bin_take(a, b);
		absorb_next(a, b);
	}
	bin_put(a, b);
	if (s->used == 0 && s->id != 0)
		s->empty_since_ns = pb_now_ns();
}

void pb_arena_deinit(struct pb_arena *a)
{
	while (a->segments) {
		struct pb_arena_segment *s = a->segments;

		a->segments = s->next;
		while (s->first) {
			struct pb_block *b = s->first;

			s->first = b->next;
			free(b);
		}
		free(s);
	}
	while (a->spare) {
		struct pb_block *b = a->spare;

		a->spare = b->next;
		free(b);
	}
	*a = (struct pb_arena){0};
}
