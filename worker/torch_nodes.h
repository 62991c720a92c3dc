/* SPDX-License-Identifier: Apache-2.0 */
/* Operators that models call by name, computed by PyTorch's dispatcher in the worker. */
#ifndef PT2BOX_WORKER_TORCH_NODES_H
#define PT2BOX_WORKER_TORCH_NODES_H

#include "ipc/manifest.h"
#include "worker/backend.h"

/*
 * Join the manifest's nodes (borrowed, for good) to the schemas that the library has for them. *ret: what the model's
 * Run takes as its proxy executor; NULL: it calls nothing by name. Once in a process. UNSUPPORTED, by name: an operator that
 * the library does not have, or an argument that cannot be given.
 */
PB_CHECK pb_status pb_torch_nodes(const struct pb_backend *b, const struct pb_manifest *m, void **ret,
				  struct pt2box_error *err);

#endif
