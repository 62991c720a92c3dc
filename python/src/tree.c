/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nested arguments to flat leaves and back, as the package's call spec says. The spec comes from
 * Python (_pytree.py) as tuples: (kind, keys, make, split, children). What is not a tuple, list or
 * dict is taken apart by split(object) -> sequence and put together by make(plain) from the plain
 * tuple, list or dict of its parts.
 */
#include <stdlib.h>
#include <string.h>

#include "python/src/core.h"

enum { TREE_LEAF, TREE_TUPLE, TREE_LIST, TREE_DICT };
#define DEPTH_MAX 200

struct tree {
	int kind;
	size_t n, n_leaves;
	PyObject *keys;		/* tuple, of a dict */
	PyObject *make, *split; /* NULL: not needed */
	struct tree **child;
};

static PyObject *not_none(PyObject *o)
{
	return o == Py_None ? NULL : Py_NewRef(o);
}

static struct tree *build(PyObject *spec, int depth)
{
	PyObject *keys, *make, *split, *children;
	struct tree *t = calloc(1, sizeof(*t));

	if (!t || depth > DEPTH_MAX ||
	    !PyArg_ParseTuple(spec, "iOOOO!", &t->kind, &keys, &make, &split, &PyTuple_Type,
			      &children)) {
		if (!PyErr_Occurred())
			PyErr_SetString(PyExc_ValueError, "the call spec is nested too deeply");
		free(t);
		return NULL;
	}
	t->keys = not_none(keys);
	t->make = not_none(make);
	t->split = not_none(split);
	t->n_leaves = t->kind == TREE_LEAF;
	t->child = calloc((size_t)PyTuple_Size(children) + 1, sizeof(struct tree *));
	for (Py_ssize_t i = 0; t->child && i < PyTuple_Size(children); i++) {
		t->child[i] = build(PyTuple_GetItem(children, i), depth + 1);
		if (!t->child[i]) {
			tree_free(t);
			return NULL;
		}
		t->n_leaves += t->child[i]->n_leaves;
		t->n++;
	}
	return t;
}

struct tree *tree_new(PyObject *spec)
{
	return build(spec, 0);
}

void tree_free(struct tree *t)
{
	if (!t)
		return;
	for (size_t i = 0; t->child && i < t->n; i++)
		tree_free(t->child[i]);
	free(t->child);
	Py_XDECREF(t->keys);
	Py_XDECREF(t->make);
	Py_XDECREF(t->split);
	free(t);
}

size_t tree_n_leaves(const struct tree *t)
{
	return t->n_leaves;
}

/* ---- objects to leaves ---- */

static bool mismatch(const char *what, const char *kind, size_t n, PyObject *object)
{
	PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(object), "__name__");
	Py_ssize_t have = PyObject_Size(object);

	PyErr_Clear();
	if (have < 0)
		PyErr_Format(PyExc_TypeError, "%s: the package takes a %s of %zu, not %S", what,
			     kind, n, name ? name : Py_None);
	else
		PyErr_Format(PyExc_TypeError, "%s: the package takes a %s of %zu, not %S of %zd",
			     what, kind, n, name ? name : Py_None, have);
	Py_XDECREF(name);
	return false;
}

static bool flatten(const struct tree *t, PyObject *object, PyObject ***leaves, const char *what);

static bool flatten_sequence(const struct tree *t, PyObject *s, PyObject ***leaves,
			     const char *what)
{
	bool is_tuple = PyTuple_Check(s);

	for (size_t i = 0; i < t->n; i++) {
		PyObject *item = is_tuple ? PyTuple_GetItem(s, (Py_ssize_t)i)
					  : PyList_GetItem(s, (Py_ssize_t)i);

		if (!item || !flatten(t->child[i], item, leaves, what))
			return false;
	}
	return true;
}

static bool flatten_dict(const struct tree *t, PyObject *d, PyObject ***leaves, const char *what)
{
	if (!PyDict_Check(d) || (size_t)PyDict_Size(d) != t->n)
		return mismatch(what, "dict", t->n, d);
	for (size_t i = 0; i < t->n; i++) {
		PyObject *key = PyTuple_GetItem(t->keys, (Py_ssize_t)i);
		PyObject *item = PyDict_GetItemWithError(d, key);

		if (!item) {
			if (!PyErr_Occurred())
				PyErr_Format(PyExc_TypeError, "%s: the key %R is missing", what,
					     key);
			return false;
		}
		if (!flatten(t->child[i], item, leaves, what))
			return false;
	}
	return true;
}

static bool flatten_split(const struct tree *t, PyObject *object, PyObject ***leaves,
			  const char *what)
{
	PyObject *parts = PyObject_CallFunctionObjArgs(t->split, object, NULL);
	PyObject *s = parts ? PySequence_Tuple(parts) : NULL;
	bool ok = false;

	if (s)
		ok = (size_t)PyTuple_Size(s) == t->n ? flatten_sequence(t, s, leaves, what)
						     : mismatch(what, "node", t->n, s);
	Py_XDECREF(s);
	Py_XDECREF(parts);
	return ok;
}

