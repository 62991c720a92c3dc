/* SPDX-License-Identifier: Apache-2.0 */
/* A loaded model, or a session of one: made, described, closed. Closed while runs are under way,
 * the last of them unloads it. */
#include <string.h>

#include "python/src/core.h"

PyTypeObject *model_type;

static struct model_object *self_of(PyObject *self)
{
	return (struct model_object *)self;
}

bool model_enter(struct model_object *o)
{
	if (!o->m || o->closing) {
		raise_status(PT2BOX_USAGE, "the model is closed");
		return false;
	}
	if (!connection_enter(o->connection))
		return false;
	o->calls++;
	return true;
}

static void drop(struct model_object *o);

/* A session before the model it is of. */
static void unload(struct model_object *o)
{
	struct pt2box_model *m = o->m;
	struct model_object *parent = o->parent;

	o->m = NULL;
	o->parent = NULL;
	Py_BEGIN_ALLOW_THREADS pt2box_unload(m);
	Py_END_ALLOW_THREADS if (parent)
	{
		drop(parent);
		Py_DECREF((PyObject *)parent);
	}
}

/* One that needs the model less. */
static void drop(struct model_object *o)
{
	if (--o->calls == 0 && o->closing && o->m)
		unload(o);
}

void model_leave(struct model_object *o)
{
	struct connection_object *c = o->connection;

	Py_INCREF((PyObject *)c);
	drop(o);
	connection_leave(c);
	Py_DECREF((PyObject *)c);
}

static struct model_object *finish(PyTypeObject *type, struct connection_object *c,
				   struct pt2box_model *m)
{
	struct model_object *o = self_of(PyType_GenericAlloc(type, 0));

	if (!o) {
		pt2box_unload(m);
		return NULL;
	}
	Py_INCREF((PyObject *)c);
	o->connection = c;
	o->m = m;
	o->n_in = pt2box_model_n_inputs(m);
	o->n_out = pt2box_model_n_outputs(m);
	return o;
}

static PyObject *model_construct(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *names[] = {"connection", "fd",	 "model",	    "backend", "profile",
				"runners",    "threads", "single_threaded", "device",  "load_ms",
				"run_ms",     "explain", "constants_fd",    "memory",  "ops_fd",
				"named",      "isolate", NULL};
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT;
	struct pt2box_model *m = NULL;
	struct model_object *ret = NULL;
	struct pt2box_error err;
	enum pt2box_status st;
	unsigned long long memory = 0;
	long long load_ms = 0, run_ms = 0;
	const char *named = NULL;
	PyObject *c;
	struct pt2box *box;
	int fd;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!i|zzzIIpiLLpiKizp:Model", names,
					 connection_type, &c, &fd, &opt.model_name, &opt.backend,
					 &opt.profile, &opt.runners, &opt.threads,
					 &opt.single_threaded, &opt.device_index, &load_ms, &run_ms,
					 &opt.explain, &opt.constants_fd, &memory, &opt.ops_fd,
					 &named, &opt.isolate))
		return NULL;
	opt.load_deadline_ms = load_ms;
	opt.run_deadline_ms = run_ms;
	opt.memory_bytes = memory;
	box = connection_enter((struct connection_object *)c);
	if (!box)
		return NULL;
	Py_BEGIN_ALLOW_THREADS st = named ? pt2box_load_named(box, named, &opt, &m, &err)
					  : pt2box_load_fd(box, fd, &opt, &m, &err);
	Py_END_ALLOW_THREADS connection_note((struct connection_object *)c, st);
	if (st)
		raise_error(&err);
	else
		ret = finish(type, (struct connection_object *)c, m);
	connection_leave((struct connection_object *)c);
	return (PyObject *)ret;
}

static PyObject *model_session(PyObject *self, PyObject *none)
{
	struct model_object *o = self_of(self), *s;
	struct pt2box_model *m = NULL;
	struct pt2box_error err;
	enum pt2box_status st;

	(void)none;
	if (!model_enter(o))
		return NULL;
	Py_BEGIN_ALLOW_THREADS st = pt2box_session_open(o->m, &m, &err);
	Py_END_ALLOW_THREADS s = st ? NULL : finish(Py_TYPE(self), o->connection, m);
	if (st)
		raise_error(&err);
	if (!s) {
		model_leave(o);
		return NULL;
	}
	/* The session holds the model open, but not the connection. */
	connection_leave(o->connection);
	Py_INCREF((PyObject *)o);
	s->parent = o;
	return (PyObject *)s;
}

