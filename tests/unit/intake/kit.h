/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests of intake share: archives written byte by byte, so that each field can be a lie, and a package that has all
 * a small model needs. Header only.
 */
#ifndef TESTS_UNIT_INTAKE_KIT_H
#define TESTS_UNIT_INTAKE_KIT_H

#include "tests/lib/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include "tests/unit/confine/model_file.h"

static inline int kit_memfd(const void *data, size_t bytes)
{
	const int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal((ssize_t)bytes, write(fd, data, bytes));
	return fd;
}

/* ---- archives ---- */

/* One entry. Zero fields take the true value; the rest says what to write instead. */
struct kit_entry {
	const char *name;
	size_t name_len; /* 0: of the text */
	const void *data;
	size_t size;
	bool deflate;
	/* lies */
	const char *local_name;
	uint32_t mode, crc_xor, size_add;
	uint16_t flags, method;
	bool at_first; /* its local header is the first entry's */
};

struct kit_zip {
	uint8_t *p;
	size_t n, cap;
	uint32_t local[5000];
	uint32_t crc[5000], packed[5000];
	/* options */
	bool torch; /* local headers without sizes, data descriptors, 64-bit end record, as PyTorch writes */
	const char *comment;
	uint32_t count_add, directory_add;
};

static inline void kit_put(struct kit_zip *z, const void *data, size_t n)
{
	if (z->n + n > z->cap) {
		z->cap = (z->n + n) * 2 + 4096;
		z->p = realloc(z->p, z->cap);
		assert_non_null(z->p);
	}
	if (n)
		memcpy(z->p + z->n, data, n);
	z->n += n;
}

static inline void kit_le(struct kit_zip *z, uint64_t v, int bytes)
{
	for (int i = 0; i < bytes; i++) {
		const uint8_t b = i < 8 ? (uint8_t)(v >> (8 * i)) : 0;

		kit_put(z, &b, 1);
	}
}

static inline size_t kit_name_len(const struct kit_entry *e)
{
	return e->name_len ? e->name_len : strlen(e->name);
}

static inline void kit_data(struct kit_zip *z, const struct kit_entry *e, uint32_t i)
{
	if (e->deflate) {
		uLong cap = compressBound((uLong)e->size) + 64;
		uint8_t *out = malloc(cap);
		z_stream s = {.next_in = (Bytef *)(uintptr_t)e->data, .avail_in = (uInt)e->size, .next_out = out,
			      .avail_out = (uInt)cap};

		assert_non_null(out);
		assert_int_equal(Z_OK, deflateInit2(&s, 9, Z_DEFLATED, -15, 9, Z_DEFAULT_STRATEGY));
		assert_int_equal(Z_STREAM_END, deflate(&s, Z_FINISH));
		z->packed[i] = (uint32_t)s.total_out;
		deflateEnd(&s);
		kit_put(z, out, z->packed[i]);
		free(out);
	} else {
		z->packed[i] = (uint32_t)e->size;
		kit_put(z, e->data, e->size);
	}
}

static inline uint32_t kit_packed_size(const struct kit_entry *e)
{
	struct kit_zip t = {.p = NULL};
	uint32_t n;

	kit_data(&t, e, 0);
	n = t.packed[0];
	free(t.p);
	return n;
}

static inline void kit_local(struct kit_zip *z, const struct kit_entry *e, uint32_t i)
{
	const char *name = e->local_name ? e->local_name : e->name;
	const size_t len = e->local_name ? strlen(e->local_name) : kit_name_len(e);

	z->local[i] = e->at_first ? z->local[0] : (uint32_t)z->n;
	z->crc[i] = (uint32_t)crc32(0, e->data, (uInt)e->size) ^ e->crc_xor;
	if (e->at_first) {
		z->packed[i] = z->packed[0];
		return;
	}
	kit_le(z, 0x04034b50, 4);
	kit_le(z, z->torch ? 0 : 20, 2);
	kit_le(z, (z->torch ? 0x0808u : 0u) | e->flags, 2);
	kit_le(z, e->method ? e->method : e->deflate ? 8 : 0, 2);
	kit_le(z, 0, 4);
	if (z->torch) {
		kit_le(z, 0, 12);
	} else {
		kit_le(z, z->crc[i], 4);
		kit_le(z, kit_packed_size(e), 4);
		kit_le(z, e->size + e->size_add, 4);
	}
	kit_le(z, len, 2);
	kit_le(z, 0, 2);
	kit_put(z, name, len);
	kit_data(z, e, i);
	if (z->torch) {
		kit_le(z, 0x08074b50, 4);
		kit_le(z, z->crc[i], 4);
		kit_le(z, z->packed[i], 4);
		kit_le(z, e->size, 4);
	}
}

