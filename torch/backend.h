/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend: a library that provides PyTorch's AOTInductor C ABI, found by name, not linked. The native runtime and
 * libtorch look alike here, but for the hooks that only the native one has.
 */
#ifndef PT2BOX_TORCH_BACKEND_H
#define PT2BOX_TORCH_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/nodes.h"
#include "ipc/status.h"
#include "runtime/aoti.h"

struct pb_backend {
	void *lib;
	int team; /* threads of the parallel regions in model code */
	int32_t (*create_from_blob)(void *data, int64_t ndim, const int64_t *sizes, const int64_t *strides,
				    int64_t offset, int32_t dtype, int32_t device_type, int32_t device_index,
				    AtenTensorHandle *ret, int32_t layout, const uint8_t *opaque, int64_t opaque_size);
	int32_t (*delete_tensor)(AtenTensorHandle t);
	int32_t (*get_data_ptr)(AtenTensorHandle t, void **ret);
	int32_t (*get_dtype)(AtenTensorHandle t, int32_t *ret);
	int32_t (*get_dim)(AtenTensorHandle t, int64_t *ret);
	int32_t (*get_sizes)(AtenTensorHandle t, int64_t **ret);
	int32_t (*get_strides)(AtenTensorHandle t, int64_t **ret);

	/* Hooks: NULL where a backend has no such thing. Windows and memory limits are the native runtime's. */
	int32_t (*empty_strided)(int64_t ndim, const int64_t *sizes, const int64_t *strides, int32_t dtype,
				 int32_t device_type, int32_t device_index, AtenTensorHandle *ret);
	void (*set_threads)(int n);
	void (*enter_thread)(int threads);
	void (*warmup)(void);
	int (*add_constants)(const void *base, uint64_t bytes);
	void (*remove_constants)(const void *base, uint64_t bytes);
	void (*run_begin)(void *window, uint64_t bytes);
	void (*run_end)(AtenTensorHandle const *outputs, size_t n);
	uint64_t (*window_used)(void);
	bool (*memory_refused)(void);
	void (*set_memory_limit)(uint64_t bytes);
	void (*seed)(uint64_t seed);
	void (*trim)(void);
	int (*set_nodes)(const struct pb_node *nodes, uint32_t n,
			 int (*call)(void *arg, uint32_t node, const struct pt2box_op_value *args, uint32_t n_args,
				     AtenTensorHandle *ret, uint32_t n_ret, int64_t *ret_ints, uint32_t n_ret_ints),
			 void *arg);
	void (*set_error)(const char *reason);
	const char *(*last_error)(void);
};

/*
 * What only some packages need, loaded before the backend: LAPACK, whose functions the runtime names as weak symbols.
 * UNSUPPORTED if it is not installed.
 */
PB_CHECK pb_status pb_backend_load_lapack(struct pt2box_error *err);
/* Load the library at @path. Before the sandbox closes: this is trusted code. UNSUPPORTED if it cannot be loaded. */
PB_CHECK pb_status pb_backend_load(struct pb_backend *b, const char *path, struct pt2box_error *err);
/*
 * On every thread that will run model code, before it does. OpenMP counts per thread, and more threads than a package was
 * compiled for can crash it.
 */
void pb_backend_enter_thread(const struct pb_backend *b);
/* What code does lazily, done on a thread that ends: a fork after an OpenMP region on the forking thread hangs. */
PB_CHECK pb_status pb_backend_warm_up(struct pb_backend *b, int threads, struct pt2box_error *err);

#endif
