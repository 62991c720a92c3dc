/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pt2box._core: what its files share. The module is a thin layer over libpt2box: objects in,
 * objects out, the GIL released where the library may wait. Memory of tensors is shared with arrays
 * of others through counted owners, which may die on any thread.
 */
#ifndef PT2BOX_PYTHON_CORE_H
#define PT2BOX_PYTHON_CORE_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000 /* the buffer protocol is in it from 3.11 on */
#include <Python.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "include/pt2box.h"
#include "include/pt2box_dlpack.h"

#define MAX_DIMS PT2BOX_MAX_DIMS

/* Like Py_XSETREF, which is not in the limited API. */
static inline void set_ref(PyObject **p, PyObject *take)
{
	PyObject *old = *p;

	*p = take;
	Py_XDECREF(old);
}

/* ---- errors.c ---- */
/* Set the exception of a failed call; NULL. A pending exception stays. */
PyObject *raise_error(const struct pt2box_error *err);
PyObject *raise_status(enum pt2box_status status, const char *format, ...);
/* _set_errors(base, {status: class}): classes are made in Python. */
PyObject *errors_set(PyObject *module, PyObject *args);

/* ---- dtype.c ---- */
struct dtype {
	int32_t number;
	const char *format; /* of the buffer protocol; of a type that it lacks, that of the bytes */
	const char *numpy_name; /* NULL: numpy has it only from ml_dtypes, if at all */
	uint8_t dl_code, dl_bits;
	PyObject *numpy; /* once it was asked for */
};
struct dtype *dtype_get(int32_t number); /* NULL: there is none */
/* -1: none of ours. @itemsize: as the exporter says. */
int32_t dtype_from_format(const char *format, Py_ssize_t itemsize);
int32_t dtype_from_dlpack(struct dl_type t);
/* Borrowed; NULL without an exception: numpy has no such type here. */
PyObject *dtype_numpy(struct dtype *d);

/* ---- owner.c ---- */
/* What keeps a tensor's memory. Exactly one of the pointers is set. */
struct owner {
	atomic_int refs;
	struct pt2box_tensor *tensor;
	void *heap;
	PyObject *object;
	Py_buffer *buffer;
};
struct owner *owner_new(void); /* NULL with MemoryError */
struct owner *owner_ref(struct owner *o);
void owner_unref(struct owner *o); /* also without the GIL */

/* A tensor: memory with its owner. */
struct view {
	void *data;
	int32_t dtype, ndim;
	int32_t readonly;
	int64_t numel;
	int64_t sizes[MAX_DIMS], strides[MAX_DIMS];
	struct owner *owner;
};
void view_from_info(struct view *v, const struct pt2box_tensor_info *info,
		    struct owner *owner_take);
uint64_t view_bytes(const struct view *v); /* from element 0 to behind the last */
bool view_is_contiguous(const struct view *v);
bool view_equal(const struct view *a,
		const struct view *b); /* the same elements in the same places */
/* Strides in elements from a buffer's; false: negative, or no multiple of an element. Of a
 * dimension with less than two elements they say nothing, and are made up. */
bool strides_from_bytes(const Py_buffer *b, int64_t *ret);
PyObject *tuple_from(const int64_t *v, int32_t n);

/* ---- tensor.c ---- */
struct tensor_object {
	PyObject_HEAD struct view v;
	Py_ssize_t byte_strides[MAX_DIMS];
};
extern PyTypeObject *tensor_type;
int tensor_type_init(PyObject *module);
PyObject *tensor_new(const struct view *v); /* takes the view's owner, success or not */
PyObject *tensor_from_any(PyObject *module, PyObject *object); /* a copy */
/* The same elements, contiguous, in memory of their own; false with an exception. */
bool view_copy(const struct view *v, struct view *ret);

/* ---- export.c ---- */
PyObject *
export_numpy(const struct view *v); /* takes the owner; a Tensor where numpy has no such type */
bool is_ndarray(PyObject *object);  /* false also if there is no numpy, with an exception */
PyObject *export_torch(const struct view *v); /* takes the owner */
PyObject *export_capsule(const struct view *v, bool versioned,
			 uint64_t flags); /* borrows: the owner is counted */
/* torch.Tensor, its functions that are needed; false with an exception. Imports torch. */
struct torch {
	PyObject *tensor_type, *is_neg, *is_conj, *from_dlpack;
	const struct dl_exchange *api;
};
const struct torch *torch_get(void);

/* ---- leaf.c ---- */
/* One input: an object of the caller and the tensor over its memory. */
struct leaf {
	PyObject *object;
	struct pt2box_tensor *tensor;
	bool is_torch;
	bool has_buffer;
	bool owns_tensor;
	Py_buffer buffer;
	PyObject *holder; /* of what was made on the way */
	struct dl_versioned *versioned;
	struct dl_managed *managed;
	void *copy;
	uint64_t scalar[2];
};
/* @declared: dtype that the package says, for Python numbers; -1: unknown. false with an exception;
 * deinit in any case. */
