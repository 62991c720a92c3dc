/* SPDX-License-Identifier: Apache-2.0 */
/* See node_call.h. */
#include "ipc/node_call.h"

#include <stdlib.h>

/* What does not change from call to call. Lists of tensors get their room in @entries, one after the other. */
static void fill_static(const struct pb_node_arg *a, struct pt2box_op_value *v, struct pt2box_op_tensor ***entries)
{
	*v = (struct pt2box_op_value){.kind = a->kind, .count = a->count};
	switch (a->kind) {
	case PT2BOX_OP_FLOAT:
		v->v.f = a->v.f;
		break;
	case PT2BOX_OP_FLOATS:
		v->v.floats = a->v.floats;
		break;
	case PT2BOX_OP_BOOLS:
		v->v.bools = a->v.bools;
		break;
	case PT2BOX_OP_STRING:
	case PT2BOX_OP_OBJECT:
		v->v.s = a->v.s;
		break;
	case PT2BOX_OP_STRINGS:
		v->v.strings = a->v.strings;
		break;
	case PT2BOX_OP_INTS:
		v->v.ints = a->v.ints;
		break;
	case PT2BOX_OP_DEVICE:
		v->v.device.type = (int32_t)a->v.i;
		v->v.device.index = a->device_index;
		break;
	case PT2BOX_OP_TENSORS:
		v->v.tensors = *entries;
		*entries += a->count;
		break;
	case PT2BOX_OP_NONE:
	case PT2BOX_OP_TENSOR:
		break;
	default:
		v->v.i = a->v.i;
	}
}

bool pb_node_call_init(struct pb_node_call *c, const struct pb_node *node)
{
	struct pt2box_op_tensor **entries;
	size_t n_entries = 1;

	*c = (struct pb_node_call){.node = node};
	for (uint32_t i = 0; i < node->n_args; i++)
		n_entries += node->args[i].kind == PT2BOX_OP_TENSORS ? node->args[i].count : 0;
	c->values = calloc((size_t)node->n_args + 1, sizeof(*c->values));
	c->tensors = calloc((size_t)node->n_tensors + 1, sizeof(*c->tensors));
	c->entries = entries = calloc(n_entries, sizeof(struct pt2box_op_tensor *));
	if (!c->values || !c->tensors || !c->entries) {
		pb_node_call_deinit(c);
		return false;
	}
	for (uint32_t i = 0; i < node->n_args; i++)
		fill_static(&node->args[i], &c->values[i], &entries);
	return true;
}

void pb_node_call_deinit(struct pb_node_call *c)
{
	free(c->values);
	free(c->tensors);
	free(c->entries);
	*c = (struct pb_node_call){.node = NULL};
}

void pb_node_call_fill(struct pb_node_call *c, const int64_t *ints)
{
	struct pt2box_op_tensor **entries = c->entries;

	for (uint32_t i = 0; i < c->node->n_args; i++) {
		const struct pb_node_arg *a = &c->node->args[i];
		struct pt2box_op_value *v = &c->values[i];
		uint32_t slot = a->tensor_at;

		if (a->kind == PT2BOX_OP_TENSOR)
			v->v.tensor = &c->tensors[slot];
		else if (a->kind == PT2BOX_OP_INT && a->int_at != PB_SLOT_NONE)
			v->v.i = ints[a->int_at];
		else if (a->kind == PT2BOX_OP_INTS && a->int_at != PB_SLOT_NONE)
			v->v.ints = ints + a->int_at;
		for (uint32_t k = 0; a->kind == PT2BOX_OP_TENSORS && k < a->count; k++)
			*entries++ = a->v.bools[k] ? &c->tensors[slot++] : NULL;
	}
}

uint32_t pb_node_call_inputs(const struct pb_node *node)
{
	uint32_t n = node->n_tensors;

	for (uint32_t i = 0; i < node->n_outs; i++)
		if (node->outs[i].kind == PT2BOX_OP_TENSOR || node->outs[i].kind == PT2BOX_OP_TENSORS)
			n = node->outs[i].tensor_at < n ? node->outs[i].tensor_at : n;
	return n;
}
