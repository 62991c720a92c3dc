/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes the seeds of fuzz_update: manifests with every kind of constant, behind the byte that chooses the rest.
 *
 *	make build/tests/fuzz/intake/make_corpus && build/tests/fuzz/intake/make_corpus tests/fuzz/intake
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "ipc/manifest.h"

static const char *folder;

static void put(const char *name, uint8_t how, const struct pb_manifest *m)
{
	char path[512];
	uint8_t *data;
	size_t len;
	FILE *f;

	snprintf(path, sizeof(path), "%s/corpus_update", folder);
	(void)mkdir(path, 0777);
	snprintf(path, sizeof(path), "%s/corpus_update/%s", folder, name);
	f = fopen(path, "wb");
	if (!f || pb_manifest_encode(m, &data, &len, NULL) || fwrite(&how, 1, 1, f) != 1 ||
	    fwrite(data, 1, len, f) != len || fclose(f)) {
		perror(path);
		exit(1);
	}
	free(data);
}

int main(int argc, char **argv)
{
	struct pb_constant c[5] = {
		{.name = "w_", .fqn = "w", .dtype = PT2BOX_FLOAT32, .ndim = 2, .sizes = {2, 3}, .strides = {1, 2},
		 .storage_offset = 1, .data_size = 64, .type = PB_CONST_PARAMETER},
		{.name = "b_", .fqn = "b", .dtype = PT2BOX_INT64, .data_size = 64, .blob_offset = 64, .type = PB_CONST_BUFFER},
		{.name = "fold", .fqn = "f", .dtype = PT2BOX_FLOAT32, .folded = true, .type = PB_CONST_FOLDED},
		{.name = "e", .fqn = "empty", .dtype = PT2BOX_BOOL, .ndim = 1, .strides = {1}, .blob_offset = 128,
		 .type = PB_CONST_PARAMETER},
		{.name = "t", .fqn = "w_", .dtype = PT2BOX_COMPLEX64, .ndim = 1, .sizes = {300}, .strides = {1},
		 .data_size = 2432, .blob_offset = 128, .type = PB_CONST_TENSOR}};
	struct pb_manifest m = {.constants = c, .n_constants = 5, .const_source = PB_CONSTS_EXTERNAL, .const_bytes = 2560};

	if (argc != 2) {
		fprintf(stderr, "usage: make_corpus FOLDER\n");
		return 2;
	}
	folder = argv[1];
	put("kept", 8 | 16, &m);
	put("given", 1 | 8 | 16, &m);
	put("full", 1 | 2 | 4 | 8 | 16, &m);
	put("missing", 2 | 8 | 16, &m);
	put("short", 1, &m);
	c[0].storage_offset = 11;
	put("unfit", 1 | 8 | 16, &m);
	m.n_constants = 0;
	put("undescribed", 8 | 16, &m);
	return 0;
}
