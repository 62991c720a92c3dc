/* SPDX-License-Identifier: Apache-2.0 */
/* From a package to what the broker and a worker need: patched code, constants, manifest. No process state: tests call it. */
#ifndef PT2BOX_BROKER_INTAKE_INTAKE_H
#define PT2BOX_BROKER_INTAKE_INTAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/intake/const_memory.h"
#include "ipc/status.h"

struct pb_intake {
	const char *model;
	uint64_t max_package_bytes;
	bool inspect;	  /* only the manifest; CPU and constants need not be there */
	bool brief;	  /* only names and metadata: nothing else of the package is read; in the manifest, nothing else is set */
	int package;	  /* read by pread */
	int constants_in; /* a safetensors file; -1: none */
	int out_model, out_constants, out_manifest; /* empty memfds */
};

/*
 * @ret_digest: SHA-256 of the constants' memory, empty if there is none.
 *
 * NOT_FOUND, PKG_REJECTED, UNSUPPORTED, LIMIT, USAGE, BAD_TENSOR, IO, SYSTEM, NO_MEMORY; each with its text.
 */
PB_CHECK pb_status pb_intake_run(const struct pb_intake *in, char ret_digest[PB_DIGEST_TEXT], struct pt2box_error *err);

#endif
