/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pt2box.Tensor: memory with dtype, shape and strides, for whoever has no numpy type for it or
 * wants none. Exports itself by the buffer protocol and DLPack. Readonly memory leaves by DLPack as
 * a copy unless its taker says copy=False: takers that ignore the flag exist, and a store through
 * them would end the process.
 */
#include <stdlib.h>
#include <string.h>

#include "python/src/core.h"

PyTypeObject *tensor_type;

static struct tensor_object *new_object(PyTypeObject *type)
{
	return (struct tensor_object *)PyType_GenericAlloc(type, 0);
}

static void set_view(struct tensor_object *t, const struct view *v)
{
	Py_ssize_t item = (Py_ssize_t)pt2box_dtype_size(v->dtype);

	t->v = *v;
	for (int32_t d = 0; d < v->ndim; d++)
		t->byte_strides[d] = v->strides[d] * item;
}

PyObject *tensor_new(const struct view *v)
{
	struct tensor_object *t = new_object(tensor_type);

	if (t)
		set_view(t, v);
	else
		owner_unref(v->owner);
	return (PyObject *)t;
}

static void tensor_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

	owner_unref(((struct tensor_object *)self)->v.owner);
	release(self);
	Py_DECREF(type);
}

/* ---- copies ---- */

/* Rows of the last dimension, one after the other. */
static void copy_elements(const struct view *v, uint8_t *dst)
{
	size_t item = pt2box_dtype_size(v->dtype);
	int64_t at[MAX_DIMS] = {0}, n = v->ndim ? v->sizes[v->ndim - 1] : 1,
		step = v->ndim ? v->strides[v->ndim - 1] : 1;

	for (int64_t done = 0; done < v->numel; done += n) {
		const uint8_t *src = v->data;

		for (int32_t d = 0; d < v->ndim - 1; d++)
			src += at[d] * v->strides[d] * (int64_t)item;
		for (int64_t i = 0; i < n; i++, dst += item)
			memcpy(dst, src + i * step * (int64_t)item, item);
		for (int32_t d = v->ndim - 2; d >= 0 && ++at[d] == v->sizes[d]; d--)
			at[d] = 0;
	}
}

bool view_copy(const struct view *v, struct view *ret)
{
	uint64_t bytes = (uint64_t)v->numel * pt2box_dtype_size(v->dtype);
	struct owner *o = owner_new();
	int64_t n = 1;

	if (!o)
		return false;
	o->heap = aligned_alloc(64, (bytes + 64) & ~(uint64_t)63);
	if (!o->heap) {
		owner_unref(o);
		PyErr_NoMemory();
		return false;
	}
	*ret = *v;
	ret->data = o->heap;
	ret->owner = o;
	ret->readonly = 0;
	for (int32_t d = v->ndim - 1; d >= 0; d--) {
		ret->strides[d] = n;
		n *= v->sizes[d] ? v->sizes[d] : 1;
	}
	Py_BEGIN_ALLOW_THREADS if (view_is_contiguous(v)) memcpy(ret->data, v->data, bytes);
	else copy_elements(v, ret->data);
	Py_END_ALLOW_THREADS return true;
}

/* ---- the constructor ---- */

/* @dtype_text NULL: as the buffer says; else the bytes are of that type. */
static bool view_from_buffer(PyObject *object, const char *dtype_text, struct view *v)
{
	Py_buffer *b = calloc(1, sizeof(*b));
	Py_ssize_t item;

	memset(v, 0, sizeof(*v));
	v->owner = b ? owner_new() : NULL;
	if (!v->owner || PyObject_GetBuffer(object, b, PyBUF_RECORDS_RO) < 0) {
		free(b);
		return false;
	}
	v->owner->buffer = b;
	v->data = b->buf;
	v->ndim = b->ndim;
	v->readonly = b->readonly;
	v->dtype = dtype_text ? pt2box_dtype_from_name(dtype_text)
			      : dtype_from_format(b->format, b->itemsize);
	item = v->dtype < 0 ? 0 : (Py_ssize_t)pt2box_dtype_size(v->dtype);
	if (item == 0 || item != b->itemsize || b->ndim > MAX_DIMS) {
		PyErr_Format(PyExc_TypeError, "elements of %zd bytes (format '%s') cannot be %s",
			     b->itemsize, b->format ? b->format : "B",
			     dtype_text ? dtype_text : "in a tensor");
		return false;
	}
	v->numel = b->len / item;
	for (int32_t d = 0; d < v->ndim; d++)
		v->sizes[d] = b->shape[d];
	if (strides_from_bytes(b, v->strides))
		return true;
	PyErr_SetString(PyExc_ValueError, "strides must be whole elements, and not negative");
	return false;
}

