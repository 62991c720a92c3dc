/* SPDX-License-Identifier: Apache-2.0 */
/* See serve.h. Every number of a worker is checked before the plugin sees it. */
#include "proxy/serve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/checked.h"
#include "ipc/fdmap.h"
#include "ipc/lane_set.h"
#include "ipc/ops_call.h"
#include "ipc/socket.h"

#define SELF 0u /* its number on the lanes, where nobody else serves */

struct server {
	struct pb_host_node *const *nodes;
	uint32_t n_nodes;
	struct pb_ops_window *window;
	struct pb_lane_set lanes;
	struct pb_lane_decoder *decoder;
	struct pt2box_op_tensor *tensors;
	struct pb_lane_tensor *outputs;
	struct pb_lane_written *written;
	struct pb_rx rx;
	int64_t ints[PB_OPS_INTS_MAX];
	uint8_t request[PB_OPS_SLOT_BYTES], reply[PB_OPS_SLOT_BYTES];
};

void *pb_ops_window_alloc(void *arg, uint64_t bytes)
{
	struct pb_ops_window *w = arg;
	uint64_t at;

	if (!pb_align_u64(w->used, PB_OPS_ALIGN, &at) || !pb_span_fits(at, bytes, w->bytes))
		return NULL;
	w->used = at + bytes;
	return w->base + at;
}

void pb_ops_window_free(void *arg, void *p)
{
	(void)arg;
	(void)p;
}

/* ---- a call ---- */

static void fail(struct pb_lane_reply *r, pb_status st, const char *text)
{
	r->status = st;
	r->n_outputs = r->n_written = 0;
	snprintf(r->text, sizeof(r->text), "%s", text);
}

/* The argument lies in memory that is read-only here: the operator writes into a copy, which the worker takes back. */
static bool copy_to_write(struct server *s, uint32_t i, const struct pb_lane_tensor *t, uint64_t bytes,
			  struct pb_lane_reply *r)
{
	void *copy = bytes ? pb_ops_window_alloc(s->window, bytes) : NULL;
	struct pb_lane_written *w = &s->written[r->n_written];

	if (!bytes)
		return true;
	if (!copy)
		return false;
	memcpy(copy, s->tensors[i].data, bytes);
	s->tensors[i].data = copy;
	*w = (struct pb_lane_written){.input = i, .copy = *t};
	w->copy.down = true;
	w->copy.segment = 0;
	w->copy.offset = (uint64_t)((uint8_t *)copy - s->window->base);
	r->n_written++;
	return true;
}

static bool take_tensors(struct server *s, const struct pb_lane *l, const struct pb_host_node *node,
			 const struct pb_lane_request *q, struct pb_lane_reply *r)
{
	for (uint32_t i = 0; i < q->n_inputs; i++) {
		const struct pb_lane_tensor *t = &q->inputs[i];
		uint64_t bytes;
		void *data = t->down || t->ndim > PT2BOX_OP_MAX_DIMS ? NULL : pb_lane_tensor_data(l, t, &bytes);

		if (!data) {
			fail(r, PT2BOX_BAD_TENSOR, "an argument does not lie inside the lane, or has too many dimensions");
			return false;
		}
		s->tensors[i] = (struct pt2box_op_tensor){data, t->sizes, t->strides, t->dtype, t->ndim, NULL};
		if (pb_host_writes(node, i) && !copy_to_write(s, i, t, bytes, r)) {
			fail(r, PT2BOX_LIMIT, "arguments that the operator writes are too large");
			return false;
		}
	}
	return true;
}

static void describe(struct server *s, const struct pb_lane_request *q, const struct pb_host_result *from,
		     struct pb_lane_tensor *to)
{
	if (from->argument >= 0) {
		*to = q->inputs[from->argument];
		return;
	}
	to->none = false;
	to->down = true;
	to->dtype = from->tensor.dtype;
	to->ndim = from->tensor.ndim;
	to->segment = 0;
	to->offset = from->bytes ? (uint64_t)((uint8_t *)from->tensor.data - s->window->base) : 0;
	memcpy(to->sizes, from->sizes, (size_t)to->ndim * sizeof(*to->sizes));
	memcpy(to->strides, from->strides, (size_t)to->ndim * sizeof(*to->strides));
}

