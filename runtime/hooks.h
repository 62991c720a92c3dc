/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the worker may ask of the native runtime beyond PyTorch's C ABI. The worker dlopens the
 * backend and finds these by name; libtorch does not have them, so every one is optional to the
 * worker. One thread only.
 */
#ifndef PT2BOX_RUNTIME_HOOKS_H
#define PT2BOX_RUNTIME_HOOKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct AtenTensorOpaque;

#pragma GCC visibility push(default)

/* Threads for matrix products, convolution and the like; default 1. */
void pb_rt_set_threads(int threads);

/* Everything that trusted code does lazily (CPU detection, a first product and convolution), before
 * the sandbox closes. Call on a thread that ends. */
void pb_rt_warmup(void);

/* Promise that [base, base + bytes) never changes while mapped: packed copies may be cached.
 * Forgotten by pb_rt_forget_constants(), which also drops every cached packing. */
int pb_rt_add_constants(const void *base, uint64_t bytes);
void pb_rt_forget_constants(void);
/* The promise ends for whatever lies in [base, base + bytes), which may be about to be unmapped: its
 * packed copies are freed, so that what is mapped there next is not mistaken for it. */
void pb_rt_remove_constants(const void *base, uint64_t bytes);

/*
 * A run begins: allocations are numbered from 0, and those that the last run's outputs came from
 * are placed into [window, window + window_bytes), at 64-byte aligned offsets, while they fit.
 * window may be NULL.
 */
void pb_rt_run_begin(void *window, uint64_t window_bytes);
/*
 * The run has ended with these outputs (NULL entries allowed; not consumed): learns which
 * allocations became outputs, for the next run. After a run that failed: NULL, 0.
 */
void pb_rt_run_end(struct AtenTensorOpaque *const *outputs, size_t n_outputs);
/* Next free byte of the window after run_end: where the worker may copy outputs that were not
 * placed. */
uint64_t pb_rt_window_used(void);

/* Reason of the last failing call on this thread, "" if none; cleared by pb_rt_run_begin. */
const char *pb_rt_last_error(void);
/* The same for code that fails in place of the runtime: a callback of pb_rt_set_nodes(). */
void pb_rt_set_error(const char *reason);
/* An allocation was refused since run_begin (or since start). */
bool pb_rt_memory_refused(void);

/* Limit of memory the runtime may hold, bytes; 0 no limit. */
void pb_rt_set_memory_limit(uint64_t bytes);
/* Seed of the CPU generator (mt19937), per run. */
void pb_rt_seed(uint64_t seed);
/* The address is inside storage known as constant. */
bool pb_rt_is_constant(const void *p, uint64_t bytes);

struct pb_node;
struct pt2box_op_value;
/*
 * Computes what is not computed here: node @node with its arguments, as they are in @args. @ret: n_ret handles to be made
 * for the results, in order; an argument's own handle for one that is returned. 0, or 1 with the reason set.
 */
typedef int pb_rt_ops_call(void *arg, uint32_t node, const struct pt2box_op_value *args, uint32_t n_args,
			   struct AtenTensorOpaque **ret, uint32_t n_ret, int64_t *ret_ints, uint32_t n_ret_ints);
/*
 * The nodes that the model will call by number (ipc/nodes.h; borrowed while in use). Arguments of those that are native
 * are in the order of their schema. @call may be NULL: then calls of the others fail. 0, or 1 with the error set.
 */
int pb_rt_set_nodes(const struct pb_node *nodes, uint32_t n, pb_rt_ops_call *call, void *arg);

/* Give back the memory that is kept for the next run. Before a fork: children would each copy what they reuse. */
void pb_rt_trim(void);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif
#endif
