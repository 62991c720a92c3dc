/* SPDX-License-Identifier: Apache-2.0 */
/* See npz.h. Reading. */
#include "client/cmd/npz.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zip.h>

#include "client/cmd/npy.h"
#include "ipc/checked.h"

/* deflate cannot do better than 1032 to 1. */
#define DEFLATE_MAX 1032u

/* Text of the archive, made harmless, at most 200 bytes. */
static void describe(const struct pb_array_file *f, const char *entry, char ret[456])
{
	char a[224], b[224];

	pb_text_escape(a, sizeof(a), entry, strlen(entry));
	pb_text_escape(b, sizeof(b), f->name, strlen(f->name));
	snprintf(ret, 456, "%s in %s", a, b);
}

static pb_status read_exactly(zip_file_t *z, uint8_t *dst, uint64_t n, const char *what, struct pt2box_error *err)
{
	while (n > 0) {
		zip_int64_t got = zip_fread(z, dst, n > 1u << 30 ? 1u << 30 : n);

		if (got <= 0)
			return pb_error_set(err, PT2BOX_BAD_TENSOR, "%s cannot be read: %s", what,
					    got < 0 ? zip_file_strerror(z) : "it ends too early");
		dst += got;
		n -= (uint64_t)got;
	}
	return PT2BOX_OK;
}

/* What the directory says of an entry, where it can be believed: sizes are bounded by the file's. */
static pb_status check_entry(struct pb_array_file *f, const zip_stat_t *sb, const char *what, struct pt2box_error *err)
{
	const uint64_t need = ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD;
	bool deflated = sb->comp_method == ZIP_CM_DEFLATE;

	if ((sb->valid & need) != need || sb->comp_size > f->size ||
	    sb->size / (deflated ? DEFLATE_MAX : 1) > sb->comp_size)
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "%s: the archive is damaged", what);
	if (!deflated && sb->comp_method != ZIP_CM_STORE)
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "%s: neither stored nor deflated, which is all .npz knows",
				    what);
	if (sb->valid & ZIP_STAT_ENCRYPTION_METHOD && sb->encryption_method != ZIP_EM_NONE)
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "%s is encrypted", what);
	return PT2BOX_OK;
}

static pb_status parse_header(zip_file_t *z, uint64_t entry_size, const char *what, struct pb_array *a,
			      struct pt2box_error *err)
{
	uint8_t prefix[PB_NPY_PREFIX], *header;
	size_t have = entry_size < sizeof(prefix) ? (size_t)entry_size : sizeof(prefix), n;
	pb_status st = read_exactly(z, prefix, have, what, err);

	if (st)
		return st;
	n = pb_npy_header_bytes(prefix, have);
	if (n < have || n > entry_size)
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "%s is not an .npy array, or it is cut", what);
	header = malloc(n);
	if (!header)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "out of memory");
	memcpy(header, prefix, have);
	st = read_exactly(z, header + have, n - have, what, err);
	if (!st)
		st = pb_npy_parse(header, n, what, a, err);
	free(header);
	if (!st && !pb_span_fits(a->offset, a->bytes, entry_size))
		st = pb_error_set(err, PT2BOX_BAD_TENSOR, "%s ends too early", what);
	return st;
}

static pb_status open_entry(struct pb_array_file *f, uint64_t index, struct pt2box_error *err)
{
	struct pb_array *a = pb_array_file_add(f);
	zip_file_t *z;
	zip_stat_t sb;
	char what[456];
	pb_status st;
	size_t n;

	if (!a)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "out of memory");
	zip_stat_init(&sb);
	if (zip_stat_index(f->zip, index, ZIP_FL_ENC_RAW, &sb) != 0 || !sb.name)
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "%s: the archive is damaged", f->name);
	describe(f, sb.name, what);
	st = check_entry(f, &sb, what, err);
	if (st)
		return st;
	a->stored = sb.comp_method == ZIP_CM_STORE;
	n = strlen(sb.name);
	a->name = strndup(sb.name, n > 4 && strcmp(sb.name + n - 4, ".npy") == 0 ? n - 4 : n);
	a->entry = index;
	if (!a->name)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "out of memory");
	z = zip_fopen_index(f->zip, index, 0);
	if (!z)
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "%s: %s", what, zip_strerror(f->zip));
	st = parse_header(z, sb.size, what, a, err);
	zip_fclose(z);
	return st;
}

