/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside pt2box._ops, the module that makes a Python interpreter an ops process: what its files share. Arguments become Python
 * objects over the memory where they lie, results are copied once. proxy/python/host.py has the phases.
 */
#ifndef PT2BOX_PROXY_PYTHON_GLUE_H
#define PT2BOX_PROXY_PYTHON_GLUE_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000 /* the buffer protocol is in it from 3.11 on */
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#include "include/pt2box_op.h"
#include "ipc/op_schema.h"

/*
 * How tensors and types look to a function: numpy's or torch's objects. Lists by PyTorch's numbers, None: it has no such. The
 * functions: @make numpy.ndarray, or torch's from_dlpack; @array whatever was returned as such an array, in memory that can be
 * read with strides that are positive; @export (torch) a capsule of DLPack.
 */
struct pb_py_look {
	bool torch;
	PyObject *dtypes, *layouts, *memory_formats, *devices;
	PyObject *numbers; /* {dtype: number} */
	PyObject *make, *array, *export;
};

/* An operator: what the host's table points to. */
struct pb_py_op {
	struct pt2box_op op;
	struct pb_schema schema;
	PyObject *function;
	const struct pb_py_look *look;
};

/* ---- look.c ---- */
/* From the dict that host.py made; -1: a Python exception. */
int pb_py_look_init(struct pb_py_look *l, PyObject *dict, bool torch);
/* A new reference to an argument as @l shows it; @written: it may be written into. NULL: a Python exception. */
PyObject *pb_py_show(const struct pb_py_look *l, const struct pt2box_op_value *v, bool written);

/* ---- result.c ---- */
/* What the function returned becomes the call's results. -1: a Python exception, or the call knows why. */
int pb_py_give(const struct pb_py_op *o, struct pt2box_op_call *c, PyObject *returned);

/* ---- call.c ---- */
/* struct pt2box_op.run of every operator in Python. */
int pb_py_run(struct pt2box_op_call *c);
/* describe(exception) -> text, made in Python; kept. */
void pb_py_set_describe(PyObject *function);
/* The pending exception as one sentence in @text; none is pending afterwards. */
void pb_py_exception_text(char *text, size_t cap);

#endif
