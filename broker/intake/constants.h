/* SPDX-License-Identifier: Apache-2.0 */
/* Where the constants of a model are, and whether what the package says about them can be true. */
#ifndef PT2BOX_BROKER_INTAKE_CONSTANTS_H
#define PT2BOX_BROKER_INTAKE_CONSTANTS_H

#include "broker/intake/package.h"
#include "broker/intake/wrapper.h"
#include "confine/elf_gate.h"
#include "ipc/manifest.h"

/* What the constants are found from. */
struct pb_constants_in {
	const struct pb_wrapper *wrapper;
	const struct pb_elf_facts *elf;
	const struct pb_model_files *files;
	const uint8_t *so;
	uint64_t so_bytes;
	bool brought; /* the client has a file of constants */
};

/* Sets constants (with offsets), const_source, const_file_offset, const_bytes and mutates of @m. PKG_REJECTED
 * "meta.constants: ..." for contradictions. */
PB_CHECK pb_status pb_constants_find(const struct pb_constants_in *in, struct pb_manifest *m,
				     struct pt2box_error *err);

/* Shape, strides and offset stay inside the constant's own storage. */
bool pb_constant_fits(const struct pb_constant *c);

#endif
