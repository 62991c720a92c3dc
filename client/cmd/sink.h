/* SPDX-License-Identifier: Apache-2.0 */
/* A buffered writer that remembers its first error, counts, and keeps a CRC-32 for archives. */
#ifndef PT2BOX_CMD_SINK_H
#define PT2BOX_CMD_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/cmd/array.h"

struct pb_sink {
	int fd; /* borrowed */
	int error; /* errno of the first failure, 0 */
	uint64_t pos; /* bytes so far, those in the buffer too */
	uint32_t crc; /* of what was written since it was set to 0 */
	bool want_crc;
	uint8_t *buffer;
	size_t used;
};

bool pb_sink_init(struct pb_sink *s, int fd);
/* Flushes; false if anything failed. */
bool pb_sink_deinit(struct pb_sink *s);
void pb_sink_write(struct pb_sink *s, const void *data, size_t n);
/* Overwrite what was written before. */
void pb_sink_patch(struct pb_sink *s, uint64_t at, const void *data, size_t n);
/* The elements of @v, first index slowest, or fastest if @fortran. */
void pb_sink_elements(struct pb_sink *s, const struct pb_array_view *v, bool fortran);

void pb_put_u16(uint8_t *p, uint64_t v);
void pb_put_u32(uint8_t *p, uint64_t v);
void pb_put_u64(uint8_t *p, uint64_t v);

#endif
