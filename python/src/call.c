/* SPDX-License-Identifier: Apache-2.0 */
/* Runs that the caller waits for: leaves, tensors, pt2box_run() without the GIL, objects. */
#include <stdlib.h>
#include <string.h>

#include "python/src/core.h"

#define FEW 8

/* ---- inputs ---- */

void inputs_deinit(struct inputs *in)
{
	for (size_t i = 0; i < in->n; i++)
		leaf_deinit(&in->leaf[i]);
	if (in->leaf != in->few) {
		free(in->leaf);
		free(in->tensor);
	}
}

bool inputs_write_back(struct inputs *in)
{
	for (size_t i = 0; i < in->n; i++)
		if (in->leaf[i].copy && !leaf_write_back(&in->leaf[i]))
			return false;
	return true;
}

static bool inputs_room(struct inputs *in, size_t n)
{
	in->n = 0;
	in->leaf = in->few;
	in->tensor = in->few_tensors;
	if (n <= FEW)
		return true;
	in->leaf = malloc(n * sizeof(*in->leaf));
	in->tensor = malloc(n * sizeof(*in->tensor));
	if (in->leaf && in->tensor)
		return true;
	PyErr_NoMemory();
	return false;
}

static bool inputs_add(struct inputs *in, struct model_object *m, PyObject *object)
{
	size_t i = in->n++; /* also a half-made leaf is given back */

	if (!leaf_init(&in->leaf[i], object, pt2box_model_input_dtype(m->m, i), i))
		return false;
	in->tensor[i] = in->leaf[i].tensor;
	return true;
}

static bool wrong_count(struct model_object *m, size_t n)
{
	raise_status(PT2BOX_BAD_TENSOR, "the package takes %zu inputs, not %zu", m->n_in, n);
	return false;
}

bool inputs_from_list(struct inputs *in, struct model_object *m, PyObject *sequence)
{
	PyObject *list = PySequence_List(sequence);
	Py_ssize_t n = list ? PyList_Size(list) : 0;
	bool ok = inputs_room(in, (size_t)n) && list;

	if (ok && (size_t)n != m->n_in)
		ok = wrong_count(m, (size_t)n);
	for (Py_ssize_t i = 0; i < n && ok; i++)
		ok = inputs_add(in, m, PyList_GetItem(list, i));
	Py_XDECREF(list);
	return ok;
}

/* Of more leaves than inputs, those that are no tensors were fixed when the model was exported. */
static bool inputs_from_leaves(struct inputs *in, struct model_object *m, PyObject **leaf, size_t n)
{
	size_t inputs = 0;

	if (n == m->n_in)
		inputs = n;
	else
		for (size_t i = 0; i < n; i++)
			inputs += !leaf_is_constant(leaf[i]);
	if (inputs != m->n_in)
		return wrong_count(m, inputs);
	for (size_t i = 0; i < n; i++)
		if ((n == m->n_in || !leaf_is_constant(leaf[i])) && !inputs_add(in, m, leaf[i]))
			return false;
	return true;
}

bool inputs_from_call(struct inputs *in, struct model_object *m, PyObject *args, PyObject *kwargs)
{
	PyObject *few[FEW] = {NULL}, **leaf = few;
	size_t n;
	bool ok;

	in->n = 0;
	in->leaf = in->few;
	if (!m->in_tree) {
		if (m->unfit) {
			PyErr_Format(PyExc_TypeError, "%U; run() takes flat inputs", m->unfit);
			return false;
		}
		return inputs_from_list(in, m, args);
	}
	n = tree_n_leaves(m->in_tree);
	if (n > FEW)
		leaf = calloc(n, sizeof(*leaf));
	if (!leaf) {
		PyErr_NoMemory();
		return false;
	}
	ok = inputs_room(in, n) && tree_flatten_call(m->in_tree, args, kwargs, leaf) &&
	     inputs_from_leaves(in, m, leaf, n);
	for (size_t i = 0; i < n; i++)
		Py_XDECREF(leaf[i]);
	if (leaf != few)
		free(leaf);
	return ok;
}

/* ---- the run ---- */

/* The library asks this of the waiting thread: has Ctrl-C come? The GIL is taken for the moment. */
static int interrupted(void *arg)
{
	PyThreadState **ts = arg;
	int e;

	PyEval_RestoreThread(*ts);
	e = PyErr_CheckSignals();
	*ts = PyEval_SaveThread();
	return e != 0;
}

/* true: @out holds n_out tensors. */
static bool run_tensors(struct model_object *m, struct inputs *in, struct pt2box_run_options opt,
			struct pt2box_tensor **out)
{
	struct pt2box_error err;
	enum pt2box_status st;
	PyThreadState *ts;

	opt.interrupted = interrupted;
	opt.arg = &ts;
	ts = PyEval_SaveThread();
	st = pt2box_run(m->m, in->tensor, in->n, &opt, out, &err);
	PyEval_RestoreThread(ts);
	if (!st && !PyErr_Occurred())
		return true;
	for (size_t i = 0; !st && i < m->n_out; i++)
		pt2box_tensor_free(out[i]); /* the run was quicker than its cancellation */
	if (st)
		raise_error(&err);
	return false;
}

static bool run_objects(struct model_object *m, struct inputs *in, struct pt2box_run_options opt,
			enum outputs kind, PyObject **ret)
{
	struct pt2box_tensor *few[FEW],
		**out = m->n_out <= FEW ? few : malloc(m->n_out * sizeof(*out));
	bool ok;

