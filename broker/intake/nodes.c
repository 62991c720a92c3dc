/* SPDX-License-Identifier: Apache-2.0 */
/* See nodes.h. The JSON is what torch/_export/serde/schema.py of torch 2.13.0 writes. */
#include "broker/intake/nodes.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "ipc/op_schema.h"

struct in {
	struct pb_arena *a;
	struct pt2box_error *err;
	size_t node; /* for messages */
	pb_status st;
};

/* Latches the first fault. */
static void fault(struct in *in, const char *what)
{
	if (!in->st)
		in->st = pb_error_set(in->err, PT2BOX_PKG_REJECTED, "meta.nodes: node %zu: %s", in->node, what);
}

static void *take(struct in *in, size_t n, size_t size)
{
	void *p = in->st ? NULL : pb_arena_take(in->a, n, size);

	if (!p && !in->st)
		in->st = pb_error_set(in->err, PT2BOX_NO_MEMORY, "no memory for the package's operators");
	return p;
}

static const char *take_text(struct in *in, json_t *v)
{
	size_t n = json_string_length(v);
	char *p = NULL;

	if (!json_is_string(v) || memchr(json_string_value(v), '\0', n))
		fault(in, "a text is missing");
	else
		p = take(in, n + 1, 1);
	return p ? memcpy(p, json_string_value(v), n) : "";
}

/* ---- numbers ---- */

/* Index: number in the JSON; -1: none. */
static const int8_t dtypes[] = {-1, 0,	1,  2,	3,  4,	5,  6,	7,  8,	9,  10, 11, 15, -1, -1, -1, -1,
				-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 27, 24, 23, 26, 25, 44, 28, 29};
static const int8_t layouts[] = {-1, 1, 2, 4, 5, 6, 3, 0};
static const int8_t formats[] = {-1, 0, 2, 3, 1};

static int64_t translate(struct in *in, json_t *v, const int8_t *table, size_t n)
{
	json_int_t i = json_integer_value(v);

	if (json_is_integer(v) && i >= 0 && (size_t)i < n && table[i] >= 0)
		return table[i];
	fault(in, "an unknown dtype, layout or memory format");
	return 0;
}

static int32_t device_type(const char *name)
{
	static const struct {
		const char *name;
		int32_t type;
	} known[] = {{"cpu", 0}, {"cuda", 1}, {"xpu", 12}, {"mps", 13}, {"meta", 14}};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(known[i].name, name) == 0)
			return known[i].type;
	return 255;
}

static double number(struct in *in, json_t *v)
{
	if (!json_is_number(v))
		fault(in, "a number is missing");
	return json_number_value(v);
}

static int64_t integer(struct in *in, json_t *v)
{
	if (!json_is_integer(v))
		fault(in, "an integer is missing");
	return json_integer_value(v);
}

/* {"as_int": 4} or {"as_name": "s0"}: a hint at best. */
static int64_t symbolic(json_t *v)
{
	return json_integer_value(json_is_integer(v) ? v : json_object_get(v, "as_int"));
}

/* ---- arguments ---- */

typedef void reader(struct in *in, json_t *v, struct pb_node_arg *a);

static void read_nothing(struct in *in, json_t *v, struct pb_node_arg *a)
{
	(void)in, (void)v, (void)a;
}

static void read_int(struct in *in, json_t *v, struct pb_node_arg *a)
{
	a->v.i = integer(in, v);
}

static void read_sym_int(struct in *in, json_t *v, struct pb_node_arg *a)
{
	(void)in;
	a->v.i = symbolic(v);
}

static void read_float(struct in *in, json_t *v, struct pb_node_arg *a)
{
	a->v.f = number(in, v);
}

static void read_bool(struct in *in, json_t *v, struct pb_node_arg *a)
{
	if (!json_is_boolean(v))
		fault(in, "a bool is missing");
	a->v.i = json_is_true(v);
}

static void read_string(struct in *in, json_t *v, struct pb_node_arg *a)
{
	a->v.s = take_text(in, v);
}

static void read_dtype(struct in *in, json_t *v, struct pb_node_arg *a)
{
	a->v.i = translate(in, v, dtypes, sizeof(dtypes));
}

