/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PyTorch's own libtorch_cpu.so as the backend. It was not written for a sandbox: what it does lazily (CPU detection, reading
 * /proc, starting generators, choosing kernels) is done in the template before the sandbox closes, on a thread that ends.
 */
#ifndef PT2BOX_TORCH_LIBRARY_H
#define PT2BOX_TORCH_LIBRARY_H

#include "torch/backend.h"

/*
 * After pb_backend_load() and before the warm-up: the hooks that this library can serve. @no_jit: memory will not become
 * executable, so that oneDNN, which compiles its kernels, is not chosen for any operator that has another one.
 * UNSUPPORTED: the library lacks what is needed.
 */
PB_CHECK pb_status pb_torch_attach(struct pb_backend *b, bool no_jit, struct pt2box_error *err);

#endif
