/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a file of constants for a loaded model that wants four: one of them transposed, one with gaps, one computed
 * from others. What is written stays inside the constants' memory, and says which were given.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "broker/intake/update.h"
#include "tests/fuzz/replay.h"

#define BYTES 256
#define N 4

static int file_of(const void *data, size_t bytes)
{
	int fd = memfd_create("file", MFD_CLOEXEC);

	if (fd < 0 || write(fd, data, bytes) != (ssize_t)bytes)
		abort();
	return fd;
}

static int manifest(void)
{
	struct pb_constant c[N] = {
		{.name = "a_", .fqn = "a", .dtype = PT2BOX_FLOAT32, .ndim = 1, .sizes = {4}, .strides = {1}, .data_size = 64,
		 .type = PB_CONST_PARAMETER},
		{.name = "b", .fqn = "b", .dtype = PT2BOX_INT64, .data_size = 64, .blob_offset = 64, .type = PB_CONST_BUFFER},
		{.name = "c", .fqn = "c", .dtype = PT2BOX_FLOAT16, .ndim = 2, .sizes = {2, 3}, .strides = {1, 2},
		 .storage_offset = 1, .data_size = 64, .blob_offset = 128, .type = PB_CONST_PARAMETER},
		{.name = "f", .fqn = "f", .dtype = PT2BOX_FLOAT32, .folded = true, .type = PB_CONST_FOLDED}};
	const struct pb_manifest m = {.constants = c, .n_constants = N, .const_source = PB_CONSTS_EXTERNAL,
				      .const_bytes = BYTES};
	uint8_t *data;
	size_t n;
	int fd;

	if (pb_manifest_encode(&m, &data, &n, NULL))
		abort();
	fd = file_of(data, n);
	free(data);
	return fd;
}

static void check(int out, const char *digest)
{
	uint8_t got[BYTES + N + 1];

	if (pread(out, got, sizeof(got), 0) != BYTES + N || strlen(digest) != PB_DIGEST_TEXT - 1)
		abort();
	for (int i = 0; i < N; i++)
		if (got[BYTES + i] > (i < 3))
			abort();
	if (!got[BYTES] && got[0] != 0x22) /* kept, from the base of the parameters */
		abort();
	if (!got[BYTES + 1] && got[64] != 0x11)
		abort();
	if (got[BYTES - 1] || (got[BYTES + 2] && (got[128] || got[129])))
		abort();
}

static void run(struct pb_update *u)
{
	char digest[PB_DIGEST_TEXT];

	u->out = memfd_create("out", MFD_CLOEXEC);
	if (u->out < 0)
		abort();
	if (pb_update_run(u, digest, NULL) == PT2BOX_OK)
		check(u->out, digest);
	close(u->out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t base[BYTES + 32], parameters[BYTES];
	struct pb_update u = {.max_bytes = BYTES};

	memset(base, 0x11, sizeof(base));
	memset(parameters, 0x22, sizeof(parameters));
	u.manifest = manifest();
	u.file = file_of(data, size);
	u.base = (struct pb_const_base){file_of(base, sizeof(base)), 32};
	u.parameters = (struct pb_const_base){file_of(parameters, sizeof(parameters)), 0};
	run(&u);
	u.names = u.full = true;
	run(&u);
	close(u.manifest);
	close(u.file);
	close(u.base.fd);
	close(u.parameters.fd);
	return 0;
}
