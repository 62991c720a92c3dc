/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See dispatcher.h. An operator of the dispatcher looks as a plugin's does: its schema is the dispatcher's own, its function
 * makes PyTorch's handles of the arguments, where they lie, and copies results into the call's memory.
 */
#include "proxy/dispatcher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "ipc/checked.h"
#include "torch/dispatcher.h"
#include "torch/library.h"

#define CPU 0
#define STRIDED 0

struct dispatched {
	struct pt2box_op op; /* first: this is what the host knows */
	const struct pb_torch_op *torch;
};

static struct pb_backend lib;

pb_status pb_dispatcher_load(const char *path, struct pt2box_error *err)
{
	uint64_t seed;
	pb_status st;

	/* Read once by libgomp: no thread can start later. */
	setenv("OMP_NUM_THREADS", "1", 1);
	st = pb_backend_load(&lib, path, err);
	if (!st)
		st = pb_torch_attach(&lib, true, err);
	if (!st)
		st = pb_torch_dispatcher_init(&lib, err);
	if (!st)
		st = pb_backend_warm_up(&lib, 1, err);
	if (st)
		return st;
	pb_backend_enter_thread(&lib);
	if (getrandom(&seed, sizeof(seed), 0) == sizeof(seed)) /* the warm-up has left a fixed one */
		lib.seed(seed);
	return PT2BOX_OK;
}

/* ---- a call ---- */

struct taker {
	struct pb_torch_taker base;
	struct pt2box_op_call *c;
	const struct pb_schema *schema;
};

/* What PyTorch says of a tensor; borrows from @h. */
static bool describe(AtenTensorHandle h, struct pt2box_op_tensor *t, uint64_t *ret_bytes)
{
	int64_t ndim = 0, *sizes = NULL, *strides = NULL;

	if (!h || lib.get_dim(h, &ndim) || lib.get_sizes(h, &sizes) || lib.get_strides(h, &strides) ||
	    lib.get_dtype(h, &t->dtype) || lib.get_data_ptr(h, &t->data) || ndim > PT2BOX_OP_MAX_DIMS)
		return false;
	t->ndim = (int32_t)ndim;
	t->sizes = sizes;
	t->strides = strides;
	return pb_tensor_extent(t->ndim, sizes, strides, pt2box_dtype_size(t->dtype), ret_bytes) && (!*ret_bytes || t->data);
}

static bool same(const struct pt2box_op_tensor *a, const struct pt2box_op_tensor *b)
{
	const size_t bytes = (size_t)a->ndim * sizeof(a->sizes[0]);

	return a->data == b->data && a->dtype == b->dtype && a->ndim == b->ndim && memcmp(a->sizes, b->sizes, bytes) == 0 &&
	       memcmp(a->strides, b->strides, bytes) == 0;
}

/* The argument that @t is, which the schema says that it may be; NULL: none. */
static struct pt2box_op_tensor *argument(const struct pt2box_op_call *c, const struct pt2box_op_tensor *t)
{
	for (size_t i = 0; i < c->n_args; i++)
		if (c->args[i].kind == PT2BOX_OP_TENSOR && same(c->args[i].v.tensor, t))
			return c->args[i].v.tensor;
	return NULL;
}

static int give(struct taker *k, uint32_t i, AtenTensorHandle h)
{
	const struct pb_schema_return *r = &k->schema->returns[i];
	struct pt2box_op_tensor t, *to;
	uint64_t bytes;

	if (!describe(h, &t, &bytes))
		return k->c->fail(k->c, "result %u is no plain tensor on the CPU", i);
	to = r->alias ? argument(k->c, &t) : NULL;
	if (!to) {
		to = k->c->new_tensor(k->c, t.dtype, t.ndim, t.sizes, t.strides);
		if (!to)
			return 1;
		if (bytes)
			memcpy(to->data, t.data, bytes);
	}
	return r->list ? k->c->append_result(k->c, i, to) : k->c->set_result(k->c, i, to);
}

static int take_tensor(struct pb_torch_taker *base, uint32_t i, AtenTensorHandle h)
{
	int rc = give((struct taker *)base, i, h);

	if (h)
		lib.delete_tensor(h);
	return rc;
}

static int take_number(struct pb_torch_taker *base, uint32_t i, int64_t v)
{
	(void)v;
	snprintf(base->text, sizeof(base->text), "result %u is a number", i); /* the table has no such operators */
	return 1;
}

static bool make_handle(struct pt2box_op_tensor *t)
{
	AtenTensorHandle h = NULL;

	if (lib.create_from_blob(t->data, t->ndim, t->sizes, t->strides, 0, t->dtype, CPU, -1, &h, STRIDED, NULL, 0))
		return false;
	t->host = h;
	return true;
}

/* Calls @f for every tensor among the arguments until one fails. */
static bool each_tensor(const struct pt2box_op_call *c, bool (*f)(struct pt2box_op_tensor *t))
{
	bool ok = true;

	for (size_t i = 0; i < c->n_args && ok; i++) {
		const struct pt2box_op_value *v = &c->args[i];

		if (v->kind == PT2BOX_OP_TENSOR)
			ok = f(v->v.tensor);
		for (uint32_t k = 0; v->kind == PT2BOX_OP_TENSORS && k < v->count && ok; k++)
			ok = !v->v.tensors[k] || f(v->v.tensors[k]);
	}
	return ok;
}

static bool drop_handle(struct pt2box_op_tensor *t)
{
	if (t->host)
		lib.delete_tensor(t->host);
	t->host = NULL;
	return true;
}

static int run(struct pt2box_op_call *c)
{
	const struct dispatched *d = (const struct dispatched *)pb_host_running(c);
	struct taker k = {.base = {take_tensor, take_number, {0}}, .c = c, .schema = &d->torch->schema};
	int rc = 0;

	if (!each_tensor(c, make_handle))
		rc = c->fail(c, "an argument cannot be given to PyTorch: %s", lib.last_error ? lib.last_error() : "");
	else if (pb_torch_op_call(d->torch, c->args, &k.base))
		rc = c->fail(c, "%s", k.base.text);
	each_tensor(c, drop_handle);
	return rc;
}

/* ---- the table ---- */

static pb_status find(const char *target, const struct pt2box_op **ret, struct pt2box_error *err)
{
	const struct pb_torch_op *op;
	struct dispatched *d;
	pb_status st = pb_torch_op_find(target, &op, err);

	if (st)
		return st;
	d = calloc(1, sizeof(*d));
	if (!d)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for operators");
	d->op = (struct pt2box_op){target, op->text, run};
	d->torch = op;
	*ret = &d->op;
	return PT2BOX_OK;
}

static pb_status fits(const struct pt2box_op *op, const struct pb_node *n, const struct pb_node_arg *args,
		      struct pt2box_error *err)
{
	return op->run == run ? pb_torch_op_fits(((const struct dispatched *)op)->torch, n, args, err) : PT2BOX_OK;
}

const struct pb_host_provider pb_dispatcher_provider = {find, fits};
