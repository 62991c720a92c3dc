/* SPDX-License-Identifier: Apache-2.0 */
/* The pool, its limit, the placing of outputs, and what is known to be constant. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/abi.h"
#include "runtime/alloc.h"
#include "runtime/hooks.h"
#include "runtime/storage.h"
#include "runtime/tensor.h"

static _Alignas(64) char window[4096];

static bool in_window(const struct pb_rt_tensor *t)
{
	const char *p = pb_rt_data(t);

	return p >= window && p < window + sizeof(window);
}

static struct pb_rt_tensor *floats(int64_t n)
{
	struct pb_rt_tensor *t = pb_rt_empty(PB_RT_F32, 1, &n, NULL);

	assert_non_null(t);
	return t;
}

/* ---- the pool ---- */

static void test_blocks_are_reused_and_aligned(void **state)
{
	(void)state;
	for (uint64_t bytes = 0; bytes < 200000; bytes = bytes * 5 / 4 + 1) {
		void *p = pb_rt_block_new(bytes), *q;
		uint64_t held = pb_rt_memory_held();

		assert_non_null(p);
		assert_int_equal((uintptr_t)p % PB_RT_ALIGN, 0);
		memset(p, 1, bytes);
		pb_rt_block_free(p);
		q = pb_rt_block_new(bytes);
		assert_ptr_equal(p, q);
		assert_int_equal(pb_rt_memory_held(), held);
		pb_rt_block_free(q);
	}
	pb_rt_block_free(NULL);
}

/* Nothing of a block may be handed out twice, and no block be smaller than was asked for. */
static void test_blocks_do_not_overlap(void **state)
{
	enum { N = 300 };
	static unsigned char *p[N];
	static uint64_t bytes[N];
	unsigned seed = 1;

	(void)state;
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < N; i++) {
			if (rand_r(&seed) % 2 && p[i]) {
				for (uint64_t k = 0; k < bytes[i]; k++)
					if (p[i][k] != (unsigned char)i)
						fail_msg("block %d was overwritten", i);
				pb_rt_block_free(p[i]);
				p[i] = NULL;
			} else if (!p[i]) {
				bytes[i] = (uint64_t)rand_r(&seed) % (1u << (rand_r(&seed) % 14));
				p[i] = pb_rt_block_new(bytes[i]);
				memset(p[i], i, bytes[i]);
			}
		}
	}
	for (int i = 0; i < N; i++) {
		pb_rt_block_free(p[i]);
		p[i] = NULL;
	}
}

/* A large block is cut for smaller ones, joined when they come back in any order, and given back as one. */
static void test_large_blocks_are_cut_and_joined(void **state)
{
	static const int orders[][4] = {{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 3, 0, 2}, {2, 0, 3, 1}};
	void *p, *parts[4];
	uint64_t before, with;

	(void)state;
	pb_rt_alloc_trim();
	before = pb_rt_memory_held();
	p = pb_rt_block_new(4 << 20);
	with = pb_rt_memory_held();
	pb_rt_block_free(p);
	for (size_t o = 0; o < 4; o++) {
		for (int i = 0; i < 4; i++) {
			parts[i] = pb_rt_block_new(800 << 10);
			memset(parts[i], i, 800 << 10);
		}
		assert_int_equal(pb_rt_memory_held(), with);
		for (int i = 0; i < 4; i++)
			for (size_t k = 0; k < 800 << 10; k += 777)
				assert_int_equal(((char *)parts[i])[k], i);
		pb_rt_alloc_trim(); /* nothing that has a part in use */
		assert_int_equal(pb_rt_memory_held(), with);
		for (int i = 0; i < 4; i++)
			pb_rt_block_free(parts[orders[o][i]]);
		assert_ptr_equal(pb_rt_block_new(4 << 20), p);
		assert_int_equal(pb_rt_memory_held(), with);
		pb_rt_block_free(p);
	}
	pb_rt_alloc_trim();
	assert_int_equal(pb_rt_memory_held(), before);
}

static void test_idle_blocks_are_given_back(void **state)
{
	uint64_t before, with;

	(void)state;
	pb_rt_alloc_trim();
	before = pb_rt_memory_held();
	pb_rt_block_free(pb_rt_block_new(1 << 20));
	with = pb_rt_memory_held();
	assert_true(with >= before + (1 << 20));
	for (int i = 0; i < 200; i++) /* runs that do not use it */
		pb_rt_alloc_age();
	assert_int_equal(pb_rt_memory_held(), before);
	/* One that every run uses stays. */
	for (int i = 0; i < 200; i++) {
		pb_rt_block_free(pb_rt_block_new(1 << 20));
		assert_int_equal(pb_rt_memory_held(), with);
		pb_rt_alloc_age();
	}
	pb_rt_alloc_trim();
	assert_int_equal(pb_rt_memory_held(), before);
}

