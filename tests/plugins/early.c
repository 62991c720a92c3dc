/* SPDX-License-Identifier: Apache-2.0 */
/* A plugin whose constructor wants a socket: it must not run before the filter is there. */
#include <stddef.h>
#include <sys/socket.h>

#include "include/pt2box_op.h"

static int reached;

__attribute__((constructor)) static void early(void)
{
	reached = socket(AF_INET, SOCK_STREAM, 0);
}

static int run(struct pt2box_op_call *c)
{
	return c->fail(c, "socket %d", reached);
}

static const struct pt2box_op ops[] = {{"pt2box_test::triple", "(Tensor x, int k) -> Tensor", run}};
static const struct pt2box_op_plugin plugin = {PT2BOX_OP_ABI, sizeof(struct pt2box_op), "early", ops, 1};

const struct pt2box_op_plugin *pt2box_op_plugin(void)
{
	return &plugin;
}
