/* SPDX-License-Identifier: Apache-2.0 */
/* See op_schema.h. */
#include "ipc/op_schema.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	enum pb_schema_type type;
} types[] = {
	{"Tensor", PB_SCHEMA_TENSOR},	    {"int", PB_SCHEMA_INT},	  {"SymInt", PB_SCHEMA_INT},
	{"float", PB_SCHEMA_FLOAT},	    {"bool", PB_SCHEMA_BOOL},	  {"str", PB_SCHEMA_STR},
	{"Scalar", PB_SCHEMA_SCALAR},	    {"ScalarType", PB_SCHEMA_DTYPE}, {"Layout", PB_SCHEMA_LAYOUT},
	{"MemoryFormat", PB_SCHEMA_MEMORY_FORMAT}, {"Device", PB_SCHEMA_DEVICE}, {"Generator", PB_SCHEMA_GENERATOR},
};

static const char *type_text(enum pb_schema_type type)
{
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (types[i].type == type)
			return types[i].name;
	return "?";
}

const char *pb_schema_type_name(const struct pb_schema_arg *a, char *buf, size_t cap)
{
	snprintf(buf, cap, "%s%s%s%s", type_text(a->type), a->optional_items ? "?" : "", a->list ? "[]" : "",
		 a->optional ? "?" : "");
	return buf;
}

/* ---- parse ---- */

struct text {
	const char *begin, *at;
	struct pt2box_error *err;
};

static bool fault(struct text *t, const char *what)
{
	pb_error_set(t->err, PT2BOX_USAGE, "schema: %s at character %zu: %.60s", what, (size_t)(t->at - t->begin), t->at);
	return false;
}

static void skip(struct text *t)
{
	while (*t->at == ' ')
		t->at++;
}

static bool eat(struct text *t, const char *word)
{
	size_t n = strlen(word);

	skip(t);
	if (strncmp(t->at, word, n) != 0)
		return false;
	t->at += n;
	return true;
}

static bool get_word(struct text *t, char dst[PB_SCHEMA_MAX_TEXT])
{
	size_t n = 0;

	skip(t);
	while (isalnum((unsigned char)t->at[n]) || t->at[n] == '_')
		n++;
	if (n == 0 || n >= PB_SCHEMA_MAX_TEXT)
		return fault(t, "a name is missing or too long");
	memcpy(dst, t->at, n);
	dst[n] = '\0';
	t->at += n;
	return true;
}

/* "(a!)", "(a)", and as torch.library writes it "(a0!)": which memory is meant, and whether it is written. */
static bool get_alias(struct text *t, char *ret_alias, bool *ret_written)
{
	long number = 0;
	char *end;

	if (*t->at != '(')
		return true;
	if (!islower((unsigned char)t->at[1]))
		return fault(t, "an alias is a small letter");
	*ret_alias = t->at[1];
	t->at += 2;
	if (isdigit((unsigned char)*t->at)) {
		number = strtol(t->at, &end, 10);
		if (t->at[-1] != 'a' || number >= PB_SCHEMA_MAX_ARGS)
			return fault(t, "an alias is a small letter, or the number of an argument behind \"a\"");
		*ret_alias = (char)(number + 1);
		t->at = end;
	}
	*ret_written = eat(t, "!");
	if (!eat(t, ")"))
		return fault(t, "this kind of alias is not supported");
	return true;
}

/* What stands before the name: type, "?", "[]", "[2]", "?" */
static bool get_type(struct text *t, struct pb_schema_arg *a)
{
	char word[PB_SCHEMA_MAX_TEXT];
	bool known = false;

	if (!get_word(t, word))
		return false;
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]) && !known; i++) {
		known = strcmp(word, types[i].name) == 0;
		a->type = types[i].type;
	}
	if (!known)
		return fault(t, "a type that is not supported ends");
	if (!get_alias(t, &a->alias, &a->written))
		return false;
	if (*t->at == '?') {
		t->at++;
		a->optional = true;
	}
	if (*t->at != '[')
		return true;
	a->list = true;
	a->optional_items = a->optional;
	a->optional = false;
	t->at++;
	while (isdigit((unsigned char)*t->at))
		t->at++;
	if (!eat(t, "]"))
		return fault(t, "] is missing");
	if (*t->at == '?') {
		t->at++;
		a->optional = true;
	}
	if (a->optional_items && a->type != PB_SCHEMA_TENSOR)
		return fault(t, "only tensors may be missing from a list");
	return true;
}

