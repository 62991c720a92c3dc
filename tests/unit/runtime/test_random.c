/* SPDX-License-Identifier: Apache-2.0 */
/* The generator against the numbers of the C++ standard (std::mt19937) and of torch 2.13.0. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "runtime/hooks.h"
#include "runtime/ops/random.h"
#include "runtime/random.h"
#include "runtime/tensor.h"

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

/* What torch.manual_seed(3) and one call give. */
static void test_draws_as_torch(void **state)
{
	static const double e[] = {0.03470345482151741, 0.3379095865236701, 1.4824306370934868,
				   0.19228344720286325, 1.4080078893401078, 0.9371329980554046};
	static const uint8_t by_number[] = {1, 1, 0, 1, 0, 0, 1, 0},
			     by_tensor[] = {1, 1, 1, 1, 0, 1, 0, 0};
	const int64_t eight = 8, six = 6;
	struct pb_rt_tensor *t = pb_rt_empty(PB_RT_F64, 1, &six, NULL), *b, *p, *r, *mask;

	(void)state;
	pb_rt_seed(3);
	assert_int_equal(0, aoti_torch_cpu_exponential(t, 1, NULL, &r));
	for (int i = 0; i < 6; i++)
		assert_true(fabs(((double *)pb_rt_data(r))[i] - e[i]) < 1e-14);
	pb_rt_delete(r);
	pb_rt_delete(t);
	b = pb_rt_empty(PB_RT_U8, 1, &eight, NULL);
	pb_rt_seed(3);
	assert_int_equal(0, aoti_torch_cpu_bernoulli__float(b, 0.3, NULL));
	assert_memory_equal(pb_rt_data(b), by_number, 8);
	p = pb_rt_empty(PB_RT_F32, 1, &eight, NULL);
	for (int i = 0; i < 8; i++)
		((float *)pb_rt_data(p))[i] = 0.3f;
	pb_rt_seed(3);
	assert_int_equal(0, aoti_torch_cpu_bernoulli__Tensor(b, p, NULL));
	assert_memory_equal(pb_rt_data(b), by_tensor, 8);
	/* Dropout keeps where a number is below 1 - p, and draws even if it drops nothing. */
	pb_rt_seed(3);
	assert_int_equal(0, aoti_torch_cpu_native_dropout(p, 0.7, NULL, &r, &mask));
	assert_memory_equal(pb_rt_data(mask), by_number, 8);
	for (int i = 0; i < 8; i++)
		assert_true(fabsf(((float *)pb_rt_data(r))[i] - (float)by_number[i]) < 1e-6f);
	pb_rt_delete(r);
	pb_rt_delete(mask);
	assert_int_equal(1, aoti_torch_cpu_bernoulli__float(b, 1.5, NULL));
	assert_string_equal("bernoulli_ expects p to be in [0, 1], but got p=1.5",
			    pb_rt_last_error());
	pb_rt_delete(b);
	pb_rt_delete(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_standard_sequence),
		cmocka_unit_test(test_as_torch),
		cmocka_unit_test(test_seed_repeats),
		cmocka_unit_test(test_draws_as_torch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