pb_status pb_npz_open(struct pb_array_file *f, struct pt2box_error *err)
{
	int fd = dup(f->fd), ze = 0;
	zip_int64_t n;
	pb_status st = PT2BOX_OK;

	/* On success the descriptor is libzip's. */
	f->zip = fd >= 0 ? zip_fdopen(fd, 0, &ze) : NULL;
	if (!f->zip) {
		if (fd >= 0)
			close(fd);
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "%s is not a zip archive", f->name);
	}
	n = zip_get_num_entries(f->zip, 0);
	if (n < 0 || n > PB_ARRAYS_MAX)
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "%s has more arrays than a model can take", f->name);
	for (zip_int64_t i = 0; i < n && !st; i++)
		st = open_entry(f, (uint64_t)i, err);
	return st;
}

static pb_status skip(zip_file_t *z, bool stored, uint64_t n, const char *what, struct pt2box_error *err)
{
	uint8_t bytes[4096];
	pb_status st = PT2BOX_OK;

	/* Elsewhere the attempt alone would make an error of all that follows. */
	if (stored && n > sizeof(bytes) && n <= INT64_MAX && zip_fseek(z, (zip_int64_t)n, SEEK_CUR) == 0)
		return PT2BOX_OK;
	while (n > 0 && !st) {
		uint64_t part = n < sizeof(bytes) ? n : sizeof(bytes);

		st = read_exactly(z, bytes, part, what, err);
		n -= part;
	}
	return st;
}

/* The elements from the first one on. */
static pb_status open_elements(struct pb_array_file *f, const struct pb_array *a, const char *what, zip_file_t **ret,
			       struct pt2box_error *err)
{
	pb_status st;

	*ret = zip_fopen_index(f->zip, a->entry, 0);
	if (!*ret)
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "%s: %s", what, zip_strerror(f->zip));
	st = skip(*ret, a->stored, a->offset, what, err);
	if (st) {
		zip_fclose(*ret);
		*ret = NULL;
	}
	return st;
}

/* From the start again: the elements were not there to be skipped when a header was read. */
pb_status pb_npz_read(struct pb_array_file *f, const struct pb_array *a, void *dst, struct pt2box_error *err)
{
	zip_file_t *z;
	uint8_t more;
	char what[456];
	pb_status st;

	describe(f, a->name, what);
	st = open_elements(f, a, what, &z, err);
	if (st)
		return st;
	st = read_exactly(z, dst, a->bytes, what, err);
	/* libzip checks the sum when it meets the end of the entry. */
	if (!st && zip_fread(z, &more, 1) < 0)
		st = pb_error_set(err, PT2BOX_BAD_TENSOR, "%s is damaged: %s", what, zip_file_strerror(z));
	zip_fclose(z);
	return st;
}

pb_status pb_npz_read_span(struct pb_array_file *f, struct pb_array *a, uint64_t from, uint64_t n, void *dst,
			   struct pt2box_error *err)
{
	char what[456];
	pb_status st = PT2BOX_OK;

	describe(f, a->name, what);
	if (a->stream && a->stream_at > from) {
		zip_fclose(a->stream);
		a->stream = NULL;
	}
	if (!a->stream) {
		st = open_elements(f, a, what, &a->stream, err);
		a->stream_at = 0;
	}
	if (!st)
		st = skip(a->stream, a->stored, from - a->stream_at, what, err);
	if (!st)
		st = read_exactly(a->stream, dst, n, what, err);
	a->stream_at = from + n;
	if (st && a->stream) {
		zip_fclose(a->stream);
		a->stream = NULL;
	}
	return st;
}

void pb_npz_close(struct pb_array_file *f)
{
	for (size_t i = 0; i < f->n; i++)
		if (f->item[i].stream)
			zip_fclose(f->item[i].stream);
	if (f->zip)
		zip_discard(f->zip);
	f->zip = NULL;
}
