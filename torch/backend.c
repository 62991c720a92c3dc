/* SPDX-License-Identifier: Apache-2.0 */
/* Finding a backend's functions, and its warm-up. See backend.h. */
#include "torch/backend.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct entry {
	const char *name;
	size_t offset;
	bool required;
};

#define REQUIRED(name, field) {name, offsetof(struct pb_backend, field), true}
#define HOOK(name, field) {name, offsetof(struct pb_backend, field), false}

static const struct entry entries[] = {
	REQUIRED("aoti_torch_create_tensor_from_blob_v2", create_from_blob),
	REQUIRED("aoti_torch_delete_tensor_object", delete_tensor),
	REQUIRED("aoti_torch_get_data_ptr", get_data_ptr),
	REQUIRED("aoti_torch_get_dtype", get_dtype),
	REQUIRED("aoti_torch_get_dim", get_dim),
	REQUIRED("aoti_torch_get_sizes", get_sizes),
	REQUIRED("aoti_torch_get_strides", get_strides),
	HOOK("pb_rt_set_threads", set_threads),
	HOOK("pb_rt_warmup", warmup),
	HOOK("pb_rt_add_constants", add_constants),
	HOOK("pb_rt_remove_constants", remove_constants),
	HOOK("pb_rt_run_begin", run_begin),
	HOOK("pb_rt_run_end", run_end),
	HOOK("pb_rt_window_used", window_used),
	HOOK("pb_rt_memory_refused", memory_refused),
	HOOK("pb_rt_set_memory_limit", set_memory_limit),
	HOOK("pb_rt_seed", seed),
	HOOK("pb_rt_trim", trim),
	HOOK("pb_rt_set_nodes", set_nodes),
	HOOK("pb_rt_set_error", set_error),
	HOOK("aoti_torch_empty_strided", empty_strided),
	HOOK("torch_exception_get_what_without_backtrace", last_error),
};

pb_status pb_backend_load_lapack(struct pt2box_error *err)
{
	/* Whatever implements it must start no threads of its own: forks would hang, and the sandbox counts them. */
	static const char *const threads[] = {"OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS", "MKL_NUM_THREADS"};

	for (size_t i = 0; i < sizeof(threads) / sizeof(threads[0]); i++)
		setenv(threads[i], "1", 1);
	if (!dlopen("liblapacke.so.3", RTLD_NOW | RTLD_GLOBAL))
		return pb_error_set(err, PT2BOX_UNSUPPORTED,
				    "the package needs LAPACK, which cannot be loaded (Debian: liblapacke): %s", dlerror());
	return PT2BOX_OK;
}

pb_status pb_backend_load(struct pb_backend *b, const char *path, struct pt2box_error *err)
{
	memset(b, 0, sizeof(*b));
	/* Global: packages built without a link to libtorch find the ABI in the global scope. Models never are. */
	b->lib = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
	if (!b->lib)
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "the backend cannot be loaded: %s", dlerror());
	for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
		void *sym = dlsym(b->lib, entries[i].name);

		if (!sym && entries[i].required)
			return pb_error_set(err, PT2BOX_UNSUPPORTED, "the backend has no %s", entries[i].name);
		memcpy((char *)b + entries[i].offset, &sym, sizeof(sym));
	}
	return PT2BOX_OK;
}

void pb_backend_enter_thread(const struct pb_backend *b)
{
	void (*set)(int) = (void (*)(int))dlsym(RTLD_DEFAULT, "omp_set_num_threads");

	if (set)
		set(b->team);
	if (b->enter_thread)
		b->enter_thread(b->team);
}

static void *warm_up_thread(void *arg)
{
	struct pb_backend *b = arg;

	pb_backend_enter_thread(b);
	if (b->warmup)
		b->warmup();
	return NULL;
}

pb_status pb_backend_warm_up(struct pb_backend *b, int threads, struct pt2box_error *err)
{
	pthread_t t;

	b->team = threads;
	if (b->set_threads)
		b->set_threads(threads);
	if (pthread_create(&t, NULL, warm_up_thread, b) != 0)
		return pb_error_sys(err, "cannot start the warm-up thread");
	pthread_join(t, NULL);
	return PT2BOX_OK;
}
