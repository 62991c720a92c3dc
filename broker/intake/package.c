/* SPDX-License-Identifier: Apache-2.0 */
/* Reading entries through libzip, over pread on a descriptor that somebody else opened. See package.h. */
#include "broker/intake/package.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zip.h>
#include <zlib.h>

#include "broker/intake/fileio.h"
#include "broker/intake/directory.h"
#include "broker/intake/hash.h"
#include "ipc/checked.h"

#define STEP (256u << 10) /* stays in the cache between reading, hashing and writing */

/* ---- names ---- */

/* Bytes of the UTF-8 sequence at @s, 0 if malformed, overlong or a control character. */
static size_t utf8_len(const unsigned char *s, size_t left)
{
	size_t n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;

	if (s[0] < 0xc2 || s[0] > 0xf4 || n > left)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
	    (s[0] == 0xf4 && s[1] > 0x8f) || (s[0] == 0xc2 && s[1] < 0xa0))
		return 0;
	return n;
}

static bool part_ok(const char *s, size_t n)
{
	return n > 0 && !(n == 1 && s[0] == '.') && !(n == 2 && s[0] == '.' && s[1] == '.');
}

bool pb_zip_name_ok(const char *name, size_t bytes)
{
	const unsigned char *s = (const unsigned char *)name;
	size_t part = 0;

	if (bytes == 0 || bytes > PB_ZIP_NAME_MAX)
		return false;
	for (size_t i = 0; i < bytes;) {
		size_t n = s[i] < 0x80 ? 1 : utf8_len(s + i, bytes - i);

		if (n == 0 || s[i] < 0x20 || s[i] == 0x7f || s[i] == '\\')
			return false;
		if (s[i] == '/') {
			if (!part_ok(name + part, i - part))
				return false;
			part = i + 1;
		}
		i += n;
	}
	return part == bytes || part_ok(name + part, bytes - part); /* "a/" is a folder's own entry */
}

/* ---- libzip's view of the descriptor ---- */

static zip_int64_t source_stat(struct pb_package *p, void *data, zip_uint64_t len)
{
	zip_stat_t *sb = data;

	if (len < sizeof(*sb))
		return -1;
	zip_stat_init(sb);
	sb->size = p->bytes;
	sb->valid = ZIP_STAT_SIZE;
	return sizeof(*sb);
}

static zip_int64_t source_read(struct pb_package *p, void *data, zip_uint64_t len)
{
	zip_uint64_t n = len < p->bytes - p->pos ? len : p->bytes - p->pos;

	if (pb_read_at(p->fd, p->pos, data, n, NULL))
		return -1;
	p->pos += n;
	return (zip_int64_t)n;
}

static zip_int64_t source_seek(struct pb_package *p, void *data, zip_uint64_t len)
{
	zip_int64_t to = zip_source_seek_compute_offset(p->pos, p->bytes, data, len, NULL);

	if (to < 0)
		return -1;
	p->pos = (uint64_t)to;
	return 0;
}

static zip_int64_t source_error(void *data, zip_uint64_t len)
{
	zip_error_t e;

	zip_error_init_with_code(&e, ZIP_ER_READ);
	return zip_error_to_data(&e, data, len);
}

static zip_int64_t source(void *state, void *data, zip_uint64_t len, zip_source_cmd_t cmd)
{
	struct pb_package *p = state;

	switch (cmd) {
	case ZIP_SOURCE_OPEN:
		p->pos = 0;
		return 0;
	case ZIP_SOURCE_READ:
		return source_read(p, data, len);
	case ZIP_SOURCE_SEEK:
		return source_seek(p, data, len);
	case ZIP_SOURCE_TELL:
		return (zip_int64_t)p->pos;
	case ZIP_SOURCE_STAT:
		return source_stat(p, data, len);
	case ZIP_SOURCE_ERROR:
		return source_error(data, len);
	case ZIP_SOURCE_SUPPORTS:
		return ZIP_SOURCE_SUPPORTS_SEEKABLE;
	case ZIP_SOURCE_CLOSE:
	case ZIP_SOURCE_FREE:
		return 0;
	default:
		return -1;
	}
}

static pb_status zip_failed(zip_error_t *e, const char *word, struct pt2box_error *err)
{
	pb_status st = zip_error_code_zip(e) == ZIP_ER_MEMORY ? PT2BOX_NO_MEMORY : PT2BOX_PKG_REJECTED;

	return pb_error_set(err, st, "zip.%s: %s", word, zip_error_strerror(e));
}

static pb_status open_zip(struct pb_package *p, struct pt2box_error *err)
{
	zip_source_t *s;
	zip_error_t e;
	pb_status st = PT2BOX_OK;

	zip_error_init(&e);
	s = zip_source_function_create(source, p, &e);
	if (s)
		p->zip = zip_open_from_source(s, ZIP_RDONLY | ZIP_CHECKCONS, &e);
	if (s && !p->zip)
		zip_source_free(s);
	if (!p->zip)
		st = zip_failed(&e, "consistency", err);
	zip_error_fini(&e);
	return st;
}