/* A number, True or False, as one item of type @type. */
static bool get_item(struct text *t, enum pb_schema_type type, struct pb_schema_arg *a, uint32_t i,
		     enum pt2box_op_kind *ret_kind)
{
	char *end;

	if (i >= PB_SCHEMA_MAX_DEFAULTS)
		return fault(t, "a default is too long");
	if (type == PB_SCHEMA_BOOL || strncmp(t->at, "True", 4) == 0 || strncmp(t->at, "False", 5) == 0) {
		a->bools[i] = strncmp(t->at, "True", 4) == 0;
		*ret_kind = PT2BOX_OP_BOOL;
		return eat(t, "True") || eat(t, "False") || fault(t, "True or False is missing");
	}
	errno = 0;
	a->ints[i] = strtoll(t->at, &end, 10);
	*ret_kind = PT2BOX_OP_INT;
	if (type == PB_SCHEMA_FLOAT || *end == '.' || *end == 'e') {
		a->floats[i] = strtod(t->at, &end);
		*ret_kind = PT2BOX_OP_FLOAT;
		if (type == PB_SCHEMA_INT)
			return fault(t, "the default is not an integer");
	}
	if (end == t->at || errno)
		return fault(t, "the default is not a number");
	t->at = end;
	return true;
}

static bool get_text_default(struct text *t, struct pb_schema_arg *a)
{
	char quote = *t->at;
	const char *end = quote == '"' || quote == '\'' ? strchr(t->at + 1, quote) : NULL;

	if (!end || end - t->at >= PB_SCHEMA_MAX_TEXT)
		return fault(t, "the default is not a text");
	memcpy(a->text, t->at + 1, (size_t)(end - t->at - 1));
	a->preset.kind = PT2BOX_OP_STRING;
	a->preset.v.s = a->text;
	t->at = end + 1;
	return true;
}

static bool get_list_default(struct text *t, struct pb_schema_arg *a)
{
	enum pt2box_op_kind item = a->type == PB_SCHEMA_FLOAT  ? PT2BOX_OP_FLOAT
				   : a->type == PB_SCHEMA_BOOL ? PT2BOX_OP_BOOL
							       : PT2BOX_OP_INT;
	uint32_t n = 0;

	if (a->type == PB_SCHEMA_TENSOR || a->type == PB_SCHEMA_STR)
		return fault(t, "this list has no default");
	if (!eat(t, "[")) { /* "int[2] x=0": the one value for all, which nobody can count here */
		return fault(t, "the default of a list is a list");
	}
	while (!eat(t, "]")) {
		if ((n && !eat(t, ",")) || (skip(t), !get_item(t, a->type, a, n, &item)))
			return fault(t, "the default is not a list");
		n++;
	}
	a->preset.count = n;
	a->preset.kind = item == PT2BOX_OP_FLOAT ? PT2BOX_OP_FLOATS : item == PT2BOX_OP_BOOL ? PT2BOX_OP_BOOLS :
											       PT2BOX_OP_INTS;
	if (item == PT2BOX_OP_FLOAT)
		a->preset.v.floats = a->floats;
	else if (item == PT2BOX_OP_BOOL)
		a->preset.v.bools = a->bools;
	else
		a->preset.v.ints = a->ints;
	return true;
}

static bool get_default(struct text *t, struct pb_schema_arg *a)
{
	static const char *const formats[] = {"contiguous_format", "preserve_format", "channels_last"};

	a->has_default = true;
	a->preset = (struct pb_node_arg){.name = a->name, .kind = PT2BOX_OP_NONE, .int_at = PB_SLOT_NONE,
					 .tensor_at = PB_SLOT_NONE, .device_index = -1};
	skip(t);
	if (eat(t, "None"))
		return a->optional || a->type == PB_SCHEMA_GENERATOR || fault(t, "None for what is not optional, before");
	if (a->list)
		return get_list_default(t, a);
	switch (a->type) {
	case PB_SCHEMA_STR:
		return get_text_default(t, a);
	case PB_SCHEMA_INT:
	case PB_SCHEMA_FLOAT:
	case PB_SCHEMA_BOOL:
	case PB_SCHEMA_SCALAR:
		if (!get_item(t, a->type, a, 0, &a->preset.kind))
			return false;
		if (a->preset.kind == PT2BOX_OP_FLOAT)
			a->preset.v.f = a->floats[0];
		else
			a->preset.v.i = a->preset.kind == PT2BOX_OP_BOOL ? a->bools[0] : a->ints[0];
		return true;
	case PB_SCHEMA_MEMORY_FORMAT:
		a->preset.kind = PT2BOX_OP_MEMORY_FORMAT;
		for (int i = 0; i < 3; i++) {
			a->preset.v.i = i;
			if (eat(t, formats[i]))
				return true;
		}
		return fault(t, "no memory format");
	default:
		return fault(t, "this type has no default but None");
	}
}

