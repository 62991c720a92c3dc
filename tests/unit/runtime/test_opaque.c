/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Constants in oneDNN's layouts: descriptors as torch 2.13.0 writes them, put together here byte by
 * byte, and what becomes of ones that lie.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/abi.h"
#include "runtime/hooks.h"
#include "runtime/opaque.h"

#define BYTES 772
#define KIND_BLOCKED 2

enum offset {
	AT_NDIMS = 4,
	AT_DIMS = 8,
	AT_TYPE = 104,
	AT_PADDED = 112,
	AT_OFFSETS = 208,
	AT_OFFSET0 = 304,
	AT_KIND = 312,
	AT_STRIDES = 320,
	AT_NBLKS = 416,
	AT_BLKS = 424,
	AT_IDXS = 520,
	AT_FLAGS = 640,
	AT_ADJUST = 652,
	AT_GROUPS = 768,
};

struct layout {
	int ndims, nblks;
	int64_t dims[5], padded[5], strides[5], blks[3], idxs[3];
};

static void put32(uint8_t *md, int at, int32_t v)
{
	memcpy(md + at, &v, sizeof(v));
}

static void put64(uint8_t *md, int at, int64_t v)
{
	memcpy(md + at, &v, sizeof(v));
}

static void describe(uint8_t md[BYTES], const struct layout *l, int32_t type)
{
	memset(md, 0, BYTES);
	put32(md, 0, 1);
	put32(md, AT_NDIMS, l->ndims);
	put32(md, AT_TYPE, type);
	put32(md, AT_KIND, KIND_BLOCKED);
	put32(md, AT_NBLKS, l->nblks);
	put32(md, AT_GROUPS, 1);
	for (int d = 0; d < l->ndims; d++) {
		put64(md, AT_DIMS + 8 * d, l->dims[d]);
		put64(md, AT_PADDED + 8 * d, l->padded[d]);
		put64(md, AT_STRIDES + 8 * d, l->strides[d]);
	}
	for (int i = 0; i < l->nblks; i++) {
		put64(md, AT_BLKS + 8 * i, l->blks[i]);
		put64(md, AT_IDXS + 8 * i, l->idxs[i]);
	}
}

/* AB16b64a of a 256 x 64 linear layer: what inductor makes of it on a machine with AVX-512. */
static const struct layout linear = {2, 2, {256, 64}, {256, 64}, {4096, 1024}, {16, 64}, {1, 0}};
/* The same of 10 x 21, padded to 64 x 32. */
static const struct layout padded = {2, 2, {10, 21}, {64, 32}, {2048, 1024}, {16, 64}, {1, 0}};
/* BA16a32b2a: pairs, for bfloat16. */
static const struct layout pairs = {2,		 3,	   {10, 256}, {32, 256}, {8192, 1024},
				    {16, 32, 2}, {1, 0, 1}};
static const struct layout rows = {2, 0, {3, 5}, {3, 5}, {5, 1}, {0}, {0}};
/* gABcd16c16b of a grouped convolution. */
static const struct layout grouped = {
	5, 2, {3, 22, 11, 3, 3}, {3, 32, 16, 3, 3}, {4608, 2304, 2304, 768, 256}, {16, 16}, {2, 1}};

static void test_linear(void **state)
{
	float *data = calloc(256 * 64, sizeof(*data));
	uint8_t md[BYTES];
	struct pb_rt_tensor *t;
	int32_t kind;

	(void)state;
	describe(md, &linear, 3);
	for (int o = 0; o < 256; o++)
		for (int i = 0; i < 64; i++)
			data[o / 64 * 4096 + i / 16 * 1024 + i % 16 * 64 + o % 64] =
				(float)(o * 64 + i);
	t = pb_rt_from_opaque(data, PB_RT_F32, 2, (int64_t[]){256, 64}, md, BYTES);
	assert_non_null(t);
	for (int k = 0; k < 256 * 64; k++)
		assert_true(((float *)pb_rt_data(t))[k] == (float)k);
	assert_true(pb_rt_is_contiguous(t) && t->storage->constant);
	assert_int_equal(0, aoti_torch_get_layout(t, &kind));
	assert_int_equal(3, kind);
	pb_rt_delete(t);
	free(data);
}

static void test_padding(void **state)
{
	float *data = malloc(64 * 32 * sizeof(*data));
	uint8_t md[BYTES];
	struct pb_rt_tensor *t;

	(void)state;
	describe(md, &padded, 3);
	for (int k = 0; k < 64 * 32; k++)
		data[k] = -1;
	for (int o = 0; o < 10; o++)
		for (int i = 0; i < 21; i++)
			data[i / 16 * 1024 + i % 16 * 64 + o] = (float)(o * 21 + i);
	t = pb_rt_from_opaque(data, PB_RT_F32, 2, (int64_t[]){10, 21}, md, BYTES);
	assert_non_null(t);
	for (int k = 0; k < 210; k++)
		assert_true(((float *)pb_rt_data(t))[k] == (float)k);
	pb_rt_delete(t);
	free(data);
}

