/* SPDX-License-Identifier: Apache-2.0 */
/* The allocator against a naive model: drawn sequences of allocations, cuts, references and frees.
 */
#include <stdlib.h>
#include <string.h>

#include "client/arena.h"
#include "tests/lib/check.h"

#define SEGMENTS 3
#define HELD_MAX 300

static uint8_t memory[SEGMENTS][1 << 16];
static const uint64_t seg_bytes[SEGMENTS] = {1 << 12, 1 << 14, 1 << 16};

static struct {
	struct pb_block *b;
	uint32_t id;
	uint64_t offset, bytes;
	uint32_t refs;
} held[HELD_MAX];
static size_t n_held;

/* The largest stretch of a segment that no held block touches. */
static uint64_t largest_gap(void)
{
	uint64_t best = 0;

	for (uint32_t id = 0; id < SEGMENTS; id++) {
		uint64_t at = 0;

		while (at < seg_bytes[id]) {
			uint64_t next = seg_bytes[id], after = seg_bytes[id];

			for (size_t i = 0; i < n_held; i++)
				if (held[i].id == id && held[i].offset >= at &&
				    held[i].offset < next) {
					next = held[i].offset;
					after = next + held[i].bytes;
				}
			best = next - at > best ? next - at : best;
			at = after;
		}
	}
	return best;
}

static void hold(struct pb_block *b, uint64_t wanted)
{
	assert_true(b->bytes >= wanted);
	assert_int_equal(b->offset % PB_ARENA_ALIGN, 0);
	assert_true(b->offset + b->bytes <= seg_bytes[b->seg->id]);
	assert_ptr_equal(pb_block_data(b), memory[b->seg->id] + b->offset);
	for (size_t i = 0; i < n_held; i++)
		assert_true(held[i].id != b->seg->id || held[i].offset >= b->offset + b->bytes ||
			    b->offset >= held[i].offset + held[i].bytes);
	held[n_held].b = b;
	held[n_held].id = b->seg->id;
	held[n_held].offset = b->offset;
	held[n_held].bytes = b->bytes;
	held[n_held++].refs = 1;
}

static void check_sums(const struct pb_arena *a)
{
	uint64_t used = 0;

	for (size_t i = 0; i < n_held; i++) {
		assert_int_equal(held[i].b->offset, held[i].offset);
		assert_int_equal(held[i].b->bytes, held[i].bytes);
		used += held[i].bytes;
	}
	assert_int_equal(a->used, used);
}

static void drop(struct pb_arena *a, size_t i)
{
	pb_arena_unref(a, held[i].b);
	if (--held[i].refs == 0)
		held[i] = held[--n_held];
}

static void one_step(struct pb_arena *a, uint64_t *seed)
{
	uint64_t r = check_rand(seed), bytes = check_rand(seed) % (r % 7 ? 600 : 9000);
	size_t i = n_held ? check_rand(seed) % n_held : 0;

	if (n_held < HELD_MAX - 2 && r % 8 < 4) {
		uint64_t need = ((bytes ? bytes : 1) + 63) & ~63ull, gap = largest_gap();
		struct pb_block *b = pb_arena_alloc(a, bytes);

		assert_int_equal(b != NULL, gap >= need);
		if (b)
			hold(b, bytes);
	} else if (n_held && r % 8 == 4 && held[i].refs == 1 && held[i].bytes > 64 &&
		   n_held < HELD_MAX) {
		uint64_t at = (1 + check_rand(seed) % (held[i].bytes / 64 - 1)) * 64;
		struct pb_block *upper;

		assert_true(pb_arena_reserve(a, 1));
		upper = pb_arena_split(a, held[i].b, at);
		held[i].bytes = at;
		hold(upper, 64);
	} else if (n_held && r % 8 == 5) {
		held[i].b->refs++;
		held[i].refs++;
	} else if (n_held) {
		drop(a, i);
	}
}

static void test_drawn(void **state)
{
	(void)state;
	for (uint64_t round = 0; round < 20; round++) {
		struct pb_arena a = {0};
		uint64_t seed = round;

		n_held = 0;
		for (uint32_t id = 0; id < SEGMENTS; id++)
			assert_true(pb_arena_add(&a, id, memory[id], seg_bytes[id]));
		for (int i = 0; i < 3000; i++) {
			one_step(&a, &seed);
			if (i % 50 == 0)
				check_sums(&a);
		}
		while (n_held)
			drop(&a, n_held - 1);
		/* Everything has come together again, and can be taken out. */
		assert_int_equal(a.used, 0);
		for (const struct pb_arena_segment *s = a.segments; s; s = s->next)
			assert_int_equal(s->first->bytes, s->bytes);
		for (uint32_t id = 0; id < SEGMENTS; id++)
			assert_true(pb_arena_remove(&a, id));
		assert_null(a.segments);
		pb_arena_deinit(&a);
	}
}

static void test_edges(void **state)
{
	struct pb_arena a = {0};
	struct pb_block *b;

	(void)state;
	assert_null(pb_arena_alloc(&a, 1));
	assert_false(pb_arena_add(&a, 1, memory[0], 63));
	assert_true(pb_arena_add(&a, 1, memory[0], 130)); /* the tail is not a line */
	assert_null(pb_arena_alloc(&a, UINT64_MAX));
	assert_null(pb_arena_alloc(&a, UINT64_MAX - 70));
	assert_null(pb_arena_alloc(&a, 129));
	b = pb_arena_alloc(&a, 0);
	assert_int_equal(b->bytes, 64);
	assert_false(pb_arena_remove(&a, 1));
	assert_false(pb_arena_remove(&a, 2));
	pb_arena_unref(&a, b);
	b = pb_arena_alloc(&a, 128);
	assert_non_null(b);
	pb_arena_deinit(&a);
}

/* What was freed last is handed out first, so that it is warm. */
static void test_warm(void **state)
{
	struct pb_arena a = {0};
	struct pb_block *first;

	(void)state;
	assert_true(pb_arena_add(&a, 0, memory[2], seg_bytes[2]));
	first = pb_arena_alloc(&a, 5000);
	for (int i = 0; i < 10; i++) {
		uint64_t offset = first->offset;

		pb_arena_unref(&a, first);
		first = pb_arena_alloc(&a, 5000);
		assert_int_equal(first->offset, offset);
	}
	pb_arena_deinit(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_drawn),
		CHECK_TEST(test_edges),
		CHECK_TEST(test_warm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
