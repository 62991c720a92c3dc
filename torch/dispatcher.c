/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See dispatcher.h. A call makes a stack of StableIValue (torch/csrc/stable/stableivalue_conversions.h of torch 2.13.0) and goes
 * to the dispatcher by the C ABI.
 *
 * How a value lies on that stack depends on whether the schema says that it is optional, and the C ABI gives no schemas:
 * c10::Dispatcher::findSchema() does, and c10's operator<< writes them out. Both are called as C++ would call them;
 * the name that is found at the begin of the record is compared before anything behind it is believed.
 *
 * A call that fails may leak what was on its stack: the ABI says nothing of it.
 */
#include "torch/dispatcher.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
	AOTITorchError (*new_list)(size_t reserve, void **ret);
	AOTITorchError (*append)(void *list, uint64_t value);
	AOTITorchError (*list_size)(void *list, size_t *ret);
	AOTITorchError (*list_item)(void *list, size_t i, uint64_t *ret);
	AOTITorchError (*delete_list)(void *list);
	AOTITorchError (*new_string)(const char *data, size_t len, void **ret);
	AOTITorchError (*new_value)(uint64_t **ret);
	const char *(*last_error)(void);
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
	{"torch_new_list_reserve_size", &t.new_list},
	{"torch_list_push_back", &t.append},
	{"torch_list_size", &t.list_size},
	{"torch_list_get_item", &t.list_item},
	{"torch_delete_list", &t.delete_list},
	{"torch_new_string_handle", &t.new_string},
	{"torch_new_stable_ivalue", &t.new_value},
	{"torch_exception_get_what_without_backtrace", &t.last_error},
};

static struct pb_torch_op *ops;

pb_status pb_torch_dispatcher_init(const struct pb_backend *b, struct pt2box_error *err)
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
static bool split(struct pb_torch_op *o)
{
	const char *op = strstr(o->target, "::"), *dot = op ? strchr(op, '.') : NULL;

	if (!op)
		return false;
	o->name = strndup(o->target, dot ? (size_t)(dot - o->target) : strlen(o->target));
	/* As exported: an operator without overloads has the overload "default". */
	o->overload = strdup(dot && strcmp(dot + 1, "default") != 0 ? dot + 1 : "");
	return o->name && o->overload;
}

/* From "(" on, as PyTorch writes it; malloc'd. */
static char *schema_text(const struct pb_torch_op *o)
{
	const struct operator_name name = {string_of(o->name), string_of(o->overload)};
	_Alignas(16) char stream[1024]; /* std::ostringstream has 376 bytes */
	struct found f = {.there = false};
	struct cxx_string s;
	char *text = NULL;
	const char *from;

	t.find(&f, t.dispatcher(), &name);
	if (!f.there || !same(&f.def->name, o->name) || !same(&f.def->overload, o->overload))
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

static void free_op(struct pb_torch_op *o)
{
	free(o->name);
	free(o->overload);
	free(o->text);
	free(o);
}

static pb_status read_schema(struct pb_torch_op *o, struct pt2box_error *err)
{
	struct pt2box_error why;

	if (!split(o))
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "not an operator: %.100s", o->target);
	o->text = schema_text(o);
	if (!o->text)
		return pb_error_set(err, PT2BOX_NOT_FOUND, "PyTorch's library does not have the operator %.100s", o->target);
	if (pb_schema_parse(o->text, &o->schema, &why))
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "%.100s: its schema is not understood: %.200s", o->target,
				    why.text);
	return PT2BOX_OK;
}

pb_status pb_torch_op_find(const char *target, const struct pb_torch_op **ret, struct pt2box_error *err)
{
	struct pb_torch_op *o = ops;
	pb_status st;

	while (o && strcmp(o->target, target) != 0)
		o = o->next;
	if (!o) {
		o = calloc(1, sizeof(*o));
		if (!o)
			return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for operators");
		o->target = target;
		st = read_schema(o, err);
		if (st) {
			free_op(o);
			return st;
		}
		o->next = ops;
		ops = o;
	}
	*ret = o;
	return PT2BOX_OK;
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

pb_status pb_torch_op_fits(const struct pb_torch_op *op, const struct pb_node *n, const struct pb_node_arg *args,
			   struct pt2box_error *err)
{
	char type[64];

	for (uint32_t i = 0; i < op->schema.n_args; i++)
		if (!can_give(&op->schema.args[i], &args[i]))
			return pb_error_set(err, PT2BOX_UNSUPPORTED, "%.100s: its argument %.60s, a %.40s, cannot be given",
					    op->target, op->schema.args[i].name,
					    pb_schema_type_name(&op->schema.args[i], type, sizeof(type)));
	if (n->n_outs != op->schema.n_returns)
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "%.100s: the package takes %u results, the operator has %u",
				    op->target, n->n_outs, op->schema.n_returns);
	return PT2BOX_OK;
}

/* ---- the stack; a value of 0 after a failure, which the call remembers ---- */

struct call {
	struct pb_torch_taker *taker;
	bool failed;
};

static void failed(struct call *c, const char *fmt, ...) PB_PRINTF(2, 3);
static void failed(struct call *c, const char *fmt, ...)
{
	va_list ap;

	if (c->failed)
		return;
	c->failed = true;
	va_start(ap, fmt);
	vsnprintf(c->taker->text, sizeof(c->taker->text), fmt, ap);
	va_end(ap);
}

