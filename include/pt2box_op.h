/* SPDX-License-Identifier: Apache-2.0 */
/**
 * pt2box_op.h - operators of one's own for packages that call them, in C.
 *
 * A package whose operator has no C function in PyTorch's ABI (a custom operator, for example) calls it by name. A plugin
 * is a shared library that provides such operators: it exports pt2box_op_plugin(), which returns a table of names,
 * schemas and functions. It needs nothing of PyTorch and links to nothing of pt2box.
 *
 *	static int triple(struct pt2box_op_call *c)
 *	{
 *		const struct pt2box_op_tensor *x = c->args[0].v.tensor;
 *		struct pt2box_op_tensor *y = c->new_tensor(c, x->dtype, x->ndim, x->sizes, NULL);
 *
 *		if (!y)
 *			return 1;
 *		...
 *		return c->set_result(c, 0, y);
 *	}
 *	static const struct pt2box_op ops[] = {{"my::triple", "(Tensor x, int k) -> Tensor", triple}};
 *	static const struct pt2box_op_plugin plugin = {PT2BOX_OP_ABI, sizeof(struct pt2box_op), "my ops", ops, 1};
 *	PT2BOX_OP_EXPORT const struct pt2box_op_plugin *pt2box_op_plugin(void) { return &plugin; }
 *
 * What a function is given was checked against its schema: number, order and kind of the arguments, defaults filled in.
 * Dtypes, sizes and strides of tensors come from the model and were not: check what you rely on. Every element of a tensor
 * lies in memory that may be read.
 *
 * Ownership: arguments are borrowed for the call. Tensors from new_tensor() are the host's; those that become no result
 * are freed when the call ends. Threads: one call at a time, always on the same thread. A function that does not return
 * is ended with its process when its deadline is over.
 */
#ifndef PT2BOX_OP_H
#define PT2BOX_OP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PT2BOX_OP_EXPORT __attribute__((visibility("default")))
#define PT2BOX_OP_PRINTF(fmt, rest) __attribute__((format(printf, fmt, rest)))
#else
#define PT2BOX_OP_EXPORT
#define PT2BOX_OP_PRINTF(fmt, rest)
#endif

/** Version of this header's structures. A plugin of another version is refused by name. */
#define PT2BOX_OP_ABI 1u
#define PT2BOX_OP_MAX_DIMS 16

/**
 * struct pt2box_op_tensor - a tensor on the CPU
 * @data:     element 0; may be NULL where there is no element. Write only to results of this call, and to arguments that
 *            the schema marks as written, "Tensor(a!) x"
 * @sizes:    ndim entries
 * @strides:  ndim entries, in elements; any value, 0 and overlaps included
 * @dtype:    c10::ScalarType, the numbers of enum pt2box_dtype
 * @host:     the host's, not for plugins
 */
struct pt2box_op_tensor {
	void *data;
	const int64_t *sizes;
	const int64_t *strides;
	int32_t dtype;
	int32_t ndim;
	void *host;
};

/** Kinds of values. Numbers are never reused. */
enum pt2box_op_kind {
	PT2BOX_OP_NONE = 0,	       /* an optional argument that is not there */
	PT2BOX_OP_TENSOR = 1,	       /* v.tensor */
	PT2BOX_OP_TENSORS = 2,	       /* v.tensors, count; NULL entries only for Tensor?[] */
	PT2BOX_OP_INT = 3,	       /* v.i: int, SymInt, Scalar */
	PT2BOX_OP_INTS = 4,	       /* v.ints, count */
	PT2BOX_OP_FLOAT = 5,	       /* v.f: float, Scalar */
	PT2BOX_OP_FLOATS = 6,	       /* v.floats, count */
	PT2BOX_OP_BOOL = 7,	       /* v.i, 0 or 1: bool, Scalar */
	PT2BOX_OP_BOOLS = 8,	       /* v.bools, count */
	PT2BOX_OP_STRING = 9,	       /* v.s: UTF-8 */
	PT2BOX_OP_STRINGS = 10,	       /* v.strings, count */
	PT2BOX_OP_DTYPE = 11,	       /* v.i: c10::ScalarType */
	PT2BOX_OP_LAYOUT = 12,	       /* v.i: c10::Layout; 0 strided */
	PT2BOX_OP_MEMORY_FORMAT = 13,  /* v.i: c10::MemoryFormat; 0 contiguous, 1 preserve, 2 channels last, 3 the same 3d */
	PT2BOX_OP_DEVICE = 14,	       /* v.device; type 0: CPU; index -1: none given */
	PT2BOX_OP_OBJECT = 15	       /* v.s: name of a TorchBind object; no plugin is given one */
};

