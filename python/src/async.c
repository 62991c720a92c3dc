/* SPDX-License-Identifier: Apache-2.0 */
/* A run that goes on by itself: its descriptor is readable when it has ended. Holds its inputs, and
 * its model open, until then. */
#include <poll.h>
#include <stdlib.h>

#include "python/src/core.h"

struct run_object {
	PyObject_HEAD struct model_object *model;
	struct pt2box_run *run; /* NULL: its result was taken */
	struct inputs *in;
	bool flat;
};

static PyTypeObject *run_type;

static struct run_object *self_of(PyObject *self)
{
	return (struct run_object *)self;
}

/* Takes @in, which is heap memory, success or not. The model has been entered. */
static PyObject *start(struct model_object *m, struct inputs *in, bool flat)
{
	struct run_object *r = self_of(PyType_GenericAlloc(run_type, 0));
	const struct pt2box_run_options opt = model_run_options(m);
	struct pt2box_error err;
	enum pt2box_status st = PT2BOX_NO_MEMORY;

	if (r) {
		Py_BEGIN_ALLOW_THREADS st =
			pt2box_run_start(m->m, in->tensor, in->n, &opt, &r->run, &err);
		Py_END_ALLOW_THREADS if (st) raise_error(&err);
	}
	if (st) {
		inputs_deinit(in);
		free(in);
		model_leave(m);
		Py_XDECREF((PyObject *)r);
		return NULL;
	}
	Py_INCREF((PyObject *)m);
	r->model = m;
	r->in = in;
	r->flat = flat;
	return (PyObject *)r;
}

static PyObject *start_from(PyObject *self, PyObject *args, PyObject *kwargs, bool flat)
{
	struct model_object *m = (struct model_object *)self;
	struct inputs *in = malloc(sizeof(*in));

	if (!in)
		return PyErr_NoMemory();
	if (!model_enter(m)) {
		free(in);
		return NULL;
	}
	if (flat ? inputs_from_list(in, m, args) : inputs_from_call(in, m, args, kwargs))
		return start(m, in, flat);
	inputs_deinit(in);
	free(in);
	model_leave(m);
	return NULL;
}

PyObject *model_start(PyObject *self, PyObject *args, PyObject *kwargs)
{
	return start_from(self, args, kwargs, false);
}

PyObject *model_start_flat(PyObject *self, PyObject *inputs)
{
	return start_from(self, inputs, NULL, true);
}

/* Wait for the end, take the tensors. */
static enum pt2box_status take(struct run_object *r, struct pt2box_tensor **out,
			       struct pt2box_error *err)
{
	struct pt2box_run *run = r->run;
	enum pt2box_status st;

	r->run = NULL;
	Py_BEGIN_ALLOW_THREADS st = pt2box_run_finish(run, out, err);
	Py_END_ALLOW_THREADS return st;
}

static void let_go(struct run_object *r)
{
	if (!r->in)
		return;
	inputs_deinit(r->in);
	free(r->in);
	r->in = NULL;
	model_leave(r->model);
}

static PyObject *objects(struct run_object *r, struct pt2box_tensor **out)
{
	struct model_object *m = r->model;
	PyObject **o = calloc(m->n_out + 1, sizeof(*o)), *ret = NULL;
	bool made;

	if (!o)
		return PyErr_NoMemory();
	made = inputs_write_back(r->in) &&
	       outputs_make(out, m->n_out, r->in->leaf, r->in->n, m->outputs, m->copy_outputs, o);
	if (made && m->out_tree && !r->flat) {
		ret = tree_unflatten(m->out_tree, o);
	} else if (made) {
		ret = PyList_New((Py_ssize_t)m->n_out);
		for (size_t i = 0; ret && i < m->n_out; i++)
			PyList_SetItem(ret, (Py_ssize_t)i, Py_NewRef(o[i]));
	}
	for (size_t i = 0; i < m->n_out; i++)
		Py_XDECREF(o[i]);
	free(o);
	return ret;
}

static PyObject *run_result(PyObject *self, PyObject *none)
{
	struct run_object *r = self_of(self);
	struct pt2box_tensor **out;
	struct pt2box_error err;
	PyObject *ret = NULL;

	(void)none;
	if (!r->run)
		return raise_status(PT2BOX_USAGE, "the run's result was taken");
	out = calloc(r->model->n_out + 1, sizeof(struct pt2box_tensor *));
	if (!out)
		return PyErr_NoMemory();
	if (take(r, out, &err))
		raise_error(&err);
	else
		ret = objects(r, out);
	free(out);
	let_go(r);
	return ret;
}

static PyObject *run_fileno(PyObject *self, PyObject *none)
{
	(void)none;
	if (!self_of(self)->run)
		return raise_status(PT2BOX_USAGE, "the run's result was taken");
	return PyLong_FromLong(pt2box_run_fd(self_of(self)->run));
}

static PyObject *run_done(PyObject *self, PyObject *none)
{
	struct run_object *r = self_of(self);
	struct pollfd p = {.events = POLLIN};

	(void)none;
	if (!r->run)
		Py_RETURN_TRUE;
	p.fd = pt2box_run_fd(r->run);
	return PyBool_FromLong(poll(&p, 1, 0) == 1);
}

static PyObject *run_cancel(PyObject *self, PyObject *none)
{
	(void)none;
	if (self_of(self)->run)
		pt2box_run_cancel(self_of(self)->run);
	Py_RETURN_NONE;
}

/* Nobody wants the result: the run is cancelled, and its end awaited, since it uses the inputs. */
static void run_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
	struct run_object *r = self_of(self);
	size_t n = r->model ? r->model->n_out : 0;
	struct pt2box_tensor **out = r->run ? calloc(n + 1, sizeof(struct pt2box_tensor *)) : NULL;

	if (out) {
		pt2box_run_cancel(r->run);
		if (take(r, out, NULL) == PT2BOX_OK)
			for (size_t i = 0; i < n; i++)
				pt2box_tensor_free(out[i]);
		free(out);
	}
	let_go(r);
	Py_XDECREF((PyObject *)r->model);
	release(self);
	Py_DECREF(type);
}

static PyMethodDef methods[] = {
	{"result", run_result, METH_NOARGS,
	 "result()\n\nWait for the end and take the outputs, once."},
	{"fileno", run_fileno, METH_NOARGS,
	 "fileno() -> int\n\nA descriptor that is readable once the run has ended."},
	{"done", run_done, METH_NOARGS, "done() -> bool"},
	{"cancel", run_cancel, METH_NOARGS,
	 "cancel()\n\nAsk that the run ends soon; result() then raises Cancelled, or has been "
	 "quicker."},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
	{Py_tp_dealloc, run_dealloc},
	{Py_tp_methods, methods},
	{0, NULL},
};

static PyType_Spec spec = {"pt2box._core.Run", sizeof(struct run_object), 0,
			   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};

int run_type_init(PyObject *module)
{
	run_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
	return run_type ? PyModule_AddObjectRef(module, "Run", (PyObject *)run_type) : -1;
}
