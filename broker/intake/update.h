/* SPDX-License-Identifier: Apache-2.0 */
/* New constants for a loaded model: what a client's file gives, and the present ones for the rest. */
#ifndef PT2BOX_BROKER_INTAKE_UPDATE_H
#define PT2BOX_BROKER_INTAKE_UPDATE_H

#include <stdbool.h>

#include "broker/intake/const_memory.h"

struct pb_update {
	int manifest;	   /* as the broker sealed it */
	int file;	   /* a safetensors file of the client's, read once by pread */
	int out;	   /* empty memfd */
	struct pb_const_base base, parameters; /* what is not given; buffers and tensor constants come from base */
	bool full;	   /* every parameter must be given */
	bool names;	   /* keys may also be internal names */
	uint64_t max_bytes;
};

/* @ret_digest: of the memory. Statuses: those of given.h, const_memory.h, safetensors.h; PKG_REJECTED "meta.*". */
PB_CHECK pb_status pb_update_run(const struct pb_update *u, char ret_digest[PB_DIGEST_TEXT], struct pt2box_error *err);

/*
 * Two memories of equal bytes. NOT_FOUND "they differ"; USAGE, one is not sealed against shrinking: what is mapped here
 * must not go away.
 */
PB_CHECK pb_status pb_compare_run(int one, int other, struct pt2box_error *err);

#endif