static void test_limit(void **state)
{
	uint64_t base;
	void *p;

	(void)state;
	pb_rt_alloc_trim();
	base = pb_rt_memory_held();
	pb_rt_memory_clear_refused();
	pb_rt_clear_error();
	pb_rt_set_memory_limit(base + 100000);
	assert_null(pb_rt_block_new(200000));
	assert_true(pb_rt_memory_refused());
	assert_non_null(strstr(pb_rt_last_error(), "not enough memory"));
	pb_rt_run_begin(NULL, 0); /* a new run starts without blame */
	assert_false(pb_rt_memory_refused());
	pb_rt_run_end(NULL, 0);
	/* What is idle makes room. */
	pb_rt_block_free(pb_rt_block_new(60000));
	p = pb_rt_block_new(70000);
	assert_non_null(p);
	assert_false(pb_rt_memory_refused());
	pb_rt_block_free(p);
	assert_null(pb_rt_block_new(UINT64_MAX));
	assert_null(pb_rt_scratch(SIZE_MAX - 100));
	pb_rt_set_memory_limit(0);
	assert_null(pb_rt_block_new(UINT64_C(1) << 62));
}

/* Whatever allocation is refused, an operation fails cleanly, and works again when there is memory.
 */
static void test_every_refusal_is_an_error(void **state)
{
	int refusals = 0;

	(void)state;
	for (uint64_t room = 64;; room += 64) { /* 0 would be no limit */
		AtenTensorHandle a = NULL, c = NULL, v = NULL;
		uint64_t base;

		pb_rt_alloc_trim();
		base = pb_rt_memory_held();
		pb_rt_clear_error();
		pb_rt_set_memory_limit(base + room);
		a = pb_rt_empty(PB_RT_F32, 2, (int64_t[]){16, 16}, NULL);
		if (a && !aoti_torch_zero_(a) && !aoti_torch_clone(a, &c))
			(void)aoti_torch__reinterpret_tensor(a, 1, (int64_t[]){256}, (int64_t[]){1},
							     0, &v);
		pb_rt_set_memory_limit(0);
		if (!v) {
			refusals++;
			assert_non_null(strstr(pb_rt_last_error(), "memory"));
		}
		pb_rt_delete(a);
		pb_rt_delete(c);
		pb_rt_delete(v);
		pb_rt_alloc_trim();
		/* Chunks of headers stay; no block may. */
		assert_true(pb_rt_memory_held() >= base);
		if (v)
			break;
		assert_true(room < 1 << 20);
	}
	assert_true(refusals > 10);
}

/* ---- the window ---- */

/* A run of five allocations whose third and fifth become outputs. */
static void run_once(struct pb_rt_tensor *out[2])
{
	struct pb_rt_tensor *t[5];
	static const int64_t n[5] = {10, 20, 30, 0, 50};

	for (int i = 0; i < 5; i++)
		t[i] = floats(n[i]);
	pb_rt_delete(t[0]);
	pb_rt_delete(t[1]);
	pb_rt_delete(t[3]);
	out[0] = t[2];
	out[1] = t[4];
}

static void delete_two(struct pb_rt_tensor *out[2])
{
	pb_rt_delete(out[0]);
	pb_rt_delete(out[1]);
}

static void test_outputs_are_placed_the_second_time(void **state)
{
	struct pb_rt_tensor *out[2];

	(void)state;
	for (int round = 0; round < 4; round++) {
		pb_rt_run_begin(window, sizeof(window));
		run_once(out);
		pb_rt_run_end(out, 2);
		assert_int_equal(in_window(out[0]), round > 0);
		assert_int_equal(in_window(out[1]), round > 0);
		if (round) {
			assert_ptr_equal(pb_rt_data(out[0]), window);
			assert_ptr_equal(pb_rt_data(out[1]), window + 128);
			assert_int_equal(pb_rt_window_used(), 128 + 200);
		} else {
			assert_int_equal(pb_rt_window_used(), 0);
		}
		delete_two(out);
	}
	/* No window, and one that is too small for the second. */
	pb_rt_run_begin(NULL, 0);
	run_once(out);
	pb_rt_run_end(out, 2);
	assert_false(in_window(out[0]));
	delete_two(out);
	pb_rt_run_begin(window, 200);
	run_once(out);
	pb_rt_run_end(out, 2);
	assert_true(in_window(out[0]));
	assert_false(in_window(out[1]));
	assert_int_equal(pb_rt_window_used(), 120);
	delete_two(out);
	/* A window that begins anywhere: the outputs are aligned all the same. */
	pb_rt_run_begin(window + 4, sizeof(window) - 4);
	run_once(out);
	pb_rt_run_end(out, 2);
	assert_ptr_equal(pb_rt_data(out[0]), window + 64);
	delete_two(out);
}

