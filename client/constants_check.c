/* SPDX-License-Identifier: Apache-2.0 */
/* See constants.h. Intake checks all of this again: a client is not believed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/constants.h"
#include "ipc/constant_names.h"
#include "ipc/safetensors_dtype.h"

#define FLAGS_ALL \
	(PT2BOX_CONSTANTS_INACTIVE | PT2BOX_CONSTANTS_FULL | PT2BOX_CONSTANTS_USER_MANAGED | PT2BOX_CONSTANTS_NAMES)

/* ---- one constant ---- */

static pb_status differs(const struct pb_constant *c, const char *key, const char *what, const int64_t *given,
			 int32_t n_given, const int64_t *declared, struct pt2box_error *err)
{
	char a[PB_INTEGERS_TEXT], b[PB_INTEGERS_TEXT];

	return pb_error_set(err, PT2BOX_BAD_TENSOR, "%s: \"%.100s\" has the %s [%s], the model has [%s]", key, c->fqn,
			    what, pb_integers_text(n_given, given, a), pb_integers_text(c->ndim, declared, b));
}

static pb_status check_one(const struct pb_constant *c, const struct pt2box_tensor_info *f, bool strides,
			   struct pt2box_error *err)
{
	if (f->dtype != c->dtype)
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "const.dtype: \"%.200s\" is %s, the model has %s", c->fqn,
				    pt2box_dtype_name(f->dtype), pt2box_dtype_name(c->dtype));
	if (f->ndim != c->ndim || memcmp(f->sizes, c->sizes, (size_t)c->ndim * sizeof(c->sizes[0])) != 0)
		return differs(c, "const.shape", "shape", f->sizes, f->ndim, c->sizes, err);
	if (strides && !pb_strides_equal(c->ndim, c->sizes, f->strides, c->strides))
		return differs(c, "const.stride", "strides", f->strides, f->ndim, c->strides, err);
	if (!pb_dtype_safetensors_name(f->dtype))
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "const.dtype: \"%.200s\" is %s, which cannot be passed on",
				    c->fqn, pt2box_dtype_name(f->dtype));
	return PT2BOX_OK;
}

/* ---- all of them ---- */

/* *constant of each entry; @given of each constant. */
static pb_status resolve(const struct pb_constant_index *x, const struct pt2box_constant *list, size_t n, uint32_t *constant,
			 bool *given, struct pt2box_error *err)
{
	struct pb_names unknown = {.n = 0};
	char safe[200];

	for (size_t i = 0; i < n; i++) {
		int64_t k = pb_constant_index_find(x, list[i].name);

		if (k < 0) {
			pb_names_add(&unknown, list[i].name);
			continue;
		}
		if (given[k] && !unknown.n) {
			pb_text_escape(safe, sizeof(safe), list[i].name, strlen(list[i].name));
			return pb_error_set(err, PT2BOX_USAGE, "const.name: \"%s\" is given twice", safe);
		}
		given[k] = true;
		constant[i] = (uint32_t)k;
	}
	return pb_names_error(&unknown, "the model has no constant", err);
}

static pb_status check_full(const struct pb_manifest *m, const bool *given, struct pt2box_error *err)
{
	struct pb_names missing = {.n = 0};

	for (uint32_t i = 0; i < m->n_constants; i++)
		if (!given[i] && pb_constant_is_parameter(&m->constants[i]))
			pb_names_add(&missing, m->constants[i].fqn);
	return pb_names_error(&missing, "not given:", err);
}

static pb_status check_arguments(const struct pb_manifest *m, const struct pt2box_constant *list, size_t n,
				 uint32_t flags, struct pt2box_error *err)
{
	if (flags & ~(uint32_t)FLAGS_ALL)
		return pb_error_set(err, PT2BOX_USAGE, "there is no flag 0x%x", flags & ~(uint32_t)FLAGS_ALL);
	if (n && !list)
		return pb_error_set(err, PT2BOX_USAGE, "a list of %zu constants is NULL", n);
	for (size_t i = 0; i < n; i++)
		if (!list[i].name || !list[i].tensor)
			return pb_error_set(err, PT2BOX_USAGE, "entry %zu has no %s", i,
					    list[i].name ? "tensor" : "name");
	if (!m->n_constants && m->const_source != PB_CONSTS_NONE)
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "the package does not describe its constants");
	return PT2BOX_OK;
}

pb_status pb_constants_check(const struct pb_manifest *m, const struct pt2box_constant *list, size_t n, uint32_t flags,
			     struct pt2box_error *err)
{
	bool *given = calloc((size_t)m->n_constants + 1, sizeof(*given));
	uint32_t *constant = calloc(n + 1, sizeof(*constant));
	struct pb_constant_index x = {.n = 0};
	pb_status st = check_arguments(m, list, n, flags, err);

	if (!st && (!given || !constant))
		st = pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a list of constants");
	if (!st)
		st = pb_constant_index_init(&x, m, flags & PT2BOX_CONSTANTS_NAMES, err);
	if (!st)
		st = resolve(&x, list, n, constant, given, err);
	for (size_t i = 0; i < n && !st; i++)
		st = check_one(&m->constants[constant[i]], &list[i].tensor->info,
			       flags & PT2BOX_CONSTANTS_USER_MANAGED, err);
	if (!st && (flags & PT2BOX_CONSTANTS_FULL))
		st = check_full(m, given, err);
	pb_constant_index_deinit(&x);
	free(constant);
	free(given);
	return st;
}
