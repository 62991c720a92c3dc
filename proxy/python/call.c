/* SPDX-License-Identifier: Apache-2.0 */
/* The trampoline: one function of the host's table for all operators in Python. Exceptions become the call's failure. */
#include <stdio.h>

#include "proxy/host.h"
#include "proxy/python/glue.h"

static PyObject *describe;

void pb_py_set_describe(PyObject *function)
{
	Py_XDECREF(describe);
	describe = Py_NewRef(function);
}

void pb_py_exception_text(char *text, size_t cap)
{
	PyObject *type, *value, *traceback, *said = NULL;
	const char *s = NULL;

	PyErr_Fetch(&type, &value, &traceback);
	PyErr_NormalizeException(&type, &value, &traceback);
	if (value && traceback)
		PyException_SetTraceback(value, traceback);
	if (value && describe)
		said = PyObject_CallFunctionObjArgs(describe, value, NULL);
	if (said && PyUnicode_Check(said))
		s = PyUnicode_AsUTF8AndSize(said, NULL);
	/* Its own text may raise, too. */
	snprintf(text, cap, "%s", s ? s : "an exception that cannot be described");
	PyErr_Clear();
	Py_XDECREF(said);
	Py_XDECREF(type);
	Py_XDECREF(value);
	Py_XDECREF(traceback);
}

static int put_argument(const struct pb_py_op *o, uint32_t i, const struct pt2box_op_value *v, PyObject *positional,
			PyObject *named)
{
	const struct pb_schema_arg *a = &o->schema.args[i];
	PyObject *shown = pb_py_show(o->look, v, a->written);
	int bad;

	if (!shown)
		return -1;
	if (!a->kwarg_only)
		return PyTuple_SetItem(positional, i, shown); /* takes it */
	bad = PyDict_SetItemString(named, a->name, shown);
	Py_DECREF(shown);
	return bad;
}

/* The function's return; NULL: a Python exception. */
static PyObject *call(const struct pb_py_op *o, const struct pt2box_op_call *c)
{
	PyObject *positional, *named = NULL, *returned = NULL;
	uint32_t n = 0;
	int bad = 0;

	while (n < o->schema.n_args && !o->schema.args[n].kwarg_only)
		n++;
	positional = PyTuple_New(n);
	if (n < o->schema.n_args)
		named = PyDict_New();
	bad = !positional || (n < o->schema.n_args && !named);
	for (uint32_t i = 0; i < o->schema.n_args && !bad; i++)
		bad = put_argument(o, i, &c->args[i], positional, named);
	if (!bad)
		returned = PyObject_Call(o->function, positional, named);
	Py_XDECREF(positional);
	Py_XDECREF(named);
	return returned;
}

int pb_py_run(struct pt2box_op_call *c)
{
	const struct pb_py_op *o = (const struct pb_py_op *)pb_host_running(c); /* its first member */
	PyObject *returned = call(o, c);
	int bad = returned ? pb_py_give(o, c, returned) : -1;
	char text[400];

	Py_XDECREF(returned);
	if (!PyErr_Occurred())
		return bad;
	pb_py_exception_text(text, sizeof(text));
	return bad ? c->fail(c, "%s", text) : 0;
}
