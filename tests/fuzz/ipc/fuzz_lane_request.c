/* SPDX-License-Identifier: Apache-2.0 */
/* A request as a worker takes it out of a slot that a hostile client wrote. */
#include <stdlib.h>
#include <string.h>

#include "ipc/lane.h"
#include "tests/fuzz/replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct pb_lane_decoder *d;
	static uint8_t first[65536], second[65536], memory[4096];
	const struct pb_lane lane = {.up_seg[0] = {memory, sizeof(memory), 0}, .down_seg[0] = {memory, 64, 0}};
	const struct pb_lane_request *q;
	uint32_t n, n2;

	if (!d)
		d = pb_lane_decoder_new(16);
	if (!d || size > 65536 || pb_lane_decode_request(d, data, (uint32_t)size, &q))
		return 0;
	for (uint32_t i = 0; i < q->n_inputs; i++) {
		uint64_t bytes = 0;
		const uint8_t *at = pb_lane_tensor_data(&lane, &q->inputs[i], &bytes);

		/* Where a tensor is said to lie, its first and last byte can be read. */
		if (at && bytes && at[0] + at[bytes - 1] < 0)
			abort();
	}
	n = pb_lane_encode_request(q, first, sizeof(first));
	if (!n || pb_lane_decode_request(d, first, n, &q))
		abort();
	n2 = pb_lane_encode_request(q, second, sizeof(second));
	if (n != n2 || memcmp(first, second, n) != 0)
		abort();
	return 0;
}
