/* SPDX-License-Identifier: Apache-2.0 */
/* See signature.h. The tree says how arguments are nested; the inputs what they are; the package is believed in neither. */
#include "client/cmd/signature.h"

#include <stdlib.h>
#include <string.h>

#include "client/cmd/json.h"

struct call {
	FILE *f;
	const json_t *inputs; /* NULL: leaves are outputs, or inputs of which nothing is known */
	const char *leaf;     /* "in" or "out" */
};

static void show_dim(FILE *f, const json_t *dim)
{
	int64_t lo = cmd_json_int(dim, "min"), hi = cmd_json_int(dim, "max");

	if (lo == hi)
		fprintf(f, "%lld", (long long)lo);
	else if (hi < 0)
		fprintf(f, "%lld..", (long long)lo);
	else
		fprintf(f, "%lld..%lld", (long long)lo, (long long)hi);
}

static void show_type(FILE *f, const json_t *in)
{
	const char *dtype = cmd_json_text(in, "dtype");
	const json_t *dims = json_object_get(in, "dims"), *dim;
	size_t i;

	fputs(*dtype ? dtype : "?", f);
	if (!json_is_array(dims)) {
		fputs("[?]", f);
		return;
	}
	fputc('[', f);
	json_array_foreach(dims, i, dim)
	{
		fputs(i ? ", " : "", f);
		show_dim(f, dim);
	}
	fputc(']', f);
}

static void show_leaf(const struct call *c, json_int_t index, bool named)
{
	const json_t *in = json_array_get(c->inputs, (size_t)index);

	if (!in) {
		fprintf(c->f, "%s%lld", c->leaf, (long long)index);
		return;
	}
	if (!named) {
		cmd_show_text(c->f, cmd_json_text(in, "name"));
		fputs(": ", c->f);
	}
	show_type(c->f, in);
}

static void show_node(const struct call *c, const json_t *node, bool named);

static void show_children(const struct call *c, const json_t *list)
{
	const json_t *v;
	size_t i;

	json_array_foreach(list, i, v)
	{
		fputs(i ? ", " : "", c->f);
		show_node(c, v, false);
	}
}

static void show_key(FILE *f, const json_t *key)
{
	char *text;

	if (json_is_string(key)) {
		cmd_show_text(f, json_string_value(key));
		return;
	}
	text = json_dumps(key, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
	cmd_show_text(f, text ? text : "?");
	free(text);
}

static void show_pairs(const struct call *c, const json_t *list)
{
	const json_t *v;
	size_t i;

	json_array_foreach(list, i, v)
	{
		fputs(i ? ", " : "", c->f);
		show_key(c->f, json_array_get(v, 0));
		fputs(": ", c->f);
		show_node(c, json_array_get(v, 1), true);
	}
}

/* @named: a key stands before it. */
static void show_node(const struct call *c, const json_t *node, bool named)
{
	const json_t *list;

	if (json_is_integer(node)) {
		show_leaf(c, json_integer_value(node), named);
	} else if ((list = json_object_get(node, "tuple"))) {
		fputc('(', c->f);
		show_children(c, list);
		fputc(')', c->f);
	} else if ((list = json_object_get(node, "list"))) {
		fputc('[', c->f);
		show_children(c, list);
		fputc(']', c->f);
	} else if ((list = json_object_get(node, "dict"))) {
		fputc('{', c->f);
		show_pairs(c, list);
		fputc('}', c->f);
	} else {
		cmd_show_text(c->f, cmd_json_text(node, "node"));
		fputc('(', c->f);
		show_children(c, json_object_get(node, "children"));
		fputc(')', c->f);
	}
}

/* Arguments that were constants when the package was made are leaves, too, but not inputs. */
static size_t count_leaves(const json_t *node)
{
	const json_t *v;
	const char *key;
	size_t i, n = 0;

	if (json_is_integer(node))
		return 1;
	if (json_is_array(node))
		json_array_foreach(node, i, v)
			n += json_is_string(v) ? 0 : count_leaves(v);
	json_object_foreach((json_t *)(uintptr_t)node, key, v)
		if (strcmp(key, "context") != 0)
			n += count_leaves(v);
	return n;
}

/* The tree of a call is a tuple of arguments and a dict of named ones. */
static void show_arguments(const struct call *c, const json_t *tree)
{
	const json_t *top = json_object_get(tree, "tuple"), *args = json_object_get(json_array_get(top, 0), "tuple"),
		     *named = json_object_get(json_array_get(top, 1), "dict");

	if (!args) {
		show_node(c, tree, false);
		return;
	}
	fputc('(', c->f);
	show_children(c, args);
	if (json_array_size(named)) {
		fputs(json_array_size(args) ? ", *, " : "*, ", c->f);
		show_pairs(c, named);
	}
	fputc(')', c->f);
}

void cmd_show_call(FILE *f, const json_t *o)
{
	const json_t *spec = json_object_get(o, "call_spec"), *inputs = json_object_get(o, "inputs"),
		     *in = json_object_get(json_object_get(spec, "in"), "tree"),
		     *out = json_object_get(json_object_get(spec, "out"), "tree");
	struct call args = {f, inputs, "in"}, results = {f, NULL, "out"};

	if (json_is_null(in) || !in) {
		fputc('(', f);
		for (int64_t i = 0; i < cmd_json_int(o, "n_inputs"); i++) {
			fputs(i ? ", " : "", f);
			show_leaf(&args, i, false);
		}
		fputc(')', f);
	} else {
		if (count_leaves(in) != json_array_size(inputs))
			args.inputs = NULL;
		show_arguments(&args, in);
	}
	fputs(" -> ", f);
	if (json_is_null(out) || !out)
		fprintf(f, "%lld outputs", (long long)cmd_json_int(o, "n_outputs"));
	else
		show_node(&results, out, false);
	fputc('\n', f);
}

static void show_strides(FILE *f, const json_t *dims)
{
	int64_t run = 1;

	/* Only where they are not what everybody expects. */
	for (size_t d = json_array_size(dims); d-- > 0;) {
		const json_t *dim = json_array_get(dims, d);
		int64_t stride = cmd_json_int(dim, "stride"), hi = cmd_json_int(dim, "max");

		if (stride >= 0 && run >= 0 && stride != run && hi != 1) {
			fprintf(f, "  stride %lld in dimension %zu", (long long)stride, d);
			return;
		}
		run = run >= 0 && hi >= 0 && hi == cmd_json_int(dim, "min") && hi < INT64_MAX / (run ? run : 1) ? run * hi : -1;
	}
}

void cmd_show_inputs(FILE *f, const json_t *o)
{
	const json_t *inputs = json_object_get(o, "inputs"), *in;
	size_t i;

	if (!json_array_size(inputs)) {
		fprintf(f, "%-12s%lld%s\n", "inputs", (long long)cmd_json_int(o, "n_inputs"),
			json_is_array(inputs) ? "" : ", of which the package says nothing");
		return;
	}
	json_array_foreach(inputs, i, in)
	{
		fprintf(f, "%-12s%zu  ", i ? "" : "inputs", i);
		cmd_show_text(f, cmd_json_text(in, "name"));
		fputs("  ", f);
		show_type(f, in);
		show_strides(f, json_object_get(in, "dims"));
		fputc('\n', f);
	}
}
