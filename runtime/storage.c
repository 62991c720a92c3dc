/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Storages, the placing of outputs, and the ranges that are promised never to change.
 *
 * Which allocation of a run becomes an output cannot be seen when it is made. A model repeats its
 * sequence of allocations, though, so the numbers of those that became outputs are remembered and
 * placed into the window in the next run. A wrong guess costs a copy (an output that was not
 * placed) or room (a temporary that was), never correctness.
 */
#include "runtime/storage.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/alloc.h"
#include "runtime/hooks.h"
#include "runtime/ops/heavy.h"

#define PLAN_MAX 256
#define RANGES_MAX 1024
#define NO_SEQ UINT32_MAX

static struct {
	bool active;
	uint32_t number, seq;
	char *window;
	uint64_t window_bytes, window_used;
	uint32_t in_window; /* storages placed in this run */
} run;

/* Allocations that became outputs in the last run, rising; and the next of them to come. */
static uint32_t plan[PLAN_MAX];
static uint32_t n_plan, next_plan;

static struct range {
	uintptr_t begin, end;
} ranges[RANGES_MAX];
static uint32_t n_ranges;

/* ---- constants ---- */

bool pb_rt_is_constant(const void *p, uint64_t bytes)
{
	const uintptr_t at = (uintptr_t)p;

	for (uint32_t i = 0; i < n_ranges; i++)
		if (at >= ranges[i].begin && at < ranges[i].end && bytes <= ranges[i].end - at)
			return true;
	return false;
}

static void mark(struct pb_rt_storage *s, void *arg)
{
	(void)arg;
	s->constant = s->base && pb_rt_is_constant(s->base, s->bytes);
}

/* The storages may exist already: the container makes its handles before anybody knows where the
 * constants are. */
int pb_rt_add_constants(const void *base, uint64_t bytes)
{
	const uintptr_t at = (uintptr_t)base;

	if (!base || !bytes)
		return 0;
	if (n_ranges == RANGES_MAX || bytes > UINTPTR_MAX - at)
		return pb_rt_fail("too many ranges of constants");
	ranges[n_ranges++] = (struct range){at, at + bytes};
	n_plan = 0; /* constants are folded anew in the next run, and must not be placed */
	pb_rt_storage_each(mark, NULL);
	return 0;
}

/* What is left of each range: nothing, one part or two. */
static void cut_ranges(uintptr_t begin, uintptr_t end)
{
	const uint32_t n = n_ranges;

	for (uint32_t i = 0; i < n; i++) {
		struct range *r = &ranges[i];
		const struct range behind = {end, r->end};

		if (begin >= r->end || end <= r->begin)
			continue;
		r->end = begin > r->begin ? begin : r->begin;
		/* Without room for the second part it is only slower. */
		if (behind.begin < behind.end && n_ranges < RANGES_MAX)
			ranges[n_ranges++] = behind;
	}
	for (uint32_t i = 0; i < n_ranges;)
		if (ranges[i].begin == ranges[i].end)
			ranges[i] = ranges[--n_ranges];
		else
			i++;
}

void pb_rt_remove_constants(const void *base, uint64_t bytes)
{
	const uintptr_t at = (uintptr_t)base;
	const uintptr_t end = bytes > UINTPTR_MAX - at ? UINTPTR_MAX : at + bytes;

	if (!base || !bytes)
		return;
	cut_ranges(at, end);
	n_plan = 0;
	pb_rt_storage_each(mark, NULL);
	pb_rt_cache_remove(at, end);
}

void pb_rt_forget_constants(void)
{
	n_ranges = 0;
	n_plan = 0;
	pb_rt_storage_each(mark, NULL);
	pb_rt_cache_clear();
}

/* ---- storages ---- */

/* Room in the window, if this allocation became an output last time. */
static void *place(uint64_t bytes)
{
	uint64_t at;

	while (next_plan < n_plan && plan[next_plan] < run.seq)
		next_plan++;
	if (next_plan == n_plan || plan[next_plan] != run.seq || !run.window)
		return NULL;
	/* The address is what must be aligned. */
	at = run.window_used + (-((uintptr_t)run.window + run.window_used) & (PB_RT_ALIGN - 1));
	if (at > run.window_bytes || bytes > run.window_bytes - at)
		return NULL;
	run.window_used = at + bytes;
	run.in_window++;
	return run.window + at;
}

