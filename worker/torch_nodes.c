/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See torch_nodes.h. libtorch calls a virtual function of what Run was given; ours looks as ProxyExecutor does (Itanium C++ ABI;
 * torch/csrc/inductor/aoti_torch/proxy_executor.h of torch 2.13.0). It makes a stack of StableIValue
 * (torch/csrc/stable/stableivalue_conversions.h) and calls the dispatcher by the C ABI.
 *
 * How a value lies on that stack depends on whether the schema says that it is optional, and the C ABI gives no schemas:
 * c10::Dispatcher::findSchema() does, and c10's operator<< writes them out. Both are called as C++ would call them;
 * the name that is found at the begin of the record is compared before anything behind it is believed.
 *
 * Failures leave by aoti_torch_check(), which throws; libtorch's caller of call_function() catches. No function between
 * holds anything that a destructor would free, except what a failed call leaks: a model that fails is told so and may leak.
 */
#include "worker/torch_nodes.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/op_schema.h"

#define NAME_MAX_BYTES 200

/* std::string of libstdc++, read only. */
struct cxx_string {
	const char *data;
	size_t len;
	char small[16];
};

struct operator_name {
	struct cxx_string name, overload;
};

/* c10::OperatorHandle in a std::optional: the record begins with the name, then comes the schema. */
struct found {
	const struct operator_name *def;
	void *iterator;
	bool there;
};

struct node {
	const struct pb_node *n;
	char name[NAME_MAX_BYTES], overload[NAME_MAX_BYTES];
	struct pb_schema *schema; /* one for all nodes of an operator */
	struct pb_node_arg *args; /* in its order */
};

/* C++ member functions take their object first; what is returned in memory comes before it. */
static struct {
	void *(*dispatcher)(void);
	struct found *(*find)(struct found *ret, void *dispatcher, const struct operator_name *name);
	void *(*print)(void *stream, const void *schema);
	void (*stream_init)(void *stream);
	void (*stream_deinit)(void *stream);
	struct cxx_string *(*stream_text)(struct cxx_string *ret, const void *stream);
	AOTITorchError (*call)(const char *name, const char *overload, uint64_t *stack);
	AOTITorchError (*new_handle)(AtenTensorHandle of, AtenTensorHandle *ret);
	AOTITorchError (*assign)(AtenTensorHandle from, AtenTensorHandle to);
	AOTITorchError (*new_list)(size_t reserve, void **ret);
	AOTITorchError (*append)(void *list, uint64_t value);
	AOTITorchError (*list_size)(void *list, size_t *ret);
	AOTITorchError (*list_item)(void *list, size_t i, uint64_t *ret);
	AOTITorchError (*delete_list)(void *list);
	AOTITorchError (*new_string)(const char *data, size_t len, void **ret);
	AOTITorchError (*new_value)(uint64_t **ret);
	void (*check)(bool cond, const char *func, const char *file, uint32_t line, const char *text);
	const char *(*last_error)(void);
	AOTITorchError (*delete_tensor)(AtenTensorHandle t);
} t;

static const struct {
	const char *name;
	void *field;
} entries[] = {
	{"_ZN3c1010Dispatcher13realSingletonEv", &t.dispatcher},
	{"_ZN3c1010Dispatcher10findSchemaERKNS_12OperatorNameE", &t.find},
	{"_ZN3c10lsERSoRKNS_14FunctionSchemaE", &t.print},
	{"_ZNSt7__cxx1119basic_ostringstreamIcSt11char_traitsIcESaIcEEC1Ev", &t.stream_init},
	{"_ZNSt7__cxx1119basic_ostringstreamIcSt11char_traitsIcESaIcEED1Ev", &t.stream_deinit},
	{"_ZNKSt7__cxx1119basic_ostringstreamIcSt11char_traitsIcESaIcEE3strEv", &t.stream_text},
	{"aoti_torch_call_dispatcher", &t.call},
	{"aoti_torch_new_tensor_handle", &t.new_handle},
	{"aoti_torch_assign_tensors", &t.assign},
	{"torch_new_list_reserve_size", &t.new_list},
	{"torch_list_push_back", &t.append},
	{"torch_list_size", &t.list_size},
	{"torch_list_get_item", &t.list_item},
	{"torch_delete_list", &t.delete_list},
	{"torch_new_string_handle", &t.new_string},
	{"torch_new_stable_ivalue", &t.new_value},
	{"aoti_torch_check", &t.check},
	{"torch_exception_get_what_without_backtrace", &t.last_error},
	{"aoti_torch_delete_tensor_object", &t.delete_tensor},
};

