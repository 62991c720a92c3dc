/* SPDX-License-Identifier: Apache-2.0 */
/* See directory.h. Fields and their places: APPNOTE.TXT 6.3.10, sections 4.3.7 to 4.3.16 and 4.5.3. */
#include "broker/intake/directory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "broker/intake/fileio.h"
#include "broker/intake/package.h"
#include "ipc/checked.h"

#define END_BYTES 22
#define LOCATOR_BYTES 20
#define END64_BYTES 56
#define ENTRY_BYTES 46
#define LOCAL_BYTES 30
#define DIRECTORY_MAX (8u << 20)
#define MADE_BY_UNIX 3

static uint64_t le(const uint8_t *p, int bytes)
{
	uint64_t v = 0;

	for (int i = bytes - 1; i >= 0; i--)
		v = v << 8 | p[i];
	return v;
}

struct place {
	uint64_t n, size, offset, end;
};

static pb_status reject(struct pt2box_error *err, const char *text)
{
	return pb_error_set(err, PT2BOX_PKG_REJECTED, "zip.%s", text);
}

/* The 64-bit end record, if its locator stands before the end record. */
static pb_status find_64(int fd, uint64_t end_at, struct place *ret, struct pt2box_error *err)
{
	uint8_t l[LOCATOR_BYTES], e[END64_BYTES];
	uint64_t at;
	pb_status st;

	if (end_at < LOCATOR_BYTES + END64_BYTES)
		return PT2BOX_OK;
	st = pb_read_at(fd, end_at - LOCATOR_BYTES, l, sizeof(l), err);
	if (st)
		return st;
	if (le(l, 4) != 0x07064b50)
		return PT2BOX_OK;
	at = le(l + 8, 8);
	if (le(l + 4, 4) != 0 || le(l + 16, 4) > 1 || !pb_span_fits(at, sizeof(e), end_at - LOCATOR_BYTES))
		return reject(err, "zip64: the 64-bit record is not where it should be");
	st = pb_read_at(fd, at, e, sizeof(e), err);
	if (st)
		return st;
	if (le(e, 4) != 0x06064b50 || le(e + 16, 4) || le(e + 20, 4) || le(e + 24, 8) != le(e + 32, 8))
		return reject(err, "zip64: the 64-bit record is malformed");
	*ret = (struct place){le(e + 32, 8), le(e + 40, 8), le(e + 48, 8), at};
	return PT2BOX_OK;
}

static pb_status find(int fd, uint64_t bytes, struct place *ret, struct pt2box_error *err)
{
	uint8_t e[END_BYTES];
	struct place p32;
	pb_status st;

	if (bytes < END_BYTES)
		return reject(err, "end: not a zip file");
	st = pb_read_at(fd, bytes - END_BYTES, e, sizeof(e), err);
	if (st)
		return st;
	/* The record must end the file: with a comment or bytes after it, readers differ in what they find. */
	if (le(e, 4) != 0x06054b50 || le(e + 20, 2) != 0)
		return reject(err, "end: not a zip file, or something follows its end");
	if (le(e + 4, 2) || le(e + 6, 2) || le(e + 8, 2) != le(e + 10, 2))
		return reject(err, "end: an archive of several parts");
	p32 = *ret = (struct place){le(e + 10, 2), le(e + 12, 4), le(e + 16, 4), bytes - END_BYTES};
	st = find_64(fd, bytes - END_BYTES, ret, err);
	if (st)
		return st;
	if ((p32.n != 0xffff && p32.n != ret->n) || (p32.size != 0xffffffff && p32.size != ret->size) ||
	    (p32.offset != 0xffffffff && p32.offset != ret->offset))
		return reject(err, "zip64: the two end records disagree");
	if (ret->n > PB_ZIP_ENTRIES_MAX)
		return reject(err, "entries: more entries than any package has");
	if (ret->size > DIRECTORY_MAX || ret->offset > ret->end || ret->size != ret->end - ret->offset)
		return reject(err, "directory: the central directory is not where it should be");
	return PT2BOX_OK;
}

static bool kind_ok(const uint8_t *p)
{
	uint64_t mode = le(p + 38, 4) >> 16;

	if (p[5] != MADE_BY_UNIX || (mode & S_IFMT) == 0)
		return true;
	return S_ISREG(mode) || S_ISDIR(mode);
}