static bool get_args(struct text *t, struct pb_schema *s)
{
	bool kwarg_only = false;

	if (!eat(t, "("))
		return fault(t, "( is missing");
	if (eat(t, ")"))
		return true;
	do {
		struct pb_schema_arg *a = &s->args[s->n_args];

		if (eat(t, "*")) {
			kwarg_only = true;
			continue;
		}
		if (s->n_args == PB_SCHEMA_MAX_ARGS)
			return fault(t, "too many arguments");
		if (!get_type(t, a) || !get_word(t, a->name) || (eat(t, "=") && !get_default(t, a)))
			return false;
		for (uint32_t i = 0; i < s->n_args; i++)
			if (strcmp(s->args[i].name, a->name) == 0)
				return fault(t, "a name is there twice, before");
		a->kwarg_only = kwarg_only;
		s->n_args++;
	} while (eat(t, ","));
	return eat(t, ")") || fault(t, ") is missing");
}

static bool get_return(struct text *t, struct pb_schema *s)
{
	struct pb_schema_return *r = &s->returns[s->n_returns];
	struct pb_schema_arg a = {.type = PB_SCHEMA_TENSOR};
	char name[PB_SCHEMA_MAX_TEXT];

	if (s->n_returns == PB_SCHEMA_MAX_RETURNS)
		return fault(t, "too many returns");
	if (!get_type(t, &a))
		return false;
	if ((a.type != PB_SCHEMA_TENSOR && a.type != PB_SCHEMA_INT) || a.optional_items ||
	    (a.type == PB_SCHEMA_INT && (a.list || a.optional)))
		return fault(t, "a return that is not supported ends");
	*r = (struct pb_schema_return){a.type, a.list, a.optional, a.alias, a.written};
	s->n_returns++;
	skip(t);
	return *t->at == ',' || *t->at == ')' || *t->at == '\0' || get_word(t, name);
}

static bool get_returns(struct text *t, struct pb_schema *s)
{
	if (!eat(t, "->"))
		return fault(t, "-> is missing");
	if (!eat(t, "("))
		return get_return(t, s);
	if (eat(t, ")"))
		return true;
	do {
		if (!get_return(t, s))
			return false;
	} while (eat(t, ","));
	return eat(t, ")") || fault(t, ") is missing");
}

pb_status pb_schema_parse(const char *text, struct pb_schema *ret, struct pt2box_error *err)
{
	struct text t = {text, text, err};

	memset(ret, 0, sizeof(*ret));
	if (!get_args(&t, ret) || !get_returns(&t, ret))
		return PT2BOX_USAGE;
	skip(&t);
	if (*t.at)
		fault(&t, "the schema has ended");
	return *t.at ? PT2BOX_USAGE : PT2BOX_OK;
}

/* ---- bind ---- */