static struct node *nodes;
static uint32_t n_nodes;

static pb_status find_functions(const struct pb_backend *b, struct pt2box_error *err)
{
	for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
		void *sym = dlsym(b->lib, entries[i].name);

		if (!sym)
			return pb_error_set(err, PT2BOX_UNSUPPORTED,
					    "operators cannot be called by name: this PyTorch has no %s", entries[i].name);
		memcpy(entries[i].field, &sym, sizeof(sym));
	}
	return PT2BOX_OK;
}

/* ---- schemas ---- */

static struct cxx_string string_of(const char *text)
{
	return (struct cxx_string){.data = text, .len = strlen(text)};
}

static bool same(const struct cxx_string *s, const char *text)
{
	return s->len == strlen(text) && memcmp(s->data, text, s->len) == 0;
}

/* "ns::op.overload": what is before the last dot after the namespace, and what is behind it. */
static bool split(struct node *k)
{
	const char *target = k->n->target, *op = strstr(target, "::"), *dot = op ? strchr(op, '.') : NULL;
	size_t len = dot ? (size_t)(dot - target) : strlen(target);

	if (!op || len >= NAME_MAX_BYTES || (dot && strlen(dot + 1) >= NAME_MAX_BYTES))
		return false;
	memcpy(k->name, target, len);
	k->name[len] = '\0';
	/* As exported: an operator without overloads has the overload "default". */
	strcpy(k->overload, dot && strcmp(dot + 1, "default") != 0 ? dot + 1 : "");
	return true;
}

/* From "(" on, as PyTorch writes it; malloc'd. */
static char *schema_text(const struct node *k)
{
	const struct operator_name name = {string_of(k->name), string_of(k->overload)};
	_Alignas(16) char stream[1024]; /* std::ostringstream has 376 bytes */
	struct found f = {.there = false};
	struct cxx_string s;
	char *text = NULL;
	const char *from;

	t.find(&f, t.dispatcher(), &name);
	if (!f.there || !same(&f.def->name, k->name) || !same(&f.def->overload, k->overload))
		return NULL;
	t.stream_init(stream);
	t.print(stream, f.def + 1);
	t.stream_text(&s, stream);
	from = memchr(s.data, '(', s.len);
	if (from)
		text = strndup(from, s.len - (size_t)(from - s.data));
	t.stream_deinit(stream); /* the string's few bytes stay: it has no destructor that could be called */
	return text;
}

static bool can_give(const struct pb_schema_arg *a, const struct pb_node_arg *v)
{
	switch (v->kind) {
	case PT2BOX_OP_OBJECT:
		return false;
	case PT2BOX_OP_NONE:
		return a->optional;
	default:
		return a->type != PB_SCHEMA_SCALAR && a->type != PB_SCHEMA_GENERATOR;
	}
}

static pb_status no_memory(struct pt2box_error *err)
{
	return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for operators");
}

static struct pb_schema *known_schema(const struct node *k)
{
	for (const struct node *o = nodes; o < k; o++)
		if (strcmp(o->n->target, k->n->target) == 0)
			return o->schema;
	return NULL;
}

static pb_status find_schema(struct node *k, struct pt2box_error *err)
{
	struct pt2box_error why;
	char *text;
	pb_status st;

	k->schema = known_schema(k);
	if (k->schema)
		return PT2BOX_OK;
	text = schema_text(k);
	if (!text)
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "PyTorch's library does not have the operator %.100s",
				    k->n->target);
	k->schema = malloc(sizeof(*k->schema));
	st = k->schema ? pb_schema_parse(text, k->schema, &why) : no_memory(&why);
	free(text);
	return st ? pb_error_set(err, PT2BOX_UNSUPPORTED, "%.100s: its schema is not understood: %.200s", k->n->target,
				 why.text) :
		    PT2BOX_OK;
}

static pb_status check_fit(const struct node *k, struct pt2box_error *err)
{
	char type[64];

	for (uint32_t i = 0; i < k->schema->n_args; i++)
		if (!can_give(&k->schema->args[i], &k->args[i]))
			return pb_error_set(err, PT2BOX_UNSUPPORTED, "%.100s: its argument %.60s, a %.40s, cannot be given",
					    k->n->target, k->schema->args[i].name,
					    pb_schema_type_name(&k->schema->args[i], type, sizeof(type)));
	if (k->n->n_outs != k->schema->n_returns)
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "%.100s: the package takes %u results, the operator has %u",
				    k->n->target, k->n->n_outs, k->schema->n_returns);
	return PT2BOX_OK;
}

