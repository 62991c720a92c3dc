/* SPDX-License-Identifier: Apache-2.0 */
/* Tells the runtime which operators the model calls by name. */
#ifndef PT2BOX_WORKER_NODES_H
#define PT2BOX_WORKER_NODES_H

#include "ipc/manifest.h"
#include "torch/backend.h"

/*
 * Gives the manifest's nodes to the backend, those that the native runtime computes joined to their schemas
 * (runtime/proxied.def). They live as long as the process: call once. UNSUPPORTED, by name: a node that should be native
 * does not fit its schema.
 */
PB_CHECK pb_status pb_nodes_give(struct pb_backend *b, const struct pb_manifest *m, struct pt2box_error *err);

#endif