/* ---- entries ---- */

static pb_status add_entry(struct pb_package *p, uint32_t i, struct pb_directory_entry *d, uint64_t *total,
			   uint64_t max_bytes, struct pt2box_error *err)
{
	struct pb_entry *e = &p->entries[p->n_entries++];
	const zip_uint64_t want = ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_CRC;
	zip_stat_t sb;
	uint64_t limit;
	const char *name = zip_get_name(p->zip, i, ZIP_FL_ENC_RAW);

	*e = (struct pb_entry){.name = d->name, .local = d->local, .index = i};
	d->name = NULL; /* taken */
	if (!name || strcmp(name, e->name) != 0 || zip_stat_index(p->zip, i, 0, &sb) != 0 ||
	    (sb.valid & want) != want)
		return pb_error_set(err, PT2BOX_PKG_REJECTED, "zip.directory: two ways to read it differ");
	e->size = sb.size;
	e->crc = sb.crc;
	e->stored = sb.comp_method == ZIP_CM_STORE;
	if (sb.comp_method == ZIP_CM_STORE && sb.comp_size != sb.size)
		return pb_error_set(err, PT2BOX_PKG_REJECTED, "zip.size: a stored entry has two sizes");
	if (!pb_mul_u64(sb.comp_size, PB_ZIP_RATIO_MAX, &limit) ||
	    !pb_add_u64(limit, PB_ZIP_RATIO_FREE, &limit) || sb.size > limit)
		return pb_error_set(err, PT2BOX_PKG_REJECTED, "zip.ratio: an entry inflates more than %d times",
				    PB_ZIP_RATIO_MAX);
	if (!pb_add_u64(*total, sb.size, total) || *total > max_bytes)
		return pb_error_set(err, PT2BOX_PKG_REJECTED, "zip.size: the entries are larger than %llu bytes",
				    (unsigned long long)max_bytes);
	return PT2BOX_OK;
}

pb_status pb_package_open(struct pb_package *p, int fd, uint64_t max_bytes, struct pt2box_error *err)
{
	uint64_t total = 0;
	struct pb_directory_entry *list;
	uint32_t n = 0;
	struct stat sb;
	pb_status st;

	*p = (struct pb_package)PB_PACKAGE_INIT;
	p->fd = fd;
	if (fstat(fd, &sb) != 0)
		return pb_error_sys(err, "the package");
	p->bytes = (uint64_t)sb.st_size;
	if (p->bytes > max_bytes)
		return pb_error_set(err, PT2BOX_LIMIT, "the package has %llu bytes; %llu are allowed",
				    (unsigned long long)p->bytes, (unsigned long long)max_bytes);
	st = pb_directory_read(fd, p->bytes, &list, &n, err);
	if (st)
		return st;
	p->entries = calloc(n + 1u, sizeof(*p->entries));
	if (!p->entries)
		st = pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for the entries");
	if (!st)
		st = open_zip(p, err);
	if (!st && zip_get_num_entries(p->zip, 0) != n)
		st = pb_error_set(err, PT2BOX_PKG_REJECTED, "zip.directory: two ways to read it differ");
	for (uint32_t i = 0; !st && i < n; i++)
		st = add_entry(p, i, &list[i], &total, max_bytes, err);
	pb_directory_free(list, n);
	return st;
}

void pb_package_deinit(struct pb_package *p)
{
	if (p->zip)
		zip_discard(p->zip);
	for (uint32_t i = 0; i < p->n_entries; i++)
		free(p->entries[i].name);
	for (uint32_t i = 0; i < p->n_models; i++)
		free((char *)p->models[i]);
	free(p->entries);
	free(p->models);
	free(p->prefix);
	*p = (struct pb_package)PB_PACKAGE_INIT;
}

/* ---- contents ---- */

static pb_status pour(const struct pb_sink *s, uint64_t at, const uint8_t *buf, uint64_t n, struct pt2box_error *err)
{
	if (s->hash)
		pb_hash_add(s->hash, buf, n);
	return pb_write_at(s->fd, at, buf, n, err);
}