static PyObject *tensor_construct(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *names[] = {"object", "dtype", NULL};
	struct tensor_object *t;
	const char *dtype = NULL;
	PyObject *object;
	struct view v;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|z:Tensor", names, &object, &dtype))
		return NULL;
	if (!view_from_buffer(object, dtype, &v)) {
		owner_unref(v.owner);
		return NULL;
	}
	t = new_object(type);
	if (t)
		set_view(t, &v);
	else
		owner_unref(v.owner);
	return (PyObject *)t;
}

PyObject *tensor_from_any(PyObject *module, PyObject *object)
{
	struct view v, copy;
	PyObject *ret = NULL;
	struct leaf l;

	(void)module;
	if (leaf_init(&l, object, -1, 0)) {
		view_from_info(&v, pt2box_tensor_get_info(l.tensor), NULL);
		if (view_copy(&v, &copy))
			ret = tensor_new(&copy);
	}
	leaf_deinit(&l);
	return ret;
}

/* ---- attributes ---- */

static const struct view *view_of(PyObject *self)
{
	return &((struct tensor_object *)self)->v;
}

static PyObject *get_shape(PyObject *self, void *unused)
{
	(void)unused;
	return tuple_from(view_of(self)->sizes, view_of(self)->ndim);
}

static PyObject *get_strides(PyObject *self, void *unused)
{
	(void)unused;
	return tuple_from(view_of(self)->strides, view_of(self)->ndim);
}

static PyObject *get_dtype(PyObject *self, void *unused)
{
	(void)unused;
	return PyUnicode_FromString(pt2box_dtype_name(view_of(self)->dtype));
}

static PyObject *get_ndim(PyObject *self, void *unused)
{
	(void)unused;
	return PyLong_FromLong(view_of(self)->ndim);
}

static PyObject *get_size(PyObject *self, void *unused)
{
	(void)unused;
	return PyLong_FromLongLong(view_of(self)->numel);
}

static PyObject *get_itemsize(PyObject *self, void *unused)
{
	(void)unused;
	return PyLong_FromSize_t(pt2box_dtype_size(view_of(self)->dtype));
}

static PyObject *get_nbytes(PyObject *self, void *unused)
{
	(void)unused;
	return PyLong_FromLongLong(view_of(self)->numel *
				   (long long)pt2box_dtype_size(view_of(self)->dtype));
}

static PyObject *get_readonly(PyObject *self, void *unused)
{
	(void)unused;
	return PyBool_FromLong(view_of(self)->readonly);
}

static PyObject *tensor_repr(PyObject *self)
{
	PyObject *shape = get_shape(self, NULL);
	PyObject *text = shape ? PyUnicode_FromFormat("pt2box.Tensor(shape=%R, dtype=%s%s)", shape,
						      pt2box_dtype_name(view_of(self)->dtype),
						      view_of(self)->readonly ? ", readonly" : "")
			       : NULL;

	Py_XDECREF(shape);
	return text;
}

static PyObject *tensor_numpy(PyObject *self, PyObject *none)
{
	struct view v = *view_of(self);

	(void)none;
	if (!dtype_numpy(dtype_get(v.dtype)))
		return PyErr_Occurred()
			       ? NULL
			       : PyErr_Format(PyExc_TypeError, "numpy has no %s without ml_dtypes",
					      pt2box_dtype_name(v.dtype));
	owner_ref(v.owner);
	return export_numpy(&v);
}

static PyObject *tensor_torch(PyObject *self, PyObject *none)
{
	struct view v = *view_of(self), copy;

	(void)none;
	if (v.readonly) {
		if (!view_copy(&v, &copy))
			return NULL;
		return export_torch(&copy);
	}
	owner_ref(v.owner);
	return export_torch(&v);
}

static PyObject *tensor_copy(PyObject *self, PyObject *none)
{
	struct view copy;

	(void)none;
	return view_copy(view_of(self), &copy) ? tensor_new(&copy) : NULL;
}

static PyObject *tensor_device(PyObject *self, PyObject *none)
{
	(void)self;
	(void)none;
	return Py_BuildValue("(ii)", DL_CPU, 0);
}

static PyObject *tensor_dlpack(PyObject *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = {"stream", "max_version", "dl_device", "copy", NULL};
	PyObject *stream = Py_None, *version = Py_None, *device = Py_None, *copy = Py_None, *ret;
	const struct view *v = view_of(self);
	long major = 0, type = DL_CPU;
	bool must_copy;
	struct view c;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$OOOO:__dlpack__", names, &stream,
					 &version, &device, &copy))
		return NULL;
	if (version != Py_None)
		major = PyLong_AsLong(PyTuple_GetItem(version, 0));
	if (device != Py_None)
		type = PyLong_AsLong(PyTuple_GetItem(device, 0));
	if (PyErr_Occurred())
		return NULL;
	if (type != DL_CPU)
		return PyErr_Format(PyExc_BufferError,
				    "the tensor is in memory, not on device type %ld", type);
	must_copy = copy == Py_True || (v->readonly && copy != Py_False);
	if (v->readonly && !must_copy && major < 1)
		return PyErr_Format(PyExc_BufferError,
				    "a readonly tensor needs max_version=(1, 0) or a copy");
	if (!must_copy)
		return export_capsule(v, major >= 1, v->readonly ? DL_READ_ONLY : 0);
	if (!view_copy(v, &c))
		return NULL;
	ret = export_capsule(&c, major >= 1, DL_IS_COPIED);
	owner_unref(c.owner);
	return ret;
}

