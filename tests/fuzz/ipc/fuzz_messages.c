/* SPDX-License-Identifier: Apache-2.0 */
/* Control messages: two bytes say who receives and with how many descriptors, the rest is the frame. */
#include <stdlib.h>
#include <string.h>

#include "ipc/messages.h"
#include "tests/fuzz/replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t first[PB_FRAME_MAX], second[PB_FRAME_MAX];
	const struct pb_msg_row *row, *again;
	struct pt2box_error err;
	union pb_msg m, back;
	size_t n_rows, n, n2;
	const struct pb_msg_row *rows = pb_msg_rows(&n_rows);

	if (size < 2 || size > PB_FRAME_MAX)
		return 0;
	row = &rows[data[0] % n_rows]; /* only its roles and state: the frame says which message it is */
	if (pb_msg_decode(data + 2, size - 2, row->from, row->to, row->state, data[1], &again, &m, &err))
		return 0;
	if (again->from != row->from || again->to != row->to)
		abort();
	/* What was accepted can be sent, and means the same then. */
	if (pb_msg_encode(again, &m, first, sizeof(first), &n) ||
	    pb_msg_decode(first, n, row->from, row->to, row->state, data[1], &row, &back, &err) || row != again ||
	    pb_msg_encode(row, &back, second, sizeof(second), &n2) || n != n2 || memcmp(first, second, n) != 0)
		abort();
	return 0;
}