struct pb_rt_storage *pb_rt_storage_new(uint64_t bytes)
{
	struct pb_rt_storage *s = pb_rt_storage_header_new();

	if (!s)
		return NULL;
	s->kind = PB_RT_OWNED;
	s->base = NULL;
	if (run.active) {
		if (bytes)
			s->base = place(bytes);
		if (s->base)
			s->kind = PB_RT_WINDOW;
		s->alloc_seq = run.seq++;
		s->run = run.number;
	} else {
		s->alloc_seq = NO_SEQ;
		s->run = 0;
	}
	if (bytes && !s->base) {
		s->base = pb_rt_block_new(bytes);
		if (!s->base) {
			pb_rt_storage_header_free(s);
			return NULL;
		}
	}
	s->bytes = bytes;
	s->refs = 1;
	s->constant = false;
	return s;
}

struct pb_rt_storage *pb_rt_storage_borrow(void *base, uint64_t bytes)
{
	struct pb_rt_storage *s = pb_rt_storage_header_new();

	if (!s)
		return NULL;
	*s = (struct pb_rt_storage){
		.base = base,
		.bytes = bytes,
		.refs = 1,
		.alloc_seq = NO_SEQ,
		.kind = PB_RT_BORROWED,
		.constant = n_ranges && base && pb_rt_is_constant(base, bytes),
	};
	return s;
}

void pb_rt_storage_unref(struct pb_rt_storage *s)
{
	if (!s || --s->refs)
		return;
	if (s->kind == PB_RT_OWNED)
		pb_rt_block_free(s->base);
	pb_rt_storage_header_free(s);
}

/* ---- runs ---- */

void pb_rt_run_begin(void *window, uint64_t window_bytes)
{
	run.active = true;
	run.number++;
	run.seq = 0;
	run.window = window;
	run.window_bytes = window_bytes;
	run.window_used = 0;
	run.in_window = 0;
	next_plan = 0;
	pb_rt_memory_clear_refused();
	pb_rt_clear_error();
}

/* A storage that lives on though it was placed, and is no output, moves out: the window is the
 * client's. */
static void move_out(struct pb_rt_storage *s, void *arg)
{
	void *p;

	(void)arg;
	if (s->kind != PB_RT_WINDOW || s->run != run.number || s->alloc_seq == NO_SEQ)
		return;
	p = pb_rt_block_new(s->bytes);
	if (!p)
		return;
	memcpy(p, s->base, s->bytes);
	s->base = p;
	s->kind = PB_RT_OWNED;
}

static void remember(uint32_t seq)
{
	uint32_t i = n_plan;

	if (n_plan == PLAN_MAX)
		return;
	while (i > 0 && plan[i - 1] > seq)
		i--;
	if (i > 0 && plan[i - 1] == seq)
		return;
	memmove(&plan[i + 1], &plan[i], (n_plan - i) * sizeof(plan[0]));
	plan[i] = seq;
	n_plan++;
}

void pb_rt_run_end(struct AtenTensorOpaque *const *outputs, size_t n_outputs)
{
	uint32_t placed = 0;

	run.active = false;
	if (n_outputs) /* else the run failed, and teaches nothing */
		n_plan = 0;
	for (size_t i = 0; i < n_outputs; i++) {
		struct pb_rt_storage *s = outputs[i] ? outputs[i]->storage : NULL;

		if (!s || s->run != run.number || s->alloc_seq == NO_SEQ)
			continue;
		remember(s->alloc_seq);
		s->alloc_seq = NO_SEQ;
		placed += s->kind == PB_RT_WINDOW;
	}
	if (placed < run.in_window)
		pb_rt_storage_each(move_out, NULL);
	pb_rt_alloc_age();
}

uint64_t pb_rt_window_used(void)
{
	return run.window_used;
}
