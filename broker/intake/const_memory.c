/* SPDX-License-Identifier: Apache-2.0 */
/* See const_memory.h. Pages go from file to file through a small buffer: mapping them would cost a fault for each. */
#include "broker/intake/const_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/intake/constants.h"
#include "broker/intake/fileio.h"
#include "broker/intake/given.h"
#include "ipc/checked.h"
#include "ipc/constant_names.h"

#define STEP (256u << 10)
#define PAGE 4096u

struct writer {
	int fd;
	uint64_t at; /* what is before it is written and hashed */
	struct pb_hash hash;
	uint8_t *buf; /* STEP bytes */
};

pb_status pb_const_layout_check(const struct pb_manifest *m, struct pt2box_error *err)
{
	uint64_t end = 0;

	for (uint32_t i = 0; i < m->n_constants; i++) {
		const struct pb_constant *c = &m->constants[i];

		if (c->folded)
			continue;
		if (!pb_constant_fits(c) || c->blob_offset < end ||
		    !pb_span_fits(c->blob_offset, c->data_size, m->const_bytes))
			return pb_error_set(err, PT2BOX_PKG_REJECTED, "meta.constants: %.100s does not fit the bytes it has",
					    c->fqn);
		end = c->blob_offset + c->data_size;
	}
	return PT2BOX_OK;
}

/* ---- pieces, in order ---- */

/* Zeros up to @to: the memory is new, so they need not be written. */
static void skip(struct writer *w, uint64_t to)
{
	static const uint8_t zeros[PAGE];

	while (w->at < to) {
		uint64_t n = to - w->at < PAGE ? to - w->at : PAGE;

		pb_hash_add(&w->hash, zeros, n);
		w->at += n;
	}
}

static pb_status put(struct writer *w, const void *data, uint64_t bytes, struct pt2box_error *err)
{
	pb_hash_add(&w->hash, data, bytes);
	w->at += bytes;
	return pb_write_at(w->fd, w->at - bytes, data, bytes, err);
}

static pb_status copy(struct writer *w, int fd, uint64_t offset, uint64_t bytes, struct pt2box_error *err)
{
	while (bytes) {
		uint64_t n = bytes < STEP ? bytes : STEP;
		pb_status st = pb_read_at(fd, offset, w->buf, n, err);

		if (!st)
			st = put(w, w->buf, n, err);
		if (st)
			return st;
		offset += n;
		bytes -= n;
	}
	return PT2BOX_OK;
}

static bool is_contiguous(const struct pb_constant *c)
{
	int64_t want = 1;

	for (int32_t i = c->ndim - 1; i >= 0; i--) {
		if (c->sizes[i] != 1 && c->strides[i] != want)
			return false;
		want *= c->sizes[i] ? c->sizes[i] : 1;
	}
	return true;
}

/* Element by element from the file's order to the model's strides, which fit: pb_const_layout_check(). */
static pb_status scatter(struct writer *w, const struct pb_constant *c, int fd, const struct pb_stored_tensor *t,
			 uint8_t *dst, struct pt2box_error *err)
{
	uint64_t elem = pt2box_dtype_size(c->dtype), left = t->bytes, at = t->offset;
	int64_t index[PT2BOX_MAX_DIMS] = {0};
	int64_t pos = 0;

	while (left) {
		uint64_t step = left < STEP ? left : STEP - STEP % elem;
		pb_status st = pb_read_at(fd, at, w->buf, step, err);

		if (st)
			return st;
		for (uint64_t k = 0; k < step; k += elem) {
			memcpy(dst + (uint64_t)pos * elem, w->buf + k, elem);
			for (int32_t i = c->ndim - 1; i >= 0; i--) {
				int64_t stride = c->sizes[i] > 1 ? c->strides[i] : 0; /* else it may be anything */

				pos += stride;
				if (++index[i] < c->sizes[i])
					break;
				pos -= stride * c->sizes[i];
				index[i] = 0;
			}
		}
		at += step;
		left -= step;
	}
	return PT2BOX_OK;
}

/* The storage of @c, through a mapping. */
static pb_status put_strided(struct writer *w, const struct pb_constant *c, int fd, const struct pb_stored_tensor *t,
			     struct pt2box_error *err)
{
	uint64_t in_page = w->at % PAGE, skipped = (uint64_t)c->storage_offset * pt2box_dtype_size(c->dtype);
	uint8_t *p = mmap(NULL, in_page + c->data_size, PROT_READ | PROT_WRITE, MAP_SHARED, w->fd,
			  (off_t)(w->at - in_page));
	pb_status st;

	if (p == MAP_FAILED)
		return pb_error_sys(err, "cannot map the constants");
	st = scatter(w, c, fd, t, p + in_page + skipped, err);
	if (!st)
		pb_hash_add(&w->hash, p + in_page, c->data_size);
	w->at += c->data_size;
	munmap(p, in_page + c->data_size);
	return st;
}