static void test_pairs(void **state)
{
	uint16_t *data = calloc(32 * 256, sizeof(*data));
	uint8_t md[BYTES];
	struct pb_rt_tensor *t;

	(void)state;
	describe(md, &pairs, 2);
	/* blocks 16 of i, 32 of o, 2 of i: the last is the innermost */
	for (int o = 0; o < 10; o++)
		for (int i = 0; i < 256; i++)
			data[i / 32 * 1024 + i / 2 % 16 * 64 + o * 2 + i % 2] =
				(uint16_t)(o * 256 + i);
	t = pb_rt_from_opaque(data, PB_RT_BF16, 2, (int64_t[]){10, 256}, md, BYTES);
	assert_non_null(t);
	for (int k = 0; k < 2560; k++)
		assert_int_equal(k, ((uint16_t *)pb_rt_data(t))[k]);
	pb_rt_delete(t);
	free(data);
}

static void test_groups(void **state)
{
	float *data = calloc(3 * 4608, sizeof(*data));
	uint8_t md[BYTES];
	struct pb_rt_tensor *t;
	int n = 0;

	(void)state;
	describe(md, &grouped, 3);
	for (int g = 0; g < 3; g++)
		for (int o = 0; o < 22; o++)
			for (int i = 0; i < 11; i++)
				for (int k = 0; k < 9; k++)
					data[g * 4608 + o / 16 * 2304 + k / 3 * 768 + k % 3 * 256 +
					     i * 16 + o % 16] = (float)n++;
	t = pb_rt_from_opaque(data, PB_RT_F32, 4, (int64_t[]){66, 11, 3, 3}, md, BYTES);
	assert_non_null(t);
	assert_int_equal(4, t->ndim);
	for (int k = 0; k < n; k++)
		assert_true(((float *)pb_rt_data(t))[k] == (float)k);
	pb_rt_delete(t);
	free(data);
}

static void refused(const uint8_t *md, int64_t bytes, const char *why)
{
	static const float data[15];

	assert_null(pb_rt_from_opaque(data, PB_RT_F32, 2, (int64_t[]){3, 5}, md, bytes));
	if (!strstr(pb_rt_last_error(), why))
		fail_msg("the error is: %s", pb_rt_last_error());
}

static void test_lies(void **state)
{
	const char *contradiction = "contradicts itself";
	static const float data[15] = {1, 2, 3};
	uint8_t good[BYTES], md[BYTES];
	struct pb_rt_tensor *t;

	(void)state;
	describe(good, &rows, 3);
	t = pb_rt_from_opaque(data, PB_RT_F32, 2, (int64_t[]){3, 5}, good, BYTES);
	assert_non_null(t);
	pb_rt_delete(t);
#define LIE(change, why)         \
	memcpy(md, good, BYTES); \
	change;                  \
	refused(md, BYTES, why)
	refused(good, BYTES - 1, "descriptor of 771 bytes");
	refused(NULL, 0, "descriptor of 0 bytes");
	LIE(put32(md, AT_KIND, 3), "not blocked");
	LIE(put32(md, AT_TYPE, 5), "data type 5");
	LIE(put32(md, AT_NDIMS, 0), contradiction);
	LIE(put32(md, AT_NDIMS, 13), contradiction);
	LIE(put32(md, AT_NDIMS, -1), contradiction);
	LIE(put32(md, AT_NBLKS, 13), contradiction);
	LIE(put32(md, AT_NBLKS, -1), contradiction);
	LIE(put64(md, AT_OFFSET0, 8), contradiction);
	LIE(put64(md, AT_OFFSETS + 8, 1), contradiction);
	LIE(put64(md, AT_STRIDES, -5), contradiction);
	LIE(put64(md, AT_STRIDES, INT64_MAX), contradiction);
	LIE(put64(md, AT_DIMS, 0), contradiction);
	LIE(put64(md, AT_PADDED, 2), contradiction);
	LIE(put64(md, AT_DIMS, 2), "15 elements whose oneDNN descriptor has 10");
	LIE((put64(md, AT_DIMS, INT64_MAX), put64(md, AT_PADDED, INT64_MAX)), contradiction);
	LIE((put32(md, AT_NBLKS, 1), put64(md, AT_BLKS, 2), put64(md, AT_IDXS, 0)), contradiction);
	LIE((put32(md, AT_NBLKS, 1), put64(md, AT_BLKS, 0)), contradiction);
	LIE((put32(md, AT_NBLKS, 1), put64(md, AT_BLKS, 5), put64(md, AT_IDXS, 2)), contradiction);
	LIE((put32(md, AT_NBLKS, 1), put64(md, AT_BLKS, 5), put64(md, AT_IDXS, -1)), contradiction);
	LIE(put64(md, AT_FLAGS, 64), "scaled for its own kernels");
	LIE(put64(md, AT_FLAGS, 2), "scaled for its own kernels");
#undef LIE
	/* Scaled by 1, and sums kept behind the elements: nothing that matters. */
	memcpy(md, good, BYTES);
	put64(md, AT_FLAGS, 2 | 1 | 8);
	memcpy(md + AT_ADJUST, &(float){1}, sizeof(float));
	t = pb_rt_from_opaque(data, PB_RT_F32, 2, (int64_t[]){3, 5}, md, BYTES);
	assert_non_null(t);
	pb_rt_delete(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_linear), cmocka_unit_test(test_padding),
		cmocka_unit_test(test_pairs),  cmocka_unit_test(test_groups),
		cmocka_unit_test(test_lies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