static PyObject *model_close(PyObject *self, PyObject *none)
{
	struct model_object *o = self_of(self);

	(void)none;
	o->closing = true;
	if (o->m && o->calls == 0)
		unload(o);
	Py_RETURN_NONE;
}

static void model_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
	struct model_object *o = self_of(self);

	if (o->m)
		unload(o);
	tree_free(o->in_tree);
	tree_free(o->out_tree);
	Py_XDECREF(o->unfit);
	Py_XDECREF((PyObject *)o->connection);
	release(self);
	Py_DECREF(type);
}

/* ---- options and spec ---- */

struct pt2box_run_options model_run_options(const struct model_object *o)
{
	struct pt2box_run_options opt = PT2BOX_RUN_OPTIONS_INIT;

	opt.deadline_ms = o->deadline_ms;
	opt.retries = o->retries;
	return opt;
}

/* _configure(deadline_ms, retries, outputs, copy_outputs) */
static PyObject *model_configure(PyObject *self, PyObject *args)
{
	struct model_object *o = self_of(self);
	long long deadline;
	unsigned retries;
	const char *outputs;
	enum outputs kind;
	int copy;

	if (!PyArg_ParseTuple(args, "LIsp", &deadline, &retries, &outputs, &copy) ||
	    !outputs_parse(outputs, &kind))
		return NULL;
	o->deadline_ms = deadline;
	o->retries = retries;
	o->outputs = kind;
	o->copy_outputs = copy;
	Py_RETURN_NONE;
}

/* _set_spec(in, out, None), or _set_spec(None, None, why it cannot be used) */
static PyObject *model_set_spec(PyObject *self, PyObject *args)
{
	struct model_object *o = self_of(self);
	PyObject *in, *out, *why;
	struct tree *in_tree = NULL, *out_tree = NULL;

	if (!PyArg_ParseTuple(args, "OOO", &in, &out, &why))
		return NULL;
	if (in != Py_None) {
		in_tree = tree_new(in);
		out_tree = in_tree ? tree_new(out) : NULL;
		if (!out_tree) {
			tree_free(in_tree);
			return NULL;
		}
	}
	tree_free(o->in_tree);
	tree_free(o->out_tree);
	o->in_tree = in_tree;
	o->out_tree = out_tree;
	set_ref(&o->unfit, why == Py_None ? NULL : Py_NewRef(why));
	Py_RETURN_NONE;
}

/* ---- what it is ---- */

static PyObject *model_describe(PyObject *self, PyObject *none)
{
	struct model_object *o = self_of(self);
	struct pt2box_error err;
	char *text = NULL;
	PyObject *ret;

	(void)none;
	if (!model_enter(o))
		return NULL;
	if (pt2box_model_describe(o->m, &text, &err) != PT2BOX_OK) {
		ret = raise_error(&err);
	} else {
		ret = json_parse(text);
		pt2box_free_text(text);
	}
	model_leave(o);
	return ret;
}

static PyObject *model_spec_text(PyObject *self, PyObject *none)
{
	struct model_object *o = self_of(self);
	const char *in, *out;
	PyObject *ret;

	(void)none;
	if (!model_enter(o))
		return NULL;
	pt2box_model_call_spec(o->m, &in, &out);
	ret = Py_BuildValue("(ss)", in, out);
	model_leave(o);
	return ret;
}

/* empty(dtype, shape) */
static PyObject *model_empty(PyObject *self, PyObject *args)
{
	struct model_object *o = self_of(self);
	int64_t sizes[MAX_DIMS];
	struct pt2box_tensor *t;
	struct pt2box_error err;
	enum pt2box_status st;
	const char *dtype;
	PyObject *shape, *ret = NULL;
	struct view v;
	int32_t ndim;

	if (!PyArg_ParseTuple(args, "sO!:empty", &dtype, &PyTuple_Type, &shape))
		return NULL;
	if (PyTuple_Size(shape) > MAX_DIMS)
		return PyErr_Format(PyExc_ValueError, "a tensor has at most %d dimensions",
				    MAX_DIMS);
	for (Py_ssize_t i = 0; i < PyTuple_Size(shape); i++)
		sizes[i] = PyLong_AsLongLong(PyTuple_GetItem(shape, i));
	if (PyErr_Occurred() || !model_enter(o))
		return NULL;
	ndim = (int32_t)PyTuple_Size(shape);
	Py_BEGIN_ALLOW_THREADS /* the broker may have to give more memory */
		st = pt2box_tensor_alloc(o->m, pt2box_dtype_from_name(dtype), ndim, sizes, &t,
					 &err);
	Py_END_ALLOW_THREADS v.owner = st ? NULL : owner_new();
	if (st) {
		raise_error(&err);
	} else if (!v.owner) {
		pt2box_tensor_free(t);
	} else {
		v.owner->tensor = t;
		view_from_info(&v, pt2box_tensor_get_info(t), v.owner);
		ret = tensor_new(&v);
	}
	model_leave(o);
	return ret;
}

