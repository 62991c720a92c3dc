/* SPDX-License-Identifier: Apache-2.0 */
/* See safetensors.h. */
#include "client/cmd/safetensors.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/safetensors_header.h"
#include "ipc/checked.h"
#include "ipc/safetensors_dtype.h"

/* ---- read ---- */

static pb_status bad(const struct pb_array_file *f, const char *name, const char *fault, struct pt2box_error *err)
{
	return pb_error_set(err, PT2BOX_BAD_TENSOR, "%.200s in %.200s: %s", name, f->name, fault);
}

static bool take_shape(struct pb_array *a, const json_t *shape)
{
	size_t n = json_array_size(shape);

	if (!json_is_array(shape) || n > PT2BOX_MAX_DIMS)
		return false;
	a->ndim = (int32_t)n;
	for (size_t d = 0; d < n; d++) {
		const json_t *v = json_array_get(shape, d);

		if (!json_is_integer(v) || json_integer_value(v) < 0)
			return false;
		a->sizes[d] = json_integer_value(v);
	}
	return pb_array_measure(a, false);
}

static pb_status take_tensor(struct pb_array_file *f, const char *name, const json_t *v, uint64_t data_at,
			     struct pt2box_error *err)
{
	const json_t *span = json_object_get(v, "data_offsets"), *from = json_array_get(span, 0),
		     *to = json_array_get(span, 1);
	const char *dtype = json_string_value(json_object_get(v, "dtype"));
	struct pb_array *a;

	if (f->n == PB_ARRAYS_MAX)
		return bad(f, name, "more arrays than a model can take", err);
	a = pb_array_file_add(f);
	if (!a || !(a->name = strdup(name)))
		return pb_error_set(err, PT2BOX_NO_MEMORY, "out of memory");
	a->dtype = dtype ? pb_dtype_from_safetensors(dtype) : -1;
	if (a->dtype < 0)
		return bad(f, name, "its dtype is not one of a tensor", err);
	if (!take_shape(a, json_object_get(v, "shape")))
		return bad(f, name, "its shape cannot be used", err);
	if (json_array_size(span) != 2 || !json_is_integer(from) || !json_is_integer(to) ||
	    json_integer_value(from) < 0 || json_integer_value(to) < json_integer_value(from) ||
	    (uint64_t)json_integer_value(to) - (uint64_t)json_integer_value(from) != a->bytes ||
	    (uint64_t)json_integer_value(to) > f->size - data_at)
		return bad(f, name, "its offsets do not fit its shape or the file", err);
	a->offset = data_at + (uint64_t)json_integer_value(from);
	return PT2BOX_OK;
}

static int by_offset(const void *x, const void *y)
{
	const struct pb_array *a = x, *b = y;

	if (a->offset != b->offset)
		return a->offset < b->offset ? -1 : 1;
	return (a->bytes > b->bytes) - (a->bytes < b->bytes);
}

static int by_name(const void *x, const void *y)
{
	const char *a = ((const struct pb_array *)x)->name, *b = ((const struct pb_array *)y)->name;
	int d = strverscmp(a, b);

	return d ? d : strcmp(a, b);
}

/* The format forbids holes and overlaps: with either, two readers could see different tensors. */
static bool covers_file(struct pb_array_file *f, uint64_t data_at)
{
	uint64_t at = data_at;

	if (f->n)
		qsort(f->item, f->n, sizeof(f->item[0]), by_offset);
	for (size_t i = 0; i < f->n; i++) {
		if (f->item[i].offset != at)
			return false;
		at += f->item[i].bytes;
	}
	return at == f->size;
}

static pb_status take_header(struct pb_array_file *f, json_t *root, uint64_t data_at, struct pt2box_error *err)
{
	pb_status st = PT2BOX_OK;
	const char *name;
	json_t *v;

	json_object_foreach(root, name, v)
	{
		if (strcmp(name, "__metadata__") == 0)
			continue;
		st = take_tensor(f, name, v, data_at, err);
		if (st)
			return st;
	}
	if (!covers_file(f, data_at))
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "%s: its tensors overlap or leave holes", f->name);
	if (f->n)
		qsort(f->item, f->n, sizeof(f->item[0]), by_name);
	return PT2BOX_OK;
}

pb_status pb_array_open_safetensors(struct pb_array_file *f, struct pt2box_error *err)
{
	uint64_t n = 0;
	json_t *root;
	char *text;
	pb_status st;

	if (f->size < 8)
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "%s is too short to be a safetensors file", f->name);
	st = pb_array_pread(f, &n, sizeof(n), 0, err);
	if (st)
		return st;
	if (n > PB_SAFETENSORS_HEADER_MAX || !pb_span_fits(8, n, f->size))
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "%s is not a safetensors file, or it is cut", f->name);
	text = malloc(n + 1);
	if (!text)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "out of memory");
	st = pb_array_pread(f, text, n, 8, err);
	root = st ? NULL : json_loadb(text, n, JSON_REJECT_DUPLICATES, NULL);
	free(text);
	if (!st && !json_is_object(root))
		st = pb_error_set(err, PT2BOX_BAD_TENSOR, "%s: its header is not a JSON object", f->name);
	if (!st)
		st = take_header(f, root, 8 + n, err);
	json_decref(root);
	return st;
}

/* ---- write ---- */

pb_status pb_array_write_safetensors(struct pb_sink *s, const struct pb_array_view *v, size_t n, struct pt2box_error *err)
{
	struct pb_safetensors_entry *e = calloc(n + 1, sizeof(*e));
	uint8_t *header;
	uint64_t elements;
	size_t bytes;
	pb_status st = e ? PT2BOX_OK : pb_error_set(err, PT2BOX_NO_MEMORY, "out of memory");

	for (size_t i = 0; i < n && !st; i++) {
		e[i] = (struct pb_safetensors_entry){v[i].name, v[i].dtype, v[i].ndim, v[i].sizes};
		if (!pb_dtype_in_safetensors(v[i].dtype))
			st = pb_error_set(err, PT2BOX_USAGE, "%s is %s, which safetensors cannot hold: write .npz",
					  v[i].name, pt2box_dtype_name(v[i].dtype));
	}
	if (!st)
		st = pb_safetensors_header(e, n, &header, &bytes, &elements, err);
	free(e);
	if (st)
		return st;
	pb_sink_write(s, header, bytes);
	free(header);
	for (size_t i = 0; i < n; i++)
		pb_sink_elements(s, &v[i], false);
	return PT2BOX_OK;
}
