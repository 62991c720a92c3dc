/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See ops.h. Arguments are copied into the up memory, results out of the down memory: they have to outlive the next call.
 * What comes back is as hostile as any other process. There is no clock here: the broker answers for an ops process that
 * died or overran.
 */
#include "worker/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/checked.h"
#include "ipc/node_call.h"
#include "ipc/ops_call.h"

#define DEVICE_CPU 0
#define SLOT 0u

static struct {
	struct pb_backend *backend;
	const struct pb_node *nodes;
	uint32_t n_nodes;
	struct pb_lane_pace *pace; /* of each node */
	struct pb_lane lane;
	bool attached;
	uint32_t seq;
	uint64_t used; /* of the up memory */
	pb_status status;
	char text[640]; /* of the last failure */
	struct pb_lane_decoder *decoder;
	const struct pt2box_op_tensor **tensors; /* of the call in hand, by slot */
	struct pb_lane_tensor *inputs;
	int64_t ints[PB_OPS_INTS_MAX];
	uint8_t buf[PB_OPS_SLOT_BYTES];
} ops;

static int fail(const struct pb_node *n, pb_status st, const char *reason)
{
	char *text = ops.text;

	ops.status = st;
	/* The host of plugins names the operator itself. */
	if (strncmp(reason, n->target, strlen(n->target)) == 0)
		snprintf(text, sizeof(ops.text), "%s", reason);
	else
		snprintf(text, sizeof(ops.text), "%.120s: %s", n->target, reason);
	if (ops.backend->set_error)
		ops.backend->set_error(text);
	return 1;
}

pb_status pb_ops_init(struct pb_backend *b, const struct pb_node *nodes, uint32_t n, struct pt2box_error *err)
{
	uint32_t most = 1;

	for (uint32_t i = 0; i < n; i++)
		if (!nodes[i].native && nodes[i].n_tensors > most)
			most = nodes[i].n_tensors;
	ops.backend = b;
	ops.nodes = nodes;
	ops.n_nodes = n;
	ops.pace = calloc((size_t)n + 1, sizeof(*ops.pace));
	ops.decoder = pb_lane_decoder_new(most);
	ops.tensors = calloc(most, sizeof(const struct pt2box_op_tensor *));
	ops.inputs = calloc(most, sizeof(*ops.inputs));
	if (!ops.pace || !ops.decoder || !ops.tensors || !ops.inputs)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for operators");
	return PT2BOX_OK;
}

void pb_ops_attach(const struct pb_msg_ops_lane *m, const struct pb_fds *fds)
{
	const struct pb_lane_geometry geo = {.slots = (uint32_t)m->slots,
					     .slot_bytes = (uint32_t)m->slot_bytes,
					     .up_bytes = m->up_bytes,
					     .down_bytes = m->down_bytes};

	if (ops.attached)
		pb_lane_unmap(&ops.lane);
	ops.attached = !pb_lane_map(&ops.lane, PB_LANE_CLIENT, &geo, fds->fd[0], fds->fd[1], NULL);
	ops.seq = 0;
}

pb_status pb_ops_take_status(void)
{
	pb_status st = ops.status;

	ops.status = PT2BOX_OK;
	return st;
}

const char *pb_ops_text(void)
{
	return ops.text;
}

/* ---- out ---- */

/* Integers and tensors by slot, as the model gave them. */
static bool collect(const struct pb_node *n, const struct pt2box_op_value *args, uint32_t n_inputs)
{
	if (n->n_ints > PB_OPS_INTS_MAX)
		return false;
	memset(ops.ints, 0, n->n_ints * sizeof(ops.ints[0]));
	for (uint32_t i = 0; i < n->n_args; i++) {
		const struct pb_node_arg *a = &n->args[i];
		uint32_t slot = a->tensor_at;

		if (a->kind == PT2BOX_OP_INT && a->int_at != PB_SLOT_NONE)
			ops.ints[a->int_at] = args[i].v.i;
		else if (a->kind == PT2BOX_OP_INTS && a->int_at != PB_SLOT_NONE)
			memcpy(ops.ints + a->int_at, args[i].v.ints, a->count * sizeof(ops.ints[0]));
		else if (a->kind == PT2BOX_OP_TENSOR && slot < n_inputs)
			ops.tensors[slot] = args[i].v.tensor;
		for (uint32_t k = 0; a->kind == PT2BOX_OP_TENSORS && k < a->count; k++)
			if (args[i].v.tensors[k] && slot < n_inputs)
				ops.tensors[slot++] = args[i].v.tensors[k];
	}
	return true;
}

/* Each argument has a place of its own, one without elements too: a result says by place which argument it is. */
static bool send_tensor(const struct pt2box_op_tensor *t, struct pb_lane_tensor *to)
{
	uint64_t bytes, room;

	if (!t || t->ndim < 0 || t->ndim > PT2BOX_OP_MAX_DIMS || !pt2box_dtype_size(t->dtype) ||
	    !pb_tensor_extent(t->ndim, t->sizes, t->strides, pt2box_dtype_size(t->dtype), &bytes) ||
	    !pb_align_u64(bytes + !bytes, PB_OPS_ALIGN, &room) ||
	    !pb_span_fits(ops.used, room, ops.lane.up_seg[0].bytes))
		return false;
	*to = (struct pb_lane_tensor){.dtype = t->dtype, .ndim = t->ndim, .offset = ops.used};
	memcpy(to->sizes, t->sizes, (size_t)t->ndim * sizeof(to->sizes[0]));
	memcpy(to->strides, t->strides, (size_t)t->ndim * sizeof(to->strides[0]));
	if (bytes)
		memcpy(ops.lane.up_seg[0].base + ops.used, t->data, bytes);
	ops.used += room;
	return true;
}

