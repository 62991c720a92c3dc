/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An input: from whatever the caller has to a tensor lent to the run. By the kind of its type,
 * which is remembered: our own Tensor; DLPack's table of functions (torch); the buffer protocol
 * (numpy, array, bytes); DLPack's capsules; Python's numbers.
 */
#include <stdlib.h>
#include <string.h>

#include "python/src/core.h"

enum kind { KIND_NONE, KIND_TENSOR, KIND_EXCHANGE, KIND_BUFFER, KIND_DLPACK, KIND_NUMBER };

struct known {
	PyTypeObject *type;
	enum kind kind;
	bool is_torch;
	const struct dl_exchange *api;
};

/* ---- kinds of types ---- */

#define KNOWN_MAX 32
static struct known known[KNOWN_MAX];
static unsigned n_known;

bool leaf_is_constant(PyObject *o)
{
	return o == Py_None || PyLong_Check(o) || PyFloat_Check(o) || PyComplex_Check(o) ||
	       PyUnicode_Check(o);
}

/* torch is imported if one of its tensors is here. */
static int is_torch_type(PyTypeObject *type)
{
	PyObject *modules = PySys_GetObject("modules"); /* borrowed */
	const struct torch *t;

	if (!modules || !PyMapping_HasKeyString(modules, "torch"))
		return 0;
	t = torch_get();
	return t ? PyObject_IsSubclass((PyObject *)type, t->tensor_type) : -1;
}

static const struct dl_exchange *get_exchange(PyTypeObject *type)
{
	PyObject *c = PyObject_GetAttrString((PyObject *)type, "__dlpack_c_exchange_api__");
	const struct dl_exchange *api = NULL;

	if (c && PyCapsule_IsValid(c, "dlpack_exchange_api"))
		api = PyCapsule_GetPointer(c, "dlpack_exchange_api");
	PyErr_Clear();
	Py_XDECREF(c);
	return api && api->major == 1 && api->view ? api : NULL;
}

static bool classify(PyObject *object, struct known *k)
{
	int is_torch = is_torch_type(k->type);

	if (is_torch < 0)
		return false;
	k->is_torch = is_torch;
	k->api = get_exchange(k->type);
	if (PyType_IsSubtype(k->type, tensor_type))
		k->kind = KIND_TENSOR;
	else if (k->api)
		k->kind = KIND_EXCHANGE;
	else if (PyLong_Check(object) || PyFloat_Check(object) || PyComplex_Check(object))
		k->kind = PyObject_CheckBuffer(object) ? KIND_BUFFER
						       : KIND_NUMBER; /* numpy.float64 is both */
	else if (PyObject_CheckBuffer(object))
		k->kind = KIND_BUFFER;
	else
		k->kind = PyObject_HasAttrString(object, "__dlpack__") ? KIND_DLPACK : KIND_NONE;
	return true;
}

/* A copy: what is remembered may change whenever Python code runs. */
static bool look_up(PyObject *object, struct known *ret)
{
	PyTypeObject *type = Py_TYPE(object);
	PyTypeObject *old;
	unsigned at;

	for (unsigned i = 0; i < KNOWN_MAX && known[i].type; i++)
		if (known[i].type == type) {
			*ret = known[i];
			return true;
		}
	*ret = (struct known){.type = type};
	if (!classify(object, ret))
		return false;
	at = n_known++ % KNOWN_MAX;
	old = known[at].type;
	Py_INCREF((PyObject *)type);
	known[at] = *ret;
	Py_XDECREF((PyObject *)old);
	return true;
}

/* ---- tensors ---- */

static bool lend(struct leaf *l, int32_t dtype, int32_t ndim, const int64_t *sizes,
		 const int64_t *strides, void *data, bool readonly)
{
	struct pt2box_error err;

	if (pt2box_tensor_lend(dtype, ndim, sizes, strides, data, &l->tensor, &err) != PT2BOX_OK) {
		raise_error(&err);
		return false;
	}
	l->owns_tensor = true;
	if (readonly)
		pt2box_tensor_protect(l->tensor);
	return true;
}

static bool refuse(size_t index, PyObject *object, const char *why)
{
	PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(object), "__name__");

	PyErr_Format(PyExc_TypeError, "input %zu, %S: %s", index, name ? name : Py_None, why);
	Py_XDECREF(name);
	return false;
}

