/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A first look at a zip file's central directory, before libzip sees the file: number of entries, names as bytes (libzip
 * shows a NUL as a space), kinds, flags. What libzip then finds must be the same list.
 */
#ifndef PT2BOX_BROKER_INTAKE_DIRECTORY_H
#define PT2BOX_BROKER_INTAKE_DIRECTORY_H

#include <stdint.h>

#include "ipc/status.h"

struct pb_directory_entry {
	char *name;	/* owned */
	uint64_t local; /* where its local header is */
};

/* Entries in order, malloc'd. PKG_REJECTED "zip.*". */
PB_CHECK pb_status pb_directory_read(int fd, uint64_t bytes, struct pb_directory_entry **ret, uint32_t *ret_n,
				     struct pt2box_error *err);
void pb_directory_free(struct pb_directory_entry *e, uint32_t n);
/* Where the bytes of an entry begin, by its local header. */
PB_CHECK pb_status pb_directory_data(int fd, uint64_t bytes, uint64_t local, uint64_t *ret, struct pt2box_error *err);

#endif
