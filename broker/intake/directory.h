/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A zip file's central directory, and the header that each entry has of its own: number of entries, names as bytes, kinds,
 * flags, sizes, places. Whatever two readers of an archive might see differently is refused.
 */
#ifndef PT2BOX_BROKER_INTAKE_DIRECTORY_H
#define PT2BOX_BROKER_INTAKE_DIRECTORY_H

#include <stdbool.h>
#include <stdint.h>

#include "ipc/status.h"

struct pb_directory_entry {
	char *name;	   /* owned */
	uint64_t local;	   /* where its local header is */
	uint64_t data;	   /* where its bytes begin */
	uint64_t packed, size; /* bytes in the file, and when inflated */
	uint32_t crc;
	bool stored;
};

/* Entries in order, malloc'd: each inside the file, none in another, no two of one name. PKG_REJECTED "zip.*". */
PB_CHECK pb_status pb_directory_read(int fd, uint64_t bytes, struct pb_directory_entry **ret, uint32_t *ret_n,
				     struct pt2box_error *err);
void pb_directory_free(struct pb_directory_entry *e, uint32_t n);

#endif
