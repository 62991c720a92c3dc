/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any manifest for new constants, as an intake that a package has taken over would write it, with a file that gives all that
 * it names or nothing, and bases of any length. The first byte chooses those.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/intake/update.h"
#include "ipc/safetensors_dtype.h"
#include "tests/fuzz/replay.h"

#define MAX (1u << 20)

static int file_of(const void *data, size_t bytes)
{
	int fd = memfd_create("file", MFD_CLOEXEC);

	if (fd < 0 || write(fd, data, bytes) != (ssize_t)bytes)
		abort();
	return fd;
}

/* A tensor that fits the constant, if a file can say it. */
static size_t describe(const struct pb_constant *c, char *dst, size_t cap, uint64_t bytes)
{
	const char *dtype = pb_dtype_safetensors_name(c->dtype);
	uint64_t n = dtype ? pt2box_dtype_size(c->dtype) : 0;
	size_t at = 0;

	for (int32_t i = 0; i < c->ndim; i++)
		if (__builtin_mul_overflow(n, (uint64_t)c->sizes[i], &n))
			return 0;
	if (!dtype || n > bytes || strlen(c->fqn) + 512 > cap || strpbrk(c->fqn, "\"\\"))
		return 0;
	at = (size_t)snprintf(dst, cap, "\"%s\": {\"dtype\": \"%s\", \"shape\": [", c->fqn, dtype);
	for (int32_t i = 0; i < c->ndim; i++)
		at += (size_t)snprintf(dst + at, cap - at, "%s%lld", i ? ", " : "", (long long)c->sizes[i]);
	if (at + 80 > cap)
		return 0;
	return at + (size_t)snprintf(dst + at, cap - at, "], \"data_offsets\": [0, %llu]}", (unsigned long long)n);
}

static int give_all(const uint8_t *data, size_t size)
{
	static char header[1 << 16], text[1 << 16];
	static const uint8_t bytes[4096];
	struct pb_manifest *m = NULL;
	size_t at = 1;
	uint64_t n;
	int fd;

	header[0] = '{';
	if (pb_manifest_decode(data, size, &m, NULL) == PT2BOX_OK)
		for (uint32_t i = 0; i < m->n_constants; i++) {
			size_t k = m->constants[i].folded ? 0 : describe(&m->constants[i], text, sizeof(text), sizeof(bytes));

			if (!k || at + k + 4 > sizeof(header))
				continue;
			if (at > 1)
				header[at++] = ',';
			memcpy(header + at, text, k);
			at += k;
		}
	pb_manifest_free(m);
	header[at++] = '}';
	n = at;
	fd = file_of(&n, 8);
	if (write(fd, header, at) != (ssize_t)at || write(fd, bytes, sizeof(bytes)) != (ssize_t)sizeof(bytes))
		abort();
	return fd;
}

/* Whatever is written is the manifest's size, and its table. */
static void check(const uint8_t *data, size_t size, int out)
{
	struct pb_manifest *m;
	struct stat sb;

	if (pb_manifest_decode(data, size, &m, NULL) || fstat(out, &sb) ||
	    (uint64_t)sb.st_size != m->const_bytes + m->n_constants)
		abort();
	pb_manifest_free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t how = size ? *data : 0;
	struct pb_update u = {.max_bytes = MAX, .full = how & 2, .names = how & 4};
	char digest[PB_DIGEST_TEXT];

	if (!size)
		return 0;
	data++;
	size--;
	u.manifest = file_of(data, size);
	u.file = how & 1 ? give_all(data, size) : file_of("\2\0\0\0\0\0\0\0{}", 10);
	u.base.fd = file_of("", 0);
	u.parameters.fd = file_of("", 0);
	u.out = memfd_create("out", MFD_CLOEXEC);
	if (ftruncate(u.base.fd, how & 8 ? MAX : 1000) || ftruncate(u.parameters.fd, how & 16 ? MAX : 1000) || u.out < 0)
		abort();
	if (pb_update_run(&u, digest, NULL) == PT2BOX_OK)
		check(data, size, u.out);
	close(u.manifest);
	close(u.file);
	close(u.base.fd);
	close(u.parameters.fd);
	close(u.out);
	return 0;
}
