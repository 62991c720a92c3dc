/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See callspec.h. The text is a package author's: bounded in depth and number of nodes, anything
 * odd gives null. Source: torch/utils/_pytree.py, treespec_dumps, protocol 1, torch 2.13.0.
 */
#include "client/callspec.h"

#include <stdbool.h>
#include <string.h>

#define PROTOCOL 1
#define DEPTH_MAX 64
#define NODES_MAX 65536

struct walk {
	json_int_t leaves;
	unsigned nodes;
	bool bad;
};

static json_t *node(struct walk *w, const json_t *spec, unsigned depth);

static json_t *children(struct walk *w, const json_t *list, unsigned depth)
{
	json_t *a = json_array();

	for (size_t i = 0; i < json_array_size(list) && !w->bad; i++)
		json_array_append_new(a, node(w, json_array_get(list, i), depth));
	return a;
}

/* The context of a dict is the JSON text of its keys. */
static json_t *dict(struct walk *w, const char *context, const json_t *list, unsigned depth)
{
	json_t *keys = json_loads(context, 0, NULL), *a = json_array();

	if (!json_is_array(keys) || json_array_size(keys) != json_array_size(list))
		w->bad = true;
	for (size_t i = 0; i < json_array_size(list) && !w->bad; i++) {
		json_t *pair = json_array();

		json_array_append(pair, json_array_get(keys, i));
		json_array_append_new(pair, node(w, json_array_get(list, i), depth));
		json_array_append_new(a, pair);
	}
	json_decref(keys);
	return a;
}

static json_t *node(struct walk *w, const json_t *spec, unsigned depth)
{
	const json_t *type = json_object_get(spec, "type"),
		     *context = json_object_get(spec, "context"),
		     *list = json_object_get(spec, "children_spec");
	const char *name = json_string_value(type), *ctx = json_string_value(context);
	json_t *o;

	if (depth > DEPTH_MAX || ++w->nodes > NODES_MAX || !json_is_array(list) ||
	    (!json_is_null(type) && !name))
		w->bad = true;
	if (w->bad)
		return json_null();
	if (!name)
		return json_integer(w->leaves++);
	o = json_object();
	if (strcmp(name, "builtins.tuple") == 0) {
		json_object_set_new(o, "tuple", children(w, list, depth + 1));
	} else if (strcmp(name, "builtins.list") == 0) {
		json_object_set_new(o, "list", children(w, list, depth + 1));
	} else if (strcmp(name, "builtins.dict") == 0) {
		json_object_set_new(o, "dict", dict(w, ctx ? ctx : "", list, depth + 1));
	} else {
		json_object_set_new(o, "node", json_string(name));
		json_object_set(o, "context", context ? (json_t *)context : json_null());
		json_object_set_new(o, "children", children(w, list, depth + 1));
	}
	return o;
}

json_t *pb_callspec_tree(const char *text)
{
	json_t *top = json_loads(text, 0, NULL), *tree = NULL;
	struct walk w = {.bad = false};

	if (json_array_size(top) == 2 && json_integer_value(json_array_get(top, 0)) == PROTOCOL)
		tree = node(&w, json_array_get(top, 1), 0);
	json_decref(top);
	if (tree && !w.bad)
		return tree;
	json_decref(tree);
	return json_null();
}