static int send_call(uint32_t node, const struct pb_node *n, uint32_t n_inputs)
{
	struct pb_lane_request q = {.n_inputs = n_inputs, .inputs = ops.inputs};
	struct pb_ops_call c = {.node = node, .n_ints = n->n_ints, .ints = ops.ints, .request = &q};
	uint32_t len;

	ops.used = 0;
	for (uint32_t i = 0; i < n_inputs; i++)
		if (!send_tensor(ops.tensors[i], &ops.inputs[i]))
			return fail(n, PT2BOX_LIMIT, "the arguments are too large, or have too many dimensions");
	len = pb_ops_encode_call(&c, ops.buf, ops.lane.geo.slot_bytes);
	if (!len)
		return fail(n, PT2BOX_LIMIT, "the call has too many arguments");
	if (++ops.seq == 0)
		ops.seq = 1;
	pb_lane_submit(&ops.lane, SLOT, ops.seq, ops.buf, len);
	(void)pb_lane_wait(&ops.lane, SLOT, ops.seq, &ops.pace[node], UINT64_MAX);
	return 0;
}

/* ---- back ---- */

static pb_status believed(uint32_t status)
{
	switch ((pb_status)status) {
	case PT2BOX_OP_CRASHED:
	case PT2BOX_OP_TIMEOUT:
	case PT2BOX_OP_DENIED:
	case PT2BOX_LIMIT:
		return (pb_status)status;
	default:
		return PT2BOX_OK; /* what the model makes of it */
	}
}

static bool same_shape(const struct pb_lane_tensor *a, const struct pb_lane_tensor *b)
{
	return a->dtype == b->dtype && a->ndim == b->ndim &&
	       memcmp(a->sizes, b->sizes, (size_t)a->ndim * sizeof(a->sizes[0])) == 0 &&
	       memcmp(a->strides, b->strides, (size_t)a->ndim * sizeof(a->strides[0])) == 0;
}

static bool take_written(const struct pb_lane_written *w, uint32_t n_inputs)
{
	const uint8_t *data;
	uint64_t bytes;

	if (w->input >= n_inputs || !w->copy.down || !same_shape(&w->copy, &ops.inputs[w->input]))
		return false;
	data = pb_lane_tensor_data(&ops.lane, &w->copy, &bytes);
	if (data && bytes)
		memcpy(ops.tensors[w->input]->data, data, bytes);
	return data != NULL;
}

/* The argument that lies where this result does; NULL: none. */
static AtenTensorHandle argument_at(const struct pb_lane_tensor *t, uint32_t n_inputs)
{
	for (uint32_t i = 0; i < n_inputs; i++)
		if (ops.inputs[i].offset == t->offset && same_shape(&ops.inputs[i], t))
			return ops.tensors[i]->host;
	return NULL;
}

static AtenTensorHandle take_result(const struct pb_lane_tensor *t, uint32_t n_inputs)
{
	AtenTensorHandle h = NULL;
	uint64_t bytes;
	const uint8_t *data;
	void *to;

	if (t->none || t->segment)
		return NULL;
	if (!t->down)
		return argument_at(t, n_inputs);
	data = pb_lane_tensor_data(&ops.lane, t, &bytes);
	if (!data || ops.backend->empty_strided(t->ndim, t->sizes, t->strides, t->dtype, DEVICE_CPU, -1, &h))
		return NULL;
	if (bytes && (ops.backend->get_data_ptr(h, &to) || !to)) {
		ops.backend->delete_tensor(h);
		return NULL;
	}
	if (bytes)
		memcpy(to, data, bytes);
	return h;
}

static int take_reply(const struct pb_node *n, uint32_t n_inputs, AtenTensorHandle *ret, uint32_t n_ret)
{
	uint32_t len = pb_lane_take_reply(&ops.lane, SLOT, ops.buf, sizeof(ops.buf));
	const struct pb_lane_reply *r;

	if (!len || pb_lane_decode_reply(ops.decoder, ops.buf, len, &r))
		return fail(n, PT2BOX_OP_CRASHED, "the ops process answered with nonsense");
	if (r->status)
		return fail(n, believed(r->status), r->text[0] ? r->text : pt2box_status_text((pb_status)r->status));
	if (r->n_outputs != n_ret)
		return fail(n, PT2BOX_OP_CRASHED, "the ops process gave another number of results");
	for (uint32_t i = 0; i < r->n_written; i++)
		if (!take_written(&r->written[i], n_inputs))
			return fail(n, PT2BOX_OP_CRASHED, "the ops process gave back an argument that makes no sense");
	for (uint32_t i = 0; i < n_ret; i++) {
		ret[i] = take_result(&r->outputs[i], n_inputs);
		if (!ret[i])
			return fail(n, PT2BOX_OP_CRASHED, "the ops process gave a result that makes no sense");
	}
	return 0;
}

int pb_ops_call(void *arg, uint32_t node, const struct pt2box_op_value *args, uint32_t n_args, AtenTensorHandle *ret,
		uint32_t n_ret, int64_t *ret_ints, uint32_t n_ret_ints)
{
	const struct pb_node *n = &ops.nodes[node];
	const uint32_t n_inputs = pb_node_call_inputs(n);

	(void)arg;
	(void)ret_ints;
	if (!ops.attached)
		return fail(n, PT2BOX_OK, "the native runtime does not have this operator, and there is no ops process");
	if (n_ret_ints || n_args != n->n_args || !collect(n, args, n_inputs))
		return fail(n, PT2BOX_OP_DENIED, "results that are numbers, or too many integers");
	return send_call(node, n, n_inputs) || take_reply(n, n_inputs, ret, n_ret);
}
