/* SPDX-License-Identifier: Apache-2.0 */
/* What every ops process does, whichever host runs its operators: reads the package's calls, joins them to the table, serves. */
#ifndef PT2BOX_PROXY_PROCESS_H
#define PT2BOX_PROXY_PROCESS_H

#include "ipc/manifest.h"
#include "proxy/serve.h"

struct pb_ops_process {
	struct pb_manifest *manifest;
	const struct pb_board *board;
	struct pb_host *host;
	struct pb_host_node **nodes;
	uint32_t max_tensors;
	struct pb_ops_window window;
};

/* Maps the board and closes its descriptor. */
PB_CHECK pb_status pb_ops_map_board(struct pb_ops_process *p, struct pt2box_error *err);
/* An empty table, whose operators make their results in the lane of the call in hand. */
PB_CHECK pb_status pb_ops_new_host(struct pb_ops_process *p, uint64_t result_bytes,
				   const struct pb_host_provider *provider, struct pt2box_error *err);
/*
 * The calls of the package that are not native, and only those, can be made. p->manifest is there. @some: those that the table
 * cannot run are no error, the worker's own backend may have them.
 */
PB_CHECK pb_status pb_ops_prepare(struct pb_ops_process *p, bool some, struct pt2box_error *err);
_Noreturn void pb_ops_serve_process(struct pb_ops_process *p);
/* Last words. @wants: the host that such a file is for, "": no other. */
_Noreturn void pb_ops_give_up(const struct pt2box_error *e, const char *wants);

#endif