bool leaf_init(struct leaf *l, PyObject *object, int32_t declared, size_t index);
void leaf_deinit(struct leaf *l);
/* After a run: what it wrote into a copy that was made here. */
bool leaf_write_back(struct leaf *l);
/* A number of Python, None or text, which may stand for what was fixed when the model was exported.
 */
bool leaf_is_constant(PyObject *object);
/* Move the elements into the model's lane, so that the caller's memory is free before the run; what
 * is not contiguous stays. */
bool leaf_move(struct leaf *l, struct pt2box_model *m);

/* ---- outputs.c ---- */
enum outputs { OUTPUTS_AUTO, OUTPUTS_NUMPY, OUTPUTS_TORCH, OUTPUTS_TENSOR };
/* "auto", "numpy", "torch", "tensor"; false with an exception */
bool outputs_parse(const char *text, enum outputs *ret);
/* The objects of a run's outputs, of which this takes all, success or not. @copy: none of them
 * readonly. */
bool outputs_make(struct pt2box_tensor **out, size_t n, const struct leaf *leaves, size_t n_leaves,
		  enum outputs kind, bool copy, PyObject **ret);

/* ---- tree.c ---- */
struct tree;
/* From (kind, keys, make, split, children) with children the same: see _pytree.py. NULL with an
 * exception. */
struct tree *tree_new(PyObject *spec);
void tree_free(struct tree *t);
size_t tree_n_leaves(const struct tree *t);
/* References in order; on failure, false with an exception, some are there: @leaves was all NULL
 * before. */
bool tree_flatten(const struct tree *t, PyObject *object, PyObject **leaves, const char *what);
PyObject *tree_unflatten(const struct tree *t, PyObject **leaves);
/* The arguments of a call to leaves, by a spec that is (args, kwargs). */
bool tree_flatten_call(const struct tree *t, PyObject *args, PyObject *kwargs, PyObject **leaves);

/* ---- connection.c ---- */
struct connection_object {
	PyObject_HEAD struct pt2box *c;
	uint32_t calls; /* threads in a call */
	bool closing, lost;
};
extern PyTypeObject *connection_type;
int connection_type_init(PyObject *module);
struct pt2box *
connection_enter(struct connection_object *o); /* NULL with an exception: it is closed */
void connection_leave(struct connection_object *o);
void connection_note(struct connection_object *o,
		     enum pt2box_status st); /* of a call that has ended */

/* ---- model.c ---- */
struct model_object {
	PyObject_HEAD struct connection_object *connection;
	struct model_object *parent; /* of a session */
	struct pt2box_model *m;
	uint32_t calls; /* runs and other calls under way */
	bool closing;
	bool copy_outputs;
	enum outputs outputs;
	int64_t deadline_ms;
	uint32_t retries;
	size_t n_in, n_out;
	struct tree *in_tree, *out_tree;
	PyObject *unfit; /* text: why the call spec cannot be used; NULL */
};
extern PyTypeObject *model_type;
int model_type_init(PyObject *module);
bool model_enter(struct model_object *o);
void model_leave(struct model_object *o);
/* What a call without options of its own runs with. */
struct pt2box_run_options model_run_options(const struct model_object *o);

/* ---- call.c ---- */
PyObject *model_call(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *model_run(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *model_boxed_run(PyObject *self, PyObject *args, PyObject *kwargs);

/* ---- async.c ---- */
int run_type_init(PyObject *module);
PyObject *model_start(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *model_start_flat(PyObject *self, PyObject *args);

/* What a run takes: leaves by the call spec, or flat. */
struct inputs {
	struct leaf *leaf;
	struct pt2box_tensor **tensor;
	size_t n;
	struct leaf few[8];
	struct pt2box_tensor *few_tensors[8];
};
bool inputs_from_call(struct inputs *in, struct model_object *m, PyObject *args, PyObject *kwargs);
bool inputs_from_list(struct inputs *in, struct model_object *m, PyObject *sequence);
void inputs_deinit(struct inputs *in);
bool inputs_write_back(struct inputs *in);

/* ---- constants.c ---- */
extern PyMethodDef constants_methods[];
PyObject *model_load_constants(PyObject *self, PyObject *args);
PyObject *model_load_constants_fd(PyObject *self, PyObject *args);
PyObject *model_swap_constants(PyObject *self, PyObject *none);
PyObject *model_free_inactive(PyObject *self, PyObject *none);
PyObject *model_fold_constants(PyObject *self, PyObject *args);
PyObject *model_extract_constants(PyObject *self, PyObject *args);
PyObject *model_constants(PyObject *self, PyObject *none);

/* ---- json.c ---- */
PyObject *json_parse(const char *text); /* NULL with an exception */

#endif
