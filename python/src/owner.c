/* SPDX-License-Identifier: Apache-2.0 */
/* Who keeps the memory of tensors, and what a tensor looks like. */
#include <stdlib.h>
#include <string.h>

#include "python/src/core.h"

struct owner *owner_new(void)
{
	struct owner *o = calloc(1, sizeof(*o));

	if (o)
		o->refs = 1;
	else
		PyErr_NoMemory();
	return o;
}

struct owner *owner_ref(struct owner *o)
{
	atomic_fetch_add_explicit(&o->refs, 1, memory_order_relaxed);
	return o;
}

/* What only the holder of the GIL may give back. At the end of the interpreter it is left. */
static void release_objects(struct owner *o)
{
	PyGILState_STATE gil;

	if (!Py_IsInitialized())
		return;
	gil = PyGILState_Ensure();
	if (o->buffer) {
		PyBuffer_Release(o->buffer);
		free(o->buffer);
	}
	Py_XDECREF(o->object);
	PyGILState_Release(gil);
}

void owner_unref(struct owner *o)
{
	if (!o || atomic_fetch_sub_explicit(&o->refs, 1, memory_order_acq_rel) != 1)
		return;
	pt2box_tensor_free(o->tensor);
	free(o->heap);
	if (o->buffer || o->object)
		release_objects(o);
	free(o);
}

void view_from_info(struct view *v, const struct pt2box_tensor_info *f, struct owner *owner_take)
{
	size_t n = (size_t)f->ndim * sizeof(f->sizes[0]);

	v->data = f->data;
	v->dtype = f->dtype;
	v->ndim = f->ndim;
	v->readonly = f->readonly;
	v->numel = f->numel;
	memcpy(v->sizes, f->sizes, n);
	memcpy(v->strides, f->strides, n);
	v->owner = owner_take;
}

uint64_t view_bytes(const struct view *v)
{
	uint64_t last = 0;

	if (v->numel == 0)
		return 0;
	for (int32_t d = 0; d < v->ndim; d++)
		last += (uint64_t)(v->sizes[d] - 1) * (uint64_t)v->strides[d];
	return (last + 1) * pt2box_dtype_size(v->dtype);
}

bool view_is_contiguous(const struct view *v)
{
	int64_t n = 1;

	for (int32_t d = v->ndim - 1; d >= 0 && v->numel; d--) {
		if (v->sizes[d] != 1 && v->strides[d] != n)
			return false;
		n *= v->sizes[d];
	}
	return true;
}

bool view_equal(const struct view *a, const struct view *b)
{
	size_t n = (size_t)a->ndim * sizeof(a->sizes[0]);

	return a->data == b->data && a->dtype == b->dtype && a->ndim == b->ndim && a->numel &&
	       memcmp(a->sizes, b->sizes, n) == 0 && memcmp(a->strides, b->strides, n) == 0;
}

bool strides_from_bytes(const Py_buffer *b, int64_t *ret)
{
	for (int d = b->ndim - 1; d >= 0; d--) {
		if (b->shape[d] < 2 || b->len == 0) {
			int64_t inner = d == b->ndim - 1 ? 1 : b->shape[d + 1] * ret[d + 1];

			ret[d] = inner ? inner : 1;
			continue;
		}
		if (b->strides[d] < 0 || b->strides[d] % b->itemsize)
			return false;
		ret[d] = b->strides[d] / b->itemsize;
	}
	return true;
}

PyObject *tuple_from(const int64_t *v, int32_t n)
{
	PyObject *t = PyTuple_New(n);

	for (int32_t i = 0; t && i < n; i++) {
		PyObject *k = PyLong_FromLongLong(v[i]);

		if (!k || PyTuple_SetItem(t, i, k) < 0)
			Py_CLEAR(t);
	}
	return t;
}
