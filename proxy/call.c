/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls of a plugin's operators: arguments in, results out. See host.h. Plugins are trusted with their process, not with
 * their arithmetic: what they make is checked before anybody sees it.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/checked.h"
#include "proxy/internal.h"

/* A tensor that a call has made: what the plugin holds, and what the host knows of it. */
struct made {
	struct made *next;
	struct pt2box_op_tensor given;
	struct pb_host_result r;
};

struct pb_host_node {
	struct pb_host_node *next;
	struct pb_host *host;
	const struct pb_host_op *op;
	struct pb_node node; /* with the arguments in the order of the schema */
	struct pb_node_arg args[PB_SCHEMA_MAX_ARGS];
	struct pb_node_call call;
	uint32_t n_inputs, n_results;
	struct pb_host_result *results; /* one a tensor that the node takes */
	bool *set;
	/* of the call in hand */
	struct pt2box_op_call api;
	struct made *made;
	uint32_t n_made;
	uint64_t bytes;
	pb_status st;
	char text[400];
};

struct pb_host_node *pb_host_node_next(struct pb_host_node *n)
{
	return n->next;
}

void pb_host_release(struct pb_host_node *n)
{
	const struct pb_host_memory *mem = &n->host->opt.memory;

	while (n->made) {
		struct made *m = n->made;

		n->made = m->next;
		if (m->r.tensor.data)
			mem->free(mem->arg, m->r.tensor.data);
		free(m);
	}
	n->n_made = 0;
	n->bytes = 0;
}

void pb_host_node_free(struct pb_host_node *n)
{
	pb_host_release(n);
	pb_node_call_deinit(&n->call);
	free(n->results);
	free(n->set);
	free(n);
}

pb_status pb_host_prepare(struct pb_host *h, const struct pb_node *node, struct pb_host_node **ret,
			  struct pt2box_error *err)
{
	const struct pb_host_op *op;
	struct pb_host_node *n;
	pb_status st = pb_host_look(h, node->target, &op, err);

	if (st)
		return st;
	n = calloc(1, sizeof(*n));
	if (!n)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for an operator");
	n->host = h;
	n->op = op;
	n->node = *node;
	st = pb_schema_bind(&op->schema, node, n->args, err);
	if (!st && h->opt.provider)
		st = h->opt.provider->fits(op->op, node, n->args, err);
	n->node.args = n->args;
	n->node.n_args = op->schema.n_args;
	n->n_inputs = pb_node_call_inputs(node);
	n->n_results = node->n_tensors - n->n_inputs;
	n->results = calloc((size_t)n->n_results + 1, sizeof(*n->results));
	n->set = calloc((size_t)n->n_results + 1, sizeof(*n->set));
	if (!st && (!n->results || !n->set || !pb_node_call_init(&n->call, &n->node)))
		st = pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for an operator");
	if (st) {
		pb_host_node_free(n);
		return st;
	}
	n->next = h->nodes;
	h->nodes = n;
	*ret = n;
	return PT2BOX_OK;
}

bool pb_host_writes(const struct pb_host_node *n, uint32_t slot)
{
	for (uint32_t i = 0; i < n->node.n_args; i++) {
		const struct pb_node_arg *a = &n->args[i];
		uint32_t taken = a->kind == PT2BOX_OP_TENSOR;

		for (uint32_t k = 0; a->kind == PT2BOX_OP_TENSORS && k < a->count; k++)
			taken += a->v.bools[k];
		if (taken && slot >= a->tensor_at && slot - a->tensor_at < taken)
			return n->op->schema.args[i].written;
	}
	return false;
}

/* ---- what a plugin may ask for ---- */

static struct pb_host_node *node_of(struct pt2box_op_call *c)
{
	return c->host;
}

const struct pt2box_op *pb_host_running(const struct pt2box_op_call *c)
{
	return ((const struct pb_host_node *)c->host)->op->op;
}

/* The first reason counts. */
static int refuse(struct pb_host_node *n, pb_status st, const char *fmt, ...) PB_PRINTF(3, 4);
static int refuse(struct pb_host_node *n, pb_status st, const char *fmt, ...)
{
	va_list ap;

	if (n->st)
		return 1;
	n->st = st;
	va_start(ap, fmt);
	vsnprintf(n->text, sizeof(n->text), fmt, ap);
	va_end(ap);
	return 1;
}

static int api_fail(struct pt2box_op_call *c, const char *fmt, ...)
{
	struct pb_host_node *n = node_of(c);
	va_list ap;

	if (n->st)
		return 1;
	n->st = PT2BOX_MODEL_ERROR;
	va_start(ap, fmt);
	vsnprintf(n->text, sizeof(n->text), fmt, ap);
	va_end(ap);
	return 1;
}