static void read_layout(struct in *in, json_t *v, struct pb_node_arg *a)
{
	a->v.i = translate(in, v, layouts, sizeof(layouts));
}

static void read_format(struct in *in, json_t *v, struct pb_node_arg *a)
{
	a->v.i = translate(in, v, formats, sizeof(formats));
}

static void read_device(struct in *in, json_t *v, struct pb_node_arg *a)
{
	json_t *index = json_object_get(v, "index");
	json_int_t i = json_is_integer(index) ? json_integer_value(index) : -1;

	a->v.i = device_type(take_text(in, json_object_get(v, "type")));
	if (i < -1 || i > 127)
		fault(in, "an impossible device");
	a->device_index = (int32_t)i;
}

static void read_object(struct in *in, json_t *v, struct pb_node_arg *a)
{
	a->v.s = take_text(in, json_object_get(v, "name"));
}

/* How many items a list has; 0 with the fault set if it is none. */
static uint32_t count(struct in *in, json_t *v)
{
	if (!json_is_array(v) || json_array_size(v) > PB_NODE_MAX_ITEMS) {
		fault(in, json_is_array(v) ? "a list is too long" : "a list is missing");
		return 0;
	}
	return (uint32_t)json_array_size(v);
}

static void read_ints(struct in *in, json_t *v, struct pb_node_arg *a)
{
	uint32_t n = count(in, v);
	int64_t *ints = take(in, n, sizeof(*ints));

	for (uint32_t i = 0; i < n && ints; i++)
		ints[i] = symbolic(json_array_get(v, i));
	a->count = ints ? n : 0;
	a->v.ints = ints;
}

static void read_floats(struct in *in, json_t *v, struct pb_node_arg *a)
{
	uint32_t n = count(in, v);
	double *floats = take(in, n, sizeof(*floats));

	for (uint32_t i = 0; i < n && floats; i++)
		floats[i] = number(in, json_array_get(v, i));
	a->count = floats ? n : 0;
	a->v.floats = floats;
}

static void read_bools(struct in *in, json_t *v, struct pb_node_arg *a)
{
	uint32_t n = count(in, v);
	uint8_t *bools = take(in, n, 1);

	for (uint32_t i = 0; i < n && bools; i++)
		bools[i] = json_is_true(json_array_get(v, i));
	a->count = bools ? n : 0;
	a->v.bools = bools;
}

static void read_strings(struct in *in, json_t *v, struct pb_node_arg *a)
{
	uint32_t n = count(in, v);
	const char **strings = take(in, n, sizeof(*strings));

	for (uint32_t i = 0; i < n && strings; i++)
		strings[i] = take_text(in, json_array_get(v, i));
	a->count = strings ? n : 0;
	a->v.strings = strings;
}

/* Items are {"name"}, or {"as_tensor": ...} and {"as_none": true}. */
static void read_tensors(struct in *in, json_t *v, struct pb_node_arg *a)
{
	uint32_t n = count(in, v);
	uint8_t *there = take(in, n, 1);

	for (uint32_t i = 0; i < n && there; i++)
		there[i] = !json_object_get(json_array_get(v, i), "as_none");
	a->count = there ? n : 0;
	a->v.bools = there;
}

static void read_optional_tensor(struct in *in, json_t *v, struct pb_node_arg *a)
{
	(void)in;
	a->kind = json_object_get(v, "as_none") ? PT2BOX_OP_NONE : PT2BOX_OP_TENSOR;
}

/* What this version has no kind for keeps its word, for the refusal. */
static void read_other(struct in *in, json_t *v, struct pb_node_arg *a)
{
	(void)v;
	(void)in;
	a->v.s = "";
}