static pb_status join(struct node *k, struct pt2box_error *err)
{
	pb_status st;

	if (!split(k))
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "not an operator: %.100s", k->n->target);
	st = find_schema(k, err);
	if (st)
		return st;
	k->args = calloc((size_t)k->schema->n_args + 1, sizeof(*k->args));
	if (!k->args)
		return no_memory(err);
	st = pb_schema_bind(k->schema, k->n, k->args, err);
	return st ? st : check_fit(k, err);
}

/* ---- a call ---- */

/* Does not return: libtorch's aoti_torch_proxy_executor_call_function() catches. */
static void fail(const struct node *k, const char *fmt, ...) PB_PRINTF(2, 3);
static void fail(const struct node *k, const char *fmt, ...)
{
	char text[400];
	size_t n = (size_t)snprintf(text, sizeof(text), "%.100s: ", k ? k->n->target : "an operator");
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text + n, sizeof(text) - n, fmt, ap);
	va_end(ap);
	t.check(false, "call", "torch_nodes", 0, text);
	abort(); /* it throws */
}

static void must(const struct node *k, AOTITorchError rc)
{
	char why[300];

	if (rc == 0)
		return;
	snprintf(why, sizeof(why), "%s", t.last_error());
	fail(k, "%s", why);
}

static uint64_t bits_of(const void *value, size_t bytes)
{
	uint64_t v = 0;

	memcpy(&v, value, bytes);
	return v;
}

/* The stack owns what it holds. */
static uint64_t tensor_value(const struct node *k, AtenTensorHandle h)
{
	AtenTensorHandle own = NULL;

	if (!h)
		fail(k, "a tensor of the call is missing");
	must(k, t.new_handle(h, &own));
	return bits_of(&own, sizeof(own));
}

static uint64_t optional_value(const struct node *k, uint64_t v)
{
	uint64_t *p = NULL;

	must(k, t.new_value(&p));
	*p = v;
	return bits_of(&p, sizeof(p));
}

static uint64_t string_value(const struct node *k, const char *s)
{
	void *p = NULL;

	must(k, t.new_string(s, strlen(s), &p));
	return bits_of(&p, sizeof(p));
}

struct call {
	const struct node *k;
	const int64_t *ints;
	AtenTensorHandle const *tensors;
};

/* Entry @i of a list. @at: place of the next tensor, of those that are there. */
static uint64_t item_value(const struct call *c, const struct pb_node_arg *v, uint32_t i, bool optional, uint32_t *at)
{
	uint8_t yes;

	switch (v->kind) {
	case PT2BOX_OP_TENSORS:
		if (!v->v.bools[i])
			return 0;
		return optional ? optional_value(c->k, tensor_value(c->k, c->tensors[(*at)++])) :
				  tensor_value(c->k, c->tensors[(*at)++]);
	case PT2BOX_OP_INTS:
		return (uint64_t)(v->int_at == PB_SLOT_NONE ? v->v.ints[i] : c->ints[v->int_at + i]);
	case PT2BOX_OP_FLOATS:
		return bits_of(&v->v.floats[i], sizeof(double));
	case PT2BOX_OP_BOOLS:
		yes = v->v.bools[i] != 0;
		return bits_of(&yes, 1);
	default:
		return string_value(c->k, v->v.strings[i]);
	}
}

static uint64_t list_value(const struct call *c, const struct pb_schema_arg *a, const struct pb_node_arg *v)
{
	uint32_t at = v->tensor_at;
	void *list = NULL;

	must(c->k, t.new_list(v->count, &list));
	for (uint32_t i = 0; i < v->count; i++)
		must(c->k, t.append(list, item_value(c, v, i, a->optional_items, &at)));
	return bits_of(&list, sizeof(list));
}

static uint64_t plain_value(const struct call *c, const struct pb_schema_arg *a, const struct pb_node_arg *v)
{
	int32_t small = (int32_t)v->v.i;
	double real;
	uint8_t yes;

	switch (v->kind) {
	case PT2BOX_OP_TENSOR:
		return tensor_value(c->k, c->tensors[v->tensor_at]);
	case PT2BOX_OP_INT:
		if (a->type != PB_SCHEMA_FLOAT)
			return (uint64_t)(v->int_at == PB_SLOT_NONE ? v->v.i : c->ints[v->int_at]);
		real = (double)(v->int_at == PB_SLOT_NONE ? v->v.i : c->ints[v->int_at]);
		return bits_of(&real, sizeof(real));
	case PT2BOX_OP_FLOAT:
		return bits_of(&v->v.f, sizeof(double));
	case PT2BOX_OP_BOOL:
		yes = v->v.i != 0;
		return bits_of(&yes, 1);
	case PT2BOX_OP_STRING:
		return string_value(c->k, v->v.s);
	case PT2BOX_OP_DTYPE:
	case PT2BOX_OP_LAYOUT:
	case PT2BOX_OP_MEMORY_FORMAT:
		return bits_of(&small, sizeof(small));
	case PT2BOX_OP_DEVICE:
		return (uint64_t)(uint32_t)small << 32 | (uint32_t)v->device_index;
	default:
		return list_value(c, a, v);
	}
}

