/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arguments of a node's calls, as operators take them: what is static is filled in once, integers and tensors at each
 * call. Used by the runtime, in the worker, and by the host of plugins, in the ops process.
 */
#ifndef PT2BOX_IPC_NODE_CALL_H
#define PT2BOX_IPC_NODE_CALL_H

#include "ipc/nodes.h"

/* Room for one call at a time. @node is borrowed. */
struct pb_node_call {
	const struct pb_node *node;
	struct pt2box_op_value *values;	   /* n_args */
	struct pt2box_op_tensor *tensors;  /* one a slot, to be filled before each call */
	struct pt2box_op_tensor **entries; /* of lists of tensors, NULL where there is none */
};

/* False: no memory; then nothing is held. */
bool pb_node_call_init(struct pb_node_call *c, const struct pb_node *node);
void pb_node_call_deinit(struct pb_node_call *c);

/* Values of this call: @ints has node->n_ints entries, borrowed; c->tensors is filled. */
void pb_node_call_fill(struct pb_node_call *c, const int64_t *ints);
/* Slots of tensors that are arguments come first: that many; the others are for results. */
uint32_t pb_node_call_inputs(const struct pb_node *node);

#endif
