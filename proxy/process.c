/* SPDX-License-Identifier: Apache-2.0 */
/* See process.h. */
#include "proxy/process.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ipc/fdmap.h"
#include "ipc/socket.h"

pb_status pb_ops_map_board(struct pb_ops_process *p, struct pt2box_error *err)
{
	void *board = mmap(NULL, PB_BOARD_BYTES, PROT_READ, MAP_SHARED, PB_FD_OPS_BOARD, 0);

	if (board == MAP_FAILED)
		return pb_error_sys(err, "the board");
	p->board = board;
	close(PB_FD_OPS_BOARD);
	return PT2BOX_OK;
}

pb_status pb_ops_new_host(struct pb_ops_process *p, uint64_t result_bytes, const struct pb_host_provider *provider,
			  struct pt2box_error *err)
{
	const struct pb_host_options options = {.memory = {pb_ops_window_alloc, pb_ops_window_free, &p->window},
						.max_result_bytes = result_bytes,
						.max_tensors = 4096,
						.provider = provider};

	return pb_host_new(&options, &p->host, err);
}

pb_status pb_ops_prepare(struct pb_ops_process *p, bool some, struct pt2box_error *err)
{
	const struct pb_nodes *nodes = p->manifest->nodes;
	pb_status st = PT2BOX_OK;

	p->nodes = calloc((size_t)(nodes ? nodes->n : 0) + 1, sizeof(*p->nodes));
	if (!p->nodes)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for operators");
	for (uint32_t i = 0; !st && nodes && i < nodes->n; i++) {
		const struct pb_node *n = &nodes->list[i];

		if (n->native)
			continue;
		if (n->n_tensors > p->max_tensors)
			p->max_tensors = n->n_tensors;
		st = pb_host_prepare(p->host, n, &p->nodes[i], err);
		if (some && (st == PT2BOX_NOT_FOUND || st == PT2BOX_UNSUPPORTED))
			st = PT2BOX_OK;
	}
	return st;
}

_Noreturn void pb_ops_serve_process(struct pb_ops_process *p)
{
	pb_ops_serve(p->nodes, p->manifest->nodes ? p->manifest->nodes->n : 0, p->max_tensors + 1, &p->window, p->board);
}

_Noreturn void pb_ops_give_up(const struct pt2box_error *e, const char *wants)
{
	struct pb_msg_ops_failed m = {.status = e->status};

	snprintf(m.text, sizeof(m.text), "%s", e->text);
	snprintf(m.wants, sizeof(m.wants), "%s", wants);
	(void)!pb_write(PB_FD_OPS_CTL, PB_MSG_ops_failed, &m, NULL);
	_exit(1);
}