static pb_status check_entry(const uint8_t *p, uint64_t name_len, struct pt2box_error *err)
{
	uint64_t flags = le(p + 8, 2), method = le(p + 10, 2);

	if (!pb_zip_name_ok((const char *)p + ENTRY_BYTES, name_len))
		return reject(err, "name: an entry's name is not a plain relative path");
	if (!kind_ok(p))
		return reject(err, "name: an entry is a link or a device");
	/* Bit 0: encrypted; 6: strongly; 13: the directory itself. 5: patched data. */
	if (flags & (1u << 0 | 1u << 5 | 1u << 6 | 1u << 13))
		return reject(err, "encrypted: an entry is encrypted or patched data");
	if (method != 0 && method != 8)
		return reject(err, "method: an entry is neither stored nor deflated");
	if (le(p + 34, 2) != 0)
		return reject(err, "end: an archive of several parts");
	return PT2BOX_OK;
}

/* The offset of the local header: 32 bits, or in the extra field of 64-bit values, after the sizes that are there too. */
static bool local_offset(const uint8_t *p, uint64_t name_len, uint64_t extra_len, uint64_t *ret)
{
	const uint8_t *x = p + ENTRY_BYTES + name_len, *end = x + extra_len;
	uint64_t skip = (le(p + 24, 4) == 0xffffffff ? 8u : 0u) + (le(p + 20, 4) == 0xffffffff ? 8u : 0u);

	*ret = le(p + 42, 4);
	if (*ret != 0xffffffff)
		return true;
	while (end - x >= 4) {
		uint64_t id = le(x, 2), len = le(x + 2, 2);

		x += 4;
		if (len > (uint64_t)(end - x))
			return false;
		if (id == 1) {
			if (len < skip + 8)
				return false;
			*ret = le(x + skip, 8);
			return true;
		}
		x += len;
	}
	return false;
}

static pb_status walk(const uint8_t *dir, const struct place *at, struct pb_directory_entry *list, uint32_t *ret_n,
		      struct pt2box_error *err)
{
	uint64_t off = 0;

	for (uint64_t i = 0; i < at->n; i++) {
		const uint8_t *p = dir + off;
		uint64_t name_len, extra_len, len;
		pb_status st;

		if (!pb_span_fits(off, ENTRY_BYTES, at->size) || le(p, 4) != 0x02014b50)
			return reject(err, "directory: an entry of the central directory is malformed");
		name_len = le(p + 28, 2);
		extra_len = le(p + 30, 2);
		len = ENTRY_BYTES + name_len + extra_len + le(p + 32, 2);
		if (!pb_span_fits(off, len, at->size))
			return reject(err, "directory: an entry is longer than the central directory");
		st = check_entry(p, name_len, err);
		if (st)
			return st;
		if (!local_offset(p, name_len, extra_len, &list[i].local))
			return reject(err, "zip64: an entry does not say where it is");
		list[i].name = strndup((const char *)p + ENTRY_BYTES, name_len);
		if (!list[i].name)
			return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for names");
		*ret_n = (uint32_t)i + 1;
		off += len;
	}
	if (off != at->size)
		return reject(err, "directory: bytes are left over in the central directory");
	return PT2BOX_OK;
}

pb_status pb_directory_read(int fd, uint64_t bytes, struct pb_directory_entry **ret, uint32_t *ret_n,
			    struct pt2box_error *err)
{
	struct place at = {0, 0, 0, 0};
	struct pb_directory_entry *list;
	uint8_t *dir;
	uint32_t n = 0;
	pb_status st = find(fd, bytes, &at, err);

	if (st)
		return st;
	dir = malloc(at.size + 1);
	list = calloc(at.n + 1, sizeof(*list));
	if (!dir || !list)
		st = pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for the central directory");
	if (!st)
		st = pb_read_at(fd, at.offset, dir, at.size, err);
	if (!st)
		st = walk(dir, &at, list, &n, err);
	free(dir);
	if (st) {
		pb_directory_free(list, n);
		return st;
	}
	*ret = list;
	*ret_n = n;
	return PT2BOX_OK;
}

void pb_directory_free(struct pb_directory_entry *e, uint32_t n)
{
	for (uint32_t i = 0; e && i < n; i++)
		free(e[i].name);
	free(e);
}

pb_status pb_directory_data(int fd, uint64_t bytes, uint64_t local, uint64_t *ret, struct pt2box_error *err)
{
	uint8_t h[LOCAL_BYTES];
	pb_status st;

	if (!pb_span_fits(local, sizeof(h), bytes))
		return reject(err, "local: an entry is outside the file");
	st = pb_read_at(fd, local, h, sizeof(h), err);
	if (st)
		return st;
	if (le(h, 4) != 0x04034b50)
		return reject(err, "local: an entry has no header of its own");
	*ret = local + sizeof(h) + le(h + 26, 2) + le(h + 28, 2);
	return PT2BOX_OK;
}
