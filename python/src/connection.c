/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection to a broker. Closing waits for nobody: if threads are in calls on it, the last of
 * them closes. A forked child may only drop it.
 */
#include "python/src/core.h"

PyTypeObject *connection_type;

static struct connection_object *self_of(PyObject *self)
{
	return (struct connection_object *)self;
}

static PyObject *connection_construct(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *names[] = {"socket", NULL};
	struct connection_object *o;
	PyObject *path = NULL;
	struct pt2box_error err;
	struct pt2box *c = NULL;
	enum pt2box_status st;
	const char *text;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Connection", names, &path))
		return NULL;
	if (path == Py_None)
		path = NULL;
	if (path && !PyUnicode_FSConverter(path, &path))
		return NULL;
	text = path ? PyBytes_AsString(path) : NULL;
	Py_BEGIN_ALLOW_THREADS st = pt2box_open(text, &c, &err);
	Py_END_ALLOW_THREADS Py_XDECREF(path);
	if (st)
		return raise_error(&err);
	o = self_of(PyType_GenericAlloc(type, 0));
	if (o)
		o->c = c;
	else
		pt2box_close(c);
	return (PyObject *)o;
}

static void close_now(struct connection_object *o)
{
	struct pt2box *c = o->c;

	o->c = NULL;
	Py_BEGIN_ALLOW_THREADS pt2box_close(c);
	Py_END_ALLOW_THREADS
}

struct pt2box *connection_enter(struct connection_object *o)
{
	if (!o->c || o->closing) {
		raise_status(PT2BOX_USAGE, "the connection is closed");
		return NULL;
	}
	o->calls++;
	return o->c;
}

void connection_leave(struct connection_object *o)
{
	if (--o->calls == 0 && o->closing && o->c)
		close_now(o);
}

void connection_note(struct connection_object *o, enum pt2box_status st)
{
	o->lost |= st == PT2BOX_BROKER_LOST;
}

static PyObject *connection_close(PyObject *self, PyObject *none)
{
	struct connection_object *o = self_of(self);

	(void)none;
	o->closing = true;
	if (o->c && o->calls == 0)
		close_now(o);
	Py_RETURN_NONE;
}

static void connection_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
	struct connection_object *o = self_of(self);

	if (o->c)
		close_now(o);
	release(self);
	Py_DECREF(type);
}

static PyObject *take_json(struct connection_object *o, enum pt2box_status st, char *text,
			   const struct pt2box_error *err)
{
	PyObject *ret;

	connection_leave(o);
	connection_note(o, st);
	if (st)
		return raise_error(err);
	ret = json_parse(text);
	pt2box_free_text(text);
	return ret;
}

static PyObject *connection_inspect(PyObject *self, PyObject *args)
{
	struct connection_object *o = self_of(self);
	int fd, only_metadata = 0;
	struct pt2box_error err;
	const char *model;
	char *text = NULL;
	enum pt2box_status st;
	struct pt2box *c;

	if (!PyArg_ParseTuple(args, "is|p", &fd, &model, &only_metadata))
		return NULL;
	c = connection_enter(o);
	if (!c)
		return NULL;
	Py_BEGIN_ALLOW_THREADS st = only_metadata
					    ? pt2box_inspect_metadata_fd(c, fd, model, &text, &err)
					    : pt2box_inspect_fd(c, fd, model, &text, &err);
	Py_END_ALLOW_THREADS return take_json(o, st, text, &err);
}

static PyObject *report(PyObject *self,
			enum pt2box_status (*ask)(struct pt2box *, char **, struct pt2box_error *))
{
	struct connection_object *o = self_of(self);
	struct pt2box *c = connection_enter(o);
	struct pt2box_error err;
	enum pt2box_status st;
	char *text = NULL;

	if (!c)
		return NULL;
	Py_BEGIN_ALLOW_THREADS st = ask(c, &text, &err);
	Py_END_ALLOW_THREADS return take_json(o, st, text, &err);
}

static PyObject *connection_doctor(PyObject *self, PyObject *none)
{
	(void)none;
	return report(self, pt2box_doctor);
}

static PyObject *connection_ps(PyObject *self, PyObject *none)
{
	(void)none;
	return report(self, pt2box_ps);
}

static PyObject *connection_closed(PyObject *self, void *unused)
{
	(void)unused;
	return PyBool_FromLong(!self_of(self)->c || self_of(self)->closing);
}

static PyObject *connection_lost(PyObject *self, void *unused)
{
	(void)unused;
	return PyBool_FromLong(self_of(self)->lost);
}

static PyMethodDef methods[] = {
	{"close", connection_close, METH_NOARGS,
	 "close()\n\nUnload its models, end a private broker. Runs that other threads are in end "
	 "first."},
	{"_inspect", connection_inspect, METH_VARARGS, NULL},
	{"doctor", connection_doctor, METH_NOARGS,
	 "doctor() -> dict\n\nWhat this machine can enforce, and what is in force."},
	{"ps", connection_ps, METH_NOARGS,
	 "ps() -> dict\n\nModels, workers, lanes and memory of this tenant."},
	{NULL, NULL, 0, NULL},
};

static PyGetSetDef attributes[] = {
	{"closed", connection_closed, NULL, NULL, NULL},
	{"lost", connection_lost, NULL, "a call found its broker gone", NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
	{Py_tp_new, connection_construct},
	{Py_tp_dealloc, connection_dealloc},
	{Py_tp_methods, methods},
	{Py_tp_getset, attributes},
	{0, NULL},
};

static PyType_Spec spec = {"pt2box._core.Connection", sizeof(struct connection_object), 0,
			   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots};

int connection_type_init(PyObject *module)
{
	connection_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
	return connection_type
		       ? PyModule_AddObjectRef(module, "Connection", (PyObject *)connection_type)
		       : -1;
}
