/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Schemas of operators, in PyTorch's syntax, "(Tensor x, int k=2, *, float? eps=None) -> (Tensor, Tensor)", and what joins
 * them to a node of a package: arguments by name, kinds checked, defaults filled in. Schemas come from our own tables and
 * from plugins; nodes from packages.
 */
#ifndef PT2BOX_IPC_OP_SCHEMA_H
#define PT2BOX_IPC_OP_SCHEMA_H

#include <stdbool.h>
#include <stdint.h>

#include "ipc/nodes.h"

#define PB_SCHEMA_MAX_ARGS 32
#define PB_SCHEMA_MAX_RETURNS 16
#define PB_SCHEMA_MAX_DEFAULTS 8 /* items of a list that is a default */
#define PB_SCHEMA_MAX_TEXT 64	 /* a name, a default text */

enum pb_schema_type {
	PB_SCHEMA_TENSOR,
	PB_SCHEMA_INT, /* int, SymInt */
	PB_SCHEMA_FLOAT,
	PB_SCHEMA_BOOL,
	PB_SCHEMA_STR,
	PB_SCHEMA_SCALAR, /* int, float or bool */
	PB_SCHEMA_DTYPE,
	PB_SCHEMA_LAYOUT,
	PB_SCHEMA_MEMORY_FORMAT,
	PB_SCHEMA_DEVICE,
	PB_SCHEMA_GENERATOR,
};

struct pb_schema_arg {
	char name[PB_SCHEMA_MAX_TEXT];
	enum pb_schema_type type;
	bool list, optional, optional_items;
	bool kwarg_only; /* behind "*" */
	bool written;  /* (a!) */
	char alias;    /* which memory: the letter of "(a!)" or "(a)", 1 more than the number of "(a0!)"; 0: none */
	bool has_default;
	struct pb_node_arg preset; /* the default, pointing into this struct */
	int64_t ints[PB_SCHEMA_MAX_DEFAULTS];
	double floats[PB_SCHEMA_MAX_DEFAULTS];
	uint8_t bools[PB_SCHEMA_MAX_DEFAULTS];
	char text[PB_SCHEMA_MAX_TEXT];
};

struct pb_schema_return {
	enum pb_schema_type type; /* TENSOR or INT */
	bool list, optional;
	char alias;
	bool written;
};

/* Not to be copied: defaults point into it. */
struct pb_schema {
	struct pb_schema_arg args[PB_SCHEMA_MAX_ARGS];
	struct pb_schema_return returns[PB_SCHEMA_MAX_RETURNS];
	uint32_t n_args, n_returns;
};

/* USAGE, with the place of the fault: @text is no schema, or more than this version takes. */
PB_CHECK pb_status pb_schema_parse(const char *text, struct pb_schema *ret, struct pt2box_error *err);

/*
 * The arguments of @n in the order of the schema: s->n_args of them into @ret, which borrow from both. Slots are those of
 * the node; of a default, none. UNSUPPORTED, naming operator and argument: the node does not fit the schema.
 */
PB_CHECK pb_status pb_schema_bind(const struct pb_schema *s, const struct pb_node *n, struct pb_node_arg *ret,
				  struct pt2box_error *err);

/* "int?", "Tensor[]", ... for messages. */
const char *pb_schema_type_name(const struct pb_schema_arg *a, char *buf, size_t cap);

#endif