static void test_other_sequences_are_only_slower(void **state)
{
	struct pb_rt_tensor *out[2], *kept;

	(void)state;
	pb_rt_run_begin(window, sizeof(window));
	run_once(out);
	pb_rt_run_end(out, 2);
	delete_two(out);
	/* Now the third is a temporary, and one that lives on: it must leave the window. */
	pb_rt_run_begin(window, sizeof(window));
	out[0] = floats(4);
	out[1] = floats(4);
	kept = floats(8);
	assert_true(in_window(kept));
	memset(pb_rt_data(kept), 7, 32);
	pb_rt_run_end(out, 2);
	assert_false(in_window(kept));
	memset(window, 0, sizeof(window));
	assert_int_equal(*(int32_t *)pb_rt_data(kept), 0x07070707);
	assert_false(in_window(out[0]));
	delete_two(out);
	pb_rt_delete(kept);
	/* The first two were learnt. An output that is a view, one that is given twice, and none.
	 */
	pb_rt_run_begin(window, sizeof(window));
	out[0] = floats(4);
	out[1] = pb_rt_alias(out[0], 1, (int64_t[]){2}, NULL, 1);
	kept = floats(4);
	pb_rt_run_end((struct pb_rt_tensor *[]){out[0], out[1], NULL, out[0]}, 4);
	assert_true(in_window(out[0]));
	assert_false(in_window(kept));
	delete_two(out);
	pb_rt_delete(kept);
}

/* After a failed run nothing of it may stay in the window, and what was learnt before holds. */
static void test_failed_run(void **state)
{
	struct pb_rt_tensor *t, *kept;

	(void)state;
	pb_rt_run_begin(window, sizeof(window));
	t = floats(4);
	pb_rt_run_end(&t, 1);
	pb_rt_delete(t);
	pb_rt_run_begin(window, sizeof(window));
	kept = floats(4);
	assert_true(in_window(kept));
	pb_rt_run_end(NULL, 0);
	assert_false(in_window(kept));
	pb_rt_run_begin(window, sizeof(window));
	t = floats(4);
	assert_true(in_window(t));
	pb_rt_run_end(&t, 1);
	pb_rt_delete(t);
	pb_rt_delete(kept);
}

/* Packed copies count too, but that one does not fit is no failure. */
static void test_charges(void **state)
{
	uint64_t base;

	(void)state;
	pb_rt_alloc_trim();
	base = pb_rt_memory_held();
	pb_rt_memory_clear_refused();
	pb_rt_set_memory_limit(base + 1000);
	assert_false(pb_rt_memory_try_charge(1001));
	assert_false(pb_rt_memory_refused());
	assert_true(pb_rt_memory_try_charge(1000));
	assert_false(pb_rt_memory_charge(1));
	assert_true(pb_rt_memory_refused());
	pb_rt_memory_uncharge(1000);
	pb_rt_set_memory_limit(0);
	assert_int_equal(pb_rt_memory_held(), base);
}

/* Tensors of an earlier run or of none that become outputs teach nothing. */
static void test_foreign_outputs(void **state)
{
	struct pb_rt_tensor *outside = floats(4), *first;

	(void)state;
	for (int round = 0; round < 3; round++) {
		pb_rt_run_begin(window, sizeof(window));
		first = floats(4);
		pb_rt_run_end(&outside, 1);
		assert_false(in_window(first));
		pb_rt_delete(first);
	}
	pb_rt_delete(outside);
}

/* New constants are folded in the next run, and what that run allocates first is no output. */
static void test_constants_reset_the_plan(void **state)
{
	static float weights[16];
	struct pb_rt_tensor *t;

	(void)state;
	pb_rt_run_begin(window, sizeof(window));
	t = floats(4);
	pb_rt_run_end(&t, 1);
	pb_rt_delete(t);
	assert_int_equal(0, pb_rt_add_constants(weights, sizeof(weights)));
	pb_rt_run_begin(window, sizeof(window));
	t = floats(4);
	assert_false(in_window(t));
	pb_rt_run_end(NULL, 0);
	pb_rt_delete(t);
	pb_rt_forget_constants();
}

