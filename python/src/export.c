/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors as objects of others: numpy's arrays, torch's tensors, DLPack's capsules. */
#include <stdlib.h>
#include <string.h>

#include "python/src/core.h"

/* ---- numpy ---- */

static PyObject *ndarray_type, *asarray;

static bool numpy_get(void)
{
	PyObject *numpy;

	if (asarray)
		return true;
	numpy = PyImport_ImportModule("numpy");
	if (!numpy)
		return false;
	ndarray_type = PyObject_GetAttrString(numpy, "ndarray");
	asarray = ndarray_type ? PyObject_GetAttrString(numpy, "asarray") : NULL;
	Py_DECREF(numpy);
	return asarray != NULL;
}

bool is_ndarray(PyObject *object)
{
	return numpy_get() && PyObject_TypeCheck(object, (PyTypeObject *)ndarray_type);
}

/* By the buffer protocol; of types that it lacks, as integers, which are then called by their name.
 */
static PyObject *strided_array(PyObject *tensor, PyObject *dtype)
{
	PyObject *raw = PyObject_CallFunctionObjArgs(asarray, tensor, NULL);
	PyObject *ret = raw ? PyObject_CallMethod(raw, "view", "O", dtype) : NULL;

	Py_XDECREF(raw);
	return ret;
}

PyObject *export_numpy(const struct view *v)
{
	PyObject *dtype = numpy_get() ? dtype_numpy(dtype_get(v->dtype)) : NULL;
	PyObject *tensor, *shape, *ret = NULL;

	if (!dtype && PyErr_Occurred()) {
		owner_unref(v->owner);
		return NULL;
	}
	tensor = tensor_new(v);
	if (!tensor || !dtype)
		return tensor;
	if (view_is_contiguous(v)) {
		shape = tuple_from(v->sizes, v->ndim);
		ret = shape ? PyObject_CallFunctionObjArgs(ndarray_type, shape, dtype, tensor, NULL)
			    : NULL;
		Py_XDECREF(shape);
	} else {
		ret = strided_array(tensor, dtype);
	}
	Py_DECREF(tensor);
	return ret;
}

/* ---- DLPack ---- */

/* One export: the struct that its taker frees, dimensions, owner. */
struct exported {
	union {
		struct dl_versioned versioned;
		struct dl_managed managed;
	} u;
	struct owner *owner;
	int64_t dims[];
};

static void delete_versioned(struct dl_versioned *m)
{
	struct exported *e = (struct exported *)m;

	owner_unref(e->owner);
	free(e);
}

static void delete_managed(struct dl_managed *m)
{
	struct exported *e = (struct exported *)m;

	owner_unref(e->owner);
	free(e);
}

static struct exported *exported_new(const struct view *v, bool versioned, uint64_t flags)
{
	size_t n = (size_t)v->ndim * sizeof(int64_t);
	struct exported *e = malloc(sizeof(*e) + 2 * n);
	const struct dtype *d = dtype_get(v->dtype);
	struct dl_tensor t;

	if (!e) {
		PyErr_NoMemory();
		return NULL;
	}
	memcpy(e->dims, v->sizes, n);
	memcpy(e->dims + v->ndim, v->strides, n);
	e->owner = owner_ref(v->owner);
	t = (struct dl_tensor){.data = v->data,
			       .device = {DL_CPU, 0},
			       .ndim = v->ndim,
			       .dtype = {d->dl_code, d->dl_bits, 1},
			       .shape = e->dims,
			       .strides = e->dims + v->ndim};
	if (versioned)
		e->u.versioned = (struct dl_versioned){1, 0, e, delete_versioned, flags, t};
	else
		e->u.managed = (struct dl_managed){t, e, delete_managed};
	return e;
}

/* Nobody took it. */
static void capsule_died(PyObject *capsule)
{
	const char *name = PyCapsule_GetName(capsule);

	if (name && strcmp(name, "dltensor") == 0)
		delete_managed(PyCapsule_GetPointer(capsule, name));
	else if (name && strcmp(name, "dltensor_versioned") == 0)
		delete_versioned(PyCapsule_GetPointer(capsule, name));
}

PyObject *export_capsule(const struct view *v, bool versioned, uint64_t flags)
{
	struct exported *e = exported_new(v, versioned, flags);
	PyObject *capsule =
		e ? PyCapsule_New(e, versioned ? "dltensor_versioned" : "dltensor", capsule_died)
		  : NULL;

	if (e && !capsule)
		delete_versioned(&e->u.versioned);
	return capsule;
}

/* ---- torch ---- */

static struct torch torch;

/* NULL without an exception: it has none that we know. */
static const struct dl_exchange *exchange_of(PyObject *type)
{
	PyObject *capsule = PyObject_GetAttrString(type, "__dlpack_c_exchange_api__");
	const struct dl_exchange *api = NULL;

	if (capsule && PyCapsule_IsValid(capsule, "dlpack_exchange_api"))
		api = PyCapsule_GetPointer(capsule, "dlpack_exchange_api");
	PyErr_Clear();
	Py_XDECREF(capsule);
	return api && api->major == 1 ? api : NULL;
}

const struct torch *torch_get(void)
{
	PyObject *module;

	if (torch.from_dlpack)
		return &torch;
	module = PyImport_ImportModule("torch");
	if (!module)
		return NULL;
	torch.tensor_type = PyObject_GetAttrString(module, "Tensor");
	if (torch.tensor_type) {
		torch.is_neg = PyObject_GetAttrString(torch.tensor_type, "is_neg");
		torch.is_conj =
			torch.is_neg ? PyObject_GetAttrString(torch.tensor_type, "is_conj") : NULL;
	}
	if (torch.is_conj) {
		torch.api = exchange_of(torch.tensor_type);
		torch.from_dlpack = PyObject_GetAttrString(module, "from_dlpack");
	}
	Py_DECREF(module);
	return torch.from_dlpack ? &torch : NULL;
}

static PyObject *by_capsule(const struct torch *t, const struct view *v)
{
	PyObject *capsule = export_capsule(v, false, 0);
	PyObject *ret =
		capsule ? PyObject_CallFunctionObjArgs(t->from_dlpack, capsule, NULL) : NULL;

	Py_XDECREF(capsule);
	return ret;
}

PyObject *export_torch(const struct view *v)
{
	const struct torch *t = torch_get();
	struct exported *e;
	void *ret = NULL;

	if (t && !t->api) {
		ret = by_capsule(t, v);
	} else if (t) {
		e = exported_new(v, true, 0);
		if (e && t->api->to(&e->u.versioned, &ret) != 0)
			ret = NULL;
	}
	owner_unref(v->owner);
	return ret;
}