static bool from_dltensor(struct leaf *l, const struct dl_tensor *t, bool readonly, size_t index)
{
	int32_t dtype = dtype_from_dlpack(t->dtype);

	if (t->device.type != DL_CPU && t->device.type != DL_CUDA_HOST)
		return refuse(index, l->object, "must be in the memory of the CPU");
	if (dtype < 0)
		return refuse(index, l->object, "has a dtype that no package takes");
	if (t->ndim > MAX_DIMS)
		return refuse(index, l->object, "has more than 16 dimensions");
	return lend(l, dtype, t->ndim, t->shape, t->strides,
		    t->data ? (uint8_t *)t->data + t->byte_offset : NULL, readonly);
}

/* A tensor whose bits wait to be negated or conjugated: its memory is not its value. Replaced by
 * one that is. */
static bool resolve(struct leaf *l, PyObject *test, const char *method)
{
	PyObject *is = PyObject_CallFunctionObjArgs(test, l->object, NULL);
	bool yes = is == Py_True;

	Py_XDECREF(is);
	if (!is || !yes)
		return is != NULL;
	set_ref(&l->holder, PyObject_CallMethod(l->holder ? l->holder : l->object, method, NULL));
	return l->holder != NULL;
}

static bool is_complex(const struct dl_tensor *t)
{
	return t->dtype.code == DL_COMPLEX;
}

static bool from_exchange(struct leaf *l, const struct known *k, size_t index)
{
	const struct torch *torch = k->is_torch ? torch_get() : NULL;
	struct dl_tensor t;

	if (torch && !resolve(l, torch->is_neg, "resolve_neg"))
		return false;
	if (k->api->view(l->holder ? l->holder : l->object, &t) != 0) {
		PyErr_Clear(); /* of pages of text */
		return refuse(index, l->object, "must be dense, and in the memory of the CPU");
	}
	if (torch && is_complex(&t)) {
		if (!resolve(l, torch->is_conj, "resolve_conj") ||
		    k->api->view(l->holder ? l->holder : l->object, &t) != 0)
			return false;
	}
	return from_dltensor(l, &t, false, index);
}

/* ---- DLPack's capsules ---- */

static PyObject *get_capsule(PyObject *object)
{
	PyObject *f = PyObject_GetAttrString(object, "__dlpack__");
	PyObject *none = PyTuple_New(0), *options = Py_BuildValue("{s(ii)}", "max_version", 1, 0),
		 *ret = NULL;

	if (f && none && options)
		ret = PyObject_Call(f, none, options);
	if (!ret && f && PyErr_ExceptionMatches(PyExc_TypeError)) {
		PyErr_Clear(); /* of a time before versions */
		ret = PyObject_CallFunctionObjArgs(f, NULL);
	}
	Py_XDECREF(options);
	Py_XDECREF(none);
	Py_XDECREF(f);
	return ret;
}

static bool from_dlpack(struct leaf *l, size_t index)
{
	PyObject *capsule = get_capsule(l->object);
	bool readonly = false;

	if (!capsule)
		return false;
	if (PyCapsule_IsValid(capsule, "dltensor_versioned")) {
		l->versioned = PyCapsule_GetPointer(capsule, "dltensor_versioned");
		PyCapsule_SetName(capsule, "used_dltensor_versioned");
		readonly = l->versioned->flags & DL_READ_ONLY;
	} else if (PyCapsule_IsValid(capsule, "dltensor")) {
		l->managed = PyCapsule_GetPointer(capsule, "dltensor");
		PyCapsule_SetName(capsule, "used_dltensor");
	}
	Py_DECREF(capsule);
	if (!l->versioned && !l->managed)
		return refuse(index, l->object, "gave a capsule that is not of DLPack");
	if (l->versioned && l->versioned->major != 1)
		return refuse(index, l->object, "speaks another version of DLPack");
	return from_dltensor(l, l->versioned ? &l->versioned->t : &l->managed->t, readonly, index);
}

/* ---- the buffer protocol ---- */

/* Negative or odd strides: in the protocol, not in PyTorch. */
static bool copy_odd(struct leaf *l, int32_t dtype)
{
	Py_buffer *b = &l->buffer;

	l->copy = malloc((size_t)b->len + 1);
	if (!l->copy) {
		PyErr_NoMemory();
		return false;
	}
	return PyBuffer_ToContiguous(l->copy, b, b->len, 'C') == 0 &&
	       lend(l, dtype, b->ndim, b->shape, NULL, l->copy, b->readonly);
}

