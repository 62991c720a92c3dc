/* SPDX-License-Identifier: Apache-2.0 */
/* See nodes.h. What intake says of a node is looked up again here: it has had hostile bytes before it. */
#include "worker/nodes.h"

#include <stdlib.h>
#include <string.h>

#include "ipc/op_schema.h"
#include "worker/ops.h"

static const struct native {
	const char *target, *schema;
} natives[] = {
#define PROXIED(function, target, library, schema) {target, schema},
#include "runtime/proxied.def"
#undef PROXIED
};

static const struct native *find(const char *target)
{
	for (size_t i = 0; i < sizeof(natives) / sizeof(natives[0]); i++)
		if (strcmp(natives[i].target, target) == 0)
			return &natives[i];
	return NULL;
}

/* @n with its arguments in the order of the schema. Defaults point into the schema, which stays. */
static pb_status join(const struct native *row, struct pb_node *n, struct pt2box_error *err)
{
	struct pb_schema *s = malloc(sizeof(*s));
	struct pb_node_arg *args;
	pb_status st;

	if (!s)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for operators");
	st = pb_schema_parse(row->schema, s, err);
	args = st ? NULL : calloc(s->n_args + 1, sizeof(*args));
	if (!st && !args)
		st = pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for operators");
	if (!st)
		st = pb_schema_bind(s, n, args, err);
	if (st) {
		free(args);
		free(s);
		return st;
	}
	n->args = args;
	n->n_args = s->n_args;
	return PT2BOX_OK;
}

pb_status pb_nodes_give(struct pb_backend *b, const struct pb_manifest *m, struct pt2box_error *err)
{
	const uint32_t n = m->nodes ? m->nodes->n : 0;
	struct pb_node *nodes;
	pb_status st = PT2BOX_OK;

	if (!n || !b->set_nodes)
		return PT2BOX_OK;
	nodes = calloc(n, sizeof(*nodes));
	if (!nodes)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for operators");
	for (uint32_t i = 0; i < n && !st; i++) {
		const struct native *row = m->nodes->list[i].native ? find(m->nodes->list[i].target) : NULL;

		nodes[i] = m->nodes->list[i];
		nodes[i].native = row != NULL;
		if (row)
			st = join(row, &nodes[i], err);
	}
	if (!st)
		st = pb_ops_init(b, nodes, n, err);
	if (!st && b->set_nodes(nodes, n, pb_ops_call, NULL))
		st = pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for operators");
	if (st)
		free(nodes);
	return st;
}
