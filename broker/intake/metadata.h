/* SPDX-License-Identifier: Apache-2.0 */
/* The metadata of a package: JSON, string to string. */
#ifndef PT2BOX_BROKER_INTAKE_METADATA_H
#define PT2BOX_BROKER_INTAKE_METADATA_H

#include "broker/intake/arena.h"
#include "ipc/manifest.h"

#define PB_METADATA_MAX_BYTES (1u << 20)

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

#endif
