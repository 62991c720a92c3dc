/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See torch_executor.h. libtorch calls a virtual function of what Run was given; ours looks as ProxyExecutor does (Itanium C++
 * ABI; torch/csrc/inductor/aoti_torch/proxy_executor.h of torch 2.13.0).
 *
 * Failures leave by aoti_torch_check(), which throws; libtorch's caller of call_function() catches. No function between
 * holds anything that a destructor would free.
 */
#include "worker/torch_executor.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/node_call.h"
#include "torch/dispatcher.h"
#include "worker/ops.h"

#define CPU 0

struct node {
	struct pb_node n; /* the arguments in the order of the schema, where there is one */
	struct pb_node_arg args[PB_SCHEMA_MAX_ARGS];
	const struct pb_torch_op *op; /* NULL: the ops process has it */
	struct pb_node_call call;
	uint32_t n_inputs, n_results;
	AtenTensorHandle *results; /* of the ops process */
};

static struct {
	struct pb_backend *b;
	AOTITorchError (*assign)(AtenTensorHandle from, AtenTensorHandle to);
	void (*check)(bool cond, const char *func, const char *file, uint32_t line, const char *text);
	struct pb_node *listed; /* for the ops process: as in the manifest */
	struct node **nodes;
	uint32_t n;
} x;

static pb_status no_memory(struct pt2box_error *err)
{
	return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for operators");
}

/* ---- joining ---- */

static pb_status find_op(struct node *k, const struct pb_node *of, bool has_ops, struct pt2box_error *err)
{
	pb_status st = pb_torch_op_find(of->target, &k->op, err);

	if (st == PT2BOX_NOT_FOUND) {
		k->op = NULL;
		return has_ops ? PT2BOX_OK : pb_error_set(err, PT2BOX_UNSUPPORTED, "%s", err->text);
	}
	if (!st)
		st = pb_schema_bind(&k->op->schema, of, k->args, err);
	if (!st)
		st = pb_torch_op_fits(k->op, of, k->args, err);
	k->n.args = k->args;
	k->n.n_args = st ? 0 : k->op->schema.n_args;
	/* What the C ABI has no place for, a process of its own may. */
	if (st == PT2BOX_UNSUPPORTED && has_ops) {
		k->op = NULL;
		st = PT2BOX_OK;
	}
	return st;
}

static pb_status join(struct node *k, const struct pb_node *of, bool has_ops, struct pt2box_error *err)
{
	pb_status st;

	k->n = *of;
	st = find_op(k, of, has_ops, err);
	if (st)
		return st;
	if (!k->op)
		k->n = *of;
	k->n_inputs = pb_node_call_inputs(of);
	k->n_results = of->n_tensors - k->n_inputs;
	k->results = calloc((size_t)k->n_results + 1, sizeof(AtenTensorHandle));
	return k->results && pb_node_call_init(&k->call, &k->n) ? PT2BOX_OK : no_memory(err);
}

/* ---- a call ---- */

/* Does not return: libtorch's aoti_torch_proxy_executor_call_function() catches. */
static void fail(const struct node *k, const char *fmt, ...) PB_PRINTF(2, 3);
static void fail(const struct node *k, const char *fmt, ...)
{
	char text[500];
	size_t n = (size_t)snprintf(text, sizeof(text), "%.100s: ", k ? k->n.target : "an operator");
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text + n, sizeof(text) - n, fmt, ap);
	va_end(ap);
	x.check(false, "call", "torch_executor", 0, text);
	abort(); /* it throws */
}

struct taker {
	struct pb_torch_taker base;
	const struct node *k;
	const int64_t *ints;
	AtenTensorHandle const *outputs; /* by slot, those of arguments before them */
	uint32_t taken[PB_SCHEMA_MAX_RETURNS];
};

/* Results become the contents of the handles that the model has made for them. */
static int take_tensor(struct pb_torch_taker *base, uint32_t i, AtenTensorHandle h)
{
	struct taker *t = (struct taker *)base;
	const struct pb_node_arg *out = &t->k->n.outs[i];
	const bool list = out->kind == PT2BOX_OP_TENSORS;
	const uint32_t at = t->taken[i]++;
	int rc = 0;

	if (list && at >= out->count) {
		snprintf(base->text, sizeof(base->text), "a list of more than the %u tensors that the package takes came back",
			 out->count);
		rc = 1;
	} else if (list || out->kind == PT2BOX_OP_TENSOR) { /* NONE: nobody takes it */
		rc = x.assign(h, t->outputs[out->tensor_at + at]);
		if (rc)
			snprintf(base->text, sizeof(base->text), "result %u cannot be given", i);
	}
	if (h)
		x.b->delete_tensor(h);
	return rc;
}

static int take_number(struct pb_torch_taker *base, uint32_t i, int64_t v)
{
	struct taker *t = (struct taker *)base;
	const struct pb_node_arg *out = &t->k->n.outs[i];

	if (out->kind != PT2BOX_OP_INT || v == t->ints[out->int_at])
		return 0;
	snprintf(base->text, sizeof(base->text), "returned %lld, the package was compiled for %lld", (long long)v,
		 (long long)t->ints[out->int_at]);
	return 1;
}