/* ---- constants ---- */

static void test_constants_are_marked(void **state)
{
	static float weights[64];
	struct pb_rt_tensor *before, *after, *beyond, *view;

	(void)state;
	before = pb_rt_from_blob(weights, PB_RT_F32, 1, (int64_t[]){32}, NULL, 0);
	view = pb_rt_alias(before, 1, (int64_t[]){4}, NULL, 4);
	assert_false(before->storage->constant);
	assert_int_equal(0, pb_rt_add_constants(weights, 48 * sizeof(float)));
	assert_true(before->storage->constant); /* a handle that was there already */
	assert_true(view->storage->constant);
	after = pb_rt_from_blob(weights + 16, PB_RT_F32, 1, (int64_t[]){32}, NULL, 0);
	beyond = pb_rt_from_blob(weights + 17, PB_RT_F32, 1, (int64_t[]){32}, NULL, 0);
	assert_true(after->storage->constant);
	assert_false(beyond->storage->constant);
	assert_true(pb_rt_is_constant(weights, 1));
	assert_false(pb_rt_is_constant(weights + 48, 1));
	assert_false(pb_rt_is_constant(weights, UINT64_MAX));
	pb_rt_forget_constants();
	assert_false(before->storage->constant);
	assert_false(pb_rt_is_constant(weights, 1));
	pb_rt_delete(before);
	pb_rt_delete(view);
	pb_rt_delete(after);
	pb_rt_delete(beyond);
	assert_int_equal(1, pb_rt_add_constants(weights, UINT64_MAX));
}

/* A part of a range goes; the storages over it are told. */
static void test_promises_are_taken_back(void **state)
{
	static float weights[64];
	struct pb_rt_tensor *t[4];

	(void)state;
	assert_int_equal(0, pb_rt_add_constants(weights, sizeof(weights)));
	for (int i = 0; i < 4; i++) {
		t[i] = pb_rt_from_blob(weights + 16 * i, PB_RT_F32, 1, (int64_t[]){16}, NULL, 0);
		assert_true(t[i]->storage->constant);
	}
	pb_rt_remove_constants(weights + 16, 16 * sizeof(float));
	assert_true(t[0]->storage->constant);
	assert_false(t[1]->storage->constant);
	assert_true(t[2]->storage->constant);
	assert_true(pb_rt_is_constant(weights, 16 * sizeof(float)));
	assert_true(pb_rt_is_constant(weights + 32, 32 * sizeof(float)));
	assert_false(pb_rt_is_constant(weights, 17 * sizeof(float)));
	pb_rt_remove_constants(weights + 8, 32 * sizeof(float));
	assert_false(t[0]->storage->constant);
	assert_false(t[2]->storage->constant);
	assert_true(t[3]->storage->constant);
	pb_rt_remove_constants(weights + 63, UINT64_MAX);
	assert_false(t[3]->storage->constant);
	assert_true(pb_rt_is_constant(weights, 8 * sizeof(float)));
	pb_rt_remove_constants(NULL, 100);
	pb_rt_remove_constants(weights, 0);
	pb_rt_remove_constants(weights, sizeof(weights));
	assert_false(pb_rt_is_constant(weights, 1));
	assert_false(pb_rt_is_constant(weights + 40, 1));
	for (int i = 0; i < 4; i++)
		pb_rt_delete(t[i]);
}

/* As long as there is room: ranges that went are used again. */
static void test_ranges_do_not_run_out(void **state)
{
	static float weights[64];

	(void)state;
	for (int i = 0; i < 5000; i++) {
		assert_int_equal(0, pb_rt_add_constants(weights, sizeof(weights)));
		pb_rt_remove_constants(weights, sizeof(weights));
	}
	assert_false(pb_rt_is_constant(weights, 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_blocks_are_reused_and_aligned),
		cmocka_unit_test(test_blocks_do_not_overlap),
		cmocka_unit_test(test_large_blocks_are_cut_and_joined),
		cmocka_unit_test(test_idle_blocks_are_given_back),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_every_refusal_is_an_error),
		cmocka_unit_test(test_outputs_are_placed_the_second_time),
		cmocka_unit_test(test_other_sequences_are_only_slower),
		cmocka_unit_test(test_failed_run),
		cmocka_unit_test(test_charges),
		cmocka_unit_test(test_foreign_outputs),
		cmocka_unit_test(test_constants_reset_the_plan),
		cmocka_unit_test(test_constants_are_marked),
		cmocka_unit_test(test_promises_are_taken_back),
		cmocka_unit_test(test_ranges_do_not_run_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
