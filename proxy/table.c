/* SPDX-License-Identifier: Apache-2.0 */
/* The table of operators: plugins come in here. See host.h. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/internal.h"

#define OPS_MAX 4096

static void *heap_alloc(void *arg, uint64_t bytes)
{
	(void)arg;
	return bytes <= SIZE_MAX - 63 ? aligned_alloc(64, (size_t)((bytes + 63) & ~63ull)) : NULL;
}

static void heap_free(void *arg, void *p)
{
	(void)arg;
	free(p);
}

pb_status pb_host_new(const struct pb_host_options *opt, struct pb_host **ret, struct pt2box_error *err)
{
	struct pb_host *h = calloc(1, sizeof(*h));

	if (!h)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for operators");
	h->opt = *opt;
	if (!h->opt.memory.alloc)
		h->opt.memory = (struct pb_host_memory){heap_alloc, heap_free, NULL};
	*ret = h;
	return PT2BOX_OK;
}

struct pb_host *pb_host_free(struct pb_host *h)
{
	while (h && h->nodes) {
		struct pb_host_node *n = h->nodes;

		h->nodes = pb_host_node_next(n);
		pb_host_node_free(n);
	}
	while (h && h->ops) {
		struct pb_host_op *o = h->ops;

		h->ops = o->next;
		free(o);
	}
	while (h && h->libraries) {
		struct pb_host_library *l = h->libraries;

		h->libraries = l->next;
		dlclose(l->handle);
		free(l);
	}
	free(h);
	return NULL;
}

struct pb_host_op *pb_host_find(const struct pb_host *h, const char *name)
{
	struct pb_host_op *o = h->ops;

	while (o && strcmp(o->op->name, name) != 0)
		o = o->next;
	return o;
}

bool pb_host_has(const struct pb_host *h, const char *name)
{
	return pb_host_find(h, name) != NULL;
}

static pb_status check_table(const struct pt2box_op_plugin *p, struct pt2box_error *err)
{
	if (!p)
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "the plugin gives no table");
	if (p->abi != PT2BOX_OP_ABI || p->op_size != sizeof(struct pt2box_op))
		return pb_error_set(err, PT2BOX_UNSUPPORTED,
				    "the plugin \"%.60s\" is of version %u of the ABI, this is %u: compile it again",
				    p->abi == PT2BOX_OP_ABI && p->name ? p->name : "", p->abi, PT2BOX_OP_ABI);
	if (!p->name || (p->n_ops && !p->ops) || p->n_ops > OPS_MAX)
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "the plugin's table has no name, no operators, or too many");
	return PT2BOX_OK;
}

static pb_status make_op(struct pb_host *h, const struct pt2box_op_plugin *p, const struct pt2box_op *op,
			 struct pb_host_op **ret, struct pt2box_error *err)
{
	const struct pb_host_op *there;
	struct pt2box_error why;
	struct pb_host_op *o;

	if (!op->name || !op->schema || !op->run || !strstr(op->name, "::"))
		return pb_error_set(err, PT2BOX_UNSUPPORTED,
				    "%.60s: operator %zu has no schema, no function, or a name without \"::\"", p->name,
				    (size_t)(op - p->ops));
	there = pb_host_find(h, op->name);
	if (there)
		return pb_error_set(err, PT2BOX_USAGE, "%.100s: is in the plugin %.60s and in %.60s", op->name,
				    there->plugin, p->name);
	o = calloc(1, sizeof(*o));
	if (!o)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for operators");
	if (pb_schema_parse(op->schema, &o->schema, &why)) {
		free(o);
		return pb_error_set(err, PT2BOX_USAGE, "%.60s: %.100s: %.200s", p->name, op->name, why.text);
	}
	for (uint32_t i = 0; i < o->schema.n_returns; i++) {
		if (o->schema.returns[i].type == PB_SCHEMA_TENSOR)
			continue;
		free(o);
		return pb_error_set(err, PT2BOX_USAGE, "%.60s: %.100s: returns a number, which no plugin can", p->name,
				    op->name);
	}
	o->op = op;
	o->plugin = p->name;
	*ret = o;
	return PT2BOX_OK;
}

pb_status pb_host_add(struct pb_host *h, const struct pt2box_op_plugin *plugin, struct pt2box_error *err)
{
	struct pb_host_op *before = h->ops, *o;
	pb_status st = check_table(plugin, err);

	for (size_t i = 0; !st && i < plugin->n_ops; i++) {
		st = make_op(h, plugin, &plugin->ops[i], &o, err);
		if (st)
			break;
		o->next = h->ops;
		h->ops = o;
	}
	while (st && h->ops != before) {
		o = h->ops;
		h->ops = o->next;
		free(o);
	}
	return st;
}

pb_status pb_host_look(struct pb_host *h, const char *name, const struct pb_host_op **ret, struct pt2box_error *err)
{
	struct pt2box_op_plugin one = {PT2BOX_OP_ABI, sizeof(struct pt2box_op), "PyTorch", NULL, 1};
	pb_status st;

	*ret = pb_host_find(h, name);
	if (*ret)
		return PT2BOX_OK;
	if (!h->opt.provider)
		return pb_error_set(err, PT2BOX_NOT_FOUND, "%.200s: no plugin has this operator", name);
	st = h->opt.provider->find(name, &one.ops, err);
	if (!st)
		st = pb_host_add(h, &one, err);
	if (!st)
		*ret = pb_host_find(h, name);
	return st;
}

pb_status pb_host_take(struct pb_host *h, void *handle, struct pt2box_error *err)
{
	struct pb_host_library *l = calloc(1, sizeof(*l));
	const struct pt2box_op_plugin *(*table)(void);
	pb_status st;

	if (!l)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a plugin");
	table = (const struct pt2box_op_plugin *(*)(void))dlsym(handle, "pt2box_op_plugin");
	st = table ? pb_host_add(h, table(), err) :
		     pb_error_set(err, PT2BOX_UNSUPPORTED, "not a plugin: it has no pt2box_op_plugin()");
	if (st) {
		free(l);
		return st;
	}
	l->handle = handle;
	l->next = h->libraries;
	h->libraries = l;
	return PT2BOX_OK;
}

pb_status pb_host_load(struct pb_host *h, const char *path, struct pt2box_error *err)
{
	void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	pb_status st;

	if (!handle)
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "the plugin cannot be loaded: %s", dlerror());
	st = pb_host_take(h, handle, err);
	if (st)
		dlclose(handle);
	return st;
}
