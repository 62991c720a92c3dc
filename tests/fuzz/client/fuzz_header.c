/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The header of a safetensors file that the client writes for constants, whose names are the package's: whatever they are,
 * the header is JSON that gives them back, each with its span, and the spans follow each other.
 *
 *	a byte of dtype, a byte of rank and sizes, a length, the name; and again
 */
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "client/safetensors_header.h"
#include "include/pt2box.h"
#include "tests/fuzz/replay.h"

#define ENTRIES_MAX 16

static bool same_name_before(const struct pb_safetensors_entry *e, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(e[i].name, e[n].name) == 0)
			return true;
	return false;
}

static void check(const uint8_t *header, size_t bytes, const struct pb_safetensors_entry *e, size_t n, uint64_t elements)
{
	uint64_t len = 0, at = 0;
	json_t *o;

	memcpy(&len, header, 8);
	if (bytes < 8 || bytes % 8 || len != bytes - 8)
		abort();
	o = json_loadb((const char *)header + 8, len, JSON_ALLOW_NUL, NULL);
	if (!o || json_object_size(o) != n)
		abort();
	for (size_t i = 0; i < n; i++) {
		const json_t *span = json_object_get(json_object_get(o, e[i].name), "data_offsets");

		if (json_array_size(span) != 2 || (uint64_t)json_integer_value(json_array_get(span, 0)) != at)
			abort();
		at = (uint64_t)json_integer_value(json_array_get(span, 1));
	}
	if (at != elements)
		abort();
	json_decref(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char names[ENTRIES_MAX][257];
	static int64_t sizes[ENTRIES_MAX][8];
	struct pb_safetensors_entry e[ENTRIES_MAX];
	uint64_t elements = 0;
	size_t n = 0, bytes = 0;
	uint8_t *header = NULL;

	for (size_t at = 0; at + 3 <= size && n < ENTRIES_MAX;) {
		const size_t len = data[at + 2] < size - at - 3 ? data[at + 2] : size - at - 3;
		json_t *utf8;

		memcpy(names[n], data + at + 3, len);
		names[n][len] = '\0';
		e[n] = (struct pb_safetensors_entry){.name = names[n], .dtype = PT2BOX_FLOAT32, .ndim = data[at + 1] % 4,
						     .sizes = sizes[n]};
		for (int d = 0; d < 4; d++)
			sizes[n][d] = d == 0 && data[at] & 0x80 ? INT64_MAX >> (data[at] & 63) : data[at] % 7;
		at += 3 + len;
		/* Names that reach this are text: the manifest's decoder has seen to it. */
		utf8 = json_string(names[n]);
		n += utf8 && !same_name_before(e, n);
		json_decref(utf8);
	}
	if (pb_safetensors_header(e, n, &header, &bytes, &elements, NULL) == PT2BOX_OK)
		check(header, bytes, e, n, elements);
	free(header);
	return 0;
}
