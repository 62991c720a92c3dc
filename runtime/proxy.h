/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operators that a model calls by name, through aoti_torch_proxy_executor_call_function: what such an operator is given
 * when it is computed here, and the table of those (runtime/proxied.def).
 */
#ifndef PT2BOX_RUNTIME_PROXY_H
#define PT2BOX_RUNTIME_PROXY_H

#include "include/pt2box_op.h"
#include "runtime/tensor.h"

/*
 * @args: in the order of the operator's schema, kinds checked, defaults filled in
 * @ret:  n_ret entries, NULL at first: new tensors, which the caller takes; on failure too
 */
struct pb_proxy_call {
	const char *name;
	const struct pt2box_op_value *args;
	uint32_t n_args;
	struct pb_rt_tensor **ret;
	uint32_t n_ret;
};

/* 0, or 1 with the error set. */
typedef int pb_proxy_fn(const struct pb_proxy_call *c);

/* Argument @i; NULL: an optional one that is not there. */
static inline const struct pb_rt_tensor *pb_arg(const struct pb_proxy_call *c, int i)
{
	return c->args[i].kind == PT2BOX_OP_TENSOR ? c->args[i].v.tensor->host : NULL;
}

static inline bool pb_arg_given(const struct pb_proxy_call *c, int i)
{
	return c->args[i].kind != PT2BOX_OP_NONE;
}

static inline int64_t pb_arg_int(const struct pb_proxy_call *c, int i)
{
	return c->args[i].v.i;
}

static inline bool pb_arg_bool(const struct pb_proxy_call *c, int i)
{
	return c->args[i].v.i != 0;
}

#define PROXIED(function, target, library, schema) pb_proxy_fn function;
#include "runtime/proxied.def"
#undef PROXIED

/* The function of an operator; NULL: not computed here. */
pb_proxy_fn *pb_proxy_find(const char *target);

#endif
