/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments of a call as Python objects. Tensors are not copied: arrays and tensors over the lane's memory. */
#include <stdlib.h>
#include <string.h>

#include "include/pt2box.h"
#include "include/pt2box_dlpack.h"
#include "ipc/checked.h"
#include "proxy/python/glue.h"

static PyObject *get(PyObject *dict, const char *key)
{
	PyObject *v = PyDict_GetItemString(dict, key); /* borrowed */

	if (!v)
		PyErr_Format(PyExc_KeyError, "%s", key);
	return Py_XNewRef(v);
}

int pb_py_look_init(struct pb_py_look *l, PyObject *dict, bool torch)
{
	*l = (struct pb_py_look){.torch = torch};
	l->dtypes = get(dict, "dtypes");
	l->layouts = get(dict, "layouts");
	l->memory_formats = get(dict, "memory_formats");
	l->devices = get(dict, "devices");
	l->make = get(dict, "make");
	l->array = get(dict, "array");
	l->numbers = get(dict, "numbers");
	if (torch)
		l->export = get(dict, "export");
	return PyErr_Occurred() ? -1 : 0;
}

/* Borrowed; NULL: the list has no such entry, an exception says so. */
static PyObject *by_number(PyObject *list, int64_t number, const char *what, const struct pb_py_look *l)
{
	PyObject *v = number >= 0 && number < PyList_Size(list) ? PyList_GetItem(list, (Py_ssize_t)number) : NULL;

	if (v && v != Py_None)
		return v;
	if (strcmp(what, "dtype") == 0)
		PyErr_Format(PyExc_TypeError, "%s has no dtype %s%s", l->torch ? "torch" : "numpy",
			     pt2box_dtype_name((int32_t)number),
			     l->torch ? "" : "; an operator that is written with torch.library is given torch's tensors");
	else
		PyErr_Format(PyExc_TypeError, "%s has no %s %lld", l->torch ? "torch" : "numpy", what, (long long)number);
	return NULL;
}

/* ---- numpy ---- */

static PyObject *tuple_of(const int64_t *v, int32_t n, int64_t factor)
{
	PyObject *t = PyTuple_New(n);

	for (int32_t i = 0; t && i < n; i++) {
		PyObject *item = PyLong_FromLongLong(v[i] * factor);

		if (!item || PyTuple_SetItem(t, i, item)) { /* takes the item */
			Py_DECREF(t);
			return NULL;
		}
	}
	return t;
}

static PyObject *numpy_array(const struct pb_py_look *l, const struct pt2box_op_tensor *t, bool written)
{
	const uint64_t element = pt2box_dtype_size(t->dtype);
	PyObject *dtype = by_number(l->dtypes, t->dtype, "dtype", l);
	uint64_t bytes;

	if (!dtype)
		return NULL;
	if (!pb_tensor_extent(t->ndim, t->sizes, t->strides, element, &bytes) || bytes > PY_SSIZE_T_MAX) {
		PyErr_SetString(PyExc_ValueError, "a tensor that is too large");
		return NULL;
	}
	if (!bytes)
		return PyObject_CallFunction(l->make, "NO", tuple_of(t->sizes, t->ndim, 1), dtype);
	return PyObject_CallFunction(l->make, "NONiN", tuple_of(t->sizes, t->ndim, 1), dtype,
				     PyMemoryView_FromMemory(t->data, (Py_ssize_t)bytes, written ? PyBUF_WRITE : PyBUF_READ), 0,
				     tuple_of(t->strides, t->ndim, (int64_t)element));
}

/* ---- torch ---- */

/* A tensor of this call as DLPack says it; lives until torch is done with it. */
struct shown {
	struct dl_managed managed;
	int64_t sizes[PT2BOX_OP_MAX_DIMS], strides[PT2BOX_OP_MAX_DIMS];
};

static void shown_free(struct dl_managed *m)
{
	free(m->ctx);
}

static void capsule_free(PyObject *capsule)
{
	/* torch renames what it took. */
	struct dl_managed *m = PyCapsule_IsValid(capsule, "dltensor") ? PyCapsule_GetPointer(capsule, "dltensor") : NULL;

	if (m)
		m->deleter(m);
}

static uint8_t dl_code_of(int32_t dtype)
{
	switch (dtype) {
	case PT2BOX_UINT8:
	case PT2BOX_UINT16:
	case PT2BOX_UINT32:
	case PT2BOX_UINT64:
		return DL_UINT;
	case PT2BOX_INT8:
	case PT2BOX_INT16:
	case PT2BOX_INT32:
	case PT2BOX_INT64:
		return DL_INT;
	case PT2BOX_BOOL:
		return DL_BOOL;
	case PT2BOX_BFLOAT16:
		return DL_BFLOAT;
	case PT2BOX_FLOAT8_E5M2:
		return DL_FLOAT8_E5M2;
	case PT2BOX_FLOAT8_E4M3FN:
		return DL_FLOAT8_E4M3FN;
	case PT2BOX_COMPLEX32:
	case PT2BOX_COMPLEX64:
	case PT2BOX_COMPLEX128:
		return DL_COMPLEX;
	default:
		return DL_FLOAT;
	}
}

