/* SPDX-License-Identifier: Apache-2.0 */
/* See expr.h. */
#include "broker/intake/expr.h"

#define DEPTH_MAX 16

static const struct pb_expr unknown = {.known = false};

struct pb_expr pb_expr_number(uint64_t v)
{
	return (struct pb_expr){true, true, true, v, v, {v, v}};
}

/* A value for a symbol: FNV-1a of its name, then mixed. */
static uint64_t value_of(struct pb_word w, uint64_t seed)
{
	uint64_t h = 0xcbf29ce484222325ull ^ seed;

	for (size_t i = 0; i < w.n; i++)
		h = (h ^ (unsigned char)w.s[i]) * 0x100000001b3ull;
	h ^= h >> 32;
	h *= 0x9e3779b97f4a7c15ull;
	return h ^ (h >> 29);
}

static struct pb_expr symbol(struct pb_word w)
{
	return (struct pb_expr){true, false, true, 1, 2, {value_of(w, 0), value_of(w, 0x5bd1e995)}};
}

static struct pb_expr combine(const struct pb_expr *a, const struct pb_expr *b, char op)
{
	struct pb_expr r = {a->known && b->known, a->constant && b->constant,
			    a->monotone && b->monotone && op != '-', 0, 0, {0, 0}};

#define EACH(field) r.field = op == '*' ? a->field * b->field : op == '+' ? a->field + b->field : a->field - b->field
	EACH(ones);
	EACH(twos);
	EACH(r[0]);
	EACH(r[1]);
#undef EACH
	return r;
}

static struct pb_expr sum(struct pb_cursor *c, int depth);

static struct pb_expr factor(struct pb_cursor *c, int depth)
{
	struct pb_word w;
	int64_t v;

	pb_skip_space(c);
	if (c->at == c->end || depth == 0)
		return unknown;
	if (*c->at >= '0' && *c->at <= '9')
		return pb_take_number(c, &v) ? pb_expr_number((uint64_t)v) : unknown;
	if (pb_take(c, "static_cast<int64_t>(") || pb_take(c, "(")) {
		struct pb_expr e = sum(c, depth - 1);

		pb_skip_space(c);
		return pb_take(c, ")") ? e : unknown;
	}
	return pb_take_word(c, &w) ? symbol(w) : unknown;
}

static struct pb_expr product(struct pb_cursor *c, int depth)
{
	struct pb_expr e = factor(c, depth);

	while (e.known) {
		struct pb_expr b;

		pb_skip_space(c);
		if (!pb_take(c, "*"))
			break;
		b = factor(c, depth);
		e = combine(&e, &b, '*');
	}
	return e;
}

static struct pb_expr sum(struct pb_cursor *c, int depth)
{
	struct pb_expr e = product(c, depth);

	while (e.known) {
		struct pb_expr b;
		char op;

		pb_skip_space(c);
		if (c->at == c->end || (*c->at != '+' && *c->at != '-'))
			break;
		op = *c->at++;
		b = product(c, depth);
		e = combine(&e, &b, op);
	}
	return e;
}

/* Leave @c at the ',' or closing bracket that ends the expression. */
static void skip_rest(struct pb_cursor *c)
{
	unsigned open = 0;

	for (; c->at < c->end; c->at++) {
		char ch = *c->at;

		if (open == 0 && (ch == ',' || ch == '}' || ch == ')' || ch == ']'))
			return;
		if (ch == '(' || ch == '{' || ch == '[')
			open++;
		else if (ch == ')' || ch == '}' || ch == ']')
			open--;
	}
}

struct pb_expr pb_expr_read(struct pb_cursor *c)
{
	struct pb_cursor from = *c;
	struct pb_expr e = sum(c, DEPTH_MAX);
	const char *stop = c->at;

	*c = from;
	skip_rest(c);
	while (stop < c->at && *stop == ' ')
		stop++;
	return e.known && stop == c->at ? e : unknown;
}

struct pb_expr pb_expr_product(const struct pb_expr *a, const struct pb_expr *b)
{
	return combine(a, b, '*');
}

bool pb_expr_same(const struct pb_expr *a, const struct pb_expr *b)
{
	return a->known && b->known && a->r[0] == b->r[0] && a->r[1] == b->r[1];
}