static void call(struct server *s, const struct pb_lane *l, const struct pb_ops_call *c, struct pb_lane_reply *r)
{
	struct pb_host_node *node = c->node < s->n_nodes ? s->nodes[c->node] : NULL;
	const struct pb_host_result *results;
	struct pt2box_error e = {.status = PT2BOX_OK};
	uint32_t n;
	pb_status st;

	if (!node) {
		fail(r, PT2BOX_OP_DENIED, "this is none of the package's calls that the ops process may run");
		return;
	}
	*s->window = (struct pb_ops_window){l->down_seg[0].base, l->down_seg[0].bytes, 0};
	r->written = s->written;
	if (!take_tensors(s, l, node, c->request, r))
		return;
	st = pb_host_call(node, c->ints, c->n_ints, s->tensors, c->request->n_inputs, &results, &n, &e);
	if (st) {
		fail(r, st, e.text);
		return;
	}
	for (uint32_t i = 0; i < n; i++)
		describe(s, c->request, &results[i], &s->outputs[i]);
	r->outputs = s->outputs;
	r->n_outputs = n;
	pb_host_release(node);
}

static void serve_one(struct server *s, struct pb_lane *l, uint32_t slot, uint32_t seq)
{
	uint32_t len = pb_lane_take_request(l, slot, s->request, sizeof(s->request));
	struct pb_lane_reply *r = &(struct pb_lane_reply){.worker = SELF};
	struct pb_ops_call c = {.ints = s->ints};

	r->text[0] = '\0';
	if (!len || pb_ops_decode_call(s->decoder, s->request, len, &c))
		fail(r, PT2BOX_PROTOCOL, "the call cannot be read");
	else
		call(s, l, &c, r);
	len = pb_lane_encode_reply(r, s->reply, l->geo.slot_bytes);
	if (!len) {
		fail(r, PT2BOX_LIMIT, "too many results");
		len = pb_lane_encode_reply(r, s->reply, l->geo.slot_bytes);
	}
	pb_lane_reply(l, slot, seq, s->reply, len);
}

/* ---- control messages ---- */

static void attach(struct server *s, const struct pb_msg_ops_attach *m, const struct pb_fds *fds)
{
	const struct pb_lane_geometry geo = {.slots = (uint32_t)m->slots,
					     .slot_bytes = (uint32_t)m->slot_bytes,
					     .up_bytes = m->up_bytes,
					     .down_bytes = m->down_bytes};

	(void)!pb_lane_set_add(&s->lanes, (uint32_t)m->lane, &geo, fds->fd[0], fds->fd[1]);
}

static void read_control(struct server *s)
{
	for (;;) {
		pb_status st = pb_recv(PB_FD_OPS_CTL, PB_BROKER, PB_OPS, PB_STATE_ANY, true, &s->rx, NULL);

		if (st == PT2BOX_NOT_FOUND)
			return;
		if (st)
			_exit(0); /* the broker is gone */
		if (s->rx.row->id == PB_MSG_ops_attach)
			attach(s, &s->rx.msg.ops_attach, &s->rx.fds);
		else if (s->rx.row->id == PB_MSG_ops_detach)
			pb_lane_set_remove(&s->lanes, s->rx.msg.ops_detach.lane);
		pb_fds_close(&s->rx.fds);
	}
}

_Noreturn void pb_ops_serve(struct pb_host_node *const *nodes, uint32_t n, uint32_t max_tensors,
			    struct pb_ops_window *window, const struct pb_board *board)
{
	static struct server server;
	struct server *s = &server;
	struct pb_msg_ops_ready ready = {.nodes = n};

	s->nodes = nodes;
	s->n_nodes = n;
	s->window = window;
	pb_lane_set_init(&s->lanes, board, SELF, PB_WORKERS_MAX);
	s->lanes.board_bell--; /* control messages may wait */
	s->decoder = pb_lane_decoder_new(max_tensors);
	s->tensors = calloc((size_t)max_tensors + 1, sizeof(*s->tensors));
	s->outputs = calloc((size_t)max_tensors + 1, sizeof(*s->outputs));
	s->written = calloc((size_t)max_tensors + 1, sizeof(*s->written));
	if (!s->decoder || !s->tensors || !s->outputs || !s->written)
		_exit(1);
	if (pb_write(PB_FD_OPS_CTL, PB_MSG_ops_ready, &ready, NULL))
		_exit(0);
	for (;;) {
		struct pb_lane *l;
		uint32_t slot, seq;

		if (pb_lane_set_has_rung(&s->lanes))
			read_control(s);
		l = pb_lane_set_claim(&s->lanes, &slot, &seq);
		if (l)
			serve_one(s, l, slot, seq);
		else
			pb_lane_set_wait(&s->lanes);
	}
}