static void call_dispatcher(struct node *k, const int64_t *ints, AtenTensorHandle const *tensors)
{
	struct taker t = {.base = {take_tensor, take_number, {0}}, .k = k, .ints = ints, .outputs = tensors};

	if (pb_torch_op_call(k->op, k->call.values, &t.base))
		fail(k, "%s", t.base.text);
	for (uint32_t i = 0; i < k->n.n_outs; i++)
		if (k->n.outs[i].kind == PT2BOX_OP_TENSORS && t.taken[i] != k->n.outs[i].count)
			fail(k, "a list of %u tensors came back, the package was compiled for %u", t.taken[i],
			     k->n.outs[i].count);
}

/* What a tensor is made of, which the ops process needs to know. */
static bool describe(AtenTensorHandle h, struct pt2box_op_tensor *to)
{
	int64_t ndim = 0, *sizes = NULL, *strides = NULL;

	if (x.b->get_dim(h, &ndim) || x.b->get_sizes(h, &sizes) || x.b->get_strides(h, &strides) ||
	    x.b->get_dtype(h, &to->dtype) || x.b->get_data_ptr(h, &to->data) || ndim > PT2BOX_OP_MAX_DIMS)
		return false;
	to->ndim = (int32_t)ndim;
	to->sizes = sizes;
	to->strides = strides;
	return true;
}

static bool is_input(AtenTensorHandle h, const struct node *k)
{
	for (uint32_t i = 0; i < k->n_inputs; i++)
		if (k->call.tensors[i].host == h)
			return true;
	return false;
}

static void call_ops(struct node *k, uint32_t index, AtenTensorHandle const *tensors)
{
	int rc = 0;

	for (uint32_t i = 0; i < k->n_inputs; i++)
		if (!describe(tensors[i], &k->call.tensors[i]))
			fail(k, "tensor %u of the call cannot be given to the ops process", i);
	if (pb_ops_call(NULL, index, k->call.values, k->n.n_args, k->results, k->n_results, NULL, 0))
		fail(NULL, "%s", pb_ops_text());
	for (uint32_t i = 0; i < k->n_results; i++) {
		rc |= x.assign(k->results[i], tensors[k->n_inputs + i]);
		if (!is_input(k->results[i], k))
			x.b->delete_tensor(k->results[i]);
	}
	if (rc)
		fail(k, "a result cannot be given");
}

static void call_function(void *executor, int index, int n_ints, int64_t *ints, int n_tensors, AtenTensorHandle *tensors)
{
	struct node *k;

	(void)executor;
	if (index < 0 || (uint32_t)index >= x.n)
		fail(NULL, "the package describes %u operators that it calls by name, not number %d", x.n, index);
	k = x.nodes[index];
	if (n_ints < 0 || (uint32_t)n_ints != k->n.n_ints || n_tensors < 0 || (uint32_t)n_tensors != k->n.n_tensors)
		fail(k, "called with %d integers and %d tensors; the package describes %u and %u", n_ints, n_tensors,
		     k->n.n_ints, k->n.n_tensors);
	for (uint32_t i = 0; i < k->n_inputs; i++) {
		if (!tensors[i])
			fail(k, "a tensor of the call is missing");
		k->call.tensors[i].host = tensors[i];
	}
	pb_node_call_fill(&k->call, ints);
	if (k->op)
		call_dispatcher(k, ints, tensors);
	else
		call_ops(k, (uint32_t)index, tensors);
}

/* ---- the executor ---- */

static void never(void)
{
	abort(); /* nobody destroys it, nobody asks for its objects */
}

/* Two destructors, call_function(), get_custom_objs(). */
static void (*const functions[])(void) = {never, never, (void (*)(void))call_function, never};

static struct executor {
	void (*const *functions)(void);
} executor = {functions};

static pb_status begin(struct pb_backend *b, uint32_t n, struct pt2box_error *err)
{
	void *assign = dlsym(b->lib, "aoti_torch_assign_tensors"), *check = dlsym(b->lib, "aoti_torch_check");
	pb_status st = pb_torch_dispatcher_init(b, err);

	if (!st && (!assign || !check))
		st = pb_error_set(err, PT2BOX_UNSUPPORTED, "operators cannot be called by name with this PyTorch");
	if (st)
		return st;
	memcpy(&x.assign, &assign, sizeof(assign));
	memcpy(&x.check, &check, sizeof(check));
	x.b = b;
	x.listed = calloc(n, sizeof(*x.listed));
	x.nodes = calloc(n, sizeof(struct node *));
	return x.listed && x.nodes ? PT2BOX_OK : no_memory(err);
}

pb_status pb_torch_executor(struct pb_backend *b, const struct pb_manifest *m, bool has_ops, void **ret,
			    struct pt2box_error *err)
{
	const uint32_t n = m->nodes ? m->nodes->n : 0;
	pb_status st;

	*ret = NULL;
	if (n == 0)
		return PT2BOX_OK;
	st = begin(b, n, err);
	for (uint32_t i = 0; i < n && !st; i++) {
		x.nodes[i] = calloc(1, sizeof(struct node));
		if (!x.nodes[i])
			return no_memory(err);
		st = join(x.nodes[i], &m->nodes->list[i], has_ops, err);
		x.listed[i] = m->nodes->list[i];
		x.listed[i].native = !st && x.nodes[i]->op;
		x.n = i + 1;
	}
	if (!st && has_ops)
		st = pb_ops_init(b, x.listed, n, err);
	if (st)
		return st;
	*ret = &executor;
	return PT2BOX_OK;
}
