/* SPDX-License-Identifier: Apache-2.0 */
/* The module pt2box._core. What users see is made of it in Python. */
#include "python/src/core.h"

static PyObject *parse(PyObject *module, PyObject *text)
{
	const char *s = PyUnicode_AsUTF8AndSize(text, NULL);

	(void)module;
	return s ? json_parse(s) : NULL;
}

static PyMethodDef methods[] = {
	{"_set_errors", errors_set, METH_VARARGS, NULL},
	{"_json", parse, METH_O, NULL},
	{"_tensor", tensor_from_any, METH_O, NULL},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT, "pt2box._core", NULL, -1, methods, NULL, NULL, NULL, NULL,
};

/* {number: name} of every status */
static int add_statuses(PyObject *module)
{
#define NAME(name, number, text) {number, #name},
	static const struct {
		int number;
		const char *name;
	} list[] = {PT2BOX_STATUS_LIST(NAME)};
#undef NAME
	PyObject *d = PyDict_New();
	int bad = d ? 0 : -1;

	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]) && !bad; i++) {
		PyObject *k = PyLong_FromLong(list[i].number),
			 *v = PyUnicode_FromString(list[i].name);

		bad = k && v ? PyDict_SetItem(d, k, v) : -1;
		Py_XDECREF(k);
		Py_XDECREF(v);
	}
	if (!bad)
		bad = PyModule_AddObjectRef(module, "_status_names", d);
	Py_XDECREF(d);
	return bad;
}

PyMODINIT_FUNC PyInit__core(void);
PyMODINIT_FUNC PyInit__core(void)
{
	PyObject *m = PyModule_Create(&definition);

	if (!m)
		return NULL;
	if (add_statuses(m) < 0 || PyModule_AddStringConstant(m, "version", PT2BOX_VERSION) < 0 ||
	    tensor_type_init(m) < 0 || connection_type_init(m) < 0 || model_type_init(m) < 0 ||
	    run_type_init(m) < 0) {
		Py_DECREF(m);
		return NULL;
	}
	return m;
}
