/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of operators that the backend does not compute: asked of the ops process, through a lane of this worker's. */
#ifndef PT2BOX_WORKER_OPS_H
#define PT2BOX_WORKER_OPS_H

#include "ipc/nodes.h"
#include "ipc/socket.h"
#include "torch/backend.h"

/* Before the fork: @nodes as the runtime has them, borrowed. */
PB_CHECK pb_status pb_ops_init(struct pb_backend *b, const struct pb_node *nodes, uint32_t n, struct pt2box_error *err);
/* The broker has made a lane for this worker. Replaces an earlier one. */
void pb_ops_attach(const struct pb_msg_ops_lane *m, const struct pb_fds *fds);
/* For pb_rt_set_nodes(): pb_rt_ops_call of runtime/hooks.h. */
int pb_ops_call(void *arg, uint32_t node, const struct pt2box_op_value *args, uint32_t n_args, AtenTensorHandle *ret,
		uint32_t n_ret, int64_t *ret_ints, uint32_t n_ret_ints);
/* Why a call has failed since the last look, which forgets it: OP_*, LIMIT; OK: none has, or for the operator's own reasons. */
pb_status pb_ops_take_status(void);
/* The last failure, which names the operator. */
const char *pb_ops_text(void);

#endif
