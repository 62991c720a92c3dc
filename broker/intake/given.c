/* SPDX-License-Identifier: Apache-2.0 */
/* See given.h. */
#include "broker/intake/given.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/constant_names.h"

/* ---- one constant ---- */

static pb_status check_one(const struct pb_constant *c, const struct pb_stored_tensor *t, struct pt2box_error *err)
{
	char a[PB_INTEGERS_TEXT], b[PB_INTEGERS_TEXT];

	if (c->folded)
		return pb_error_set(err, PT2BOX_BAD_TENSOR,
				    "const.folded: \"%.200s\" is computed from other constants, it cannot be given", t->name);
	if (t->dtype != c->dtype)
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "const.dtype: \"%.200s\" is %s, the model has %s", t->name,
				    pt2box_dtype_name(t->dtype), pt2box_dtype_name(c->dtype));
	if (t->ndim != c->ndim || memcmp(t->sizes, c->sizes, (size_t)c->ndim * sizeof(c->sizes[0])) != 0)
		return pb_error_set(err, PT2BOX_BAD_TENSOR,
				    "const.shape: \"%.100s\" has the shape [%s], the model has [%s]", t->name,
				    pb_integers_text(t->ndim, t->sizes, a), pb_integers_text(c->ndim, c->sizes, b));
	return PT2BOX_OK;
}

/* ---- all of them ---- */

/* Names first: who has the wrong file learns of that, and not of the first shape that differs. */
static pb_status check_names(const struct pb_constant_index *x, const struct pb_safetensors *f, struct pt2box_error *err)
{
	struct pb_names unknown = {.n = 0};

	for (size_t i = 0; i < f->n; i++)
		if (pb_constant_index_find(x, f->tensors[i].name) < 0)
			pb_names_add(&unknown, f->tensors[i].name);
	return pb_names_error(&unknown, "the model has no constant", err);
}

static pb_status match(const struct pb_manifest *m, const struct pb_constant_index *x, const struct pb_safetensors *f,
		       const struct pb_stored_tensor **ret, struct pt2box_error *err)
{
	for (size_t i = 0; i < f->n; i++) {
		const struct pb_stored_tensor *t = &f->tensors[i];
		int64_t k = pb_constant_index_find(x, t->name);
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

static pb_status check_missing(const struct pb_manifest *m, const struct pb_stored_tensor **given,
			       enum pb_required required, struct pt2box_error *err)
{
	struct pb_names missing = {.n = 0};

	for (uint32_t i = 0; i < m->n_constants; i++) {
		const struct pb_constant *c = &m->constants[i];
		bool wanted = required == PB_REQUIRED_ALL ? !c->folded : pb_constant_is_parameter(c);

		if (!given[i] && wanted)
			pb_names_add(&missing, c->fqn);
	}
	return pb_names_error(&missing, "not given:", err);
}

pb_status pb_given_match(const struct pb_manifest *m, const struct pb_safetensors *f, bool names,
			 enum pb_required required, const struct pb_stored_tensor **ret, struct pt2box_error *err)
{
	struct pb_constant_index x = {.n = 0};
	pb_status st;

	if (!m->n_constants && m->const_source != PB_CONSTS_NONE)
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "the package does not describe its constants");
	st = pb_constant_index_init(&x, m, names, err);
	if (st)
		return st;
	memset(ret, 0, m->n_constants * sizeof(*ret));
	st = check_names(&x, f, err);
	if (!st)
		st = match(m, &x, f, ret, err);
	if (!st && required != PB_REQUIRED_NONE)
		st = check_missing(m, ret, required, err);
	pb_constant_index_deinit(&x);
	return st;
}