static bool must(struct call *c, AOTITorchError rc)
{
	if (rc)
		failed(c, "%s", t.last_error());
	return !c->failed;
}

static uint64_t bits_of(const void *value, size_t bytes)
{
	uint64_t v = 0;

	memcpy(&v, value, bytes);
	return v;
}

/* The stack owns what it holds. */
static uint64_t tensor_value(struct call *c, const struct pt2box_op_tensor *of)
{
	AtenTensorHandle own = NULL;

	if (!of || !of->host)
		failed(c, "a tensor of the call is missing");
	else
		must(c, t.new_handle(of->host, &own));
	return bits_of(&own, sizeof(own));
}

static uint64_t optional_value(struct call *c, uint64_t v)
{
	uint64_t *p = NULL;

	if (must(c, t.new_value(&p)))
		*p = v;
	return bits_of(&p, sizeof(p));
}

static uint64_t string_value(struct call *c, const char *s)
{
	void *p = NULL;

	must(c, t.new_string(s, strlen(s), &p));
	return bits_of(&p, sizeof(p));
}

static uint64_t item_value(struct call *c, const struct pt2box_op_value *v, uint32_t i, bool optional)
{
	uint8_t yes;

	switch (v->kind) {
	case PT2BOX_OP_TENSORS:
		if (!v->v.tensors[i])
			return 0;
		return optional ? optional_value(c, tensor_value(c, v->v.tensors[i])) : tensor_value(c, v->v.tensors[i]);
	case PT2BOX_OP_INTS:
		return (uint64_t)v->v.ints[i];
	case PT2BOX_OP_FLOATS:
		return bits_of(&v->v.floats[i], sizeof(double));
	case PT2BOX_OP_BOOLS:
		yes = v->v.bools[i] != 0;
		return bits_of(&yes, 1);
	default:
		return string_value(c, v->v.strings[i]);
	}
}

static uint64_t list_value(struct call *c, const struct pb_schema_arg *a, const struct pt2box_op_value *v)
{
	void *list = NULL;

	if (!must(c, t.new_list(v->count, &list)))
		return 0;
	for (uint32_t i = 0; i < v->count && !c->failed; i++)
		must(c, t.append(list, item_value(c, v, i, a->optional_items)));
	return bits_of(&list, sizeof(list));
}

static uint64_t plain_value(struct call *c, const struct pb_schema_arg *a, const struct pt2box_op_value *v)
{
	int32_t small;
	double real;
	uint8_t yes;

	switch (v->kind) {
	case PT2BOX_OP_TENSOR:
		return tensor_value(c, v->v.tensor);
	case PT2BOX_OP_INT:
		real = (double)v->v.i;
		return a->type == PB_SCHEMA_FLOAT ? bits_of(&real, sizeof(real)) : (uint64_t)v->v.i;
	case PT2BOX_OP_FLOAT:
		return bits_of(&v->v.f, sizeof(double));
	case PT2BOX_OP_BOOL:
		yes = v->v.i != 0;
		return bits_of(&yes, 1);
	case PT2BOX_OP_STRING:
		return string_value(c, v->v.s);
	case PT2BOX_OP_DTYPE:
	case PT2BOX_OP_LAYOUT:
	case PT2BOX_OP_MEMORY_FORMAT:
		small = (int32_t)v->v.i;
		return bits_of(&small, sizeof(small));
	case PT2BOX_OP_DEVICE:
		return (uint64_t)(uint32_t)v->v.device.type << 32 | (uint32_t)v->v.device.index;
	default:
		return list_value(c, a, v);
	}
}

/* ---- results ---- */

static void give_tensor(struct call *c, uint32_t i, uint64_t v)
{
	AtenTensorHandle h = NULL;

	memcpy(&h, &v, sizeof(h));
	if (c->taker->tensor(c->taker, i, h))
		c->failed = true;
}

static void give_list(struct call *c, uint32_t i, uint64_t v)
{
	void *list;
	size_t n = 0;

	memcpy(&list, &v, sizeof(list));
	must(c, t.list_size(list, &n));
	for (size_t k = 0; k < n && !c->failed; k++)
		if (must(c, t.list_item(list, k, &v)))
			give_tensor(c, i, v);
	t.delete_list(list);
}

int pb_torch_op_call(const struct pb_torch_op *op, const struct pt2box_op_value *args, struct pb_torch_taker *taker)
{
	uint64_t stack[PB_SCHEMA_MAX_ARGS + PB_SCHEMA_MAX_RETURNS] = {0};
	struct call c = {.taker = taker};

	taker->text[0] = '\0';
	for (uint32_t i = 0; i < op->schema.n_args && !c.failed; i++) {
		const struct pb_schema_arg *a = &op->schema.args[i];

		if (args[i].kind == PT2BOX_OP_NONE)
			stack[i] = 0;
		else
			stack[i] = a->optional ? optional_value(&c, plain_value(&c, a, &args[i])) : plain_value(&c, a, &args[i]);
	}
	if (!c.failed)
		must(&c, t.call(op->name, op->overload, stack));
	for (uint32_t i = 0; i < op->schema.n_returns && !c.failed; i++) {
		const struct pb_schema_return *r = &op->schema.returns[i];

		if (r->type != PB_SCHEMA_TENSOR)
			c.failed = taker->number(taker, i, (int64_t)stack[i]) != 0;
		else if (r->list)
			give_list(&c, i, stack[i]);
		else
			give_tensor(&c, i, stack[i]);
	}
	return c.failed;
}
