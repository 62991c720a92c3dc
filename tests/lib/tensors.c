/* SPDX-License-Identifier: Apache-2.0 */
/* See tensors.h. */
#include "tests/lib/tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/internal.h"

static _Noreturn void die(const char *what, const struct pt2box_error *e)
{
	fprintf(stderr, "%s: %s: %s\n", what, pt2box_status_name(e->status), e->text);
	abort();
}

const char *fixture_path(const char *name, const char *file)
{
	static char path[300];

	snprintf(path, sizeof(path), "tests/fixtures/%s/%s", name, file);
	return path;
}

void fixture_read(const char *name, const char *file, struct test_arrays *ret)
{
	if (test_arrays_read(fixture_path(name, file), NULL, 0, ret))
		abort();
}

void fixture_tensors(struct pt2box_model *m, const struct test_arrays *f,
		     struct pt2box_tensor **ret)
{
	struct pt2box_error e = {.status = PT2BOX_OK};

	for (size_t i = 0; i < f->n; i++) {
		const struct pb_array_view *a = &f->v[i];

		if (!m) {
			if (pt2box_tensor_lend(a->dtype, a->ndim, a->sizes, a->strides,
					       (void *)a->data, &ret[i], &e))
				die("lend", &e);
			continue;
		}
		if (pt2box_tensor_alloc(m, a->dtype, a->ndim, a->sizes, &ret[i], &e))
			die("alloc", &e);
		pb_copy_strided(a->ndim, a->sizes, pt2box_dtype_size(a->dtype),
				pt2box_tensor_get_info(ret[i])->data,
				pt2box_tensor_get_info(ret[i])->strides, a->data, a->strides);
	}
}

static double element(const void *data, int32_t dtype, int64_t at)
{
	switch (dtype) {
	case PT2BOX_FLOAT32:
		return (double)((const float *)data)[at];
	case PT2BOX_FLOAT64:
		return ((const double *)data)[at];
	case PT2BOX_INT64:
		return (double)((const int64_t *)data)[at];
	case PT2BOX_INT32:
		return ((const int32_t *)data)[at];
	default:
		return ((const uint8_t *)data)[at];
	}
}

static int64_t offset_of(int32_t ndim, const int64_t *sizes, const int64_t *strides, int64_t flat)
{
	int64_t at = 0;

	for (int32_t d = ndim - 1; d >= 0; d--) {
		at += flat % sizes[d] * strides[d];
		flat /= sizes[d];
	}
	return at;
}

double fixture_at(const struct pt2box_tensor_info *t, int64_t flat)
{
	return element(t->data, t->dtype, offset_of(t->ndim, t->sizes, t->strides, flat));
}

bool fixture_equal(struct pt2box_tensor *const *out, size_t n_out, const struct test_arrays *want,
		   double rtol, double atol)
{
	for (size_t i = 0; i < n_out; i++) {
		const struct pt2box_tensor_info *f = out[i] ? pt2box_tensor_get_info(out[i]) : NULL;
		const struct pb_array_view *w = NULL;
		char name[32], why[256] = "None, or not None";

		snprintf(name, sizeof(name), "out%zu", i);
		for (size_t k = 0; k < want->n; k++)
			if (strcmp(want->v[k].name, name) == 0)
				w = &want->v[k];
		if (!w && !f)
			continue;
		if (w && f) {
			struct pb_array_view got = {name,     f->dtype,	  f->ndim,
						    f->sizes, f->strides, f->data};

			if (test_close(&got, w, rtol, atol, why))
				continue;
		}
		fprintf(stderr, "output %zu: %s\n", i, why);
		return false;
	}
	return true;
}
