/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A .pt2 file as a list of entries that can be read. Entries are looked up, never extracted to a path. What is refused,
 * with "zip.WORD: sentence": names that are not plain relative paths, links, encryption, methods other than stored and
 * deflated, sizes that do not add up, archives that are not consistent with themselves.
 */
#ifndef PT2BOX_BROKER_INTAKE_PACKAGE_H
#define PT2BOX_BROKER_INTAKE_PACKAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/intake/hash.h"
#include "ipc/status.h"

#define PB_ZIP_ENTRIES_MAX 4096 /* real packages have 10 */
#define PB_ZIP_NAME_MAX 1024
/* Inflated bytes of a deflated entry: at most this many times its compressed bytes, and some for small texts. Weights
 * hardly compress and program text does 10 times; deflate itself could do 1000. */
#define PB_ZIP_RATIO_MAX 200
#define PB_ZIP_RATIO_FREE 65536

struct zip;

struct pb_entry {
	char *name;
	uint64_t size, local; /* bytes when inflated; where its local header is */
	uint32_t index, crc;
	bool stored;
};

struct pb_package {
	int fd; /* borrowed */
	uint64_t bytes, pos;
	struct zip *zip;
	struct pb_entry *entries;
	uint32_t n_entries;
	const char **models; /* names of all compiled models; owned, each of them too */
	uint32_t n_models;
	char *prefix; /* "mlp/data/aotinductor/" */
};
#define PB_PACKAGE_INIT {.fd = -1}

/* The files of one model. NULL: not there. */
struct pb_model_files {
	const struct pb_entry *so, *wrapper, *kernel, *metadata, *nodes, *blob, *weights_config;
};

/* PKG_REJECTED "zip.*"; LIMIT, larger than @max_bytes; IO. pb_package_deinit() in either case. */
PB_CHECK pb_status pb_package_open(struct pb_package *p, int fd, uint64_t max_bytes, struct pt2box_error *err);
void pb_package_deinit(struct pb_package *p);

/* Find model @name. NOT_FOUND, with the names that are there; PKG_REJECTED "no_so: ...". */
PB_CHECK pb_status pb_package_choose(struct pb_package *p, const char *name, struct pb_model_files *ret,
				     struct pt2box_error *err);

/* Whole contents, malloc'd, with a NUL after the end. LIMIT if larger than @max. */
PB_CHECK pb_status pb_package_read(struct pb_package *p, const struct pb_entry *e, uint64_t max, char **ret,
				   struct pt2box_error *err);
/*
 * Large contents to empty memfds, and the SHA-256 of the whole package, in one pass through a small buffer: what is hashed
 * is what is used, and each byte is read once. (Deflated entries are inflated in a pass of their own.)
 */
struct pb_sink {
	const struct pb_entry *entry;
	int fd;
	struct pb_hash *hash; /* of the contents too; NULL: not wanted */
	uint64_t at;	      /* internal */
	uint32_t crc;
};
PB_CHECK pb_status pb_package_stream(struct pb_package *p, struct pb_sink *sinks, uint32_t n, uint8_t ret_sha256[32],
				     struct pt2box_error *err);

/* What an entry's name may be: "a/b" of printable ASCII or UTF-8; no "..", no empty part, no backslash. */
bool pb_zip_name_ok(const char *name, size_t bytes);

#endif
