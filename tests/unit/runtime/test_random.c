/* SPDX-License-Identifier: Apache-2.0 */
/* The generator against the numbers of the C++ standard (std::mt19937) and of torch 2.13.0. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "runtime/hooks.h"
#include "runtime/random.h"

static void test_standard_sequence(void **state)
{
	uint32_t v = 0;

	(void)state;
	pb_rt_seed(5489);
	assert_true(pb_rt_random32() == 3499211612u);
	for (int i = 1; i < 10000; i++)
		v = pb_rt_random32();
	assert_true(v == 4123659995u); /* [rand.predef] of the standard */
}

/* torch.manual_seed(S); torch.empty(3, dtype=torch.int64).random_(0, 1000), and with a range that
 * needs 64 bits. */
static void test_as_torch(void **state)
{
	static const int64_t small[] = {615, 892, 721},
			     large[] = {INT64_C(1407639518939636932), INT64_C(551904368352831990),
					INT64_C(3475536756154880211)};

	(void)state;
	pb_rt_seed(7);
	for (int i = 0; i < 3; i++)
		assert_true((int64_t)(pb_rt_random32() % 1000) == small[i]);
	pb_rt_seed(7);
	for (int i = 0; i < 3; i++)
		assert_true((int64_t)(pb_rt_random64() % (UINT64_C(1) << 62)) == large[i]);
}

static void test_seed_repeats(void **state)
{
	uint64_t a, b;

	(void)state;
	pb_rt_seed(1);
	a = pb_rt_random64();
	pb_rt_seed(2);
	b = pb_rt_random64();
	assert_true(a != b);
	pb_rt_seed(1);
	assert_true(pb_rt_random64() == a);
	/* Only the lower half of a seed counts, as in PyTorch. */
	pb_rt_seed((UINT64_C(5) << 32) | 1);
	assert_true(pb_rt_random64() == a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_standard_sequence),
		cmocka_unit_test(test_as_torch),
		cmocka_unit_test(test_seed_repeats),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
