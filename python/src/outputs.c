/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Outputs as objects of the caller's kind. What aliases stays so: an output that is an input is
 * that input, or a view of its memory; the same output twice is the same object; outputs that
 * overlap share memory. Large outputs are readonly memory of the lane: numpy marks such arrays,
 * torch cannot, so for torch they are copied, overlapping ones together.
 */
#include <stdlib.h>
#include <string.h>

#include "python/src/core.h"

struct made {
	struct view v;
	size_t index;	    /* of the output */
	Py_ssize_t same_as; /* an earlier output that is the same; -1 */
};

bool outputs_parse(const char *text, enum outputs *ret)
{
	static const char *const names[] = {"auto", "numpy", "torch", "tensor"};

	for (int i = 0; i < 4; i++)
		if (strcmp(text, names[i]) == 0) {
			*ret = (enum outputs)i;
			return true;
		}
	PyErr_Format(PyExc_ValueError,
		     "outputs must be 'auto', 'numpy', 'torch' or 'tensor', not '%s'", text);
	return false;
}

static PyObject *export_as(enum outputs kind, const struct view *v)
{
	if (kind == OUTPUTS_NUMPY)
		return export_numpy(v);
	return kind == OUTPUTS_TORCH ? export_torch(v) : tensor_new(v);
}

/* ---- outputs that are inputs ---- */

static bool is_whole(const struct pt2box_tensor_info *o, const struct pt2box_tensor_info *in,
		     int64_t offset)
{
	size_t n = (size_t)o->ndim * sizeof(o->sizes[0]);

	return offset == 0 && o->dtype == in->dtype && o->ndim == in->ndim &&
	       memcmp(o->sizes, in->sizes, n) == 0 && memcmp(o->strides, in->strides, n) == 0;
}

/* input.detach().as_strided(sizes, strides, offset) */
static PyObject *torch_view(PyObject *input, const struct pt2box_tensor_info *o, int64_t offset)
{
	PyObject *plain = PyObject_CallMethod(input, "detach", NULL), *ret = NULL, *sizes, *strides,
		 *at;
	int64_t item = (int64_t)pt2box_dtype_size(o->dtype);

	if (!plain)
		return NULL;
	sizes = tuple_from(o->sizes, o->ndim);
	strides = tuple_from(o->strides, o->ndim);
	at = PyObject_CallMethod(input, "storage_offset", NULL);
	if (sizes && strides && at)
		ret = PyObject_CallMethod(plain, "as_strided", "OOL", sizes, strides,
					  PyLong_AsLongLong(at) + (long long)(offset / item));
	Py_XDECREF(at);
	Py_XDECREF(strides);
	Py_XDECREF(sizes);
	Py_DECREF(plain);
	return ret;
}

static PyObject *buffer_view(const struct leaf *l, const struct pt2box_tensor_info *o,
			     int64_t offset, enum outputs kind)
{
	struct owner *owner = owner_new();
	struct view v;

	if (owner)
		owner->buffer = calloc(1, sizeof(Py_buffer));
	if (!owner || !owner->buffer) {
		owner_unref(owner);
		return PyErr_NoMemory();
	}
	if (PyObject_GetBuffer(l->buffer.obj, owner->buffer, PyBUF_RECORDS_RO) < 0) {
		free(owner->buffer);
		owner->buffer = NULL;
		owner_unref(owner);
		return NULL;
	}
	view_from_info(&v, o, owner);
	v.readonly = owner->buffer->readonly;
	v.data = (uint8_t *)owner->buffer->buf + offset;
	return export_as(kind, &v);
}

static PyObject *tensor_view(const struct leaf *l, const struct pt2box_tensor_info *o,
			     int64_t offset, enum outputs kind)
{
	const struct view *in = &((struct tensor_object *)l->object)->v;
	struct view v;

	view_from_info(&v, o, owner_ref(in->owner));
	v.readonly = in->readonly;
	v.data = (uint8_t *)in->data + offset;
	return export_as(kind, &v);
}

static bool is_of_kind(PyObject *object, enum outputs kind)
{
	return kind == OUTPUTS_NUMPY ? is_ndarray(object) : PyObject_TypeCheck(object, tensor_type);
}

/* true: @t lies in an input of the caller, and *ret is it or a view of it, or NULL with an
 * exception. */
static bool make_from_input(const struct pt2box_tensor *t, const struct leaf *leaves,
			    size_t n_leaves, enum outputs kind, PyObject **ret)
{
	const struct pt2box_tensor_info *o = pt2box_tensor_get_info(t), *in;
	const struct leaf *l;
	int64_t offset;
	size_t i;

	if (!pt2box_tensor_input(t, &i, &offset) || i >= n_leaves)
		return false;
	l = &leaves[i];
	in = l->tensor ? pt2box_tensor_get_info(l->tensor) : NULL;
	if (!in || !l->object || l->copy || l->holder)
		return false;
	if (l->is_torch && kind == OUTPUTS_TORCH && o->dtype == in->dtype) {
		*ret = is_whole(o, in, offset) ? Py_NewRef(l->object)
					       : torch_view(l->object, o, offset);
		return true;
	}
	if (kind != OUTPUTS_TORCH && is_whole(o, in, offset) && is_of_kind(l->object, kind)) {
		*ret = Py_NewRef(l->object);
		return true;
	}
	/* torch cannot know that its memory is readonly. */
	if (l->has_buffer && !(kind == OUTPUTS_TORCH && l->buffer.readonly)) {
		*ret = buffer_view(l, o, offset, kind);
		return true;
	}
	if (PyObject_TypeCheck(l->object, tensor_type) &&
	    !(kind == OUTPUTS_TORCH && in->readonly)) {
		*ret = tensor_view(l, o, offset, kind);
		return true;
	}
	return false;
}

