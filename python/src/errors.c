/* SPDX-License-Identifier: Apache-2.0 */
/* Statuses to exceptions. The classes are Python's (_errors.py). */
#include <stdarg.h>
#include <stdio.h>

#include "python/src/core.h"

#define STATUS_MAX 64

static PyObject *base, *by_status[STATUS_MAX];

PyObject *errors_set(PyObject *module, PyObject *args)
{
	PyObject *map, *key, *value;
	Py_ssize_t at = 0;

	(void)module;
	if (!PyArg_ParseTuple(args, "OO!", &base, &PyDict_Type, &map))
		return NULL;
	Py_INCREF(base);
	while (PyDict_Next(map, &at, &key, &value)) {
		long status = PyLong_AsLong(key);

		if (status < 0 || status >= STATUS_MAX)
			return PyErr_Format(PyExc_ValueError, "status %ld", status);
		Py_INCREF(value);
		by_status[status] = value;
	}
	Py_RETURN_NONE;
}

PyObject *raise_error(const struct pt2box_error *err)
{
	uint32_t st = (uint32_t)err->status;
	PyObject *cls = st < STATUS_MAX && by_status[st] ? by_status[st] : base;
	PyObject *text, *e;

	if (PyErr_Occurred())
		return NULL;
	text = PyUnicode_DecodeUTF8(err->text, (Py_ssize_t)strlen(err->text), "replace");
	e = text ? PyObject_CallFunction(cls, "Oiii", text, (int)st, err->signal, err->sys_errno)
		 : NULL;
	if (e)
		PyErr_SetObject((PyObject *)Py_TYPE(e), e);
	Py_XDECREF(text);
	Py_XDECREF(e);
	return NULL;
}

PyObject *raise_status(enum pt2box_status status, const char *format, ...)
{
	struct pt2box_error err = {.status = status};
	va_list ap;

	va_start(ap, format);
	vsnprintf(err.text, sizeof(err.text), format, ap);
	va_end(ap);
	return raise_error(&err);
}
