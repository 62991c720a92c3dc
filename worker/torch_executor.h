/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operators that models call by name, in backend torch: computed by PyTorch's dispatcher in the worker, or, if it does not have
 * them, in the ops process.
 */
#ifndef PT2BOX_WORKER_TORCH_EXECUTOR_H
#define PT2BOX_WORKER_TORCH_EXECUTOR_H

#include "ipc/manifest.h"
#include "torch/backend.h"

/*
 * Join the manifest's nodes (borrowed, for good) to the schemas that the library has for them. *ret: what the model's
 * Run takes as its proxy executor; NULL: it calls nothing by name. Once in a process. @has_ops: there will be an ops process, for
 * what the library does not have. UNSUPPORTED, by name: an operator that nobody has, or an argument that cannot be given.
 */
PB_CHECK pb_status pb_torch_executor(struct pb_backend *b, const struct pb_manifest *m, bool has_ops, void **ret,
				     struct pt2box_error *err);

#endif