	if (!out) {
		PyErr_NoMemory();
		return false;
	}
	ok = run_tensors(m, in, opt, out) && inputs_write_back(in) &&
	     outputs_make(out, m->n_out, in->leaf, in->n, kind, m->copy_outputs, ret);
	if (out != few)
		free(out);
	return ok;
}

static PyObject *to_list(PyObject **o, size_t n)
{
	PyObject *list = PyList_New((Py_ssize_t)n);

	for (size_t i = 0; list && i < n; i++)
		if (PyList_SetItem(list, (Py_ssize_t)i, Py_NewRef(o[i])) < 0)
			Py_CLEAR(list);
	return list;
}

/* @tree NULL: a list */
static PyObject *run_all(struct model_object *m, struct inputs *in, struct pt2box_run_options opt,
			 enum outputs kind, const struct tree *tree)
{
	PyObject *few[FEW], **o = m->n_out <= FEW ? few : malloc(m->n_out * sizeof(*o)),
			    *ret = NULL;

	if (!o)
		return PyErr_NoMemory();
	if (run_objects(m, in, opt, kind, o)) {
		ret = tree ? tree_unflatten(tree, o) : to_list(o, m->n_out);
		for (size_t i = 0; i < m->n_out; i++)
			Py_DECREF(o[i]);
	}
	if (o != few)
		free(o);
	return ret;
}

PyObject *model_call(PyObject *self, PyObject *args, PyObject *kwargs)
{
	struct model_object *m = (struct model_object *)self;
	PyObject *ret = NULL;
	struct inputs in;

	if (!model_enter(m))
		return NULL;
	if (inputs_from_call(&in, m, args, kwargs))
		ret = run_all(m, &in, model_run_options(m), m->outputs, m->out_tree);
	inputs_deinit(&in);
	model_leave(m);
	return ret;
}

/* ---- flat ---- */

struct flat {
	PyObject *inputs;
	struct pt2box_run_options opt; /* points to @seed: not to be copied with it */
	uint64_t seed;
	enum outputs outputs;
};

/* Seconds, positive or infinite; 0 with an exception. */
static long long to_ms(PyObject *seconds)
{
	double s = PyFloat_AsDouble(seconds);

	if (PyErr_Occurred())
		return 0;
	if (!(s > 0)) {
		PyErr_Format(PyExc_ValueError, "a deadline is a positive number of seconds, not %R",
			     seconds);
		return 0;
	}
	if (s > 1e9)
		return -1;
	return s < 0.001 ? 1 : (long long)(s * 1000 + 0.5);
}

static bool parse_flat(struct model_object *m, PyObject *args, PyObject *kwargs, struct flat *f)
{
	static char *names[] = {"inputs", "deadline", "retries", "outputs", "seed", NULL};
	PyObject *deadline = Py_None, *retries = Py_None, *seed = Py_None;
	const char *outputs = NULL;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$OOzO", names, &f->inputs, &deadline,
					 &retries, &outputs, &seed))
		return false;
	f->opt = model_run_options(m);
	if (deadline != Py_None)
		f->opt.deadline_ms = to_ms(deadline);
	if (retries != Py_None)
		f->opt.retries = (unsigned)PyLong_AsUnsignedLong(retries);
	if (seed != Py_None) {
		/* As torch.manual_seed() has it: negative ones count from 2^64 down. */
		f->seed = PyLong_AsUnsignedLongLongMask(seed);
		f->opt.seed = &f->seed;
	}
	f->outputs = m->outputs;
	return !PyErr_Occurred() && (!outputs || outputs_parse(outputs, &f->outputs));
}

PyObject *model_run(PyObject *self, PyObject *args, PyObject *kwargs)
{
	struct model_object *m = (struct model_object *)self;
	PyObject *ret = NULL;
	struct inputs in;
	struct flat f;

	if (!parse_flat(m, args, kwargs, &f) || !model_enter(m))
		return NULL;
	if (inputs_from_list(&in, m, f.inputs))
		ret = run_all(m, &in, f.opt, f.outputs, NULL);
	inputs_deinit(&in);
	model_leave(m);
	return ret;
}

/* Inputs that nobody but this run holds: into the lane, and their memory is free. What somebody
 * else holds, he may look at after the run for what the model wrote into it. */
static bool move_unshared(struct model_object *m, struct inputs *in)
{
	for (size_t i = 0; i < in->n; i++) {
		struct leaf *l = &in->leaf[i];

		if (Py_REFCNT(l->object) == 1 && !l->holder &&
		    !PyObject_TypeCheck(l->object, tensor_type)) {
			if (!leaf_move(l, m->m))
				return false;
			in->tensor[i] = l->tensor;
		}
	}
	return true;
}

PyObject *model_boxed_run(PyObject *self, PyObject *args, PyObject *kwargs)
{
	struct model_object *m = (struct model_object *)self;
	enum outputs kind;
	PyObject *ret = NULL;
	struct inputs in;
	struct flat f;

	if (!parse_flat(m, args, kwargs, &f))
		return NULL;
	if (!PyList_Check(f.inputs))
		return PyErr_Format(PyExc_TypeError, "boxed_run() takes a list, which it empties");
	if (!model_enter(m))
		return NULL;
	if (inputs_from_list(&in, m, f.inputs) &&
	    PyList_SetSlice(f.inputs, 0, PyList_Size(f.inputs), NULL) == 0) {
		kind = f.outputs;
		for (size_t i = 0; i < in.n && kind == OUTPUTS_AUTO; i++)
			if (in.leaf[i].is_torch)
				kind = OUTPUTS_TORCH;
		if (move_unshared(m, &in))
			ret = run_all(m, &in, f.opt, kind, NULL);
	}
	inputs_deinit(&in);
	model_leave(m);
	return ret;
}