static void give_list(const struct node *k, const struct pb_node_arg *out, void *list, AtenTensorHandle const *to)
{
	size_t n = 0;

	must(k, t.list_size(list, &n));
	if (n != out->count)
		fail(k, "a list of %zu tensors came back, the package was compiled for %u", n, out->count);
	for (size_t i = 0; i < n; i++) {
		AtenTensorHandle h = NULL;
		uint64_t v = 0;

		must(k, t.list_item(list, i, &v));
		memcpy(&h, &v, sizeof(h));
		must(k, t.assign(h, to[i]));
		t.delete_tensor(h);
	}
	t.delete_list(list);
}

/* Results become the contents of the handles that the model has made for them. */
static void give_result(const struct call *c, const struct pb_node_arg *out, uint64_t v)
{
	AtenTensorHandle h = NULL;
	void *list;

	switch (out->kind) {
	case PT2BOX_OP_TENSOR:
		memcpy(&h, &v, sizeof(h));
		must(c->k, t.assign(h, c->tensors[out->tensor_at]));
		t.delete_tensor(h);
		break;
	case PT2BOX_OP_TENSORS:
		memcpy(&list, &v, sizeof(list));
		give_list(c->k, out, list, c->tensors + out->tensor_at);
		break;
	case PT2BOX_OP_INT:
		if ((int64_t)v != c->ints[out->int_at])
			fail(c->k, "returned %lld, the package was compiled for %lld", (long long)v,
			     (long long)c->ints[out->int_at]);
		break;
	default: /* NONE: nobody takes it */
		break;
	}
}

static void call_function(void *executor, int index, int n_ints, int64_t *ints, int n_tensors, AtenTensorHandle *tensors)
{
	uint64_t stack[PB_SCHEMA_MAX_ARGS + PB_SCHEMA_MAX_RETURNS] = {0};
	struct call c = {NULL, ints, tensors};

	(void)executor;
	if (index < 0 || (uint32_t)index >= n_nodes)
		fail(NULL, "the package describes %u operators that it calls by name, not number %d", n_nodes, index);
	c.k = &nodes[index];
	if (n_ints < 0 || (uint32_t)n_ints != c.k->n->n_ints || n_tensors < 0 || (uint32_t)n_tensors != c.k->n->n_tensors)
		fail(c.k, "called with %d integers and %d tensors; the package describes %u and %u", n_ints, n_tensors,
		     c.k->n->n_ints, c.k->n->n_tensors);
	for (uint32_t i = 0; i < c.k->schema->n_args; i++) {
		const struct pb_schema_arg *a = &c.k->schema->args[i];
		const struct pb_node_arg *v = &c.k->args[i];

		if (v->kind == PT2BOX_OP_NONE)
			stack[i] = 0;
		else
			stack[i] = a->optional ? optional_value(c.k, plain_value(&c, a, v)) : plain_value(&c, a, v);
	}
	must(c.k, t.call(c.k->name, c.k->overload, stack));
	for (uint32_t i = 0; i < c.k->n->n_outs; i++)
		give_result(&c, &c.k->n->outs[i], stack[i]);
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

pb_status pb_torch_nodes(const struct pb_backend *b, const struct pb_manifest *m, void **ret, struct pt2box_error *err)
{
	uint32_t n = m->nodes ? m->nodes->n : 0;
	pb_status st;

	*ret = NULL;
	if (n == 0)
		return PT2BOX_OK;
	st = find_functions(b, err);
	if (st)
		return st;
	nodes = calloc(n, sizeof(*nodes));
	if (!nodes)
		return no_memory(err);
	for (; n_nodes < n; n_nodes++) {
		nodes[n_nodes].n = &m->nodes->list[n_nodes];
		st = join(&nodes[n_nodes], err);
		if (st)
			return st;
	}
	*ret = &executor;
	return PT2BOX_OK;
}
