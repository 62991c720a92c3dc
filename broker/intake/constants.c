/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See constants.h. The places are those of torch/_inductor/codecache.py 2.13.0: in section .lrodata (.ldata if the model
 * mutates a buffer); 16 bytes {size + 8, magic} there and the rest appended to the file; 8 bytes {size} there and a blob
 * beside it; 1 byte there and nothing in the package.
 */
#include "broker/intake/constants.h"

#include <string.h>

#include "ipc/checked.h"

#define ALIGN 64u	    /* AOTI_CONST_ALIGNMENT */
#define APPENDED_ALIGN 16384u /* of appended weights in the file */

static pb_status reject(struct pt2box_error *err, const char *text)
{
	return pb_error_set(err, PT2BOX_PKG_REJECTED, "meta.constants: %s", text);
}

bool pb_constant_fits(const struct pb_constant *c)
{
	uint64_t elem = pt2box_dtype_size(c->dtype), extent, skip;

	return elem && c->storage_offset >= 0 && pb_tensor_extent(c->ndim, c->sizes, c->strides, elem, &extent) &&
	       pb_mul_u64((uint64_t)c->storage_offset, elem, &skip) && pb_span_fits(skip, extent, c->data_size);
}

/* Offsets: a running sum, aligned, in the order of the model; folded ones are computed later and have no place. */
static pb_status place_all(const struct pb_wrapper *w, uint64_t *ret_total, uint32_t *ret_placed,
			   struct pt2box_error *err)
{
	uint64_t total = 0;
	uint32_t placed = 0;

	for (uint32_t i = 0; i < w->n_constants; i++) {
		struct pb_constant *c = &w->constants[i];

		if (!c->opaque && !pb_constant_fits(c))
			return pb_error_set(err, PT2BOX_PKG_REJECTED, "meta.constants: %.100s does not fit the bytes it has",
					    c->fqn);
		c->blob_offset = total;
		if (c->folded)
			continue;
		placed++;
		if (!pb_add_u64(total, c->data_size, &total) || !pb_align_u64(total, ALIGN, &total) ||
		    total > INT64_MAX)
			return reject(err, "their sizes do not add up");
	}
	*ret_total = total;
	*ret_placed = placed;
	return PT2BOX_OK;
}

static uint64_t word_at(const uint8_t *file, uint64_t offset)
{
	uint64_t v;

	memcpy(&v, file + offset, sizeof(v));
	return v;
}

/* {size + 8, magic} in the section; [pad][weights][magic] at the end of the file. */
static bool is_mmap_self(const struct pb_constants_in *in, uint64_t *ret_at, uint64_t *ret_bytes)
{
	uint64_t size, magic, at;

	if (in->elf->constants_bytes != 16 || in->so_bytes < 8)
		return false;
	size = word_at(in->so, in->elf->constants_offset);
	magic = word_at(in->so, in->elf->constants_offset + 8);
	if (size < 8 || size > in->so_bytes || word_at(in->so, in->so_bytes - 8) != magic)
		return false;
	at = in->so_bytes - size;
	if (at % APPENDED_ALIGN || at < in->elf->image_end)
		return false;
	*ret_at = at;
	*ret_bytes = size - 8;
	return true;
}

static bool is_blob(const struct pb_constants_in *in, uint64_t *ret_bytes)
{
	if (in->elf->constants_bytes != 8)
		return false;
	*ret_bytes = word_at(in->so, in->elf->constants_offset);
	return true;
}

/* @at: where in the code's file; @bytes: what is there. Without a description any size is right. */
static pb_status in_code(const struct pb_constants_in *in, struct pb_manifest *m, enum pb_const_source source,
			 uint64_t at, uint64_t bytes, uint64_t want, struct pt2box_error *err)
{
	if (in->wrapper->has_constants && bytes != want)
		return pb_error_set(err, PT2BOX_PKG_REJECTED,
				    "meta.constants: described as %llu bytes, but %llu are there",
				    (unsigned long long)want, (unsigned long long)bytes);
	m->const_source = source;
	m->const_file_offset = at;
	m->const_bytes = bytes;
	return PT2BOX_OK;
}

static pb_status find_blob(const struct pb_constants_in *in, struct pb_manifest *m, uint64_t bytes, uint64_t want,
			   struct pt2box_error *err)
{
	if (!in->files->blob)
		return reject(err, "the file *_weights.blob is missing");
	if (in->files->blob->size != bytes)
		return reject(err, "the file *_weights.blob has not the size that the code says");
	return in_code(in, m, PB_CONSTS_BLOB, 0, bytes, want, err);
}

/* None inside: the client brings them, laid out as described. */
static pb_status outside(const struct pb_constants_in *in, struct pb_manifest *m, uint64_t want,
			 struct pt2box_error *err)
{
	if (!in->wrapper->has_constants)
		return reject(err, "the package has none, and its wrapper.cpp does not describe them");
	m->const_source = in->files->weights_config && !in->brought ? PB_CONSTS_WEIGHTS_FILE : PB_CONSTS_EXTERNAL;
	m->const_bytes = want;
	return PT2BOX_OK;
}

pb_status pb_constants_find(const struct pb_constants_in *in, struct pb_manifest *m, struct pt2box_error *err)
{
	const struct pb_wrapper *w = in->wrapper;
	uint64_t want = 0, at = in->elf->constants_offset, bytes = in->elf->constants_bytes;
	uint32_t placed = 0;
	pb_status st = place_all(w, &want, &placed, err);

	if (st)
		return st;
	m->constants = w->constants;
	m->n_constants = w->n_constants;
	if (w->has_constants && placed == 0) {
		m->const_source = PB_CONSTS_NONE;
		return PT2BOX_OK;
	}
	/* The section is writable also where it only stands for constants that are elsewhere. */
	m->mutates = in->elf->constants_writable;
	if (in->brought)
		return outside(in, m, want, err);
	if (is_mmap_self(in, &at, &bytes))
		return in_code(in, m, PB_CONSTS_MMAP_SELF, at, bytes, want, err);
	if (is_blob(in, &bytes))
		return find_blob(in, m, bytes, want, err);
	if (bytes > 1)
		return in_code(in, m, m->mutates ? PB_CONSTS_EMBEDDED_RW : PB_CONSTS_EMBEDDED_RO, at, bytes, want, err);
	return outside(in, m, want, err);
}