/* Shape and bytes of a new tensor; false with the reason set. */
static bool describe(struct pb_host_node *n, struct pb_host_result *r, int32_t dtype, int32_t ndim, const int64_t *sizes,
		     const int64_t *strides)
{
	const uint64_t elem = pt2box_dtype_size(dtype);
	int64_t step = 1;

	if (!elem || ndim < 0 || ndim > PT2BOX_OP_MAX_DIMS || (ndim && !sizes))
		return !refuse(n, PT2BOX_UNSUPPORTED, "a result of dtype %d with %d dimensions", dtype, ndim);
	for (int32_t d = ndim - 1; d >= 0; d--) {
		r->sizes[d] = sizes[d];
		r->strides[d] = strides ? strides[d] : step;
		if (sizes[d] < 0 || __builtin_mul_overflow(step, sizes[d] ? sizes[d] : 1, &step))
			return !refuse(n, PT2BOX_UNSUPPORTED, "a result with a size of %lld", (long long)sizes[d]);
	}
	if (!pb_tensor_extent(ndim, r->sizes, r->strides, elem, &r->bytes))
		return !refuse(n, PT2BOX_UNSUPPORTED, "a result whose strides make no sense");
	return true;
}

static struct pt2box_op_tensor *api_new_tensor(struct pt2box_op_call *c, int32_t dtype, int32_t ndim,
					       const int64_t *sizes, const int64_t *strides)
{
	struct pb_host_node *n = node_of(c);
	const struct pb_host_options *opt = &n->host->opt;
	struct made *m = calloc(1, sizeof(*m));
	void *data = NULL;

	if (!m) {
		refuse(n, PT2BOX_NO_MEMORY, "no memory for a result");
		return NULL;
	}
	if (!describe(n, &m->r, dtype, ndim, sizes, strides)) {
		free(m);
		return NULL;
	}
	if (n->n_made >= opt->max_tensors || m->r.bytes > opt->max_result_bytes - n->bytes) {
		refuse(n, PT2BOX_LIMIT, "results of more than %llu bytes or %u tensors",
		       (unsigned long long)opt->max_result_bytes, opt->max_tensors);
		free(m);
		return NULL;
	}
	if (m->r.bytes && !(data = opt->memory.alloc(opt->memory.arg, m->r.bytes))) {
		refuse(n, PT2BOX_LIMIT, "no memory for a result of %llu bytes", (unsigned long long)m->r.bytes);
		free(m);
		return NULL;
	}
	m->r.tensor = m->given = (struct pt2box_op_tensor){data, m->r.sizes, m->r.strides, dtype, ndim, NULL};
	m->r.argument = -1;
	n->bytes += m->r.bytes;
	n->n_made++;
	m->next = n->made;
	n->made = m;
	return &m->given;
}

/* The slot of the argument that @t is; -1: none. */
static int32_t argument_of(const struct pb_host_node *n, const struct pt2box_op_tensor *t)
{
	for (uint32_t i = 0; i < n->n_inputs; i++)
		if (t == &n->call.tensors[i])
			return (int32_t)i;
	return -1;
}

static const struct made *made_of(const struct pb_host_node *n, const struct pt2box_op_tensor *t)
{
	const struct made *m = n->made;

	while (m && t != &m->given)
		m = m->next;
	return m;
}

/* The tensor becomes result @slot of the call. @alias: the schema returns an argument there. */
static int put_result(struct pb_host_node *n, uint32_t slot, const struct pt2box_op_tensor *t, bool alias)
{
	struct pb_host_result *r = &n->results[slot];
	const struct made *m = made_of(n, t);
	const int32_t argument = argument_of(n, t);

	if (n->set[slot])
		return refuse(n, PT2BOX_UNSUPPORTED, "result %u was given twice", slot);
	if (m) {
		*r = m->r;
	} else if (argument >= 0 && alias) {
		*r = (struct pb_host_result){.tensor = *t, .argument = argument};
		memcpy(r->sizes, t->sizes, (size_t)t->ndim * sizeof(*r->sizes));
		memcpy(r->strides, t->strides, (size_t)t->ndim * sizeof(*r->strides));
	} else if (argument >= 0) {
		return refuse(n, PT2BOX_UNSUPPORTED, "result %u is an argument, which the schema does not say", slot);
	} else {
		return refuse(n, PT2BOX_UNSUPPORTED, "a result that is neither a new tensor nor an argument");
	}
	r->tensor.sizes = r->sizes;
	r->tensor.strides = r->strides;
	r->tensor.host = NULL;
	n->set[slot] = true;
	return 0;
}

/* Output @i of the node; NULL: there is none. */
static const struct pb_node_arg *output(const struct pb_host_node *n, size_t i, bool *ret_alias)
{
	for (uint32_t k = 0; k < n->node.n_outs; k++) {
		const struct pb_schema_return *r = &n->op->schema.returns[k];

		*ret_alias = r->alias != 0;
		if (i-- == 0)
			return &n->node.outs[k];
	}
	return NULL;
}

