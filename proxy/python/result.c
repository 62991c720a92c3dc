/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a Python function returned, as results of the call: copied once, with the strides that it has, as PyTorch takes it.
 * Nothing of it is believed: the host checks each result again (proxy/call.c), the worker once more.
 */
#include <string.h>

#include "include/pt2box.h"
#include "include/pt2box_dlpack.h"
#include "ipc/checked.h"
#include "proxy/python/glue.h"

/* A returned tensor, while what owns it is held. */
struct view {
	PyObject *array, *capsule;
	Py_buffer buffer;
	bool has_buffer;
	const void *data;
	int32_t dtype, ndim;
	int64_t sizes[PT2BOX_OP_MAX_DIMS], strides[PT2BOX_OP_MAX_DIMS];
};

static void view_end(struct view *v)
{
	if (v->has_buffer)
		PyBuffer_Release(&v->buffer);
	Py_XDECREF(v->capsule);
	Py_XDECREF(v->array);
}

static int too_many_dims(int64_t n)
{
	PyErr_Format(PyExc_ValueError, "a result with %lld dimensions; %d is the most", (long long)n, PT2BOX_OP_MAX_DIMS);
	return -1;
}

static int32_t dtype_of(const struct pb_py_look *l, PyObject *array)
{
	PyObject *dtype = PyObject_GetAttrString(array, "dtype"), *number;
	int32_t n = -1;

	if (!dtype)
		return -1;
	number = PyDict_GetItemWithError(l->numbers, dtype); /* borrowed */
	if (number)
		n = (int32_t)PyLong_AsLong(number);
	else if (!PyErr_Occurred())
		PyErr_Format(PyExc_TypeError, "a result of dtype %S, which no tensor has", dtype);
	Py_DECREF(dtype);
	return n;
}

/* @l->array() has seen to it that strides are whole elements and not negative. */
static int numpy_view(const struct pb_py_look *l, PyObject *returned, struct view *v)
{
	v->array = PyObject_CallFunctionObjArgs(l->array, returned, NULL);
	if (!v->array)
		return -1;
	v->dtype = dtype_of(l, v->array);
	if (v->dtype < 0 || PyObject_GetBuffer(v->array, &v->buffer, PyBUF_STRIDED_RO))
		return -1;
	v->has_buffer = true;
	if (v->buffer.ndim > PT2BOX_OP_MAX_DIMS)
		return too_many_dims(v->buffer.ndim);
	v->data = v->buffer.buf;
	v->ndim = v->buffer.ndim;
	for (int32_t i = 0; i < v->ndim; i++) {
		v->sizes[i] = v->buffer.shape[i];
		v->strides[i] = v->buffer.strides[i] / v->buffer.itemsize;
	}
	if ((size_t)v->buffer.itemsize == pt2box_dtype_size(v->dtype))
		return 0;
	PyErr_SetString(PyExc_TypeError, "a result whose dtype is not its own");
	return -1;
}

static int torch_view(const struct pb_py_look *l, PyObject *returned, struct view *v)
{
	const struct dl_managed *m;

	v->array = PyObject_CallFunctionObjArgs(l->array, returned, NULL);
	v->capsule = v->array ? PyObject_CallFunctionObjArgs(l->export, v->array, NULL) : NULL;
	m = v->capsule ? PyCapsule_GetPointer(v->capsule, "dltensor") : NULL;
	if (!m)
		return -1;
	if (m->t.device.type != DL_CPU) {
		PyErr_SetString(PyExc_ValueError, "a result that is not on the CPU");
		return -1;
	}
	if (m->t.ndim > PT2BOX_OP_MAX_DIMS)
		return too_many_dims(m->t.ndim);
	v->dtype = dtype_of(l, v->array);
	if (v->dtype < 0)
		return -1;
	v->data = m->t.data ? (const uint8_t *)m->t.data + m->t.byte_offset : NULL;
	v->ndim = m->t.ndim;
	for (int32_t i = v->ndim, step = 0; i-- > 0; step++) {
		v->sizes[i] = m->t.shape[i];
		v->strides[i] = m->t.strides ? m->t.strides[i] : step == 0 ? 1 : v->strides[i + 1] * v->sizes[i + 1];
	}
	return 0;
}