static bool from_buffer(struct leaf *l, PyObject *exporter, int32_t dtype, size_t index)
{
	Py_buffer *b = &l->buffer;
	int64_t strides[MAX_DIMS];

	if (PyObject_GetBuffer(exporter, b, PyBUF_RECORDS_RO) < 0)
		return false;
	l->has_buffer = true;
	if (dtype < 0)
		dtype = dtype_from_format(b->format, b->itemsize);
	if (dtype < 0 || (Py_ssize_t)pt2box_dtype_size(dtype) != b->itemsize)
		return refuse(index, l->object, "has a dtype or byte order that no package takes");
	if (b->ndim > MAX_DIMS)
		return refuse(index, l->object, "has more than 16 dimensions");
	if (!strides_from_bytes(b, strides))
		return copy_odd(l, dtype);
	return lend(l, dtype, b->ndim, b->shape, strides, b->buf, b->readonly);
}

/* Of numpy's arrays, those of ml_dtypes' types have no buffer: integers of their size over the same
 * memory do. */
static bool from_named(struct leaf *l, size_t index)
{
	PyObject *dtype, *name;
	const char *text, *bytes;
	int32_t number;

	PyErr_Clear();
	dtype = PyObject_GetAttrString(l->object, "dtype");
	name = dtype ? PyObject_GetAttrString(dtype, "name") : NULL;
	text = name ? PyUnicode_AsUTF8AndSize(name, NULL) : NULL;
	number = text ? pt2box_dtype_from_name(text) : -1;
	Py_XDECREF(name);
	Py_XDECREF(dtype);
	if (number < 0) {
		PyErr_Clear();
		return refuse(index, l->object, "has a dtype that no package takes");
	}
	bytes = pt2box_dtype_size(number) == 1 ? "u1" : "u2";
	set_ref(&l->holder, PyObject_CallMethod(l->object, "view", "s", bytes));
	return l->holder && from_buffer(l, l->holder, number, index);
}

/* ---- numbers ---- */

static int32_t default_dtype(PyObject *o)
{
	if (PyBool_Check(o))
		return PT2BOX_BOOL;
	if (PyLong_Check(o))
		return PT2BOX_INT64;
	return PyFloat_Check(o) ? PT2BOX_FLOAT32 : PT2BOX_COMPLEX64;
}

static bool store_integer(struct leaf *l, int32_t dtype, size_t index)
{
	bool is_signed = dtype != PT2BOX_UINT8 && dtype != PT2BOX_UINT16 &&
			 dtype != PT2BOX_UINT32 && dtype != PT2BOX_UINT64;
	int bits = 8 * (int)pt2box_dtype_size(dtype);
	int overflow = 0;
	long long v;

	if (!PyLong_Check(l->object))
		return refuse(index, l->object, "the package takes an integer");
	if (dtype == PT2BOX_UINT64) {
		l->scalar[0] = PyLong_AsUnsignedLongLong(l->object);
		return !PyErr_Occurred();
	}
	v = PyLong_AsLongLongAndOverflow(l->object, &overflow);
	if (overflow ||
	    (bits < 64 && (is_signed ? v < -(1ll << (bits - 1)) || v >= 1ll << (bits - 1)
				     : v < 0 || v >= 1ll << bits)))
		return refuse(index, l->object, "the number does not fit the package's integer");
	memcpy(l->scalar, &v, sizeof(v)); /* little-endian: the low bytes come first */
	return !PyErr_Occurred();
}

static bool from_number(struct leaf *l, int32_t declared, size_t index)
{
	int32_t dtype = declared < 0 ? default_dtype(l->object) : declared;
	float *f = (float *)l->scalar;
	double *d = (double *)l->scalar;

	switch (dtype) {
	case PT2BOX_FLOAT32:
		f[0] = (float)PyFloat_AsDouble(l->object);
		break;
	case PT2BOX_FLOAT64:
		d[0] = PyFloat_AsDouble(l->object);
		break;
	case PT2BOX_COMPLEX64:
		f[0] = (float)PyComplex_RealAsDouble(l->object);
		f[1] = (float)PyComplex_ImagAsDouble(l->object);
		break;
	case PT2BOX_COMPLEX128:
		d[0] = PyComplex_RealAsDouble(l->object);
		d[1] = PyComplex_ImagAsDouble(l->object);
		break;
	case PT2BOX_BOOL:
		if (!PyBool_Check(l->object))
			return refuse(index, l->object, "the package takes a bool");
		l->scalar[0] = l->object == Py_True;
		break;
	case PT2BOX_FLOAT16:
	case PT2BOX_BFLOAT16:
	case PT2BOX_FLOAT8_E5M2:
	case PT2BOX_FLOAT8_E4M3FN:
	case PT2BOX_COMPLEX32:
		return refuse(index, l->object,
			      "the package takes a tensor of a type that Python lacks");
	default:
		if (!store_integer(l, dtype, index))
			return false;
	}
	return !PyErr_Occurred() && lend(l, dtype, 0, NULL, NULL, l->scalar, true);
}

