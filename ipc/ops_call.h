/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A call of an operator in the ops process: what a worker writes into the slot of their lane (ipc/lane.h). The worker is the
 * lane's client, one call at a time; the ops process serves it. The answer is a lane's reply: outputs are the results, in
 * the down memory, or at the very place of the argument that is returned; "written" are arguments that were written.
 *
 *	call  number of the node, [integer...], then a lane's request: the arguments that are tensors, in the order of slots
 */
#ifndef PT2BOX_IPC_OPS_CALL_H
#define PT2BOX_IPC_OPS_CALL_H

#include "ipc/lane.h"
#include "ipc/nodes.h"

/* Of each direction of a worker's lane: most bytes of one call's arguments, and of its results. Only what is used is there. */
#define PB_OPS_LANE_BYTES (256ull << 20)
#define PB_OPS_SLOT_BYTES 65536u
#define PB_OPS_ALIGN 64u
#define PB_OPS_INTS_MAX 16384u /* more than fit in a slot */

struct pb_ops_call {
	uint32_t node, n_ints;
	int64_t *ints;
	const struct pb_lane_request *request;
};

/* 0 if it does not fit @cap. */
uint32_t pb_ops_encode_call(const struct pb_ops_call *c, uint8_t *buf, uint32_t cap);
/*
 * From hostile bytes. ret->ints: room for PB_OPS_INTS_MAX, the caller's; ret->request is the decoder's. PROTOCOL on any
 * fault.
 */
PB_CHECK pb_status pb_ops_decode_call(struct pb_lane_decoder *d, const uint8_t *buf, uint32_t len, struct pb_ops_call *ret);

#endif
