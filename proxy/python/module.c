/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The module pt2box._ops: what a Python interpreter lacks to be an ops process. proxy/python/host.py calls, in this order,
 * take(), which reads what was handed in and makes nothing of it; confine(); serve(), which does not return. parse() is for
 * everybody.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "confine/confine.h"
#include "include/pt2box.h"
#include "ipc/fdmap.h"
#include "ipc/socket.h"
#include "proxy/process.h"
#include "proxy/python/glue.h"

#define SOURCE_BYTES_MAX (16ull << 20)

static struct pb_ops_process process;
static uint8_t *manifest_data;
static size_t manifest_bytes;

static void end_if(pb_status st, const struct pt2box_error *e)
{
	if (st)
		pb_ops_give_up(e, "");
}

static PyObject *take(PyObject *module, PyObject *args)
{
	static const int fds[] = {0, 1, PB_FD_STDERR, PB_FD_OPS_CTL, PB_FD_OPS_MANIFEST, PB_FD_OPS_BOARD, PB_FD_OPS_PLUGIN};
	struct pt2box_error e = {.status = PT2BOX_OK};
	uint8_t *source;
	size_t bytes;
	PyObject *ret;

	(void)module;
	(void)args;
	if (getpid() != 1) {
		PyErr_SetString(PyExc_RuntimeError, "is started by pt2boxd, not by hand");
		return NULL;
	}
	end_if(pb_confine_fds(fds, sizeof(fds) / sizeof(fds[0]), &e), &e);
	end_if(pb_ops_map_board(&process, &e), &e);
	end_if(pb_fd_slurp(PB_FD_OPS_MANIFEST, PB_MANIFEST_MAX_BYTES, &manifest_data, &manifest_bytes, &e), &e);
	/* The client may change its file at any time: these bytes are what runs. */
	end_if(pb_fd_slurp(PB_FD_OPS_PLUGIN, SOURCE_BYTES_MAX, &source, &bytes, &e), &e);
	close(PB_FD_OPS_MANIFEST);
	close(PB_FD_OPS_PLUGIN);
	ret = PyBytes_FromStringAndSize((const char *)source, (Py_ssize_t)bytes);
	free(source);
	return ret;
}

/* Names of the operators that the package calls and that are not native. */
static PyObject *wanted(void)
{
	const struct pb_nodes *nodes = process.manifest->nodes;
	PyObject *list = PyList_New(0);

	for (uint32_t i = 0; list && nodes && i < nodes->n; i++) {
		PyObject *name = nodes->list[i].native ? NULL : PyUnicode_FromString(nodes->list[i].target);
		int bad = name ? PyList_Append(list, name) : PyErr_Occurred() ? -1 : 0;

		Py_XDECREF(name);
		if (bad) {
			Py_DECREF(list);
			return NULL;
		}
	}
	return list;
}

static PyObject *confine(PyObject *module, PyObject *args)
{
	struct pb_confine_spec s = {.threads = 1, .link_fd = -1};
	struct pt2box_error e = {.status = PT2BOX_OK};
	unsigned long long memory;

	(void)module;
	if (!PyArg_ParseTuple(args, "IIK", &s.uid, &s.gid, &memory))
		return NULL;
	s.memory_bytes = memory;
	end_if(pb_confine_ops_python(&s, &e), &e);
	/* The first bytes from outside that anything is made of. */
	end_if(pb_manifest_decode(manifest_data, manifest_bytes, &process.manifest, &e), &e);
	free(manifest_data);
	return wanted();
}

static PyObject *fail(PyObject *module, PyObject *args)
{
	struct pt2box_error e = {.status = PT2BOX_OK};
	const char *text;
	int status;

	(void)module;
	if (!PyArg_ParseTuple(args, "is", &status, &text))
		return NULL;
	(void)!pb_error_set(&e, (pb_status)status, "%s", text);
	pb_ops_give_up(&e, "");
}

/* ---- serve ---- */

/* From (name, schema, function, look); false: a Python exception. What they point to lives as long as the process. */
static bool make_op(PyObject *row, const struct pb_py_look looks[2], struct pb_py_op *o)
{
	const char *name, *schema, *look;
	PyObject *function;
	struct pt2box_error e;

	if (!PyArg_ParseTuple(row, "ssOs", &name, &schema, &function, &look))
		return false;
	o->op = (struct pt2box_op){strdup(name), strdup(schema), pb_py_run};
	o->function = Py_NewRef(function);
	o->look = &looks[strcmp(look, "torch") == 0];
	if (o->op.name && o->op.schema && pb_schema_parse(o->op.schema, &o->schema, &e) == PT2BOX_OK)
		return true;
	PyErr_Format(PyExc_ValueError, "%s: %s", name, e.text);
	return false;
}