/* The whole entry, in pieces of at most STEP bytes, to one of: memory, a sink. */
static pb_status inflate_entry(struct pb_package *p, const struct pb_entry *e, uint8_t *memory,
			       const struct pb_sink *sink, struct pt2box_error *err)
{
	zip_file_t *f = zip_fopen_index(p->zip, e->index, 0);
	uint8_t *buf = memory ? NULL : malloc(STEP), over;
	uint64_t done = 0;
	pb_status st = PT2BOX_OK;

	if (!f || (!memory && !buf)) {
		st = f ? pb_error_set(err, PT2BOX_NO_MEMORY, "no memory to read with") :
			 zip_failed(zip_get_error(p->zip), "read", err);
		if (f)
			zip_fclose(f);
		free(buf);
		return st;
	}
	while (done < e->size && !st) {
		uint64_t want = e->size - done < STEP ? e->size - done : STEP;
		zip_int64_t n = zip_fread(f, memory ? memory + done : buf, want);

		if (n <= 0)
			break;
		if (!memory)
			st = pour(sink, done, buf, (uint64_t)n, err);
		done += (uint64_t)n;
	}
	/* The read at the end is the one that compares the checksum. */
	if (!st && (done != e->size || zip_fread(f, &over, 1) != 0))
		st = zip_error_code_zip(zip_file_get_error(f)) ?
			     zip_failed(zip_file_get_error(f), "read", err) :
			     pb_error_set(err, PT2BOX_PKG_REJECTED, "zip.size: an entry has not the size it says");
	zip_fclose(f);
	free(buf);
	return st;
}

pb_status pb_package_read(struct pb_package *p, const struct pb_entry *e, uint64_t max, char **ret,
			  struct pt2box_error *err)
{
	char *text;
	pb_status st;

	if (e->size > max)
		return pb_error_set(err, PT2BOX_LIMIT, "an entry has %llu bytes; %llu are allowed",
				    (unsigned long long)e->size, (unsigned long long)max);
	text = malloc(e->size + 1);
	if (!text)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for an entry");
	st = inflate_entry(p, e, (uint8_t *)text, NULL, err);
	if (st) {
		free(text);
		return st;
	}
	text[e->size] = '\0';
	*ret = text;
	return PT2BOX_OK;
}

/* ---- one pass ---- */

static pb_status prepare_sink(struct pb_package *p, struct pb_sink *s, struct pt2box_error *err)
{
	pb_status st;

	if (ftruncate(s->fd, (off_t)s->entry->size) != 0)
		return pb_error_sys(err, "cannot make room for %llu bytes", (unsigned long long)s->entry->size);
	s->crc = 0;
	s->at = UINT64_MAX;
	if (!s->entry->stored)
		return inflate_entry(p, s->entry, NULL, s, err);
	st = pb_directory_data(p->fd, p->bytes, s->entry->local, &s->at, err);
	if (!st && !pb_span_fits(s->at, s->entry->size, p->bytes))
		st = pb_error_set(err, PT2BOX_PKG_REJECTED, "zip.local: an entry is outside the file");
	return st;
}

/* What of [at, at + n) is this sink's. */
static pb_status feed(struct pb_sink *s, const uint8_t *buf, uint64_t at, uint64_t n, struct pt2box_error *err)
{
	uint64_t end = s->at + s->entry->size, from = at > s->at ? at : s->at, to = at + n < end ? at + n : end;

	if (!s->entry->stored || from >= to)
		return PT2BOX_OK;
	s->crc = (uint32_t)crc32(s->crc, buf + (from - at), (uInt)(to - from));
	return pour(s, from - s->at, buf + (from - at), to - from, err);
}

static pb_status stream(struct pb_package *p, struct pb_sink *sinks, uint32_t n, uint8_t *buf, struct pb_hash *h,
			struct pt2box_error *err)
{
	for (uint64_t at = 0; at < p->bytes; at += STEP) {
		uint64_t k = p->bytes - at < STEP ? p->bytes - at : STEP;
		pb_status st = pb_read_at(p->fd, at, buf, k, err);

		if (st)
			return st;
		pb_hash_add(h, buf, k);
		for (uint32_t i = 0; i < n && !st; i++)
			st = feed(&sinks[i], buf, at, k, err);
		if (st)
			return st;
	}
	for (uint32_t i = 0; i < n; i++)
		if (sinks[i].entry->stored && sinks[i].crc != sinks[i].entry->crc)
			return pb_error_set(err, PT2BOX_PKG_REJECTED, "zip.crc: an entry is damaged");
	return PT2BOX_OK;
}

pb_status pb_package_stream(struct pb_package *p, struct pb_sink *sinks, uint32_t n, uint8_t ret_sha256[32],
			    struct pt2box_error *err)
{
	uint8_t *buf = malloc(STEP);
	struct pb_hash h = {{0}};
	pb_status st = PT2BOX_OK;

	if (!buf)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory to read with");
	for (uint32_t i = 0; i < n && !st; i++)
		st = prepare_sink(p, &sinks[i], err);
	pb_hash_begin(&h);
	if (!st)
		st = stream(p, sinks, n, buf, &h, err);
	pb_hash_end(&h, ret_sha256);
	free(buf);
	return st;
}
