/* SPDX-License-Identifier: Apache-2.0 */
/* Strided copies against a loop over every index; strides that packages want. */
#include <stdlib.h>
#include <string.h>

#include "client/internal.h"
#include "tests/lib/check.h"

#define ROOM 4096

static void naive(int32_t ndim, const int64_t *sizes, size_t elem, uint8_t *dst, const int64_t *ds,
		  const uint8_t *src, const int64_t *ss)
{
	int64_t index[PT2BOX_MAX_DIMS] = {0};
	int32_t d;

	for (;;) {
		int64_t to = 0, from = 0;

		for (d = 0; d < ndim; d++) {
			to += index[d] * ds[d];
			from += index[d] * ss[d];
		}
		memcpy(dst + (size_t)to * elem, src + (size_t)from * elem, elem);
		for (d = ndim - 1; d >= 0 && ++index[d] == sizes[d]; d--)
			index[d] = 0;
		if (d < 0)
			return;
	}
}

/* Strides of a tensor whose dimensions lie in memory in a drawn order, sometimes with gaps. */
static void draw_strides(uint64_t *seed, int32_t ndim, const int64_t *sizes, int64_t *strides)
{
	int64_t run = 1 + (int64_t)(check_rand(seed) % 4 == 0);
	unsigned done = 0;

	for (int32_t k = 0; k < ndim; k++) {
		int32_t d;

		do
			d = (int32_t)(check_rand(seed) % (uint64_t)ndim);
		while (done & 1u << d);
		done |= 1u << d;
		strides[d] = run;
		run = run * sizes[d] + (int64_t)(check_rand(seed) % 8 == 0);
	}
}

static void test_drawn_copies(void **state)
{
	static uint8_t src[ROOM * 16 + 8], a[ROOM * 16 + 8], b[ROOM * 16 + 8];
	static const size_t elems[] = {1, 2, 4, 8, 16};
	uint64_t seed = 1;

	(void)state;
	for (size_t i = 0; i < sizeof(src); i++)
		src[i] = (uint8_t)check_rand(&seed);
	for (int round = 0; round < 3000; round++) {
		int64_t sizes[PT2BOX_MAX_DIMS], ss[PT2BOX_MAX_DIMS], ds[PT2BOX_MAX_DIMS];
		int32_t ndim = (int32_t)(check_rand(&seed) % 6);
		size_t elem = elems[check_rand(&seed) % 5], shift = check_rand(&seed) % 8;

		for (int32_t d = 0; d < ndim; d++)
			sizes[d] = 1 + (int64_t)(check_rand(&seed) % 4);
		draw_strides(&seed, ndim, sizes, ss);
		draw_strides(&seed, ndim, sizes, ds);
		memset(a, 0xee, sizeof(a));
		memset(b, 0xee, sizeof(b));
		naive(ndim, sizes, elem, a + shift, ds, src + shift, ss);
		pb_copy_strided(ndim, sizes, elem, b + shift, ds, src + shift, ss);
		assert_memory_equal(a, b, sizeof(a));
	}
}

/* Rows to columns, larger than a tile, in every dtype's size; and with a dimension before them. */
static void test_turned(void **state)
{
	static const size_t elems[] = {1, 2, 4, 8, 16};
	static uint8_t src[3 * 70 * 70 * 16], a[sizeof(src)], b[sizeof(src)];
	uint64_t seed = 2;

	(void)state;
	for (size_t i = 0; i < sizeof(src); i++)
		src[i] = (uint8_t)check_rand(&seed);
	for (int round = 0; round < 300; round++) {
		int64_t rows = 1 + (int64_t)(check_rand(&seed) % 70), columns = 1 + (int64_t)(check_rand(&seed) % 70);
		int64_t sizes[] = {3, rows, columns}, ds[] = {rows * columns, columns, 1}, ss[] = {rows * columns, 1, rows};
		size_t elem = elems[check_rand(&seed) % 5];
		int32_t skip = round % 2;

		memset(a, 0xee, sizeof(a));
		memset(b, 0xee, sizeof(b));
		naive(3 - skip, sizes + skip, elem, a, ds + skip, src, ss + skip);
		pb_copy_strided(3 - skip, sizes + skip, elem, b, ds + skip, src, ss + skip);
		assert_memory_equal(a, b, sizeof(a));
	}
}

static void test_nothing_to_copy(void **state)
{
	uint8_t dst[4] = "abc";

	(void)state;
	pb_copy_strided(3, (int64_t[]){2, 0, 1ll << 40}, 4, dst, (int64_t[]){1, 1, 1}, NULL,
			(int64_t[]){1, 1, 1});
	assert_string_equal((char *)dst, "abc");
	pb_copy_strided(0, NULL, 1, dst, NULL, "x", NULL);
	assert_string_equal((char *)dst, "xbc");
}

static void test_wanted(void **state)
{
	struct pb_sig_input s = {.ndim = 3, .dims = {{1, 9, -1}, {4, 4, 2}, {2, 2, 1}}};
	int64_t got[3];

	(void)state;
	assert_true(pb_strides_wanted(&s, 3, (int64_t[]){5, 4, 2}, got));
	assert_int_equal(got[0], 8); /* follows from what is to its right */
	assert_int_equal(got[1], 2);
	assert_int_equal(got[2], 1);
	assert_false(pb_strides_wanted(&s, 2, (int64_t[]){5, 4}, got));
	s.ndim = -1;
	assert_false(pb_strides_wanted(&s, 3, (int64_t[]){5, 4, 2}, got));
	/* Sizes of a hostile manifest: the extent is refused later, nothing overflows here. */
	s = (struct pb_sig_input){.ndim = 3, .dims = {{0, 9, -1}, {0, 9, -1}, {0, 9, INT64_MAX}}};
	assert_true(pb_strides_wanted(&s, 3, (int64_t[]){1ll << 62, 1ll << 62, 1ll << 62}, got));
	for (int i = 0; i < 3; i++)
		assert_true(got[i] >= 0);
	pb_strides_contiguous(3, (int64_t[]){1ll << 62, 1ll << 62, 1ll << 62}, got);
	for (int i = 0; i < 3; i++)
		assert_true(got[i] >= 0);
}

static void test_equal(void **state)
{
	(void)state;
	assert_true(pb_strides_equal(2, (int64_t[]){1, 4}, (int64_t[]){9, 1}, (int64_t[]){4, 1}));
	assert_false(pb_strides_equal(2, (int64_t[]){2, 4}, (int64_t[]){9, 1}, (int64_t[]){4, 1}));
	assert_true(pb_strides_equal(2, (int64_t[]){2, 0}, (int64_t[]){9, 1}, (int64_t[]){4, 3}));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_drawn_copies),
		CHECK_TEST(test_turned),
		CHECK_TEST(test_nothing_to_copy),
		CHECK_TEST(test_wanted),
		CHECK_TEST(test_equal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