/* ---- all of them ---- */

static bool from_tensor(struct leaf *l)
{
	const struct view *v = &((struct tensor_object *)l->object)->v;
	struct pt2box_tensor *t = v->owner->tensor;

	/* In the lane perhaps: then it is not copied. */
	if (t && pt2box_tensor_get_info(t)->data == v->data) {
		l->tensor = t;
		return true;
	}
	return lend(l, v->dtype, v->ndim, v->sizes, v->strides, v->data, v->readonly);
}

bool leaf_init(struct leaf *l, PyObject *object, int32_t declared, size_t index)
{
	struct known k;

	memset(l, 0, offsetof(struct leaf, buffer));
	l->holder = NULL;
	l->versioned = NULL;
	l->managed = NULL;
	l->copy = NULL;
	Py_INCREF(object);
	l->object = object;
	if (!look_up(object, &k))
		return false;
	l->is_torch = k.is_torch;
	switch (k.kind) {
	case KIND_TENSOR:
		return from_tensor(l);
	case KIND_EXCHANGE:
		return from_exchange(l, &k, index);
	case KIND_BUFFER:
		return from_buffer(l, object, -1, index) ||
		       (!l->has_buffer && PyObject_HasAttrString(object, "dtype") &&
			from_named(l, index));
	case KIND_DLPACK:
		if (k.is_torch) {
			l->holder = PyObject_CallMethod(object, "detach", NULL);
			return l->holder &&
			       (l->object = (Py_DECREF(object), Py_NewRef(l->holder))) &&
			       from_dlpack(l, index);
		}
		return from_dlpack(l, index);
	case KIND_NUMBER:
		return from_number(l, declared, index);
	default:
		return refuse(index, object, "is no tensor: give an array, a tensor or a number");
	}
}

void leaf_deinit(struct leaf *l)
{
	if (l->owns_tensor)
		pt2box_tensor_free(l->tensor);
	if (l->has_buffer)
		PyBuffer_Release(&l->buffer);
	if (l->versioned && l->versioned->deleter)
		l->versioned->deleter(l->versioned);
	if (l->managed && l->managed->deleter)
		l->managed->deleter(l->managed);
	free(l->copy);
	Py_XDECREF(l->holder);
	Py_XDECREF(l->object);
}

bool leaf_write_back(struct leaf *l)
{
	Py_buffer *b = &l->buffer;
	void *now;
	int bad = 0;

	if (!l->copy || b->readonly)
		return true;
	now = malloc((size_t)b->len + 1);
	if (!now || PyBuffer_ToContiguous(now, b, b->len, 'C') < 0)
		bad = 1;
	else if (memcmp(now, l->copy, (size_t)b->len) != 0)
		bad = PyBuffer_FromContiguous(b, l->copy, b->len, 'C');
	free(now);
	if (bad && !PyErr_Occurred())
		PyErr_NoMemory();
	return !bad;
}

bool leaf_move(struct leaf *l, struct pt2box_model *m)
{
	const struct pt2box_tensor_info *f = pt2box_tensor_get_info(l->tensor);
	struct pt2box_error err;
	struct pt2box_tensor *t;
	enum pt2box_status st;
	struct view v;

	view_from_info(&v, f, NULL);
	if (!view_is_contiguous(&v))
		return true;
	Py_BEGIN_ALLOW_THREADS st = pt2box_tensor_alloc(m, f->dtype, f->ndim, f->sizes, &t, &err);
	Py_END_ALLOW_THREADS if (st)
	{
		raise_error(&err);
		return false;
	}
	Py_BEGIN_ALLOW_THREADS memcpy(pt2box_tensor_get_info(t)->data, f->data, view_bytes(&v));
	Py_END_ALLOW_THREADS leaf_deinit(l);
	memset(l, 0, sizeof(*l));
	l->tensor = t;
	l->owns_tensor = true;
	return true;
}
