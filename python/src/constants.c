/* SPDX-License-Identifier: Apache-2.0 */
/* The constants of a model: replaced, swapped, read. Each call waits, without the GIL, until the
 * change is in force. */
#include <stdlib.h>
#include <string.h>

#include "python/src/core.h"

/* ---- given ---- */

struct given {
	struct pt2box_constant *list;
	struct leaf *leaf;
	size_t n, room;
};

static void given_deinit(struct given *g)
{
	for (size_t i = 0; g->leaf && i < g->n; i++)
		leaf_deinit(&g->leaf[i]);
	free(g->leaf);
	free(g->list);
}

/* From a list of (name, tensor), which outlives it. */
static bool given_init(struct given *g, PyObject *pairs)
{
	size_t n = (size_t)PyList_Size(pairs);

	g->list = calloc(n + 1, sizeof(*g->list));
	g->leaf = calloc(n + 1, sizeof(*g->leaf));
	if (!g->list || !g->leaf) {
		PyErr_NoMemory();
		return false;
	}
	for (size_t i = 0; i < n; i++) {
		PyObject *tensor;

		if (!PyArg_ParseTuple(PyList_GetItem(pairs, (Py_ssize_t)i), "sO", &g->list[i].name,
				      &tensor))
			return false;
		g->n++;
		if (!leaf_init(&g->leaf[i], tensor, -1, i))
			return false;
		g->list[i].tensor = g->leaf[i].tensor;
	}
	return true;
}

static PyObject *end_call(struct model_object *m, enum pt2box_status st,
			  const struct pt2box_error *err)
{
	model_leave(m);
	if (st)
		return raise_error(err);
	Py_RETURN_NONE;
}

PyObject *model_load_constants(PyObject *self, PyObject *args)
{
	struct model_object *m = (struct model_object *)self;
	struct given g = {NULL, NULL, 0, 0};
	struct pt2box_error err;
	enum pt2box_status st;
	PyObject *pairs;
	unsigned flags;

	if (!PyArg_ParseTuple(args, "O!I", &PyList_Type, &pairs, &flags) || !model_enter(m))
		return NULL;
	if (!given_init(&g, pairs)) {
		given_deinit(&g);
		model_leave(m);
		return NULL;
	}
	Py_BEGIN_ALLOW_THREADS st = pt2box_load_constants(m->m, g.list, g.n, flags, &err);
	Py_END_ALLOW_THREADS given_deinit(&g);
	return end_call(m, st, &err);
}

PyObject *model_load_constants_fd(PyObject *self, PyObject *args)
{
	struct model_object *m = (struct model_object *)self;
	struct pt2box_error err;
	enum pt2box_status st;
	unsigned flags;
	int fd;

	if (!PyArg_ParseTuple(args, "iI", &fd, &flags) || !model_enter(m))
		return NULL;
	Py_BEGIN_ALLOW_THREADS st = pt2box_load_constants_fd(m->m, fd, flags, &err);
	Py_END_ALLOW_THREADS return end_call(m, st, &err);
}

static PyObject *change(PyObject *self,
			enum pt2box_status (*f)(struct pt2box_model *, struct pt2box_error *))
{
	struct model_object *m = (struct model_object *)self;
	struct pt2box_error err;
	enum pt2box_status st;

	if (!model_enter(m))
		return NULL;
	Py_BEGIN_ALLOW_THREADS st = f(m->m, &err);
	Py_END_ALLOW_THREADS return end_call(m, st, &err);
}

PyObject *model_swap_constants(PyObject *self, PyObject *none)
{
	(void)none;
	return change(self, pt2box_swap_constants);
}

PyObject *model_free_inactive(PyObject *self, PyObject *none)
{
	(void)none;
	return change(self, pt2box_free_inactive_constants);
}

PyObject *model_fold_constants(PyObject *self, PyObject *args)
{
	struct model_object *m = (struct model_object *)self;
	struct pt2box_error err;
	enum pt2box_status st;
	int inactive;

	if (!PyArg_ParseTuple(args, "p", &inactive) || !model_enter(m))
		return NULL;
	Py_BEGIN_ALLOW_THREADS st = pt2box_fold_constants(m->m, inactive, &err);
	Py_END_ALLOW_THREADS return end_call(m, st, &err);
}

/* ---- read ---- */

/* A dictionary of copies; the list keeps nothing. */
static PyObject *to_dict(struct pt2box_constant *list, size_t n, enum outputs kind)
{
	PyObject *d = PyDict_New();

	for (size_t i = 0; d && i < n; i++) {
		struct pt2box_tensor *t = list[i].tensor;
		PyObject *o = NULL;

		list[i].tensor = NULL;
		if (!outputs_make(&t, 1, NULL, 0, kind, true, &o) ||
		    PyDict_SetItemString(d, list[i].name, o) < 0)
			Py_CLEAR(d);
		Py_XDECREF(o);
	}
	return d;
}

PyObject *model_extract_constants(PyObject *self, PyObject *args)
{
	struct model_object *m = (struct model_object *)self;
	struct pt2box_constant *list = NULL;
	struct pt2box_error err;
	enum pt2box_status st;
	const char *outputs;
	enum outputs kind;
	PyObject *ret = NULL;
	size_t n = 0;
	int inactive;

	if (!PyArg_ParseTuple(args, "ps", &inactive, &outputs) || !outputs_parse(outputs, &kind) ||
	    !model_enter(m))
		return NULL;
	Py_BEGIN_ALLOW_THREADS st = pt2box_extract_constants(m->m, inactive, &list, &n, &err);
	Py_END_ALLOW_THREADS if (st) raise_error(&err);
	else ret = to_dict(list, n, kind);
	if (!st)
		pt2box_free_constants(list, n);
	model_leave(m);
	return ret;
}

/* [(fqn, name, dtype, sizes, strides, bytes, type, folded)] */
PyObject *model_constants(PyObject *self, PyObject *none)
{
	struct model_object *m = (struct model_object *)self;
	struct pt2box_constant_info k;
	PyObject *list;

	(void)none;
	if (!model_enter(m))
		return NULL;
	list = PyList_New(0);
	for (size_t i = 0; list && pt2box_model_constant(m->m, i, &k); i++) {
		PyObject *row =
			Py_BuildValue("(sssNNKii)", k.fqn, k.name, pt2box_dtype_name(k.dtype),
				      tuple_from(k.sizes, k.ndim), tuple_from(k.strides, k.ndim),
				      (unsigned long long)k.bytes, (int)k.type, (int)k.folded);

		if (!row || PyList_Append(list, row) < 0)
			Py_CLEAR(list);
		Py_XDECREF(row);
	}
	model_leave(m);
	return list;
}
