/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PyTorch's dispatcher, by its C ABI: operators by name, with the schema that it has for them, called with values as plugins
 * see them. Used by the worker of backend torch and by the ops process. Not thread safe.
 */
#ifndef PT2BOX_TORCH_DISPATCHER_H
#define PT2BOX_TORCH_DISPATCHER_H

#include "ipc/nodes.h"
#include "ipc/op_schema.h"
#include "torch/backend.h"

struct pb_torch_op {
	struct pb_torch_op *next;
	const char *target;	  /* as asked for */
	char *name, *overload; /* as the dispatcher has them */
	char *text;	  /* the schema, from "(" on */
	struct pb_schema schema;
};

/* Find the functions. UNSUPPORTED: this library lacks one. */
PB_CHECK pb_status pb_torch_dispatcher_init(const struct pb_backend *b, struct pt2box_error *err);
/*
 * Find an operator, "ns::op" or "ns::op.overload", whose name (borrowed) stays. Kept for good, found again the next time.
 * NOT_FOUND: the library does not have it; UNSUPPORTED: its schema is not understood.
 */
PB_CHECK pb_status pb_torch_op_find(const char *target, const struct pb_torch_op **ret, struct pt2box_error *err);
/*
 * The C ABI has no place for some values: UNSUPPORTED, naming the argument. @args: of @n, in the order of the schema; the outputs
 * of @n are as many as the operator has.
 */
PB_CHECK pb_status pb_torch_op_fits(const struct pb_torch_op *op, const struct pb_node *n, const struct pb_node_arg *args,
				    struct pt2box_error *err);

/* What a call gave. The tensor is the caller's. Not 0: the call fails, *text has been written. */
struct pb_torch_taker {
	int (*tensor)(struct pb_torch_taker *t, uint32_t i, AtenTensorHandle h);
	int (*number)(struct pb_torch_taker *t, uint32_t i, int64_t v);
	char text[400];
};

/*
 * Call it. @args: in the order of the schema, tensors with their handles in ->host. Results by their number in the schema's
 * returns, those of a list one after the other. Not 0: it failed, and taker->text says why.
 */
int pb_torch_op_call(const struct pb_torch_op *op, const struct pt2box_op_value *args, struct pb_torch_taker *taker);

#endif
