/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A broker and a worker that are this test: a connection over a socketpair whose other end the test
 * holds, a model without a package, a lane whose worker side the test has mapped.
 */
#ifndef TESTS_UNIT_CLIENT_FAKE_H
#define TESTS_UNIT_CLIENT_FAKE_H

#include <stdlib.h>
#include <string.h>

#include "client/internal.h"

struct fake {
	struct pt2box *c;
	int broker; /* our end */
	struct pt2box_model *m;
	struct pb_lane worker;
	uint32_t slot, seq; /* claimed */
	struct pb_lane_decoder *decoder;
	uint8_t buf[65536];
};

/* A segment's, or lane's, memory: the read-write descriptor. */
static inline int fake_memory(uint64_t bytes)
{
	int fd;

	if (pb_memfd("fake", bytes, &fd, NULL))
		abort();
	return fd;
}

static inline void fake_say(struct fake *f, enum pb_msg_id id, const void *msg, const int *fds,
			    size_t n)
{
	if (pb_send(f->broker, id, msg, fds, n, NULL))
		abort();
}

/* What the client says next; NULL: nothing. */
static inline const struct pb_rx *fake_hear(struct fake *f)
{
	static struct pb_rx rx;
	pb_status st = pb_recv(f->broker, PB_CLIENT, PB_BROKER, PB_STATE_READY, true, &rx, NULL);

	if (st == PT2BOX_NOT_FOUND)
		return NULL;
	if (st)
		abort();
	pb_fds_close(&rx.fds);
	return &rx;
}

static inline void fake_connect(struct fake *f)
{
	struct pb_msg_hello_ok ok = {.version = PB_PROTOCOL_VERSION, .pid = 1};
	struct pb_rx *rx = malloc(sizeof(*rx));
	int pair[2];

	memset(f, 0, offsetof(struct fake, buf));
	if (!rx || pb_socket_pair(pair, NULL))
		abort();
	f->broker = pair[1];
	fake_say(f, PB_MSG_hello_ok, &ok, NULL, 0); /* it may be said before it is asked */
	if (pb_connection_new(pair[0], (struct pb_embedded){.pidfd = -1}, &f->c, NULL) ||
	    pb_recv(f->broker, PB_CLIENT, PB_BROKER, PB_STATE_NEW, true, rx, NULL))
		abort();
	free(rx);
}

static inline void fake_model(struct fake *f, uint32_t n_in, uint32_t n_out, uint64_t up,
			      uint64_t down)
{
	struct pb_msg_lane m = {.lane = 7,
				.slots = 4,
				.slot_bytes = pb_lane_slot_bytes(n_in, n_out),
				.up_bytes = up,
				.down_bytes = down};
	struct pb_lane_geometry geo = {(uint32_t)m.slots, (uint32_t)m.slot_bytes, up, down};
	uint64_t up_total, down_total, control;
	int a, b;

	if (pb_lane_sizes(&geo, &up_total, &down_total, &control))
		abort();
	a = fake_memory(up_total);
	b = fake_memory(down_total);
	f->m = pb_model_new(f->c, &(struct pb_msg_loaded){.model = 3, .n_inputs = n_in, .n_outputs = n_out});
	f->decoder = pb_lane_decoder_new(n_in + 1);
	if (!f->m || !f->decoder ||
	    pb_lane_client_new(f->c, &m, a, b, n_in, n_out, &f->m->lane, NULL) ||
	    pb_lane_map(&f->worker, PB_LANE_WORKER, &geo, a, b, NULL))
		abort();
	close(a);
	close(b);
}

/* What a worker would do first. The request is valid until the next call. */
static inline const struct pb_lane_request *fake_claim(struct fake *f)
{
	const struct pb_lane_request *q;
	uint32_t len;

	if (!pb_lane_claim(&f->worker, 0, &f->slot, &f->seq))
		return NULL;
	len = pb_lane_take_request(&f->worker, f->slot, f->buf, sizeof(f->buf));
	if (!len || pb_lane_decode_request(f->decoder, f->buf, len, &q))
		abort();
	return q;
}

static inline void fake_reply(struct fake *f, const struct pb_lane_reply *r)
{
	static uint8_t buf[65536];
	uint32_t len = pb_lane_encode_reply(r, buf, f->worker.geo.slot_bytes);

	if (!len)
		abort();
	pb_lane_reply(&f->worker, f->slot, f->seq, buf, len);
}

static inline void fake_close(struct fake *f)
{
	close(f->broker); /* nobody will answer an unload */
	pb_lane_unmap(&f->worker);
	pb_lane_decoder_free(f->decoder);
	pt2box_unload(f->m);
	pt2box_close(f->c);
}

#endif
