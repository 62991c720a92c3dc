/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring of a lane from all ends: what the peer can write (the client's or the workers' memory, for the broker both) is
 * the input, and again after every step; this end does what it does. The memories are exact allocations: a byte outside
 * is a fault.
 *
 *	side, then steps of 4 bytes: what, slot, where the peer writes and the byte that it writes
 */
#include <stdlib.h>
#include <string.h>

#include "ipc/lane.h"
#include "ipc/socket.h"
#include "tests/fuzz/replay.h"

#define SLOTS 4
#define SLOT_BYTES 64

static const struct pb_lane_geometry geo = {.slots = SLOTS, .slot_bytes = SLOT_BYTES, .up_bytes = 64, .down_bytes = 64};
static uint64_t up_total, down_total, control;
static uint32_t stride;

/* The stride is the lane's own business: from a lane that is really mapped. */
static void measure(void)
{
	int up = -1, down = -1;
	struct pb_lane l;

	if (pb_lane_sizes(&geo, &up_total, &down_total, &control) || pb_memfd("up", up_total, &up, NULL) ||
	    pb_memfd("down", down_total, &down, NULL) || pb_lane_map(&l, PB_LANE_BROKER, &geo, up, down, NULL))
		abort();
	stride = l.slot_stride;
	pb_lane_unmap(&l);
	close(up);
	close(down);
}

static void as_client(struct pb_lane *l, uint8_t what, uint32_t slot, uint32_t seq)
{
	struct pb_lane_pace pace = {.spin_ns = 1};
	uint8_t payload[SLOT_BYTES] = {1}, *buf = malloc(SLOT_BYTES);
	uint32_t value, n;

	switch (what % 5) {
	case 0:
		pb_lane_submit(l, slot, seq, payload, what % SLOT_BYTES + 1);
		break;
	case 1:
		(void)pb_lane_is_done(l, slot, seq);
		(void)pb_lane_wait(l, slot, seq, &pace, pb_now_ns());
		break;
	case 2:
		(void)pb_lane_arm(l, slot, seq, &value);
		break;
	case 3:
		n = pb_lane_take_reply(l, slot, buf, what & 0x80 ? SLOT_BYTES : 8);
		if (n > (what & 0x80 ? SLOT_BYTES : 8))
			abort();
		break;
	default:
		pb_lane_cancel(l, slot, seq);
	}
	free(buf);
}

static void as_worker(struct pb_lane *l, uint8_t what, uint32_t slot, uint32_t seq)
{
	uint8_t payload[SLOT_BYTES] = {1}, *buf = malloc(SLOT_BYTES);
	uint32_t got_slot, got_seq;

	switch (what % 6) {
	case 0:
		if (pb_lane_claim(l, what % PB_WORKERS_MAX, &got_slot, &got_seq) && (got_slot >= SLOTS || got_seq == 0))
			abort();
		break;
	case 1:
		if (pb_lane_take_request(l, slot, buf, what & 0x80 ? SLOT_BYTES : 8) > (what & 0x80 ? SLOT_BYTES : 8))
			abort();
		break;
	case 2:
		(void)pb_lane_is_cancelled(l, slot, seq);
		break;
	case 3:
		pb_lane_reply(l, slot, seq, payload, what % SLOT_BYTES + 1);
		break;
	case 4:
		(void)pb_lane_bell(l);
		pb_lane_mark_sleeping(l, what % PB_WORKERS_MAX, what & 0x80);
		break;
	default:
		pb_lane_mark_fault(l, slot, seq);
		pb_lane_mark_refused(l, slot, seq);
	}
	free(buf);
}

static void as_broker(struct pb_lane *l, uint8_t what, uint32_t slot)
{
	struct pb_lane_peek p;

	pb_lane_look(l, slot, &p);
	if (p.worker >= PB_WORKERS_MAX || (p.claimed && !p.pending))
		abort();
	if (what % 4 == 0)
		pb_lane_fail(l, slot, p.seq, PT2BOX_MODEL_CRASHED, 11, "the worker died");
	else if (what % 4 == 1)
		(void)pb_lane_claim_unserved(l, slot, p.seq);
	else if (what % 4 == 2)
		pb_lane_requeue(l, slot, p.seq);
	else
		pb_lane_ring(l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pb_lane l = {.geo = geo};
	uint8_t side = size ? data[0] % 3 : 0;

	if (!stride)
		measure();
	l.control_bytes = control;
	l.slot_stride = stride;
	l.up_mapped = up_total;
	l.down_mapped = down_total;
	l.up = calloc(1, up_total);
	l.down = calloc(1, down_total);
	if (!l.up || !l.down)
		abort();
	for (size_t at = 1; at + 4 <= size; at += 4) {
		const uint8_t *s = data + at;
		/* Head and slots, where the words are. */
		size_t where = (s[2] + (size_t)(s[1] >> 2) * 256) % (128 + SLOTS * (size_t)stride);

		if (side != 0)
			l.up[where] = s[3];
		if (side != 1)
			l.down[where] = s[3];
		if (side == 0)
			as_client(&l, s[0], s[1] % SLOTS, s[3] + 1u);
		else if (side == 1)
			as_worker(&l, s[0], s[1] % SLOTS, s[3] + 1u);
		else
			as_broker(&l, s[0], s[1] % SLOTS);
	}
	free(l.up);
	free(l.down);
	return 0;
}
