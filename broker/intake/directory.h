/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A first look at a zip file's central directory, before libzip sees the file: number of entries, names as bytes (libzip
 * shows a NUL as a space), kinds, flags. What libzip then finds must be the same list.
 */
#ifndef PT2BOX_BROKER_INTAKE_DIRECTORY_H
#define PT2BOX_BROKER_INTAKE_DIRECTORY_H

#include <stdint.h>

#include "ipc/status.h"

/* Names in order, malloc'd one by one. PKG_REJECTED "zip.*". */
PB_CHECK pb_status pb_directory_names(int fd, uint64_t bytes, char ***ret, uint32_t *ret_n, struct pt2box_error *err);
void pb_directory_free(char **names, uint32_t n);
/* All of [offset, offset + bytes) of a file. IO if it is shorter. */
PB_CHECK pb_status pb_read_at(int fd, uint64_t offset, void *dst, uint64_t bytes, struct pt2box_error *err);

#endif
