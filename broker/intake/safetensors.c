/* SPDX-License-Identifier: Apache-2.0 */
/* See safetensors.h. */
#include "broker/intake/safetensors.h"

#include <endian.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "broker/intake/fileio.h"
#include "ipc/checked.h"
#include "ipc/safetensors_dtype.h"

#define BUFFER (256u << 10)

struct tensor {
	int32_t dtype;
	uint64_t begin, bytes; /* from the end of the header on */
	json_t *shape;
};

struct file {
	int fd;
	uint64_t data, bytes; /* where the tensors begin; how many bytes of them */
	json_t *root;
	uint8_t buf[BUFFER];
};

static pb_status malformed(struct pt2box_error *err, const char *text)
{
	return pb_error_set(err, PT2BOX_PKG_REJECTED, "const.format: the constants file %s", text);
}

static pb_status open_file(struct file *f, struct pt2box_error *err)
{
	uint64_t header;
	struct stat sb;
	json_error_t e;
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
	if (!st) {
		f->root = json_loadb(text, header, JSON_REJECT_DUPLICATES, &e);
		f->data = 8 + header;
		f->bytes = (uint64_t)sb.st_size - f->data;
		if (!json_is_object(f->root))
			st = malformed(err, "has a header that is not a JSON object");
	}
	free(text);
	return st;
}

/* One entry of the header, checked against the file's size. */
static bool read_tensor(const struct file *f, json_t *o, struct tensor *t)
{
	const char *dtype = json_string_value(json_object_get(o, "dtype"));
	json_t *offsets = json_object_get(o, "data_offsets"), *item;
	json_int_t begin = json_integer_value(json_array_get(offsets, 0));
	json_int_t end = json_integer_value(json_array_get(offsets, 1));
	uint64_t n = 1;
	size_t i;

	t->dtype = dtype ? pb_dtype_from_safetensors(dtype) : -1;
	t->shape = json_object_get(o, "shape");
	if (t->dtype < 0 || !json_is_array(t->shape) || json_array_size(t->shape) > PT2BOX_MAX_DIMS ||
	    json_array_size(offsets) != 2 || begin < 0 || end < begin || (uint64_t)end > f->bytes)
		return false;
	json_array_foreach(t->shape, i, item)
		if (!json_is_integer(item) || json_integer_value(item) < 0 ||
		    !pb_mul_u64(n, (uint64_t)json_integer_value(item), &n))
			return false;
	t->begin = (uint64_t)begin;
	t->bytes = (uint64_t)(end - begin);
	return pb_mul_u64(n, pt2box_dtype_size(t->dtype), &n) && n == t->bytes;
}

static bool same_shape(const struct pb_constant *c, json_t *shape)
{
	if ((int32_t)json_array_size(shape) != c->ndim)
		return false;
	for (int32_t i = 0; i < c->ndim; i++)
		if (json_integer_value(json_array_get(shape, (size_t)i)) != c->sizes[i])
			return false;
	return true;
}

static bool is_contiguous(const struct pb_constant *c)
{
	int64_t want = 1;

	for (int32_t i = c->ndim - 1; i >= 0; i--) {
		if (c->sizes[i] != 1 && c->strides[i] != want)
			return false;
		want *= c->sizes[i] ? c->sizes[i] : 1;
	}
	return true;
}

/* Element by element from the file's order to the model's strides. All indices were checked by pb_constants_find(). */
static pb_status scatter(struct file *f, const struct pb_constant *c, const struct tensor *t, uint8_t *dst,
			 struct pt2box_error *err)
{
	uint64_t elem = pt2box_dtype_size(c->dtype), left = t->bytes, at = t->begin;
	int64_t index[PT2BOX_MAX_DIMS] = {0};
	int64_t pos = 0;

	while (left) {
		uint64_t step = left < BUFFER ? left : BUFFER - BUFFER % elem;
		pb_status st = pb_read_at(f->fd, f->data + at, f->buf, step, err);

		if (st)
			return st;
		for (uint64_t k = 0; k < step; k += elem) {
			memcpy(dst + (uint64_t)pos * elem, f->buf + k, elem);
			for (int32_t i = c->ndim - 1; i >= 0; i--) {
				int64_t stride = c->sizes[i] > 1 ? c->strides[i] : 0; /* else it may be anything */

				pos += stride;
				if (++index[i] < c->sizes[i])
					break;
				pos -= stride * c->sizes[i];
				index[i] = 0;
			}
		}
		at += step;
		left -= step;
	}
	return PT2BOX_OK;
}

static pb_status read_one(struct file *f, const struct pb_constant *c, uint8_t *dst, struct pt2box_error *err)
{
	json_t *o = json_object_get(f->root, c->fqn);
	uint64_t skip = (uint64_t)c->storage_offset * pt2box_dtype_size(c->dtype);
	struct tensor t;

	if (!o)
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "const.name: the constants file has no \"%.200s\"", c->fqn);
	if (!read_tensor(f, o, &t))
		return malformed(err, "describes a tensor that is not inside it");
	if (t.dtype != c->dtype)
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "const.dtype: \"%.200s\" is %s, the model has %s", c->fqn,
				    pt2box_dtype_name(t.dtype), pt2box_dtype_name(c->dtype));
	if (!same_shape(c, t.shape))
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "const.shape: \"%.200s\" has another shape than in the model",
				    c->fqn);
	json_object_del(f->root, c->fqn); /* what is left over at the end is unknown to the model */
	if (is_contiguous(c))
		return pb_read_at(f->fd, f->data + t.begin, dst + c->blob_offset + skip, t.bytes, err);
	return scatter(f, c, &t, dst + c->blob_offset + skip, err);
}

static pb_status check_left_over(struct file *f, struct pt2box_error *err)
{
	char list[240] = "";
	const char *name;
	json_t *value;
	size_t n = 0;

	json_object_foreach(f->root, name, value) {
		size_t used = strlen(list);

		if (strcmp(name, "__metadata__") == 0)
			continue;
		if (used + strlen(name) + 8 < sizeof(list))
			snprintf(list + used, sizeof(list) - used, "%s%s", used ? ", " : "", name);
		n++;
	}
	if (n == 0)
		return PT2BOX_OK;
	return pb_error_set(err, PT2BOX_BAD_TENSOR, "const.name: the model has no constant of %zu name%s in the file: %s", n,
			    n == 1 ? "" : "s", list);
}

static pb_status read_all(struct file *f, const struct pb_manifest *m, uint8_t *dst, struct pt2box_error *err)
{
	pb_status st = open_file(f, err);

	for (uint32_t i = 0; i < m->n_constants && !st; i++)
		if (!m->constants[i].folded)
			st = read_one(f, &m->constants[i], dst, err);
	return st ? st : check_left_over(f, err);
}

pb_status pb_safetensors_read(int fd, const struct pb_manifest *m, uint8_t *dst, struct pt2box_error *err)
{
	struct file *f = calloc(1, sizeof(*f));
	pb_status st;

	if (!f)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for the constants file");
	f->fd = fd;
	st = read_all(f, m, dst, err);
	json_decref(f->root);
	free(f);
	return st;
}
