/* SPDX-License-Identifier: Apache-2.0 */
/* Element types: sizes and names, for every number. */
#include <stdio.h>
#include <string.h>

#include "include/pt2box.h"
#include "tests/lib/check.h"

static const struct {
	int32_t dtype;
	size_t size;
	const char *name;
} known[] = {
	{0, 1, "uint8"},	  {1, 1, "int8"},	 {2, 2, "int16"},
	{3, 4, "int32"},	  {4, 8, "int64"},	 {5, 2, "float16"},
	{6, 4, "float32"},	  {7, 8, "float64"},	 {8, 4, "complex32"},
	{9, 8, "complex64"},	  {10, 16, "complex128"}, {11, 1, "bool"},
	{15, 2, "bfloat16"},	  {23, 1, "float8_e5m2"}, {24, 1, "float8_e4m3fn"},
	{27, 2, "uint16"},	  {28, 4, "uint32"},	 {29, 8, "uint64"},
};
static const size_t n_known = sizeof(known) / sizeof(known[0]);

static void test_known(void **state)
{
	(void)state;
	for (size_t i = 0; i < n_known; i++) {
		assert_int_equal(known[i].size, pt2box_dtype_size(known[i].dtype));
		assert_string_equal(known[i].name, pt2box_dtype_name(known[i].dtype));
		assert_int_equal(known[i].dtype, pt2box_dtype_from_name(known[i].name));
	}
}

static void test_unknown(void **state)
{
	static const int32_t odd[] = {INT32_MIN, -2, -1, 12, 14, 16, 22, 25, 26, 30, 44, 255, INT32_MAX};
	size_t found = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		assert_int_equal(0, pt2box_dtype_size(odd[i]));
		assert_string_equal("?", pt2box_dtype_name(odd[i]));
	}
	for (int32_t d = -300; d < 300; d++)
		found += pt2box_dtype_size(d) != 0;
	assert_int_equal(n_known, found);
	assert_int_equal(-1, pt2box_dtype_from_name(""));
	assert_int_equal(-1, pt2box_dtype_from_name("?"));
	assert_int_equal(-1, pt2box_dtype_from_name("float"));
	assert_int_equal(-1, pt2box_dtype_from_name("float321"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_known),
		CHECK_TEST(test_unknown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
