/* SPDX-License-Identifier: Apache-2.0 */
/* The library's JSON to objects. Python's own module takes longer to import than a package takes to
 * inspect. */
#include <jansson.h>

#include "python/src/core.h"

static PyObject *to_object(const json_t *j);

static PyObject *to_dict(const json_t *j)
{
	PyObject *d = PyDict_New();
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)j, key, value)
	{
		PyObject *v = d ? to_object(value) : NULL;

		if (!v || PyDict_SetItemString(d, key, v) < 0)
			Py_CLEAR(d);
		Py_XDECREF(v);
	}
	return d;
}

static PyObject *to_list(const json_t *j)
{
	PyObject *l = PyList_New((Py_ssize_t)json_array_size(j));

	for (size_t i = 0; l && i < json_array_size(j); i++) {
		PyObject *v = to_object(json_array_get(j, i));

		if (!v || PyList_SetItem(l, (Py_ssize_t)i, v) < 0)
			Py_CLEAR(l);
	}
	return l;
}

static PyObject *to_object(const json_t *j)
{
	switch (json_typeof(j)) {
	case JSON_OBJECT:
		return to_dict(j);
	case JSON_ARRAY:
		return to_list(j);
	case JSON_STRING:
		return PyUnicode_DecodeUTF8(json_string_value(j), (Py_ssize_t)json_string_length(j),
					    NULL);
	case JSON_INTEGER:
		return PyLong_FromLongLong(json_integer_value(j));
	case JSON_REAL:
		return PyFloat_FromDouble(json_real_value(j));
	case JSON_TRUE:
		Py_RETURN_TRUE;
	case JSON_FALSE:
		Py_RETURN_FALSE;
	default:
		Py_RETURN_NONE;
	}
}

PyObject *json_parse(const char *text)
{
	json_error_t e;
	json_t *j = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
	PyObject *ret;

	if (!j)
		return PyErr_Format(PyExc_ValueError, "not JSON: %s (line %d)", e.text, e.line);
	ret = to_object(j);
	json_decref(j);
	return ret;
}
