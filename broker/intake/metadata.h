/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON texts of a package: metadata (string to string), and the nodes of operators that have no C function. */
#ifndef PT2BOX_BROKER_INTAKE_METADATA_H
#define PT2BOX_BROKER_INTAKE_METADATA_H

#include "broker/intake/arena.h"
#include "ipc/manifest.h"

#define PB_METADATA_MAX_BYTES (1u << 20)
#define PB_NODES_MAX_BYTES (2u << 20)

struct pb_metadata {
	struct pb_key_value *pairs;
	uint32_t n;
	const char *device, *platform, *machine, *cpu_isa; /* "" if it does not say */
};

/* PKG_REJECTED "meta.json: ..."; NO_MEMORY. */
PB_CHECK pb_status pb_metadata_read(const char *text, size_t bytes, struct pb_arena *a, struct pb_metadata *ret,
				    struct pt2box_error *err);
/* What it says about the machine: UNSUPPORTED with the reason, PKG_REJECTED "meta.device". */
PB_CHECK pb_status pb_metadata_check(const struct pb_metadata *m, struct pt2box_error *err);
/* *ret: the operators, "ns::a, ns::b"; in the arena. PKG_REJECTED "meta.nodes". */
PB_CHECK pb_status pb_nodes_read(const char *text, size_t bytes, struct pb_arena *a, const char **ret,
				 struct pt2box_error *err);

#endif
