/* SPDX-License-Identifier: Apache-2.0 */
/* See safetensors_header.h. */
#include "client/safetensors_header.h"

#include <endian.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/checked.h"
#include "ipc/safetensors_dtype.h"

static bool bytes_of(const struct pb_safetensors_entry *e, uint64_t *ret)
{
	*ret = pt2box_dtype_size(e->dtype);
	for (int32_t d = 0; d < e->ndim; d++)
		if (!pb_mul_u64(*ret, (uint64_t)e->sizes[d], ret))
			return false;
	return true;
}

static json_t *describe(const struct pb_safetensors_entry *e, uint64_t begin, uint64_t end)
{
	json_t *shape = json_array();

	for (int32_t d = 0; d < e->ndim; d++)
		json_array_append_new(shape, json_integer(e->sizes[d]));
	return json_pack("{s:s, s:o, s:[I, I]}", "dtype", pb_dtype_safetensors_name(e->dtype), "shape", shape,
			 "data_offsets", (json_int_t)begin, (json_int_t)end);
}

static bool describe_all(const struct pb_safetensors_entry *e, size_t n, json_t *root, uint64_t *ret_elements)
{
	uint64_t at = 0;

	for (size_t i = 0; i < n; i++) {
		uint64_t begin = at, bytes;

		if (!bytes_of(&e[i], &bytes) || !pb_add_u64(at, bytes, &at) || at > INT64_MAX)
			return false;
		json_object_set_new(root, e[i].name, describe(&e[i], begin, at));
	}
	*ret_elements = at;
	return true;
}

/* Frees @text_take. NULL: no memory. */
static uint8_t *frame(char *text_take, size_t *ret_bytes)
{
	size_t len = strlen(text_take), padded = (len + 7) & ~(size_t)7;
	uint64_t prefix = htole64(padded);
	uint8_t *p = malloc(8 + padded);

	if (p) {
		memcpy(p, &prefix, 8);
		memcpy(p + 8, text_take, len);
		memset(p + 8 + len, ' ', padded - len);
		*ret_bytes = 8 + padded;
	}
	free(text_take);
	return p;
}

pb_status pb_safetensors_header(const struct pb_safetensors_entry *e, size_t n, uint8_t **ret, size_t *ret_bytes,
				uint64_t *ret_elements, struct pt2box_error *err)
{
	json_t *root = json_object();
	bool fits = describe_all(e, n, root, ret_elements);
	char *text = fits && json_object_size(root) == n ? json_dumps(root, JSON_COMPACT) : NULL;

	json_decref(root);
	if (!fits)
		return pb_error_set(err, PT2BOX_LIMIT, "tensors too large for any file");
	*ret = text ? frame(text, ret_bytes) : NULL;
	return *ret ? PT2BOX_OK : pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a safetensors header");
}