static const struct {
	const char *word;
	enum pt2box_op_kind kind;
	reader *read;
} kinds[] = {
	{"as_none", PT2BOX_OP_NONE, read_nothing},
	{"as_tensor", PT2BOX_OP_TENSOR, read_nothing},
	{"as_tensors", PT2BOX_OP_TENSORS, read_tensors},
	{"as_optional_tensors", PT2BOX_OP_TENSORS, read_tensors},
	{"as_optional_tensor", PT2BOX_OP_TENSOR, read_optional_tensor},
	{"as_int", PT2BOX_OP_INT, read_int},
	{"as_sym_int", PT2BOX_OP_INT, read_sym_int},
	{"as_ints", PT2BOX_OP_INTS, read_ints},
	{"as_sym_ints", PT2BOX_OP_INTS, read_ints},
	{"as_float", PT2BOX_OP_FLOAT, read_float},
	{"as_floats", PT2BOX_OP_FLOATS, read_floats},
	{"as_bool", PT2BOX_OP_BOOL, read_bool},
	{"as_bools", PT2BOX_OP_BOOLS, read_bools},
	{"as_string", PT2BOX_OP_STRING, read_string},
	{"as_strings", PT2BOX_OP_STRINGS, read_strings},
	{"as_scalar_type", PT2BOX_OP_DTYPE, read_dtype},
	{"as_layout", PT2BOX_OP_LAYOUT, read_layout},
	{"as_memory_format", PT2BOX_OP_MEMORY_FORMAT, read_format},
	{"as_device", PT2BOX_OP_DEVICE, read_device},
	{"as_custom_obj", PT2BOX_OP_OBJECT, read_object},
};

static void read_value(struct in *in, json_t *v, struct pb_node_arg *a)
{
	const char *word = json_object_iter_key(json_object_iter(v));

	a->device_index = -1;
	a->kind = PT2BOX_OP_OBJECT;
	if (!json_is_object(v) || json_object_size(v) != 1 || !word) {
		fault(in, "an argument has no kind");
		return;
	}
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strcmp(kinds[i].word, word) != 0)
			continue;
		a->kind = kinds[i].kind;
		kinds[i].read(in, json_object_get(v, word), a);
		return;
	}
	read_other(in, v, a);
}

static bool is_out(enum pt2box_op_kind k)
{
	return k == PT2BOX_OP_NONE || k == PT2BOX_OP_TENSOR || k == PT2BOX_OP_TENSORS || k == PT2BOX_OP_INT;
}

static void read_node(struct in *in, json_t *json, struct pb_node *n)
{
	json_t *inputs = json_object_get(json, "inputs"), *outputs = json_object_get(json, "outputs");
	const char *custom = json_string_value(json_object_get(json_object_get(json, "metadata"), "torch_library_custom_op"));

	n->target = take_text(in, json_object_get(json, "target"));
	n->python = custom && strcmp(custom, "1") == 0;
	if (!json_is_array(inputs) || !json_is_array(outputs) || json_array_size(inputs) > PB_NODE_MAX_ARGS ||
	    json_array_size(outputs) > PB_NODE_MAX_OUTS || !n->target[0])
		fault(in, n->target[0] ? "no arguments or results, or too many" : "it names no operator");
	if (in->st)
		return;
	n->args = take(in, json_array_size(inputs), sizeof(*n->args));
	n->outs = take(in, json_array_size(outputs), sizeof(*n->outs));
	for (; !in->st && n->n_args < json_array_size(inputs); n->n_args++) {
		json_t *item = json_array_get(inputs, n->n_args);

		n->args[n->n_args].name = take_text(in, json_object_get(item, "name"));
		read_value(in, json_object_get(item, "arg"), &n->args[n->n_args]);
	}
	for (; !in->st && n->n_outs < json_array_size(outputs); n->n_outs++) {
		struct pb_node_arg *out = &n->outs[n->n_outs];

		out->name = "";
		read_value(in, json_array_get(outputs, n->n_outs), out);
		if (!is_out(out->kind))
			fault(in, "a result that is no tensor, list of tensors or integer");
	}
	if (!in->st)
		in->st = pb_node_layout(n, in->err);
}

static json_t *load(const char *text, size_t bytes, struct pt2box_error *err)
{
	json_error_t e;
	json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &e);

	if (!root)
		pb_error_set(err, PT2BOX_PKG_REJECTED, "meta.nodes: line %d: %s", e.line, e.text);
	else if (!json_is_array(json_object_get(root, "nodes")))
		pb_error_set(err, PT2BOX_PKG_REJECTED, "meta.nodes: no list of nodes");
	else if (json_array_size(json_object_get(root, "nodes")) > PB_NODES_MAX)
		pb_error_set(err, PT2BOX_PKG_REJECTED, "meta.nodes: more than %u nodes", PB_NODES_MAX);
	else
		return root;
	json_decref(root);
	return NULL;
}