/* A result with the contents of @v. NULL: the call knows why, or a Python exception. */
static struct pt2box_op_tensor *copy(struct pt2box_op_call *c, const struct view *v)
{
	struct pt2box_op_tensor *t;
	uint64_t bytes;

	for (int32_t i = 0; i < v->ndim; i++)
		if (v->strides[i] < 0)
			return PyErr_SetString(PyExc_ValueError, "a result with negative strides"), NULL;
	t = c->new_tensor(c, v->dtype, v->ndim, v->sizes, v->strides);
	if (t && pb_tensor_extent(v->ndim, v->sizes, v->strides, pt2box_dtype_size(v->dtype), &bytes) && bytes)
		memcpy(t->data, v->data, bytes);
	return t;
}

static int give_tensor(const struct pb_py_op *o, struct pt2box_op_call *c, size_t i, PyObject *returned, bool append)
{
	struct view v = {.array = NULL};
	struct pt2box_op_tensor *t = NULL;
	int bad = o->look->torch ? torch_view(o->look, returned, &v) : numpy_view(o->look, returned, &v);

	if (!bad)
		t = copy(c, &v);
	view_end(&v);
	if (!t)
		return -1;
	return append ? c->append_result(c, i, t) : c->set_result(c, i, t);
}

/* The argument that the schema returns: whatever the function returned is that. NULL: it returns none. */
static struct pt2box_op_tensor *returned_argument(const struct pb_py_op *o, const struct pt2box_op_call *c, uint32_t i)
{
	const char alias = o->schema.returns[i].alias;

	for (uint32_t k = 0; alias && k < o->schema.n_args && k < c->n_args; k++)
		if (o->schema.args[k].alias == alias && c->args[k].kind == PT2BOX_OP_TENSOR)
			return c->args[k].v.tensor;
	return NULL;
}

static int give_list(const struct pb_py_op *o, struct pt2box_op_call *c, size_t i, PyObject *returned)
{
	PyObject *list = PySequence_Fast(returned, "a list of tensors is to be returned");
	Py_ssize_t n = list ? PySequence_Size(list) : 0;
	int bad = list ? 0 : -1;

	for (Py_ssize_t k = 0; k < n && !bad; k++) {
		PyObject *one = PySequence_GetItem(list, k);

		bad = one ? give_tensor(o, c, i, one, true) : -1;
		Py_XDECREF(one);
	}
	Py_XDECREF(list);
	return bad ? -1 : 0;
}

static int give_one(const struct pb_py_op *o, struct pt2box_op_call *c, uint32_t i, PyObject *returned)
{
	struct pt2box_op_tensor *argument = returned_argument(o, c, i);

	if (argument)
		return c->set_result(c, i, argument);
	if (o->schema.returns[i].list)
		return give_list(o, c, i, returned);
	if (returned == Py_None) {
		PyErr_Format(PyExc_TypeError, "result %u is None", i);
		return -1;
	}
	return give_tensor(o, c, i, returned, false);
}

int pb_py_give(const struct pb_py_op *o, struct pt2box_op_call *c, PyObject *returned)
{
	const uint32_t n = o->schema.n_returns;
	Py_ssize_t have;
	int bad = 0;

	if (n == 0)
		return 0;
	if (n == 1)
		return give_one(o, c, 0, returned);
	have = PyTuple_Check(returned) || PyList_Check(returned) ? PySequence_Size(returned) : -1;
	if (have != n) {
		PyErr_Format(PyExc_TypeError, "the schema returns %u results, as a tuple", n);
		return -1;
	}
	for (uint32_t i = 0; i < n && !bad; i++) {
		PyObject *one = PySequence_GetItem(returned, i);

		bad = one ? give_one(o, c, i, one) : -1;
		Py_XDECREF(one);
	}
	return bad ? -1 : 0;
}