/* ---- copies of readonly memory ---- */

static int by_address(const void *a, const void *b)
{
	const struct made *x = *(struct made *const *)a, *y = *(struct made *const *)b;

	return (x->v.data > y->v.data) - (x->v.data < y->v.data);
}

/* g[0] to g[n - 1] overlap and end at @end: into memory of their own. */
static bool copy_group(struct made **g, size_t n, const uint8_t *end)
{
	const uint8_t *begin = g[0]->v.data;
	size_t bytes = (size_t)(end - begin);
	struct owner *o = owner_new();

	if (o)
		o->heap = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
	if (!o || !o->heap) {
		owner_unref(o);
		PyErr_NoMemory();
		return false;
	}
	Py_BEGIN_ALLOW_THREADS memcpy(o->heap, begin, bytes);
	Py_END_ALLOW_THREADS for (size_t i = 0; i < n; i++)
	{
		struct view *v = &g[i]->v;

		owner_unref(v->owner);
		v->owner = i ? owner_ref(o) : o;
		v->data = (uint8_t *)o->heap + ((uint8_t *)v->data - begin);
		v->readonly = 0;
	}
	return true;
}

static bool copy_readonly(struct made *m, size_t n)
{
	struct made **list = malloc((n + 1) * sizeof(*list));
	size_t k = 0;
	bool ok = true;

	if (!list) {
		PyErr_NoMemory();
		return false;
	}
	for (size_t i = 0; i < n; i++)
		if (m[i].v.readonly && m[i].same_as < 0)
			list[k++] = &m[i];
	qsort(list, k, sizeof(*list), by_address);
	for (size_t first = 0; first < k && ok;) {
		const uint8_t *end = (uint8_t *)list[first]->v.data + view_bytes(&list[first]->v);
		size_t next = first + 1;

		for (; next < k && (uint8_t *)list[next]->v.data < end; next++) {
			const uint8_t *e =
				(uint8_t *)list[next]->v.data + view_bytes(&list[next]->v);

			end = e > end ? e : end;
		}
		ok = copy_group(list + first, next - first, end);
		first = next;
	}
	free(list);
	return ok;
}

/* ---- all of them ---- */

/* Owners and views of what is no input; those become objects at once. Takes all tensors. */
static bool collect(struct pt2box_tensor **out, size_t n, const struct leaf *leaves,
		    size_t n_leaves, enum outputs kind, struct made *m, size_t *n_made,
		    PyObject **ret, bool *readonly)
{
	bool ok = true;

	for (size_t i = 0; i < n; i++) {
		struct pt2box_tensor *t = out[i];
		struct owner *o;

		ret[i] = NULL;
		if (!t) {
			ret[i] = Py_NewRef(Py_None);
			continue;
		}
		if (ok && make_from_input(t, leaves, n_leaves, kind, &ret[i])) {
			ok = ret[i] != NULL;
			pt2box_tensor_free(t);
			continue;
		}
		o = ok ? owner_new() : NULL;
		ok = o != NULL;
		if (!ok) {
			pt2box_tensor_free(t);
			continue;
		}
		o->tensor = t;
		view_from_info(&m[*n_made].v, pt2box_tensor_get_info(t), o);
		m[*n_made].index = i;
		m[*n_made].same_as = -1;
		*readonly |= m[*n_made].v.readonly != 0;
		for (size_t k = 0; k < *n_made && m[*n_made].same_as < 0; k++)
			if (view_equal(&m[k].v, &m[*n_made].v))
				m[*n_made].same_as = (Py_ssize_t)m[k].index;
		++*n_made;
	}
	return ok;
}

static enum outputs choose(enum outputs kind, const struct leaf *leaves, size_t n)
{
	if (kind != OUTPUTS_AUTO)
		return kind;
	for (size_t i = 0; i < n; i++)
		if (leaves[i].is_torch)
			return OUTPUTS_TORCH;
	return OUTPUTS_NUMPY;
}

bool outputs_make(struct pt2box_tensor **out, size_t n, const struct leaf *leaves, size_t n_leaves,
		  enum outputs kind, bool copy, PyObject **ret)
{
	struct made few[8], *m = n <= 8 ? few : malloc(n * sizeof(*m));
	bool readonly = false, ok = m != NULL;
	size_t n_made = 0;

	kind = choose(kind, leaves, n_leaves);
	memset(ret, 0, n * sizeof(*ret));
	if (ok) {
		ok = collect(out, n, leaves, n_leaves, kind, m, &n_made, ret, &readonly);
	} else {
		for (size_t i = 0; i < n; i++)
			pt2box_tensor_free(out[i]);
		PyErr_NoMemory();
	}
	if (ok && readonly && (copy || kind == OUTPUTS_TORCH))
		ok = copy_readonly(m, n_made);
	for (size_t k = 0; k < n_made; k++) {
		struct made *d = &m[k];

		if (ok && d->same_as < 0) {
			ret[d->index] = export_as(kind, &d->v);
			ok = ret[d->index] != NULL;
			continue;
		}
		owner_unref(d->v.owner);
		if (ok)
			ret[d->index] = Py_NewRef(ret[d->same_as]);
	}
	for (size_t i = 0; i < n && !ok; i++)
		Py_CLEAR(ret[i]);
	if (m != few)
		free(m);
	return ok;
}
