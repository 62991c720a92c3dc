/* SPDX-License-Identifier: Apache-2.0 */
/* Reading entries by pread from a descriptor that somebody else opened. See package.h. */
#include "broker/intake/package.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
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

/* ---- entries ---- */

static pb_status add_entry(struct pb_package *p, struct pb_directory_entry *d, uint64_t *total, uint64_t max_bytes,
			   struct pt2box_error *err)
{
	uint64_t limit;

	p->entries[p->n_entries++] = (struct pb_entry){.name = d->name, .size = d->size, .packed = d->packed, .data = d->data,
						       .crc = d->crc, .stored = d->stored};
	d->name = NULL; /* taken */
	if (d->stored && d->packed != d->size)
		return pb_error_set(err, PT2BOX_PKG_REJECTED, "zip.size: a stored entry has two sizes");
	if (!pb_mul_u64(d->packed, PB_ZIP_RATIO_MAX, &limit) || !pb_add_u64(limit, PB_ZIP_RATIO_FREE, &limit) ||
	    d->size > limit)
		return pb_error_set(err, PT2BOX_PKG_REJECTED, "zip.ratio: an entry inflates more than %d times",
				    PB_ZIP_RATIO_MAX);
	if (!pb_add_u64(*total, d->size, total) || *total > max_bytes)
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
	for (uint32_t i = 0; !st && i < n; i++)
		st = add_entry(p, &list[i], &total, max_bytes, err);
	pb_directory_free(list, n);
	return st;
}

void pb_package_deinit(struct pb_package *p)
{
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

/* Where the bytes of an entry go: to memory, or to a sink. */
struct target {
	uint8_t *memory; /* room for all of them */
	const struct pb_sink *sink;
};

static pb_status pour(const struct target *t, uint64_t at, const uint8_t *buf, uint64_t n, struct pt2box_error *err)
{
	if (t->memory) {
		memcpy(t->memory + at, buf, n);
		return PT2BOX_OK;
	}
	if (t->sink->hash)
		pb_hash_add(t->sink->hash, buf, n);
	return pb_write_at(t->sink->fd, at, buf, n, err);
}

static pb_status damaged(struct pt2box_error *err)
{
	return pb_error_set(err, PT2BOX_PKG_REJECTED, "zip.crc: an entry is damaged");
}

/* One entry on its way from the file, in pieces: in[] as it is there, out[] as it was packed. */
struct transfer {
	const struct pb_package *p;
	const struct pb_entry *e;
	const struct target *to;
	uint64_t taken, done; /* bytes read, bytes poured */
	uint32_t crc;
	uint8_t in[STEP], out[STEP];
};

static pb_status next_piece(struct transfer *t, uint64_t *ret, struct pt2box_error *err)
{
	uint64_t left = t->e->packed - t->taken, n = left < STEP ? left : STEP;
	pb_status st = pb_read_at(t->p->fd, t->e->data + t->taken, t->in, n, err);

	t->taken += n;
	*ret = n;
	return st;
}

static pb_status give(struct transfer *t, const uint8_t *data, uint64_t n, struct pt2box_error *err)
{
	if (n > t->e->size - t->done)
		return pb_error_set(err, PT2BOX_PKG_REJECTED, "zip.size: an entry has not the size it says");
	t->crc = (uint32_t)crc32(t->crc, data, (uInt)n);
	t->done += n;
	return pour(t->to, t->done - n, data, n, err);
}

static pb_status move_stored(struct transfer *t, struct pt2box_error *err)
{
	while (t->taken < t->e->packed) {
		uint64_t n;
		pb_status st = next_piece(t, &n, err);

		if (!st)
			st = give(t, t->in, n, err);
		if (st)
			return st;
	}
	return PT2BOX_OK;
}

/* What one step of inflating gave. */
static pb_status give_inflated(struct transfer *t, const z_stream *z, int r, struct pt2box_error *err)
{
	if (r == Z_MEM_ERROR)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory to inflate with");
	if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR)
		return pb_error_set(err, PT2BOX_PKG_REJECTED, "zip.read: an entry cannot be inflated");
	return give(t, t->out, STEP - z->avail_out, err);
}

static pb_status move_inflated(struct transfer *t, z_stream *z, struct pt2box_error *err)
{
	int r = Z_OK;
	pb_status st = PT2BOX_OK;

	while (r != Z_STREAM_END && !st) {
		if (z->avail_in == 0 && t->taken < t->e->packed) {
			uint64_t n;

			st = next_piece(t, &n, err);
			if (st)
				return st;
			z->next_in = t->in;
			z->avail_in = (uInt)n;
		}
		z->next_out = t->out;
		z->avail_out = STEP;
		r = inflate(z, Z_NO_FLUSH);
		st = give_inflated(t, z, r, err);
		if (!st && r == Z_BUF_ERROR && z->avail_in == 0 && t->taken == t->e->packed)
			return pb_error_set(err, PT2BOX_PKG_REJECTED, "zip.read: an entry ends too early");
	}
	if (!st && (z->avail_in || t->taken != t->e->packed))
		return pb_error_set(err, PT2BOX_PKG_REJECTED, "zip.size: bytes are left over in an entry");
	return st;
}

static pb_status move_entry(struct transfer *t, struct pt2box_error *err)
{
	z_stream z = {.next_in = NULL};
	pb_status st;

	if (t->e->stored)
		return move_stored(t, err);
	if (inflateInit2(&z, -MAX_WBITS) != Z_OK) /* raw: no header of zlib's */
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory to inflate with");
	st = move_inflated(t, &z, err);
	inflateEnd(&z);
	return st;
}

/* The whole entry, checked. */
static pb_status take_entry(const struct pb_package *p, const struct pb_entry *e, const struct target *to,
			    struct pt2box_error *err)
{
	struct transfer *t = malloc(sizeof(*t));
	pb_status st;

	if (!t)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory to read with");
	t->p = p;
	t->e = e;
	t->to = to;
	t->taken = t->done = t->crc = 0;
	st = move_entry(t, err);
	if (!st && t->done != e->size)
		st = pb_error_set(err, PT2BOX_PKG_REJECTED, "zip.size: an entry has not the size it says");
	if (!st && t->crc != e->crc)
		st = damaged(err);
	free(t);
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
	st = take_entry(p, e, &(struct target){.memory = (uint8_t *)text}, err);
	if (st) {
		free(text);
		return st;
	}
	text[e->size] = '\0';
	*ret = text;
	return PT2BOX_OK;
}

/* ---- one pass ---- */

static pb_status prepare_sink(const struct pb_package *p, struct pb_sink *s, struct pt2box_error *err)
{
	if (ftruncate(s->fd, (off_t)s->entry->size) != 0)
		return pb_error_sys(err, "cannot make room for %llu bytes", (unsigned long long)s->entry->size);
	s->crc = 0;
	return s->entry->stored ? PT2BOX_OK : take_entry(p, s->entry, &(struct target){.sink = s}, err);
}

/* What of [at, at + n) is this sink's. */
static pb_status feed(struct pb_sink *s, const uint8_t *buf, uint64_t at, uint64_t n, struct pt2box_error *err)
{
	uint64_t begin = s->entry->data, end = begin + s->entry->size, from = at > begin ? at : begin, to = at + n < end ? at + n : end;

	if (!s->entry->stored || from >= to)
		return PT2BOX_OK;
	s->crc = (uint32_t)crc32(s->crc, buf + (from - at), (uInt)(to - from));
	return pour(&(struct target){.sink = s}, from - begin, buf + (from - at), to - from, err);
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
			return damaged(err);
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
