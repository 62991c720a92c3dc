/* SPDX-License-Identifier: Apache-2.0 */
/* The loop of an ops process: control messages of the broker, calls of workers. */
#ifndef PT2BOX_PROXY_SERVE_H
#define PT2BOX_PROXY_SERVE_H

#include "ipc/board.h"
#include "proxy/host.h"

/* Where results of the call in hand go: the down memory of its lane. */
struct pb_ops_window {
	uint8_t *base;
	uint64_t bytes, used;
};
/* For struct pb_host_memory; @arg is the window. Nothing is freed before the next call. */
void *pb_ops_window_alloc(void *arg, uint64_t bytes);
void pb_ops_window_free(void *arg, void *p);

/*
 * Serve. @nodes: n entries by number, NULL: may not be called; @max_tensors: most that any of them has.
 */
_Noreturn void pb_ops_serve(struct pb_host_node *const *nodes, uint32_t n, uint32_t max_tensors,
			    struct pb_ops_window *window, const struct pb_board *board);

#endif