static pb_status put_given(struct writer *w, const struct pb_constant *c, int fd, const struct pb_stored_tensor *t,
			   struct pt2box_error *err)
{
	if (t->bytes == 0)
		return PT2BOX_OK;
	if (!is_contiguous(c))
		return put_strided(w, c, fd, t, err);
	skip(w, c->blob_offset + (uint64_t)c->storage_offset * pt2box_dtype_size(c->dtype));
	return copy(w, fd, t->offset, t->bytes, err);
}

/* ---- all ---- */

static pb_status check_base(const struct pb_const_base *b, const struct pb_manifest *m, struct pt2box_error *err)
{
	struct stat sb;

	if (b->fd < 0)
		return PT2BOX_OK;
	if (fstat(b->fd, &sb) != 0)
		return pb_error_sys(err, "the present constants");
	if (!pb_span_fits(b->offset, m->const_bytes, (uint64_t)sb.st_size))
		return pb_error_set(err, PT2BOX_INTERNAL, "the present constants are shorter than they should be");
	return PT2BOX_OK;
}

static pb_status put_one(struct writer *w, const struct pb_manifest *m, const struct pb_const_parts *p, uint32_t i,
			 struct pt2box_error *err)
{
	const struct pb_constant *c = &m->constants[i];
	const struct pb_const_base *b = pb_constant_is_parameter(c) ? &p->parameters : &p->others;
	pb_status st = PT2BOX_OK;

	skip(w, c->blob_offset);
	if (p->given[i])
		st = put_given(w, c, p->file->fd, p->given[i], err);
	else if (b->fd >= 0)
		st = copy(w, b->fd, b->offset + c->blob_offset, c->data_size, err);
	if (!st)
		skip(w, c->blob_offset + c->data_size);
	return st;
}

/* @given NULL: all but the folded ones. */
static pb_status put_table(struct writer *w, const struct pb_manifest *m, const struct pb_stored_tensor **given,
			   struct pt2box_error *err)
{
	uint8_t table[4096];

	for (uint32_t done = 0; done < m->n_constants;) {
		uint32_t left = m->n_constants - done, n = left < sizeof(table) ? left : (uint32_t)sizeof(table);
		pb_status st;

		for (uint32_t i = 0; i < n; i++)
			table[i] = given ? given[done + i] != NULL : !m->constants[done + i].folded;
		st = put(w, table, n, err);
		if (st)
			return st;
		done += n;
	}
	return PT2BOX_OK;
}

static void end_digest(struct writer *w, char ret[PB_DIGEST_TEXT])
{
	uint8_t sum[32];

	pb_hash_end(&w->hash, sum);
	for (int i = 0; i < 32; i++)
		snprintf(ret + 2 * i, 3, "%02x", sum[i]);
}

static pb_status make_room(struct writer *w, const struct pb_manifest *m, struct pt2box_error *err)
{
	uint64_t bytes;

	if (!pb_add_u64(m->const_bytes, m->n_constants, &bytes) || bytes > INT64_MAX)
		return pb_error_set(err, PT2BOX_LIMIT, "the constants are too large");
	w->buf = malloc(STEP);
	if (!w->buf)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory to copy with");
	if (ftruncate(w->fd, (off_t)bytes) != 0)
		return pb_error_sys(err, "cannot make room for constants");
	return PT2BOX_OK;
}

pb_status pb_const_memory_write(const struct pb_manifest *m, const struct pb_const_parts *p, uint64_t max_bytes, int out,
				char ret_digest[PB_DIGEST_TEXT], struct pt2box_error *err)
{
	struct writer w = {.fd = out};
	pb_status st;

	if (m->const_bytes > max_bytes)
		return pb_error_set(err, PT2BOX_LIMIT, "the constants have %llu bytes; %llu are allowed",
				    (unsigned long long)m->const_bytes, (unsigned long long)max_bytes);
	st = check_base(&p->parameters, m, err);
	if (!st)
		st = check_base(&p->others, m, err);
	if (!st)
		st = make_room(&w, m, err);
	pb_hash_begin(&w.hash);
	for (uint32_t i = 0; i < m->n_constants && !st; i++)
		if (!m->constants[i].folded)
			st = put_one(&w, m, p, i, err);
	if (!st) {
		skip(&w, m->const_bytes);
		st = put_table(&w, m, p->given, err);
	}
	if (!st)
		end_digest(&w, ret_digest);
	free(w.buf);
	return st;
}

pb_status pb_const_memory_finish(const struct pb_manifest *m, struct pb_hash *h, int out,
				 char ret_digest[PB_DIGEST_TEXT], struct pt2box_error *err)
{
	struct writer w = {.fd = out, .at = m->const_bytes, .hash = *h};
	pb_status st = make_room(&w, m, err);

	if (!st)
		st = put_table(&w, m, NULL, err);
	if (!st)
		end_digest(&w, ret_digest);
	free(w.buf);
	return st;
}
