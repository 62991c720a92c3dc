/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The proxy executor: calls of operators that have no C function. A model says the number of a node, and gives integers
 * and tensors; the node, which the worker has told before, says what they are. Computed here if the operator is in
 * runtime/proxied.def, else handed to a callback. As OSSProxyExecutor::call_function of torch 2.13.0, but every count
 * that comes from the model is checked against the node.
 */
#include "runtime/proxy.h"

#include <stdlib.h>
#include <string.h>

#include "ipc/node_call.h"
#include "runtime/abi.h"
#include "runtime/hooks.h"

/* A node with room for its calls, which come one at a time. */
struct prepared {
	struct pb_node_call call;
	pb_proxy_fn *native;
	struct pb_rt_tensor **ret;
	int64_t *ret_ints;
	uint32_t n_inputs, n_ret, n_ret_ints;
};

static struct prepared *prepared;
static uint32_t n_prepared;
static pb_rt_ops_call *ops_call;
static void *ops_arg;

static const struct {
	const char *target;
	pb_proxy_fn *fn;
} natives[] = {
#define PROXIED(function, target, library, schema) {target, function},
#include "runtime/proxied.def"
#undef PROXIED
};

pb_proxy_fn *pb_proxy_find(const char *target)
{
	for (size_t i = 0; i < sizeof(natives) / sizeof(natives[0]); i++)
		if (strcmp(natives[i].target, target) == 0)
			return natives[i].fn;
	return NULL;
}

/* ---- nodes ---- */

static void forget(void)
{
	for (uint32_t i = 0; i < n_prepared; i++) {
		pb_node_call_deinit(&prepared[i].call);
		free(prepared[i].ret);
		free(prepared[i].ret_ints);
	}
	free(prepared);
	prepared = NULL;
	n_prepared = 0;
}

static bool prepare(struct prepared *p, const struct pb_node *n)
{
	p->native = n->native ? pb_proxy_find(n->target) : NULL;
	p->n_inputs = pb_node_call_inputs(n);
	p->n_ret = n->n_tensors - p->n_inputs;
	for (uint32_t i = 0; i < n->n_outs; i++)
		p->n_ret_ints += n->outs[i].kind == PT2BOX_OP_INT;
	p->ret = calloc((size_t)p->n_ret + 1, sizeof(struct pb_rt_tensor *));
	p->ret_ints = calloc((size_t)p->n_ret_ints + 1, sizeof(*p->ret_ints));
	return p->ret && p->ret_ints && pb_node_call_init(&p->call, n);
}

int pb_rt_set_nodes(const struct pb_node *nodes, uint32_t n, pb_rt_ops_call *call, void *arg)
{
	forget();
	ops_call = call;
	ops_arg = arg;
	if (n == 0)
		return 0;
	prepared = calloc(n, sizeof(*prepared));
	if (!prepared)
		return pb_rt_fail("no memory for %u nodes", n);
	for (; n_prepared < n; n_prepared++) {
		if (!prepare(&prepared[n_prepared], &nodes[n_prepared])) {
			n_prepared++;
			forget();
			return pb_rt_fail("no memory for %u nodes", n);
		}
	}
	return 0;
}

/* ---- a call ---- */

static int fill_tensors(struct prepared *p, AtenTensorHandle const *tensors)
{
	for (uint32_t i = 0; i < p->n_inputs; i++) {
		struct pb_rt_tensor *h = tensors[i];

		if (!h || !h->storage)
			return pb_rt_fail("%s: tensor %u of the call has no contents", p->call.node->target, i);
		p->call.tensors[i] =
			(struct pt2box_op_tensor){pb_rt_data(h), h->sizes, h->strides, h->dtype, h->ndim, h};
	}
	return 0;
}

/* The results become the contents of the handles that the model has made for them. */
static int give_results(const struct prepared *p, const int64_t *ints, AtenTensorHandle const *tensors)
{
	const struct pb_node *n = p->call.node;
	uint32_t k_int = 0;

	for (uint32_t i = 0; i < n->n_outs; i++) {
		if (n->outs[i].kind != PT2BOX_OP_INT)
			continue;
		if (p->ret_ints[k_int++] != ints[n->outs[i].int_at])
			return pb_rt_fail("%s: returned %lld, the package was compiled for %lld", n->target,
					  (long long)p->ret_ints[k_int - 1], (long long)ints[n->outs[i].int_at]);
	}
	for (uint32_t k = 0; k < p->n_ret; k++) {
		struct pb_rt_tensor *to = tensors[p->n_inputs + k];

		if (!p->ret[k] || !to)
			return pb_rt_fail("%s: result %u is missing", n->target, k);
		if (p->ret[k] != to)
			pb_rt_assign(to, p->ret[k]);
	}
	return 0;
}

static bool is_argument(const struct prepared *p, const struct pb_rt_tensor *t)
{
	for (uint32_t i = 0; i < p->n_inputs; i++)
		if (p->call.tensors[i].host == t)
			return true;
	return false;
}

/* A result that is an argument stays the model's. */
static void drop_results(struct prepared *p)
{
	for (uint32_t i = 0; i < p->n_ret; i++) {
		if (p->ret[i] && !is_argument(p, p->ret[i]))
			pb_rt_delete(p->ret[i]);
		p->ret[i] = NULL;
	}
}

static int compute(struct prepared *p, uint32_t index)
{
	const struct pb_node *n = p->call.node;
	const struct pb_proxy_call c = {n->target, p->call.values, n->n_args, p->ret, p->n_ret};

	if (p->native)
		return p->native(&c);
	if (ops_call)
		return ops_call(ops_arg, index, p->call.values, n->n_args, p->ret, p->n_ret, p->ret_ints, p->n_ret_ints);
	return pb_rt_fail("%s: the native runtime does not have this operator, and there is no ops process", n->target);
}

AOTITorchError aoti_torch_proxy_executor_call_function(void *executor, int32_t extern_node_index, int32_t num_ints,
						       int64_t *flatten_int_args, int32_t num_tensors,
						       AtenTensorHandle *flatten_tensor_args)
{
	struct prepared *p;
	int rc;

	(void)executor;
	if (extern_node_index < 0 || (uint32_t)extern_node_index >= n_prepared)
		return pb_rt_fail("the package describes %u operators that it calls by name, not number %d", n_prepared,
				  extern_node_index);
	p = &prepared[extern_node_index];
	if (num_ints < 0 || (uint32_t)num_ints != p->call.node->n_ints || (num_ints && !flatten_int_args))
		return pb_rt_fail("%s: called with %d integers; the package describes %u", p->call.node->target, num_ints,
				  p->call.node->n_ints);
	if (num_tensors < 0 || (uint32_t)num_tensors != p->call.node->n_tensors || (num_tensors && !flatten_tensor_args))
		return pb_rt_fail("%s: called with %d tensors; the package describes %u", p->call.node->target, num_tensors,
				  p->call.node->n_tensors);
	rc = fill_tensors(p, flatten_tensor_args);
	if (!rc) {
		pb_node_call_fill(&p->call, flatten_int_args);
		rc = compute(p, (uint32_t)extern_node_index);
	}
	if (!rc)
		rc = give_results(p, flatten_int_args, flatten_tensor_args);
	drop_results(p);
	return rc;
}