static PyObject *get_n_inputs(PyObject *self, void *unused)
{
	(void)unused;
	return PyLong_FromSize_t(self_of(self)->n_in);
}

static PyObject *get_n_outputs(PyObject *self, void *unused)
{
	(void)unused;
	return PyLong_FromSize_t(self_of(self)->n_out);
}

static PyObject *get_stateful(PyObject *self, void *unused)
{
	struct model_object *o = self_of(self);
	PyObject *ret;

	(void)unused;
	if (!model_enter(o))
		return NULL;
	ret = PyBool_FromLong(pt2box_model_is_stateful(o->m));
	model_leave(o);
	return ret;
}

static PyObject *get_closed(PyObject *self, void *unused)
{
	(void)unused;
	return PyBool_FromLong(!self_of(self)->m || self_of(self)->closing);
}

#define WITH_KEYWORDS(f) (PyCFunction)(void (*)(void))(f), METH_VARARGS | METH_KEYWORDS

static PyMethodDef methods[] = {
	{"run", WITH_KEYWORDS(model_run),
	 "run(inputs, *, deadline=None, retries=None, outputs=None, seed=None) -> list\n\nFlat tensors in "
	 "and out. seed: draw what PyTorch draws after torch.manual_seed(seed); None: no two runs draw the same. retries: how "
	 "often to run again after its worker died."},
	{"boxed_run", WITH_KEYWORDS(model_boxed_run), NULL},
	{"_start", WITH_KEYWORDS(model_start), NULL},
	{"_start_flat", model_start_flat, METH_O, NULL},
	{"_session", model_session, METH_NOARGS, NULL},
	{"close", model_close, METH_NOARGS,
	 "close()\n\nEnd the model's workers. Runs under way end first."},
	{"_configure", model_configure, METH_VARARGS, NULL},
	{"_set_spec", model_set_spec, METH_VARARGS, NULL},
	{"describe", model_describe, METH_NOARGS,
	 "describe() -> dict\n\nWhat pt2box.inspect() says, and the state of the model."},
	{"_spec_text", model_spec_text, METH_NOARGS, NULL},
	{"_empty", model_empty, METH_VARARGS, NULL},
	{"_load_constants", model_load_constants, METH_VARARGS, NULL},
	{"_load_constants_fd", model_load_constants_fd, METH_VARARGS, NULL},
	{"swap_constants", model_swap_constants, METH_NOARGS,
	 "swap_constants()\n\nExchange the active and the inactive buffer."},
	{"free_inactive_constants", model_free_inactive, METH_NOARGS,
	 "free_inactive_constants()\n\nGive the memory of the inactive buffer back."},
	{"_fold_constants", model_fold_constants, METH_VARARGS, NULL},
	{"_extract_constants", model_extract_constants, METH_VARARGS, NULL},
	{"_constants", model_constants, METH_NOARGS, NULL},
	{NULL, NULL, 0, NULL},
};

static PyGetSetDef attributes[] = {
	{"n_inputs", get_n_inputs, NULL, "flat inputs", NULL},
	{"n_outputs", get_n_outputs, NULL, "flat outputs", NULL},
	{"stateful", get_stateful, NULL, "the model changes its buffers from run to run", NULL},
	{"closed", get_closed, NULL, NULL, NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
	{Py_tp_new, model_construct}, {Py_tp_dealloc, model_dealloc}, {Py_tp_call, model_call},
	{Py_tp_methods, methods},     {Py_tp_getset, attributes},     {0, NULL},
};

static PyType_Spec spec = {"pt2box._core.Model", sizeof(struct model_object), 0,
			   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots};

int model_type_init(PyObject *module)
{
	model_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
	return model_type ? PyModule_AddObjectRef(module, "Model", (PyObject *)model_type) : -1;
}