pb_status pb_nodes_read(const char *text, size_t bytes, struct pb_arena *a, struct pb_nodes *ret,
			struct pt2box_error *err)
{
	struct in in = {.a = a, .err = err, .st = PT2BOX_OK};
	json_t *root, *list;

	*ret = (struct pb_nodes){NULL, 0};
	if (bytes > PB_NODES_MAX_BYTES)
		return pb_error_set(err, PT2BOX_PKG_REJECTED, "meta.nodes: longer than %u bytes", PB_NODES_MAX_BYTES);
	root = load(text, bytes, err);
	if (!root)
		return PT2BOX_PKG_REJECTED;
	list = json_object_get(root, "nodes");
	ret->list = take(&in, json_array_size(list), sizeof(*ret->list));
	for (; !in.st && ret->n < json_array_size(list); ret->n++, in.node++)
		read_node(&in, json_object_get(json_array_get(list, ret->n), "node"), &ret->list[ret->n]);
	json_decref(root);
	return in.st;
}

/* ---- which of them are native ---- */

static const struct native {
	const char *target, *schema;
	bool lapack;
} natives[] = {
#define PROXIED(function, target, library, schema) {target, schema, library},
#define LAPACK true
#define NONE false
#include "runtime/proxied.def"
#undef PROXIED
#undef LAPACK
#undef NONE
};

static const struct native *find_native(const char *target)
{
	for (size_t i = 0; i < sizeof(natives) / sizeof(natives[0]); i++)
		if (strcmp(natives[i].target, target) == 0)
			return &natives[i];
	return NULL;
}

struct list {
	char text[300];
	size_t used;
};

/* Append @target if it is new; cut, with "...", where the list is full. */
static void add_target(struct list *l, const char *target, const char *why)
{
	size_t n = strlen(target);

	for (const char *at = strstr(l->text, target); at; at = strstr(at + 1, target))
		if ((at == l->text || at[-1] == ' ') && (at[n] == ',' || at[n] == '\0' || at[n] == ' '))
			return;
	if (l->used + n + strlen(why) + 16 > sizeof(l->text)) {
		if (l->used + 6 < sizeof(l->text) && (l->used < 3 || strcmp(l->text + l->used - 3, "...") != 0))
			l->used += (size_t)snprintf(l->text + l->used, 6, "%s...", l->used ? ", " : "");
		return;
	}
	l->used += (size_t)snprintf(l->text + l->used, sizeof(l->text) - l->used, "%s%s%s%s%s", l->used ? ", " : "", target,
				    *why ? " (" : "", why, *why ? ")" : "");
}

static void classify(struct pb_node *n, struct pb_schema *s, struct list *l, bool *ret_lapack)
{
	const struct native *row = find_native(n->target);
	struct pb_node_arg bound[PB_SCHEMA_MAX_ARGS];
	struct pt2box_error e = {.status = PT2BOX_OK};

	n->native = row && pb_schema_parse(row->schema, s, &e) == PT2BOX_OK && pb_schema_bind(s, n, bound, &e) == PT2BOX_OK;
	if (n->native)
		*ret_lapack |= row->lapack;
	else
		add_target(l, n->target, !row ? (n->python ? "in Python" : "") : strchr(e.text, ':') ? strchr(e.text, ' ') + 1 : e.text);
}

pb_status pb_nodes_classify(struct pb_nodes *nodes, struct pb_arena *a, const char **ret, bool *ret_lapack,
			    struct pt2box_error *err)
{
	struct pb_schema *s = pb_arena_take(a, 1, sizeof(*s));
	struct list l = {"", 0};

	*ret_lapack = false;
	for (uint32_t i = 0; i < nodes->n && s; i++)
		classify(&nodes->list[i], s, &l, ret_lapack);
	*ret = s ? pb_arena_text(a, l.text, strlen(l.text)) : NULL;
	return *ret ? PT2BOX_OK : pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for the package's operators");
}
