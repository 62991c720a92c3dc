/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the host of plugins: its table. */
#ifndef PT2BOX_PROXY_INTERNAL_H
#define PT2BOX_PROXY_INTERNAL_H

#include "ipc/node_call.h"
#include "ipc/op_schema.h"
#include "proxy/host.h"

struct pb_host_op {
	struct pb_host_op *next;
	const struct pt2box_op *op;
	const char *plugin;
	struct pb_schema schema;
};

struct pb_host_library {
	struct pb_host_library *next;
	void *handle;
};

struct pb_host {
	struct pb_host_options opt;
	struct pb_host_op *ops;
	struct pb_host_library *libraries;
	struct pb_host_node *nodes;
};

struct pb_host_op *pb_host_find(const struct pb_host *h, const char *name);
/* The same, and the provider is asked. NOT_FOUND: nobody has it. */
PB_CHECK pb_status pb_host_look(struct pb_host *h, const char *name, const struct pb_host_op **ret, struct pt2box_error *err);
/* Calls and memory of @n end. */
void pb_host_node_free(struct pb_host_node *n);
struct pb_host_node *pb_host_node_next(struct pb_host_node *n);

#endif