static int api_set_result(struct pt2box_op_call *c, size_t i, struct pt2box_op_tensor *t)
{
	struct pb_host_node *n = node_of(c);
	bool alias = false;
	const struct pb_node_arg *o = output(n, i, &alias);

	if (!t || !o || o->kind == PT2BOX_OP_TENSORS)
		return refuse(n, PT2BOX_UNSUPPORTED, "there is no result %zu that is a tensor", i);
	if (o->kind == PT2BOX_OP_NONE) /* the package does not take it */
		return 0;
	return put_result(n, o->tensor_at - n->n_inputs, t, alias);
}

static int api_append_result(struct pt2box_op_call *c, size_t i, struct pt2box_op_tensor *t)
{
	struct pb_host_node *n = node_of(c);
	bool alias = false;
	const struct pb_node_arg *o = output(n, i, &alias);

	if (!t || !o || o->kind != PT2BOX_OP_TENSORS)
		return refuse(n, PT2BOX_UNSUPPORTED, "there is no result %zu that is a list", i);
	for (uint32_t k = 0; k < o->count; k++)
		if (!n->set[o->tensor_at - n->n_inputs + k])
			return put_result(n, o->tensor_at - n->n_inputs + k, t, alias);
	return refuse(n, PT2BOX_UNSUPPORTED, "a list of more than %u results; the package takes that many", o->count);
}

/* ---- the call ---- */

static pb_status check_tensor(const struct pb_host_node *n, uint32_t i, const struct pt2box_op_tensor *t,
			      struct pt2box_error *err)
{
	uint64_t bytes;

	if (t->ndim < 0 || t->ndim > PT2BOX_OP_MAX_DIMS || !pt2box_dtype_size(t->dtype) ||
	    (t->ndim && (!t->sizes || !t->strides)) ||
	    !pb_tensor_extent(t->ndim, t->sizes, t->strides, pt2box_dtype_size(t->dtype), &bytes) || (bytes && !t->data))
		return pb_error_set(err, PT2BOX_USAGE, "%.200s: tensor %u of the call makes no sense", n->node.target, i);
	return PT2BOX_OK;
}

static pb_status take_tensors(struct pb_host_node *n, const struct pt2box_op_tensor *tensors, uint32_t n_tensors,
			      struct pt2box_error *err)
{
	pb_status st = PT2BOX_OK;

	if (n_tensors != n->n_inputs)
		return pb_error_set(err, PT2BOX_USAGE, "%.200s: called with %u tensors; the package describes %u",
				    n->node.target, n_tensors, n->n_inputs);
	for (uint32_t i = 0; i < n_tensors && !st; i++) {
		st = check_tensor(n, i, &tensors[i], err);
		n->call.tensors[i] = tensors[i];
		n->call.tensors[i].host = NULL;
	}
	return st;
}

static pb_status finish(struct pb_host_node *n, int rc, struct pt2box_error *err)
{
	if (!n->st && rc)
		return pb_error_set(err, PT2BOX_MODEL_ERROR, "%.200s: failed and gave no reason", n->node.target);
	if (n->st)
		return pb_error_set(err, n->st, "%.200s: %s", n->node.target, n->text);
	for (uint32_t i = 0; i < n->n_results; i++)
		if (!n->set[i])
			return pb_error_set(err, PT2BOX_UNSUPPORTED, "%.200s: result %u is missing", n->node.target, i);
	return PT2BOX_OK;
}

pb_status pb_host_call(struct pb_host_node *n, const int64_t *ints, uint32_t n_ints,
		       const struct pt2box_op_tensor *tensors, uint32_t n_tensors,
		       const struct pb_host_result **ret_results, uint32_t *ret_n, struct pt2box_error *err)
{
	pb_status st;

	pb_host_release(n);
	n->st = PT2BOX_OK;
	n->text[0] = '\0';
	memset(n->set, 0, n->n_results * sizeof(*n->set));
	if (n_ints != n->node.n_ints)
		return pb_error_set(err, PT2BOX_USAGE, "%.200s: called with %u integers; the package describes %u",
				    n->node.target, n_ints, n->node.n_ints);
	st = take_tensors(n, tensors, n_tensors, err);
	if (st)
		return st;
	pb_node_call_fill(&n->call, ints);
	n->api = (struct pt2box_op_call){.struct_size = sizeof(n->api),
					 .args = n->call.values,
					 .n_args = n->node.n_args,
					 .n_results = n->node.n_outs,
					 .new_tensor = api_new_tensor,
					 .set_result = api_set_result,
					 .append_result = api_append_result,
					 .fail = api_fail,
					 .host = n};
	st = finish(n, n->op->op->run(&n->api), err);
	if (st) {
		pb_host_release(n);
		return st;
	}
	*ret_results = n->results;
	*ret_n = n->n_results;
	return PT2BOX_OK;
}
