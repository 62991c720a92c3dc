/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands before the elements in a .safetensors file: the length of the header, the header in JSON, spaces up to a
 * multiple of 8.
 * Source: github.com/huggingface/safetensors, README, "Format".
 */
#ifndef PT2BOX_CLIENT_SAFETENSORS_HEADER_H
#define PT2BOX_CLIENT_SAFETENSORS_HEADER_H

#include <stddef.h>
#include <stdint.h>

#include "ipc/status.h"

struct pb_safetensors_entry {
	const char *name; /* each once */
	int32_t dtype;	  /* one that the format has, or complex128 or complex32 under a name of our own */
	int32_t ndim;
	const int64_t *sizes;
};

/*
 * For entries whose elements follow each other, in C order, in the order given. *ret is malloc'd; *ret_elements: bytes of all
 * that follows. Errors: NO_MEMORY, LIMIT.
 */
PB_CHECK pb_status pb_safetensors_header(const struct pb_safetensors_entry *e, size_t n, uint8_t **ret, size_t *ret_bytes,
					 uint64_t *ret_elements, struct pt2box_error *err);

#endif