/** struct pt2box_op_value - an argument. @count: entries of a list */
struct pt2box_op_value {
	int32_t kind;
	uint32_t count;
	union {
		int64_t i;
		double f;
		const char *s;
		struct pt2box_op_tensor *tensor;
		struct pt2box_op_tensor *const *tensors;
		const int64_t *ints;
		const double *floats;
		const uint8_t *bools;
		const char *const *strings;
		struct {
			int32_t type;
			int32_t index;
		} device;
	} v;
};

/**
 * struct pt2box_op_call - one call: its arguments, and what the host does for the function
 * @args:       n_args values, one for each argument of the schema, in its order
 * @n_results:  results that set_result() must be called for: one for each tensor that the schema returns
 * @new_tensor: memory for a result, 64-byte aligned, contents undefined. @sizes: ndim entries, NULL if ndim is 0; @strides:
 *              in elements, NULL: contiguous. NULL if a number makes no sense or a limit is reached: return not 0 then, the
 *              reason is known
 * @set_result: @t becomes result @i: a tensor from new_tensor(), or an argument that the schema returns ("Tensor(a!) x ->
 *              Tensor(a!)"). Not 0: it cannot
 * @append_result: the same for the list @i, "Tensor[]": appends
 * @fail:       the reason of a failure, printf style; returns 1, so that "return c->fail(c, ...)" is a whole branch
 * @host:       the host's, not for plugins
 */
struct pt2box_op_call {
	size_t struct_size;
	const struct pt2box_op_value *args;
	size_t n_args;
	size_t n_results;
	struct pt2box_op_tensor *(*new_tensor)(struct pt2box_op_call *c, int32_t dtype, int32_t ndim,
					       const int64_t *sizes, const int64_t *strides);
	int (*set_result)(struct pt2box_op_call *c, size_t i, struct pt2box_op_tensor *t);
	int (*append_result)(struct pt2box_op_call *c, size_t i, struct pt2box_op_tensor *t);
	int (*fail)(struct pt2box_op_call *c, const char *fmt, ...) PT2BOX_OP_PRINTF(2, 3);
	void *host;
};

/**
 * struct pt2box_op - an operator
 * @name:   as in the package: "namespace::name", or "namespace::name.overload"
 * @schema: arguments and returns in PyTorch's syntax: "(Tensor x, int k=2, *, float? eps=None) -> (Tensor, Tensor)"
 * @run:    computes it. Return: 0; not 0, and nothing is a result
 *
 * Types: Tensor, int, SymInt, float, bool, str, Scalar, ScalarType, Layout, MemoryFormat, Device, Generator (always none);
 * with "?" and "[]" as in PyTorch. Returns: Tensor, Tensor[], or "()".
 */
struct pt2box_op {
	const char *name;
	const char *schema;
	int (*run)(struct pt2box_op_call *c);
};

/**
 * struct pt2box_op_plugin - what a plugin exports
 * @abi:     PT2BOX_OP_ABI
 * @op_size: sizeof(struct pt2box_op)
 * @name:    of the plugin, for messages
 */
struct pt2box_op_plugin {
	uint32_t abi;
	uint32_t op_size;
	const char *name;
	const struct pt2box_op *ops;
	size_t n_ops;
};

/** pt2box_op_plugin() - the one function that a plugin exports. The table lives as long as the library. */
PT2BOX_OP_EXPORT const struct pt2box_op_plugin *pt2box_op_plugin(void);

#ifdef __cplusplus
}
#endif
#endif
