/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A safetensors file: its header, checked against the file's size, and where each tensor's bytes are. Read by pread, once;
 * nothing in it is ever run or unpickled.
 * Source: the format as described by huggingface/safetensors, README, "Format".
 */
#ifndef PT2BOX_BROKER_INTAKE_SAFETENSORS_H
#define PT2BOX_BROKER_INTAKE_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "ipc/status.h"

#define PB_SAFETENSORS_HEADER_MAX (32u << 20)

/* Contiguous, in row-major order. */
struct pb_stored_tensor {
	const char *name; /* of the file's owner: escape it before it is shown */
	int32_t dtype, ndim;
	int64_t sizes[PT2BOX_MAX_DIMS];
	uint64_t offset, bytes; /* in the file */
};

struct pb_safetensors {
	int fd; /* borrowed */
	struct pb_stored_tensor *tensors;
	size_t n;
	void *header; /* owns the names */
};

/*
 * PKG_REJECTED "const.format: ..." for a file of another kind or a malformed one; UNSUPPORTED "const.dtype", a type that is
 * not known here; IO, NO_MEMORY. pb_safetensors_close() in either case.
 */
PB_CHECK pb_status pb_safetensors_open(int fd, struct pb_safetensors *ret, struct pt2box_error *err);
void pb_safetensors_close(struct pb_safetensors *f);

#endif
