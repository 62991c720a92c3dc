/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of operators on their way to the ops process: the same comes out, and no damaged one does. */
#include <stdlib.h>
#include <string.h>

#include "ipc/ops_call.h"
#include "tests/lib/check.h"

static int64_t ints[PB_OPS_INTS_MAX];

static uint32_t encode(uint8_t *buf, uint32_t cap)
{
	static int64_t given[] = {0, -1, INT64_MIN, INT64_MAX, 300};
	static struct pb_lane_tensor in[2] = {
		{.dtype = PT2BOX_FLOAT32, .ndim = 2, .offset = 64, .sizes = {3, 4}, .strides = {4, 1}},
		{.dtype = PT2BOX_INT64, .ndim = 0, .offset = 128},
	};
	const struct pb_lane_request q = {.n_inputs = 2, .inputs = in};
	const struct pb_ops_call c = {.node = 7, .n_ints = 5, .ints = given, .request = &q};

	return pb_ops_encode_call(&c, buf, cap);
}

static void test_round(void **state)
{
	struct pb_lane_decoder *d = pb_lane_decoder_new(2);
	struct pb_ops_call c = {.ints = ints};
	uint8_t buf[512];
	uint32_t n = encode(buf, sizeof(buf));

	(void)state;
	assert_true(n > 0);
	assert_int_equal(pb_ops_decode_call(d, buf, n, &c), PT2BOX_OK);
	assert_int_equal(c.node, 7);
	assert_int_equal(c.n_ints, 5);
	assert_true(ints[1] == -1 && ints[2] == INT64_MIN && ints[3] == INT64_MAX);
	assert_int_equal(c.request->n_inputs, 2);
	assert_true(c.request->inputs[0].offset == 64 && c.request->inputs[0].strides[0] == 4);
	for (uint32_t cap = 0; cap < n; cap++) {
		uint8_t *small = malloc(cap + 1);

		assert_int_equal(encode(small, cap), 0);
		free(small);
	}
	pb_lane_decoder_free(d);
}

/* Cut short, too long, a byte changed: either refused, or within bounds (the sanitizer build looks at those). */
static void test_hostile(void **state)
{
	struct pb_lane_decoder *d = pb_lane_decoder_new(2);
	struct pb_ops_call c = {.ints = ints};
	uint8_t buf[512];
	uint32_t n = encode(buf, sizeof(buf));

	(void)state;
	for (uint32_t len = 0; len < n; len++) {
		uint8_t *cut = malloc(len + 1);

		memcpy(cut, buf, len);
		assert_int_equal(pb_ops_decode_call(d, cut, len, &c), PT2BOX_PROTOCOL);
		free(cut);
	}
	assert_int_equal(pb_ops_decode_call(d, buf, n + 1, &c), PT2BOX_PROTOCOL);
	for (uint32_t i = 0; i < n * 256; i++) {
		const uint8_t was = buf[i / 256];

		buf[i / 256] = (uint8_t)i;
		if (pb_ops_decode_call(d, buf, n, &c) == PT2BOX_OK)
			assert_true(c.n_ints <= PB_OPS_INTS_MAX && c.request->n_inputs <= 2 && c.node <= PB_NODES_MAX);
		buf[i / 256] = was;
	}
	/* More integers than there is room for. */
	memcpy(buf, (uint8_t[]){7, 0xdd, 0xff, 0xff, 0xff, 0xff}, 6);
	assert_int_equal(pb_ops_decode_call(d, buf, n, &c), PT2BOX_PROTOCOL);
	pb_lane_decoder_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {CHECK_TEST(test_round), CHECK_TEST(test_hostile)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
