/* SPDX-License-Identifier: Apache-2.0 */
/* A call as an ops process takes it out of a slot that a hostile worker wrote. */
#include <stdlib.h>
#include <string.h>

#include "ipc/ops_call.h"
#include "tests/fuzz/replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct pb_lane_decoder *d;
	static uint8_t first[2 * PB_OPS_SLOT_BYTES], second[2 * PB_OPS_SLOT_BYTES];
	static int64_t ints[PB_OPS_INTS_MAX];
	struct pb_ops_call c = {.ints = ints};
	uint32_t n, n2;

	if (!d)
		d = pb_lane_decoder_new(16);
	if (!d || size > PB_OPS_SLOT_BYTES || pb_ops_decode_call(d, data, (uint32_t)size, &c))
		return 0;
	if (c.n_ints > PB_OPS_INTS_MAX || c.request->n_inputs > 16)
		abort();
	n = pb_ops_encode_call(&c, first, sizeof(first));
	if (!n || pb_ops_decode_call(d, first, n, &c))
		abort();
	n2 = pb_ops_encode_call(&c, second, sizeof(second));
	if (n != n2 || memcmp(first, second, n) != 0)
		abort();
	return 0;
}
