/* SPDX-License-Identifier: Apache-2.0 */
/* All of a range of a file, or an error. */
#ifndef PT2BOX_BROKER_INTAKE_FILEIO_H
#define PT2BOX_BROKER_INTAKE_FILEIO_H

#include <stdint.h>

#include "ipc/status.h"

/* IO if the file is shorter, or became so. */
PB_CHECK pb_status pb_read_at(int fd, uint64_t offset, void *dst, uint64_t bytes, struct pt2box_error *err);
PB_CHECK pb_status pb_write_at(int fd, uint64_t offset, const void *src, uint64_t bytes, struct pt2box_error *err);

#endif