static bool flatten(const struct tree *t, PyObject *object, PyObject ***leaves, const char *what)
{
	if (t->kind == TREE_LEAF) {
		*(*leaves)++ = Py_NewRef(object);
		return true;
	}
	if (t->split)
		return flatten_split(t, object, leaves, what);
	if (t->kind == TREE_DICT)
		return flatten_dict(t, object, leaves, what);
	if (t->kind == TREE_TUPLE &&
	    !(PyTuple_Check(object) && (size_t)PyTuple_Size(object) == t->n))
		return mismatch(what, "tuple", t->n, object);
	if (t->kind == TREE_LIST && !(PyList_Check(object) && (size_t)PyList_Size(object) == t->n))
		return mismatch(what, "list", t->n, object);
	return flatten_sequence(t, object, leaves, what);
}

bool tree_flatten(const struct tree *t, PyObject *object, PyObject **leaves, const char *what)
{
	return flatten(t, object, &leaves, what);
}

static bool wrong_keywords(const struct tree *kw, PyObject *kwargs)
{
	for (size_t i = 0; i < kw->n; i++) {
		PyObject *key = PyTuple_GetItem(kw->keys, (Py_ssize_t)i);

		if (!kwargs || !PyDict_Contains(kwargs, key)) {
			PyErr_Format(PyExc_TypeError, "the keyword argument %R is missing", key);
			return false;
		}
	}
	if (kw->n)
		PyErr_Format(PyExc_TypeError, "the package takes the keyword arguments %R, not %R",
			     kw->keys, kwargs);
	else
		PyErr_SetString(PyExc_TypeError, "the package takes no keyword arguments");
	return false;
}

bool tree_flatten_call(const struct tree *t, PyObject *args, PyObject *kwargs, PyObject **leaves)
{
	const struct tree *positional = t->child[0], *kw = t->child[1];
	size_t n = (size_t)PyTuple_Size(args), n_kw = kwargs ? (size_t)PyDict_Size(kwargs) : 0;

	if (n != positional->n) {
		PyErr_Format(PyExc_TypeError, "the package takes %zu positional arguments, not %zu",
			     positional->n, n);
		return false;
	}
	for (size_t i = 0; i < n; i++) {
		char what[32] = "";

		/* Only what is nested can be wrong. */
		if (positional->child[i]->kind != TREE_LEAF)
			PyOS_snprintf(what, sizeof(what), "argument %zu", i);
		if (!flatten(positional->child[i], PyTuple_GetItem(args, (Py_ssize_t)i), &leaves,
			     what))
			return false;
	}
	if (n_kw != kw->n)
		return wrong_keywords(kw, kwargs);
	for (size_t i = 0; i < kw->n; i++) {
		PyObject *item =
			PyDict_GetItemWithError(kwargs, PyTuple_GetItem(kw->keys, (Py_ssize_t)i));

		if (!item)
			return PyErr_Occurred() ? false : wrong_keywords(kw, kwargs);
		if (!flatten(kw->child[i], item, &leaves, "a keyword argument"))
			return false;
	}
	return true;
}

/* ---- leaves to objects ---- */

static PyObject *unflatten(const struct tree *t, PyObject ***leaves);

static PyObject *make_plain(const struct tree *t, PyObject ***leaves)
{
	PyObject *r = t->kind == TREE_DICT   ? PyDict_New()
		      : t->kind == TREE_LIST ? PyList_New((Py_ssize_t)t->n)
					     : PyTuple_New((Py_ssize_t)t->n);

	for (size_t i = 0; r && i < t->n; i++) {
		PyObject *v = unflatten(t->child[i], leaves);
		int bad;

		if (!v) {
			Py_CLEAR(r);
		} else if (t->kind == TREE_DICT) {
			bad = PyDict_SetItem(r, PyTuple_GetItem(t->keys, (Py_ssize_t)i), v);
			Py_DECREF(v);
			if (bad)
				Py_CLEAR(r);
		} else {
			bad = t->kind == TREE_LIST ? PyList_SetItem(r, (Py_ssize_t)i, v)
						   : PyTuple_SetItem(r, (Py_ssize_t)i, v);
			if (bad)
				Py_CLEAR(r);
		}
	}
	return r;
}

static PyObject *unflatten(const struct tree *t, PyObject ***leaves)
{
	PyObject *plain, *made;

	if (t->kind == TREE_LEAF)
		return Py_NewRef(*(*leaves)++);
	plain = make_plain(t, leaves);
	if (!plain || !t->make)
		return plain;
	made = PyObject_CallFunctionObjArgs(t->make, plain, NULL);
	Py_DECREF(plain);
	return made;
}

PyObject *tree_unflatten(const struct tree *t, PyObject **leaves)
{
	return unflatten(t, &leaves);
}
