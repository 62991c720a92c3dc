/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host of plugins (include/pt2box_op.h): loads them, keeps the table of their operators, calls an operator for a node
 * of a package, and checks what comes back. A library: whoever links it decides about processes, sandboxes and deadlines.
 *
 * The ops process (proxy/main.c, proxy/serve.c) is a loop around it: pb_host_prepare() for each call of the package that is not native,
 * which is the list of what is allowed; pb_host_call() with tensors in the memory of a worker's lane, and memory of
 * results in the same lane. Deadline and death are the broker's to see.
 *
 * Not thread safe.
 */
#ifndef PT2BOX_PROXY_HOST_H
#define PT2BOX_PROXY_HOST_H

#include "include/pt2box_op.h"
#include "ipc/nodes.h"
#include "ipc/status.h"

/* Where results live. */
struct pb_host_memory {
	/* 64-byte aligned, at least @bytes (> 0); NULL: there is no more. */
	void *(*alloc)(void *arg, uint64_t bytes);
	void (*free)(void *arg, void *p);
	void *arg;
};

/* Operators that no plugin has: another table, asked by name. */
struct pb_host_provider {
	/* NOT_FOUND: it does not have it. *ret stays for good. */
	pb_status (*find)(const char *target, const struct pt2box_op **ret, struct pt2box_error *err);
	/* UNSUPPORTED: the operator, of whichever table, cannot take what the node gives; @args in the order of its schema. */
	pb_status (*fits)(const struct pt2box_op *op, const struct pb_node *n, const struct pb_node_arg *args,
			  struct pt2box_error *err);
};

/* Limits of one call, and its memory. */
struct pb_host_options {
	struct pb_host_memory memory; /* alloc NULL: the heap */
	uint64_t max_result_bytes;    /* of all tensors that a call makes together */
	uint32_t max_tensors;	      /* that a call may make */
	const struct pb_host_provider *provider; /* NULL: none */
};
#define PB_HOST_OPTIONS_INIT {.max_result_bytes = 1ull << 32, .max_tensors = 4096}

struct pb_host;
struct pb_host_node;

/* A result: in memory of the host until pb_host_release(), or argument @argument itself. */
struct pb_host_result {
	struct pt2box_op_tensor tensor;
	uint64_t bytes;	   /* of its memory */
	int32_t argument;  /* slot of the argument that is returned; -1: new */
	int64_t sizes[PT2BOX_OP_MAX_DIMS], strides[PT2BOX_OP_MAX_DIMS];
};

PB_CHECK pb_status pb_host_new(const struct pb_host_options *opt, struct pb_host **ret, struct pt2box_error *err);
/* Ends nodes and plugins of @h too. Accepts NULL; returns NULL. */
struct pb_host *pb_host_free(struct pb_host *h);

/*
 * Load the plugin at @path: its code runs from here on. UNSUPPORTED: it cannot be linked, is of another version of the
 * ABI, or a table of it makes no sense; USAGE: an operator is there already, or its schema is none. Then nothing of it is
 * in the table.
 */
PB_CHECK pb_status pb_host_load(struct pb_host *h, const char *path, struct pt2box_error *err);
/* The same with a plugin that is linked already (dlopen), by its handle, which @h takes on success. */
PB_CHECK pb_status pb_host_take(struct pb_host *h, void *handle, struct pt2box_error *err);
/* The same with a table that is linked in, which must outlive @h. */
PB_CHECK pb_status pb_host_add(struct pb_host *h, const struct pt2box_op_plugin *plugin, struct pt2box_error *err);
/* The operator is in the table. */
bool pb_host_has(const struct pb_host *h, const char *name);

/*
 * Join a node to its operator. @n is borrowed for as long as the result. NOT_FOUND: no plugin has the operator;
 * UNSUPPORTED: its schema does not fit the node.
 */
PB_CHECK pb_status pb_host_prepare(struct pb_host *h, const struct pb_node *n, struct pb_host_node **ret,
				   struct pt2box_error *err);
/* The operator may write the tensor argument in slot @slot: "Tensor(a!)". */
bool pb_host_writes(const struct pb_host_node *n, uint32_t slot);
/*
 * Call it. @ints: n->n_ints values; @tensors: one for each tensor argument, in the order of slots, n_tensors of them:
 * checked for sense (ndim, dtype, no negative size), not for memory. *ret_results: an entry for each tensor that the node
 * takes, valid until pb_host_release() or the next call.
 *
 * USAGE: counts or tensors that make no sense. MODEL_ERROR: the operator failed, with its text. LIMIT: its results are
 * too large. UNSUPPORTED: it broke the ABI (results missing, or not what the node takes).
 */
PB_CHECK pb_status pb_host_call(struct pb_host_node *n, const int64_t *ints, uint32_t n_ints,
				const struct pt2box_op_tensor *tensors, uint32_t n_tensors,
				const struct pb_host_result **ret_results, uint32_t *ret_n, struct pt2box_error *err);
/* Within a call: the entry of the plugin's table that runs, for functions that serve several. */
const struct pt2box_op *pb_host_running(const struct pt2box_op_call *c);
/* Give back the memory of the last call's results. */
void pb_host_release(struct pb_host_node *n);

#endif
