/* SPDX-License-Identifier: Apache-2.0 */
/* See fixture.h. */
#include "tests/lib/fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cmd/array.h"

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

void fixture_read(const char *name, const char *file, struct fixture_arrays *ret)
{
	const char *path = fixture_path(name, file);
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct pb_array_file *f;

	memset(ret, 0, sizeof(*ret));
	if (pb_array_file_open(path, &f, &e))
		die(path, &e);
	for (size_t i = 0; i < pb_array_file_count(f) && i < FIXTURE_ARRAYS_MAX; i++) {
		const struct pb_array *a = pb_array_file_get(f, i);
		struct fixture_array *d = &ret->a[ret->n++];

		snprintf(d->name, sizeof(d->name), "%s", a->name);
		d->dtype = a->dtype;
		d->ndim = a->ndim;
		memcpy(d->sizes, a->sizes, sizeof(d->sizes));
		memcpy(d->strides, a->strides, sizeof(d->strides));
		d->bytes = a->bytes;
		d->data = malloc(a->bytes + 1);
		if (!d->data || pb_array_file_read(f, i, d->data, &e))
			die(path, &e);
	}
	pb_array_file_free(f);
}

void fixture_free(struct fixture_arrays *f)
{
	for (size_t i = 0; i < f->n; i++)
		free(f->a[i].data);
	f->n = 0;
}

void fixture_tensors(struct pt2box_model *m, const struct fixture_arrays *f, struct pt2box_tensor **ret)
{
	struct pt2box_error e = {.status = PT2BOX_OK};

	for (size_t i = 0; i < f->n; i++) {
		const struct fixture_array *a = &f->a[i];

		if (!m) {
			if (pt2box_tensor_lend(a->dtype, a->ndim, a->sizes, a->strides, a->data, &ret[i], &e))
				die("lend", &e);
			continue;
		}
		if (pt2box_tensor_alloc(m, a->dtype, a->ndim, a->sizes, &ret[i], &e))
			die("alloc", &e);
		memcpy(pt2box_tensor_get_info(ret[i])->data, a->data, a->bytes);
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

static bool one_equal(const struct pt2box_tensor_info *t, const struct fixture_array *w, double rtol, double atol)
{
	int64_t n = 1;

	if (t->dtype != w->dtype || t->ndim != w->ndim ||
	    memcmp(t->sizes, w->sizes, (size_t)t->ndim * sizeof(t->sizes[0])) != 0)
		return false;
	for (int32_t d = 0; d < t->ndim; d++)
		n *= t->sizes[d];
	for (int64_t i = 0; i < n; i++) {
		double a = fixture_at(t, i), b = element(w->data, w->dtype, offset_of(w->ndim, w->sizes, w->strides, i));

		if (!(fabs(a - b) <= atol + rtol * fabs(b)) && !(isnan(a) && isnan(b)))
			return false;
	}
	return true;
}

bool fixture_equal(struct pt2box_tensor *const *out, size_t n_out, const struct fixture_arrays *want, double rtol,
		   double atol)
{
	for (size_t i = 0; i < n_out; i++) {
		const struct fixture_array *w = NULL;
		char name[32];

		snprintf(name, sizeof(name), "out%zu", i);
		for (size_t k = 0; k < want->n; k++)
			if (strcmp(want->a[k].name, name) == 0)
				w = &want->a[k];
		if (!w != !out[i] || (w && !one_equal(pt2box_tensor_get_info(out[i]), w, rtol, atol))) {
			fprintf(stderr, "output %zu differs\n", i);
			return false;
		}
	}
	return true;
}