/* DLPack has no word for read-only memory that torch would keep to: a store into it ends the process. */
static PyObject *torch_tensor(const struct pb_py_look *l, const struct pt2box_op_tensor *t)
{
	struct shown *s = calloc(1, sizeof(*s));
	PyObject *capsule, *tensor;

	if (!s)
		return PyErr_NoMemory();
	memcpy(s->sizes, t->sizes, (size_t)t->ndim * sizeof(*s->sizes));
	memcpy(s->strides, t->strides, (size_t)t->ndim * sizeof(*s->strides));
	s->managed = (struct dl_managed){
		.t = {.data = t->data,
		      .device = {DL_CPU, 0},
		      .ndim = t->ndim,
		      .dtype = {dl_code_of(t->dtype), (uint8_t)(8 * pt2box_dtype_size(t->dtype)), 1},
		      .shape = s->sizes,
		      .strides = s->strides},
		.ctx = s,
		.deleter = shown_free,
	};
	capsule = PyCapsule_New(&s->managed, "dltensor", capsule_free);
	if (!capsule) {
		free(s);
		return NULL;
	}
	tensor = PyObject_CallFunctionObjArgs(l->make, capsule, NULL);
	Py_DECREF(capsule);
	return tensor;
}

/* ---- values ---- */

static PyObject *tensor(const struct pb_py_look *l, const struct pt2box_op_tensor *t, bool written)
{
	if (!t)
		return Py_NewRef(Py_None);
	return l->torch ? torch_tensor(l, t) : numpy_array(l, t, written);
}

static PyObject *item(const struct pb_py_look *l, const struct pt2box_op_value *v, uint32_t i, bool written)
{
	switch (v->kind) {
	case PT2BOX_OP_TENSORS:
		return tensor(l, v->v.tensors[i], written);
	case PT2BOX_OP_INTS:
		return PyLong_FromLongLong(v->v.ints[i]);
	case PT2BOX_OP_FLOATS:
		return PyFloat_FromDouble(v->v.floats[i]);
	case PT2BOX_OP_BOOLS:
		return PyBool_FromLong(v->v.bools[i]);
	default:
		return PyUnicode_FromString(v->v.strings[i]);
	}
}

static PyObject *list(const struct pb_py_look *l, const struct pt2box_op_value *v, bool written)
{
	PyObject *r = PyList_New(v->count);

	for (uint32_t i = 0; r && i < v->count; i++) {
		PyObject *one = item(l, v, i, written);

		if (!one || PyList_SetItem(r, i, one)) {
			Py_DECREF(r);
			return NULL;
		}
	}
	return r;
}

PyObject *pb_py_show(const struct pb_py_look *l, const struct pt2box_op_value *v, bool written)
{
	switch (v->kind) {
	case PT2BOX_OP_NONE:
		return Py_NewRef(Py_None);
	case PT2BOX_OP_TENSOR:
		return tensor(l, v->v.tensor, written);
	case PT2BOX_OP_INT:
		return PyLong_FromLongLong(v->v.i);
	case PT2BOX_OP_FLOAT:
		return PyFloat_FromDouble(v->v.f);
	case PT2BOX_OP_BOOL:
		return PyBool_FromLong(v->v.i != 0);
	case PT2BOX_OP_STRING:
		return PyUnicode_FromString(v->v.s);
	case PT2BOX_OP_DTYPE:
		return Py_XNewRef(by_number(l->dtypes, v->v.i, "dtype", l));
	case PT2BOX_OP_LAYOUT:
		return Py_XNewRef(by_number(l->layouts, v->v.i, "layout", l));
	case PT2BOX_OP_MEMORY_FORMAT:
		return Py_XNewRef(by_number(l->memory_formats, v->v.i, "memory format", l));
	case PT2BOX_OP_DEVICE:
		return Py_XNewRef(by_number(l->devices, v->v.device.type, "device", l));
	case PT2BOX_OP_TENSORS:
	case PT2BOX_OP_INTS:
	case PT2BOX_OP_FLOATS:
	case PT2BOX_OP_BOOLS:
	case PT2BOX_OP_STRINGS:
		return list(l, v, written);
	default:
		PyErr_SetString(PyExc_TypeError, "an argument of a kind that Python is not given");
		return NULL;
	}
}