static inline void kit_central(struct kit_zip *z, const struct kit_entry *e, uint32_t i)
{
	kit_le(z, 0x02014b50, 4);
	kit_le(z, 20 | (e->mode ? 3u << 8 : 0), 2);
	kit_le(z, z->torch ? 0 : 20, 2);
	kit_le(z, (z->torch ? 0x0808u : 0u) | e->flags, 2);
	kit_le(z, e->method ? e->method : e->deflate ? 8 : 0, 2);
	kit_le(z, 0, 4);
	kit_le(z, z->crc[i], 4);
	kit_le(z, z->packed[i], 4);
	kit_le(z, e->size + e->size_add, 4);
	kit_le(z, kit_name_len(e), 2);
	kit_le(z, 0, 8);
	kit_le(z, (uint64_t)e->mode << 16, 4);
	kit_le(z, z->local[i], 4);
	kit_put(z, e->name, kit_name_len(e));
}

/* The whole archive to z->p, z->n. */
static inline void kit_zip(struct kit_zip *z, const struct kit_entry *e, uint32_t n)
{
	size_t dir, end;

	for (uint32_t i = 0; i < n; i++)
		kit_local(z, &e[i], i);
	dir = z->n;
	for (uint32_t i = 0; i < n; i++)
		kit_central(z, &e[i], i);
	end = z->n;
	if (z->torch) {
		kit_le(z, 0x06064b50, 4);
		kit_le(z, 44, 8);
		kit_le(z, 0x1e + (45u << 16), 4);
		kit_le(z, 0, 8);
		kit_le(z, n, 8);
		kit_le(z, n, 8);
		kit_le(z, end - dir, 8);
		kit_le(z, dir, 8);
		kit_le(z, 0x07064b50, 4);
		kit_le(z, 0, 4);
		kit_le(z, end, 8);
		kit_le(z, 1, 4);
	}
	kit_le(z, 0x06054b50, 4);
	kit_le(z, 0, 4);
	kit_le(z, n + z->count_add, 2);
	kit_le(z, n + z->count_add, 2);
	kit_le(z, end - dir, 4);
	kit_le(z, dir + z->directory_add, 4);
	kit_le(z, z->comment ? strlen(z->comment) : 0, 2);
	kit_put(z, z->comment, z->comment ? strlen(z->comment) : 0);
}

static inline int kit_zip_fd(const struct kit_entry *e, uint32_t n)
{
	struct kit_zip *z = calloc(1, sizeof(*z));
	int fd;

	assert_non_null(z);
	kit_zip(z, e, n);
	fd = kit_memfd(z->p, z->n);
	free(z->p);
	free(z);
	return fd;
}

/* ---- a package ---- */

#define KIT_FOLDER "pkg/data/aotinductor/model/"
#define KIT_METADATA                                                                                                   \
	"{\"AOTI_DEVICE_KEY\": \"cpu\", \"AOTI_PLATFORM\": \"linux\", \"AOTI_MACHINE\": \"x86_64\", "                  \
	"\"AOTI_CPU_ISA\": \"AVX2\"}"

/* Entry of a text. */
static inline struct kit_entry kit_text(const char *name, const char *text)
{
	return (struct kit_entry){.name = name, .data = text, .size = strlen(text)};
}

#endif