static bool kind_fits(const struct pb_schema_arg *a, const struct pb_node_arg *v)
{
	static const enum pt2box_op_kind one[] = {PT2BOX_OP_TENSOR, PT2BOX_OP_INT,    PT2BOX_OP_FLOAT, PT2BOX_OP_BOOL,
						  PT2BOX_OP_STRING, PT2BOX_OP_INT,    PT2BOX_OP_DTYPE, PT2BOX_OP_LAYOUT,
						  PT2BOX_OP_MEMORY_FORMAT, PT2BOX_OP_DEVICE, PT2BOX_OP_NONE};
	static const enum pt2box_op_kind many[] = {PT2BOX_OP_TENSORS, PT2BOX_OP_INTS, PT2BOX_OP_FLOATS, PT2BOX_OP_BOOLS,
						   PT2BOX_OP_STRINGS, PT2BOX_OP_INTS};

	if (v->kind == PT2BOX_OP_NONE)
		return a->optional || a->type == PB_SCHEMA_GENERATOR;
	if (!a->list)
		return v->kind == one[a->type] || (a->type == PB_SCHEMA_SCALAR &&
						   (v->kind == PT2BOX_OP_FLOAT || v->kind == PT2BOX_OP_BOOL));
	if (a->type > PB_SCHEMA_SCALAR)
		return false;
	if (v->kind == PT2BOX_OP_TENSORS && !a->optional_items)
		for (uint32_t i = 0; i < v->count; i++)
			if (!v->v.bools[i])
				return false;
	return v->kind == many[a->type] ||
	       (a->type == PB_SCHEMA_SCALAR && (v->kind == PT2BOX_OP_FLOATS || v->kind == PT2BOX_OP_BOOLS));
}

/* An empty list says nothing of its items: the compiler wrote some kind of list. */
static void settle_empty(const struct pb_schema_arg *a, struct pb_node_arg *v)
{
	static const enum pt2box_op_kind many[] = {PT2BOX_OP_TENSORS, PT2BOX_OP_INTS, PT2BOX_OP_FLOATS, PT2BOX_OP_BOOLS,
						   PT2BOX_OP_STRINGS, PT2BOX_OP_INTS};

	if (a->list && a->type <= PB_SCHEMA_SCALAR && pb_node_kind_is_list(v->kind) && v->count == 0)
		v->kind = many[a->type];
}

static pb_status bind_returns(const struct pb_schema *s, const struct pb_node *n, struct pt2box_error *err)
{
	if (n->n_outs != s->n_returns)
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "%.200s: the package takes %u results, the operator has %u",
				    n->target, n->n_outs, s->n_returns);
	for (uint32_t i = 0; i < n->n_outs; i++) {
		const struct pb_schema_return *r = &s->returns[i];
		enum pt2box_op_kind k = n->outs[i].kind;
		bool fits = r->type == PB_SCHEMA_INT ? k == PT2BOX_OP_INT
			    : r->list		     ? k == PT2BOX_OP_TENSORS
						     : k == PT2BOX_OP_TENSOR || (r->optional && k == PT2BOX_OP_NONE);

		if (!fits)
			return pb_error_set(err, PT2BOX_UNSUPPORTED, "%.200s: result %u is of another kind in the package (%s)",
					    n->target, i, pb_node_kind_name(k));
	}
	return PT2BOX_OK;
}

static uint32_t find_arg(const struct pb_schema *s, const char *name)
{
	uint32_t i = 0;

	while (i < s->n_args && strcmp(s->args[i].name, name) != 0)
		i++;
	return i;
}

pb_status pb_schema_bind(const struct pb_schema *s, const struct pb_node *n, struct pb_node_arg *ret,
			 struct pt2box_error *err)
{
	bool given[PB_SCHEMA_MAX_ARGS] = {false};
	char buf[40];

	for (uint32_t i = 0; i < n->n_args; i++) {
		uint32_t k = find_arg(s, n->args[i].name);

		if (k == s->n_args || given[k])
			return pb_error_set(err, PT2BOX_UNSUPPORTED, "%.200s: the operator has no argument \"%.80s\"%s",
					    n->target, n->args[i].name, k < s->n_args ? " to be given twice" : "");
		given[k] = true;
		ret[k] = n->args[i];
		settle_empty(&s->args[k], &ret[k]);
		if (!kind_fits(&s->args[k], &ret[k]))
			return pb_error_set(err, PT2BOX_UNSUPPORTED, "%.200s: argument \"%s\" is %s, the package gives %s",
					    n->target, s->args[k].name,
					    pb_schema_type_name(&s->args[k], buf, sizeof(buf)),
					    pb_node_kind_name(n->args[i].kind));
	}
	for (uint32_t k = 0; k < s->n_args; k++) {
		if (given[k])
			continue;
		if (!s->args[k].has_default)
			return pb_error_set(err, PT2BOX_UNSUPPORTED, "%.200s: the package does not give \"%s\"", n->target,
					    s->args[k].name);
		ret[k] = s->args[k].preset;
	}
	return bind_returns(s, n, err);
}
