/* SPDX-License-Identifier: Apache-2.0 */
/* From a package's JSON of extern nodes to ipc/nodes.h, in the arena. Enums of the JSON become c10's numbers. */
#ifndef PT2BOX_BROKER_INTAKE_NODES_H
#define PT2BOX_BROKER_INTAKE_NODES_H

#include "broker/intake/arena.h"
#include "ipc/nodes.h"

#define PB_NODES_MAX_BYTES (4u << 20)

/* PKG_REJECTED "meta.nodes: ..."; LIMIT; NO_MEMORY. Of an argument that this version has no kind for, *ret has an OBJECT. */
PB_CHECK pb_status pb_nodes_read(const char *text, size_t bytes, struct pb_arena *a, struct pb_nodes *ret,
				 struct pt2box_error *err);
/*
 * Says of each node whether the native runtime computes it (runtime/proxied.def), n->native. *ret: what does not allow
 * it, "my::op, aten::x (argument ...)", "" if all are native. *ret_lapack: one of them needs LAPACK. NO_MEMORY.
 */
PB_CHECK pb_status pb_nodes_classify(struct pb_nodes *nodes, struct pb_arena *a, const char **ret, bool *ret_lapack,
				     struct pt2box_error *err);

#endif
