/* SPDX-License-Identifier: Apache-2.0 */
/* See given.h. Names are found in a sorted index: a hostile file may have as many as a hostile model. */
#include "broker/intake/given.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- names in a text ---- */

struct names {
	char text[360];
	size_t used, n, shown;
};

static void add_name(struct names *l, const char *name)
{
	char safe[120];
	size_t len;

	l->n++;
	pb_text_escape(safe, sizeof(safe), name, strlen(name));
	len = strlen(safe);
	if (l->shown + 1 != l->n || l->used + len + 3 > sizeof(l->text))
		return;
	l->used += (size_t)snprintf(l->text + l->used, sizeof(l->text) - l->used, "%s%s", l->shown ? ", " : "", safe);
	l->shown++;
}

static pb_status names_error(const struct names *l, const char *what, struct pt2box_error *err)
{
	if (l->shown == l->n)
		return pb_error_set(err, PT2BOX_NOT_FOUND, "const.name: %s %s", what, l->text);
	return pb_error_set(err, PT2BOX_NOT_FOUND, "const.name: %s %s and %zu more", what, l->text, l->n - l->shown);
}

/* ---- by name ---- */

struct key {
	const char *name;
	uint32_t rank; /* of one name: internal ones first, then in the package's order */
	uint32_t constant;
};

struct index {
	struct key *key;
	size_t n;
};

static int by_name(const void *a, const void *b)
{
	const struct key *x = a, *y = b;
	int d = strcmp(x->name, y->name);

	return d ? d : (x->rank > y->rank) - (x->rank < y->rank);
}

static bool index_init(struct index *x, const struct pb_manifest *m, bool internal)
{
	x->key = calloc(2 * (size_t)m->n_constants + 1, sizeof(*x->key));
	if (!x->key)
		return false;
	for (uint32_t i = 0; i < m->n_constants; i++) {
		if (internal)
			x->key[x->n++] = (struct key){m->constants[i].name, i, i};
		x->key[x->n++] = (struct key){m->constants[i].fqn, m->n_constants + i, i};
	}
	qsort(x->key, x->n, sizeof(*x->key), by_name);
	return true;
}

/* The constant that goes by @name, -1: there is none. */
static int64_t find(const struct index *x, const char *name)
{
	size_t lo = 0, hi = x->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (strcmp(x->key[mid].name, name) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < x->n && strcmp(x->key[lo].name, name) == 0 ? (int64_t)x->key[lo].constant : -1;
}

/* ---- one constant ---- */

static const char *shape_text(int32_t ndim, const int64_t *sizes, char buf[160])
{
	size_t used = 0;

	buf[0] = '\0';
	for (int32_t i = 0; i < ndim && used < 130; i++)
		used += (size_t)snprintf(buf + used, 160 - used, "%s%lld", i ? ", " : "", (long long)sizes[i]);
	return buf;
}

static pb_status check_one(const struct pb_constant *c, const struct pb_stored_tensor *t, struct pt2box_error *err)
{
	char a[160], b[160];

	if (c->folded)
		return pb_error_set(err, PT2BOX_BAD_TENSOR,
				    "const.folded: \"%.200s\" is computed from other constants, it cannot be given", t->name);
	if (t->dtype != c->dtype)
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "const.dtype: \"%.200s\" is %s, the model has %s", t->name,
				    pt2box_dtype_name(t->dtype), pt2box_dtype_name(c->dtype));
	if (t->ndim != c->ndim || memcmp(t->sizes, c->sizes, (size_t)c->ndim * sizeof(c->sizes[0])) != 0)
		return pb_error_set(err, PT2BOX_BAD_TENSOR,
				    "const.shape: \"%.100s\" has the shape [%s], the model has [%s]", t->name,
				    shape_text(t->ndim, t->sizes, a), shape_text(c->ndim, c->sizes, b));
	return PT2BOX_OK;
}

/* ---- all of them ---- */

/* Names first: who has the wrong file learns of that, and not of the first shape that differs. */
static pb_status check_names(const struct index *x, const struct pb_safetensors *f, struct pt2box_error *err)
{
	struct names unknown = {.n = 0};

	for (size_t i = 0; i < f->n; i++)
		if (find(x, f->tensors[i].name) < 0)
			add_name(&unknown, f->tensors[i].name);
	return unknown.n ? names_error(&unknown, "the model has no constant", err) : PT2BOX_OK;
}

static pb_status match(const struct pb_manifest *m, const struct index *x, const struct pb_safetensors *f,
		       const struct pb_stored_tensor **ret, struct pt2box_error *err)
{
	for (size_t i = 0; i < f->n; i++) {
		const struct pb_stored_tensor *t = &f->tensors[i];
		int64_t k = find(x, t->name);
		pb_status st;

		if (k < 0)
			return pb_error_set(err, PT2BOX_INTERNAL, "a name is lost");
		if (ret[k])
			return pb_error_set(err, PT2BOX_USAGE, "const.name: \"%.200s\" is given twice, also as \"%.200s\"",
					    t->name, ret[k]->name);
		st = check_one(&m->constants[k], t, err);
		if (st)
			return st;
		ret[k] = t;
	}
	return PT2BOX_OK;
}

bool pb_constant_is_parameter(const struct pb_constant *c)
{
	return !c->folded && c->data_size && c->type != PB_CONST_BUFFER && c->type != PB_CONST_TENSOR &&
	       c->type != PB_CONST_FOLDED;
}

static pb_status check_missing(const struct pb_manifest *m, const struct pb_stored_tensor **given,
			       enum pb_required required, struct pt2box_error *err)
{
	struct names missing = {.n = 0};

	for (uint32_t i = 0; i < m->n_constants; i++) {
		const struct pb_constant *c = &m->constants[i];
		bool wanted = required == PB_REQUIRED_ALL ? !c->folded : pb_constant_is_parameter(c);

		if (!given[i] && wanted)
			add_name(&missing, c->fqn);
	}
	return missing.n ? names_error(&missing, "not given:", err) : PT2BOX_OK;
}

pb_status pb_given_match(const struct pb_manifest *m, const struct pb_safetensors *f, bool names,
			 enum pb_required required, const struct pb_stored_tensor **ret, struct pt2box_error *err)
{
	struct index x = {.n = 0};
	pb_status st;

	if (!m->n_constants && m->const_source != PB_CONSTS_NONE)
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "the package does not describe its constants");
	if (!index_init(&x, m, names))
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a list of constants");
	memset(ret, 0, m->n_constants * sizeof(*ret));
	st = check_names(&x, f, err);
	if (!st)
		st = match(m, &x, f, ret, err);
	if (!st && required != PB_REQUIRED_NONE)
		st = check_missing(m, ret, required, err);
	free(x.key);
	return st;
}
