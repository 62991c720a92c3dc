/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The constants' memory of a model: const_bytes bytes in the manifest's layout, then one byte a constant, 1: it was given.
 * Written in one pass from the front, and hashed on the way, while each piece is in the cache.
 */
#ifndef PT2BOX_BROKER_INTAKE_CONST_MEMORY_H
#define PT2BOX_BROKER_INTAKE_CONST_MEMORY_H

#include "broker/intake/hash.h"
#include "broker/intake/safetensors.h"
#include "ipc/manifest.h"

#define PB_DIGEST_TEXT 65 /* SHA-256 in lower-case hexadecimal digits */

/* Where the constants lie that are not given: from byte @offset of a file on, in the manifest's layout. fd -1: nowhere. */
struct pb_const_base {
	int fd;
	uint64_t offset;
};

struct pb_const_parts {
	const struct pb_safetensors *file;
	const struct pb_stored_tensor **given; /* of pb_given_match() */
	struct pb_const_base parameters, others;
};

/* Every constant is inside its storage, and the storages follow each other. PKG_REJECTED "meta.constants: ...". */
PB_CHECK pb_status pb_const_layout_check(const struct pb_manifest *m, struct pt2box_error *err);

/*
 * Fill the empty memfd @out, for a manifest that has passed pb_const_layout_check(). What is given is laid out in the
 * model's strides, with zeros around it.
 * LIMIT, more than @max_bytes; INTERNAL, a base is too short; IO, SYSTEM, NO_MEMORY.
 */
PB_CHECK pb_status pb_const_memory_write(const struct pb_manifest *m, const struct pb_const_parts *p, uint64_t max_bytes,
					 int out, char ret_digest[PB_DIGEST_TEXT], struct pt2box_error *err);

/* The same for constants that are in @out already, all of them, and hashed by @h. */
PB_CHECK pb_status pb_const_memory_finish(const struct pb_manifest *m, struct pb_hash *h, int out,
					  char ret_digest[PB_DIGEST_TEXT], struct pt2box_error *err);

#endif
