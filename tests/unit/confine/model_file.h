/* SPDX-License-Identifier: Apache-2.0 */
/* Entries of a fixture, for tests that start from a real model. Header only. */
#ifndef TESTS_UNIT_CONFINE_MODEL_FILE_H
#define TESTS_UNIT_CONFINE_MODEL_FILE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zip.h>

/* The first entry of a package whose name ends with @end; malloc'd to the byte, so that a sanitizer sees one too far. */
static inline uint8_t *model_file(const char *package, const char *end, size_t *ret_bytes)
{
	zip_t *z = zip_open(package, ZIP_RDONLY, NULL);
	uint8_t *data = NULL;

	for (zip_int64_t i = 0; z && i < zip_get_num_entries(z, 0) && !data; i++) {
		const char *name = zip_get_name(z, (zip_uint64_t)i, 0);
		zip_stat_t sb;
		zip_file_t *f;

		if (!name || strlen(name) < strlen(end) || strcmp(name + strlen(name) - strlen(end), end) != 0)
			continue;
		if (zip_stat_index(z, (zip_uint64_t)i, 0, &sb) != 0)
			break;
		f = zip_fopen_index(z, (zip_uint64_t)i, 0);
		data = malloc(sb.size ? sb.size : 1);
		if (!f || !data || zip_fread(f, data, sb.size) != (zip_int64_t)sb.size)
			abort();
		zip_fclose(f);
		*ret_bytes = sb.size;
	}
	if (z)
		zip_discard(z);
	return data;
}

static inline uint8_t *fixture_file(const char *fixture, const char *end, size_t *ret_bytes)
{
	char path[256];

	snprintf(path, sizeof(path), "tests/fixtures/%s/model.pt2", fixture);
	return model_file(path, end, ret_bytes);
}

#endif