/* The one table of a host; operators lie in an array of larger structs, so the host is given copies of their heads. */
static pb_status add_ops(PyObject *list, const struct pb_py_look looks[2], struct pt2box_error *err)
{
	const Py_ssize_t n = PyList_Size(list);
	pb_status st = PT2BOX_OK;

	for (Py_ssize_t i = 0; i < n && !st; i++) {
		struct pb_py_op *o = calloc(1, sizeof(*o));
		struct pt2box_op_plugin *p = calloc(1, sizeof(*p));

		if (!o || !p)
			return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for operators");
		if (!make_op(PyList_GetItem(list, i), looks, o)) {
			char text[400];

			pb_py_exception_text(text, sizeof(text));
			return pb_error_set(err, PT2BOX_USAGE, "%s", text);
		}
		/* A table each: the host finds an operator again by the address of its entry (pb_host_running). */
		*p = (struct pt2box_op_plugin){PT2BOX_OP_ABI, sizeof(struct pt2box_op), "the Python file", &o->op, 1};
		st = pb_host_add(process.host, p, err);
	}
	return st;
}

static PyObject *serve(PyObject *module, PyObject *args)
{
	static struct pb_py_look looks[2];
	struct pt2box_error e = {.status = PT2BOX_OK};
	PyObject *list, *numpy, *torch, *describe;
	unsigned long long result_bytes;
	int some;

	(void)module;
	if (!PyArg_ParseTuple(args, "O!OOOKp", &PyList_Type, &list, &numpy, &torch, &describe, &result_bytes, &some))
		return NULL;
	if ((numpy != Py_None && pb_py_look_init(&looks[0], numpy, false)) ||
	    (torch != Py_None && pb_py_look_init(&looks[1], torch, true)))
		return NULL;
	pb_py_set_describe(describe);
	end_if(pb_ops_new_host(&process, result_bytes, NULL, &e), &e);
	end_if(add_ops(list, looks, &e), &e);
	end_if(pb_ops_prepare(&process, some, &e), &e);
	pb_ops_serve_process(&process);
}

/* ---- for everybody ---- */

static PyObject *describe_arg(const struct pb_schema_arg *a)
{
	return Py_BuildValue("(sOO)", a->name, a->kwarg_only ? Py_True : Py_False, a->has_default ? Py_True : Py_False);
}

static PyObject *parse(PyObject *module, PyObject *text)
{
	static struct pb_schema s; /* large; one thread at a time has the interpreter */
	const char *t = PyUnicode_AsUTF8AndSize(text, NULL);
	struct pt2box_error e;
	PyObject *list;

	(void)module;
	if (!t)
		return NULL;
	if (pb_schema_parse(t, &s, &e)) {
		PyErr_SetString(PyExc_ValueError, e.text);
		return NULL;
	}
	list = PyList_New(s.n_args);
	for (uint32_t i = 0; list && i < s.n_args; i++) {
		PyObject *a = describe_arg(&s.args[i]);

		if (!a || PyList_SetItem(list, i, a)) {
			Py_DECREF(list);
			return NULL;
		}
	}
	return list;
}

/* [(number, name)] */
static PyObject *dtypes(PyObject *module, PyObject *args)
{
	PyObject *list = PyList_New(0);

	(void)module;
	(void)args;
	for (int i = 0; list && i < 64; i++) {
		PyObject *row = pt2box_dtype_size(i) ? Py_BuildValue("(is)", i, pt2box_dtype_name(i)) : NULL;
		int bad = row ? PyList_Append(list, row) : PyErr_Occurred() ? -1 : 0;

		Py_XDECREF(row);
		if (bad) {
			Py_DECREF(list);
			return NULL;
		}
	}
	return list;
}

static PyMethodDef methods[] = {
	{"take", take, METH_NOARGS, "take() -> bytes: the client's source"},
	{"confine", confine, METH_VARARGS, "confine(uid, gid, memory) -> names of operators that the package calls"},
	{"fail", fail, METH_VARARGS, "fail(status, text): the last words of the process"},
	{"serve", serve, METH_VARARGS, "serve([(name, schema, function, look)], numpy, torch, describe, result_bytes)"},
	{"parse", parse, METH_O, "parse(schema) -> [(name, keyword only, has a default)]"},
	{"dtypes", dtypes, METH_NOARGS, "dtypes() -> [(PyTorch's number, name)]"},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT, "pt2box._ops", NULL, -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__ops(void);
PyMODINIT_FUNC PyInit__ops(void)
{
	PyObject *m = PyModule_Create(&definition);

	if (m && (PyModule_AddIntConstant(m, "MODEL_ERROR", PT2BOX_MODEL_ERROR) < 0 ||
		  PyModule_AddIntConstant(m, "UNSUPPORTED", PT2BOX_UNSUPPORTED) < 0)) {
		Py_DECREF(m);
		return NULL;
	}
	return m;
}
