/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes: the calls of a package that go to an operator by name, through PyTorch's proxy executor, because the operator has
 * no C function. Each has its arguments in order, with the values that were known when the package was compiled, and says
 * which slots of the call's integers and tensors the others take. Intake makes them from the package's JSON; broker,
 * worker, runtime and client know only this form. All numbers of enums are c10's.
 *
 * In the manifest they are one block of msgpack: [node...], node [target, flags, arg count, arg..., out...], arg
 * [name, kind, values]. Decoding treats it as hostile.
 */
#ifndef PT2BOX_IPC_NODES_H
#define PT2BOX_IPC_NODES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "include/pt2box_op.h"
#include "ipc/status.h"

#define PB_NODES_MAX 65535u
#define PB_NODE_MAX_ARGS 128u
#define PB_NODE_MAX_OUTS 128u
#define PB_NODE_MAX_ITEMS 65535u /* of one list, and slots of one call */
#define PB_NODES_MAX_ENCODED (1u << 20)
#define PB_SLOT_NONE UINT32_MAX

/* An argument, or an output: NONE, TENSOR, TENSORS, or INT, the value that the result must have. */
struct pb_node_arg {
	const char *name; /* of the schema's argument; "" for outputs */
	enum pt2box_op_kind kind;
	uint32_t count;	 /* items of a list */
	uint32_t int_at; /* INT, INTS: first slot; PB_SLOT_NONE: the value here is the value */
	uint32_t tensor_at; /* TENSOR, TENSORS: first slot */
	int32_t device_index; /* DEVICE; -1: none */
	union {
		int64_t i; /* INT, BOOL, DTYPE, LAYOUT, MEMORY_FORMAT, type of DEVICE */
		double f;
		const char *s; /* STRING, OBJECT: as in the package, no NUL inside */
		const int64_t *ints;
		const double *floats;
		const uint8_t *bools; /* BOOLS. TENSORS: 1 where there is a tensor, 0 where there is none; never NULL */
		const char *const *strings;
	} v;
};

struct pb_node {
	const char *target; /* "ns::op" or "ns::op.overload" */
	struct pb_node_arg *args, *outs;
	uint32_t n_args, n_outs;
	uint32_t n_ints, n_tensors; /* slots of a call, those of outputs included */
	bool python; /* made with torch.library.custom_op: only Python has it */
	bool native; /* what intake says: the native runtime computes it */
};

struct pb_nodes {
	struct pb_node *list;
	uint32_t n;
};

/* Gives every argument and output its slots, in order: first arguments, then outputs. LIMIT: too many. */
PB_CHECK pb_status pb_node_layout(struct pb_node *n, struct pt2box_error *err);

/* Into a malloc'd block that the caller frees. Errors: LIMIT, NO_MEMORY. */
PB_CHECK pb_status pb_nodes_encode(const struct pb_nodes *nodes, uint8_t **ret, size_t *ret_bytes,
				   struct pt2box_error *err);
/* From hostile bytes, laid out; none for 0 bytes. Errors: PKG_REJECTED, NO_MEMORY. pb_nodes_free(). */
PB_CHECK pb_status pb_nodes_decode(const uint8_t *data, size_t bytes, struct pb_nodes **ret, struct pt2box_error *err);
/* Accepts NULL; returns NULL. For decoded ones only. */
struct pb_nodes *pb_nodes_free(struct pb_nodes *nodes);

/* "tensor", "int[]", ...; "?" for an unknown kind. Static text. */
const char *pb_node_kind_name(enum pt2box_op_kind kind);
bool pb_node_kind_is_list(enum pt2box_op_kind kind);

#endif
