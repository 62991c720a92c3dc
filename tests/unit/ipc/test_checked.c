/* SPDX-License-Identifier: Apache-2.0 */
/* Checked arithmetic at its edges, and against 128-bit arithmetic over drawn numbers. */
#include "include/pt2box.h"
#include "ipc/checked.h"
#include "tests/lib/check.h"

typedef unsigned __int128 u128; /* two words: what a sum or product really is */

/* Numbers near the edges where overflow begins, as well as any. */
static uint64_t draw(uint64_t *seed)
{
	const uint64_t r = check_rand(seed);

	switch (r & 7) {
	case 0:
		return r >> 3 & 7;
	case 1:
		return UINT64_MAX - (r >> 3 & 7);
	case 2:
		return (uint64_t)INT64_MAX - 3 + (r >> 3 & 7);
	case 3:
		return (uint64_t)1 << (r >> 3 & 63);
	case 4:
		return ((uint64_t)1 << 32) - 3 + (r >> 3 & 7);
	default:
		return check_rand(seed) >> (r >> 3 & 63);
	}
}

static void test_add_and_mul(void **state)
{
	uint64_t seed = 1, got;

	(void)state;
	for (int i = 0; i < 100000; i++) {
		const uint64_t a = draw(&seed), b = draw(&seed);

		assert_int_equal((u128)a + b <= UINT64_MAX, pb_add_u64(a, b, &got));
		if ((u128)a + b <= UINT64_MAX)
			assert_int_equal(a + b, got);
		assert_int_equal((u128)a * b <= UINT64_MAX, pb_mul_u64(a, b, &got));
		if ((u128)a * b <= UINT64_MAX)
			assert_int_equal(a * b, got);
	}
}

static void test_span(void **state)
{
	uint64_t seed = 2;

	(void)state;
	assert_true(pb_span_fits(0, 0, 0));
	assert_true(pb_span_fits(7, 0, 7));
	assert_true(pb_span_fits(3, 4, 7));
	assert_false(pb_span_fits(3, 5, 7));
	assert_false(pb_span_fits(8, 0, 7));
	assert_false(pb_span_fits(UINT64_MAX, 2, 100));
	assert_false(pb_span_fits(2, UINT64_MAX, 100));
	for (int i = 0; i < 100000; i++) {
		const uint64_t off = draw(&seed), len = draw(&seed), total = draw(&seed);

		assert_int_equal((u128)off + len <= total, pb_span_fits(off, len, total));
	}
}

static void test_align(void **state)
{
	uint64_t got;

	(void)state;
	assert_true(pb_align_u64(0, 64, &got));
	assert_int_equal(0, got);
	assert_true(pb_align_u64(1, 64, &got));
	assert_int_equal(64, got);
	assert_true(pb_align_u64(64, 64, &got));
	assert_int_equal(64, got);
	assert_true(pb_align_u64(UINT64_MAX - 63, 64, &got));
	assert_int_equal(UINT64_MAX - 63, got);
	assert_false(pb_align_u64(UINT64_MAX - 62, 64, &got));
	assert_false(pb_align_u64(UINT64_MAX, 2, &got));
}

/* The definition, in 128 bits; -1 if it does not fit 64. */
static int extent(int32_t ndim, const int64_t *sizes, const int64_t *strides, uint64_t elem, uint64_t *ret)
{
	u128 last = 0;

	for (int32_t i = 0; i < ndim; i++)
		if (sizes[i] < 0 || strides[i] < 0)
			return -1;
	for (int32_t i = 0; i < ndim; i++)
		if (sizes[i] == 0) {
			*ret = 0;
			return 0;
		}
	for (int32_t i = 0; i < ndim; i++) {
		last += (u128)(uint64_t)(sizes[i] - 1) * (uint64_t)strides[i];
		if (last > UINT64_MAX)
			return -1;
	}
	if (last + 1 > UINT64_MAX || (last + 1) * elem > UINT64_MAX)
		return -1;
	*ret = (uint64_t)((last + 1) * elem);
	return 0;
}

static void test_extent_edges(void **state)
{
	uint64_t got = 1;

	(void)state;
	assert_true(pb_tensor_extent(0, NULL, NULL, 4, &got));
	assert_int_equal(4, got); /* a scalar has one element */
	assert_true(pb_tensor_extent(2, (int64_t[]){3, 4}, (int64_t[]){4, 1}, 4, &got));
	assert_int_equal(48, got);
	assert_true(pb_tensor_extent(2, (int64_t[]){3, 4}, (int64_t[]){0, 0}, 8, &got));
	assert_int_equal(8, got); /* expanded */
	assert_true(pb_tensor_extent(2, (int64_t[]){0, 4}, (int64_t[]){4, 1}, 4, &got));
	assert_int_equal(0, got);
	/* A zero size hides nothing: what comes after it is still checked. */
	assert_false(pb_tensor_extent(2, (int64_t[]){0, -1}, (int64_t[]){4, 1}, 4, &got));
	assert_false(pb_tensor_extent(2, (int64_t[]){0, 4}, (int64_t[]){4, -1}, 4, &got));
	assert_false(pb_tensor_extent(1, (int64_t[]){-1}, (int64_t[]){1}, 4, &got));
	assert_false(pb_tensor_extent(1, (int64_t[]){INT64_MAX}, (int64_t[]){INT64_MAX}, 1, &got));
	assert_false(pb_tensor_extent(1, (int64_t[]){INT64_MAX}, (int64_t[]){1}, 16, &got));
	assert_true(pb_tensor_extent(1, (int64_t[]){INT64_MAX}, (int64_t[]){1}, 1, &got));
	assert_int_equal(INT64_MAX, got);
}

static void test_extent_drawn(void **state)
{
	uint64_t seed = 3, want = 0, got = 0;

	(void)state;
	for (int i = 0; i < 100000; i++) {
		int64_t sizes[PT2BOX_MAX_DIMS], strides[PT2BOX_MAX_DIMS];
		const int32_t ndim = (int32_t)(check_rand(&seed) % (PT2BOX_MAX_DIMS + 1));
		const uint64_t elem = (uint64_t)1 << check_rand(&seed) % 5;
		bool ok;

		for (int32_t d = 0; d < ndim; d++) {
			sizes[d] = (int64_t)draw(&seed);
			strides[d] = (int64_t)draw(&seed);
		}
		ok = pb_tensor_extent(ndim, sizes, strides, elem, &got);
		assert_int_equal(extent(ndim, sizes, strides, elem, &want) == 0, ok);
		if (ok)
			assert_int_equal(want, got);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_add_and_mul),
		CHECK_TEST(test_span),
		CHECK_TEST(test_align),
		CHECK_TEST(test_extent_edges),
		CHECK_TEST(test_extent_drawn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
