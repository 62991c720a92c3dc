/* SPDX-License-Identifier: Apache-2.0 */
/* See safetensors.h. */
#include "broker/intake/safetensors.h"

#include <endian.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "broker/intake/fileio.h"
#include "ipc/checked.h"
#include "ipc/safetensors_dtype.h"

static pb_status malformed(struct pt2box_error *err, const char *text)
{
	return pb_error_set(err, PT2BOX_PKG_REJECTED, "const.format: the constants file %s", text);
}

/* @text: the header, @bytes long. */
static pb_status parse(struct pb_safetensors *f, const char *text, size_t bytes, struct pt2box_error *err)
{
	json_error_t e;

	f->header = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &e);
	/* Where memory runs out, jansson mostly says nothing at all. */
	if (!f->header && (!e.text[0] || json_error_code(&e) == json_error_out_of_memory))
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for the header of the constants file");
	if (!f->header && json_error_code(&e) == json_error_duplicate_key)
		return malformed(err, "names something twice");
	if (!json_is_object((json_t *)f->header))
		return malformed(err, "has a header that is not a JSON object");
	return PT2BOX_OK;
}

/* *ret_data: where the tensors begin; *ret_bytes: how many bytes of them. */
static pb_status read_header(struct pb_safetensors *f, uint64_t *ret_data, uint64_t *ret_bytes, struct pt2box_error *err)
{
	uint64_t header;
	struct stat sb;
	char *text;
	pb_status st;

	if (fstat(f->fd, &sb) != 0)
		return pb_error_sys(err, "the constants file");
	if (sb.st_size < 10)
		return malformed(err, "is not a safetensors file");
	st = pb_read_at(f->fd, 0, &header, 8, err);
	if (st)
		return st;
	header = le64toh(header);
	if (header < 2 || header > PB_SAFETENSORS_HEADER_MAX || header > (uint64_t)sb.st_size - 8)
		return malformed(err, "is not a safetensors file (pickled files are never read: convert them)");
	text = malloc(header);
	if (!text)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a header");
	st = pb_read_at(f->fd, 8, text, header, err);
	if (!st)
		st = parse(f, text, header, err);
	free(text);
	*ret_data = 8 + header;
	*ret_bytes = (uint64_t)sb.st_size - *ret_data;
	return st;
}

static bool read_shape(json_t *shape, struct pb_stored_tensor *t, uint64_t *ret_elements)
{
	json_t *item;
	uint64_t n = 1;
	size_t i;

	if (!json_is_array(shape) || json_array_size(shape) > PT2BOX_MAX_DIMS)
		return false;
	json_array_foreach(shape, i, item) {
		if (!json_is_integer(item) || json_integer_value(item) < 0 ||
		    !pb_mul_u64(n, (uint64_t)json_integer_value(item), &n))
			return false;
		t->sizes[i] = json_integer_value(item);
	}
	t->ndim = (int32_t)json_array_size(shape);
	*ret_elements = n;
	return true;
}

static bool read_place(json_t *offsets, uint64_t room, struct pb_stored_tensor *t)
{
	json_t *a = json_array_get(offsets, 0), *b = json_array_get(offsets, 1);
	json_int_t begin = json_integer_value(a), end = json_integer_value(b);

	if (json_array_size(offsets) != 2 || !json_is_integer(a) || !json_is_integer(b) || begin < 0 || end < begin ||
	    (uint64_t)end > room)
		return false;
	t->offset = (uint64_t)begin;
	t->bytes = (uint64_t)(end - begin);
	return true;
}

/* One entry of the header, checked against the @room bytes of tensors that the file has. */
static pb_status read_tensor(const char *name, json_t *o, uint64_t room, struct pb_stored_tensor *t,
			     struct pt2box_error *err)
{
	const char *dtype = json_string_value(json_object_get(o, "dtype"));
	uint64_t n;

	t->name = name;
	t->dtype = dtype ? pb_dtype_from_safetensors(dtype) : -1;
	if (dtype && t->dtype < 0)
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "const.dtype: \"%.200s\" has the type \"%.40s\", which is not known",
				    name, dtype);
	if (!dtype || !read_shape(json_object_get(o, "shape"), t, &n) ||
	    !read_place(json_object_get(o, "data_offsets"), room, t) ||
	    !pb_mul_u64(n, pt2box_dtype_size(t->dtype), &n) || n != t->bytes)
		return pb_error_set(err, PT2BOX_PKG_REJECTED,
				    "const.format: the constants file describes a tensor that is not inside it: \"%.200s\"", name);
	return PT2BOX_OK;
}

pb_status pb_safetensors_open(int fd, struct pb_safetensors *ret, struct pt2box_error *err)
{
	uint64_t data, bytes;
	const char *name;
	json_t *o;
	pb_status st;

	*ret = (struct pb_safetensors){.fd = fd};
	st = read_header(ret, &data, &bytes, err);
	if (st)
		return st;
	ret->tensors = calloc(json_object_size(ret->header) + 1, sizeof(*ret->tensors));
	if (!ret->tensors)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a list of tensors");
	json_object_foreach((json_t *)ret->header, name, o) {
		struct pb_stored_tensor *t = &ret->tensors[ret->n];

		if (strcmp(name, "__metadata__") == 0)
			continue;
		st = read_tensor(name, o, bytes, t, err);
		if (st)
			return st;
		t->offset += data;
		ret->n++;
	}
	return PT2BOX_OK;
}

void pb_safetensors_close(struct pb_safetensors *f)
{
	free(f->tensors);
	json_decref(f->header);
	*f = (struct pb_safetensors){.fd = -1};
}
