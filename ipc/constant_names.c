/* SPDX-License-Identifier: Apache-2.0 */
/* See constant_names.h. */
#include "ipc/constant_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- by name ---- */

struct pb_constant_key {
	const char *name;
	uint32_t rank; /* of one name: fully qualified ones first, then in the package's order */
	uint32_t constant;
};

static int by_name(const void *a, const void *b)
{
	const struct pb_constant_key *x = a, *y = b;
	int d = strcmp(x->name, y->name);

	return d ? d : (x->rank > y->rank) - (x->rank < y->rank);
}

pb_status pb_constant_index_init(struct pb_constant_index *x, const struct pb_manifest *m, bool internal,
				 struct pt2box_error *err)
{
	x->n = 0;
	x->key = calloc(2 * (size_t)m->n_constants + 1, sizeof(*x->key));
	if (!x->key)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a list of constants");
	for (uint32_t i = 0; i < m->n_constants; i++) {
		x->key[x->n++] = (struct pb_constant_key){m->constants[i].fqn, i, i};
		if (internal)
			x->key[x->n++] = (struct pb_constant_key){m->constants[i].name, m->n_constants + i, i};
	}
	if (x->n > 1)
		qsort(x->key, x->n, sizeof(*x->key), by_name);
	return PT2BOX_OK;
}

void pb_constant_index_deinit(struct pb_constant_index *x)
{
	free(x->key);
	x->key = NULL;
	x->n = 0;
}

int64_t pb_constant_index_find(const struct pb_constant_index *x, const char *name)
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

bool pb_constant_is_parameter(const struct pb_constant *c)
{
	return !c->folded && c->data_size && c->type != PB_CONST_BUFFER && c->type != PB_CONST_TENSOR &&
	       c->type != PB_CONST_FOLDED;
}

/* ---- names in a text ---- */

void pb_names_add(struct pb_names *l, const char *name)
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

pb_status pb_names_error(const struct pb_names *l, const char *what, struct pt2box_error *err)
{
	if (!l->n)
		return PT2BOX_OK;
	if (l->shown == l->n)
		return pb_error_set(err, PT2BOX_NOT_FOUND, "const.name: %s %s", what, l->text);
	return pb_error_set(err, PT2BOX_NOT_FOUND, "const.name: %s %s and %zu more", what, l->text, l->n - l->shown);
}

const char *pb_integers_text(int32_t n, const int64_t *v, char buf[PB_INTEGERS_TEXT])
{
	size_t used = 0;

	buf[0] = '\0';
	for (int32_t i = 0; i < n && used < 130; i++)
		used += (size_t)snprintf(buf + used, PB_INTEGERS_TEXT - used, "%s%lld", i ? ", " : "", (long long)v[i]);
	return buf;
}