/* ---- the buffer protocol ---- */

static int tensor_getbuffer(PyObject *self, Py_buffer *b, int flags)
{
	struct tensor_object *t = (struct tensor_object *)self;
	const struct view *v = &t->v;
	bool plain = (flags & PyBUF_STRIDES) != PyBUF_STRIDES ||
		     (flags & PyBUF_C_CONTIGUOUS) == PyBUF_C_CONTIGUOUS ||
		     (flags & PyBUF_F_CONTIGUOUS) == PyBUF_F_CONTIGUOUS ||
		     (flags & PyBUF_ANY_CONTIGUOUS) == PyBUF_ANY_CONTIGUOUS;

	b->obj = NULL;
	if ((flags & PyBUF_WRITABLE) && v->readonly) {
		PyErr_SetString(PyExc_BufferError, "the tensor is readonly");
		return -1;
	}
	if (plain && !view_is_contiguous(v)) {
		PyErr_SetString(PyExc_BufferError, "the tensor is not contiguous");
		return -1;
	}
	if ((flags & PyBUF_F_CONTIGUOUS) == PyBUF_F_CONTIGUOUS && v->ndim > 1) {
		PyErr_SetString(PyExc_BufferError, "the tensor is not in Fortran's order");
		return -1;
	}
	b->buf = v->data;
	b->itemsize = (Py_ssize_t)pt2box_dtype_size(v->dtype);
	b->len = v->numel * b->itemsize;
	b->readonly = v->readonly;
	b->ndim = v->ndim;
	b->format = flags & PyBUF_FORMAT ? (char *)dtype_get(v->dtype)->format : NULL;
	b->shape = flags & PyBUF_ND ? (Py_ssize_t *)v->sizes : NULL;
	b->strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? t->byte_strides : NULL;
	b->suboffsets = NULL;
	b->internal = NULL;
	Py_INCREF(self);
	b->obj = self;
	return 0;
}

static PyMethodDef methods[] = {
	{"numpy", tensor_numpy, METH_NOARGS, "numpy() -> ndarray\n\nThe same memory."},
	{"torch", tensor_torch, METH_NOARGS,
	 "torch() -> torch.Tensor\n\nThe same memory, of a readonly tensor a copy."},
	{"copy", tensor_copy, METH_NOARGS,
	 "copy() -> Tensor\n\nWritable, contiguous, in memory of its own."},
	{"__dlpack__", (PyCFunction)(void (*)(void))tensor_dlpack, METH_VARARGS | METH_KEYWORDS,
	 NULL},
	{"__dlpack_device__", tensor_device, METH_NOARGS, NULL},
	{NULL, NULL, 0, NULL},
};

static PyGetSetDef attributes[] = {
	{"shape", get_shape, NULL, "elements per dimension", NULL},
	{"strides", get_strides, NULL, "in elements", NULL},
	{"dtype", get_dtype, NULL, "name: 'float32', 'bfloat16', ...", NULL},
	{"ndim", get_ndim, NULL, NULL, NULL},
	{"size", get_size, NULL, "elements", NULL},
	{"itemsize", get_itemsize, NULL, "bytes of an element", NULL},
	{"nbytes", get_nbytes, NULL, "bytes of all elements", NULL},
	{"readonly", get_readonly, NULL, NULL, NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
	{Py_tp_doc, "Tensor(object, dtype=None)\n\nThe memory of an object with the buffer "
		    "protocol, as elements of dtype (default: what "
		    "the buffer says). For types that the other side lacks: "
		    "Tensor(array_of_uint16, 'bfloat16')."},
	{Py_tp_new, tensor_construct},
	{Py_tp_dealloc, tensor_dealloc},
	{Py_tp_repr, tensor_repr},
	{Py_tp_methods, methods},
	{Py_tp_getset, attributes},
	{Py_bf_getbuffer, tensor_getbuffer},
	{0, NULL},
};

static PyType_Spec spec = {"pt2box._core.Tensor", sizeof(struct tensor_object), 0,
			   Py_TPFLAGS_DEFAULT, slots};

int tensor_type_init(PyObject *module)
{
	tensor_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
	return tensor_type ? PyModule_AddObjectRef(module, "Tensor", (PyObject *)tensor_type) : -1;
}
