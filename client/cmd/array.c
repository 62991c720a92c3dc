/* SPDX-License-Identifier: Apache-2.0 */
/* See array.h. What the formats share: opening, bounds, byte order. */
#include "client/cmd/array.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/cmd/npy.h"
#include "client/cmd/npz.h"
#include "client/cmd/safetensors.h"
#include "ipc/checked.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "elements are written as they lie in memory");

enum pb_format pb_format_of(const char *path)
{
	const char *base = strrchr(path, '/'), *dot = strrchr(base ? base : path, '.');

	if (!dot)
		return PB_FORMAT_NONE;
	if (strcasecmp(dot, ".npy") == 0)
		return PB_FORMAT_NPY;
	if (strcasecmp(dot, ".npz") == 0)
		return PB_FORMAT_NPZ;
	return strcasecmp(dot, ".safetensors") == 0 ? PB_FORMAT_SAFETENSORS : PB_FORMAT_NONE;
}

bool pb_array_measure(struct pb_array *a, bool fortran)
{
	uint64_t span = 1, numel = 1;

	if (a->ndim < 0 || a->ndim > PT2BOX_MAX_DIMS)
		return false;
	/* As numpy does, strides are made as if a size of 0 were 1. */
	for (int32_t k = 0; k < a->ndim; k++) {
		int32_t d = fortran ? k : a->ndim - 1 - k;

		if (a->sizes[d] < 0 || span > INT64_MAX)
			return false;
		a->strides[d] = (int64_t)span;
		if (!pb_mul_u64(span, a->sizes[d] ? (uint64_t)a->sizes[d] : 1, &span))
			return false;
		numel *= (uint64_t)a->sizes[d]; /* no larger than span */
	}
	return span <= INT64_MAX && pb_mul_u64(numel, pt2box_dtype_size(a->dtype), &a->bytes) && a->bytes <= INT64_MAX;
}

bool pb_array_is_c_order(const struct pb_array *a)
{
	int64_t expect = 1;

	for (int32_t d = a->ndim - 1; d >= 0; d--) {
		if (a->sizes[d] == 0)
			return true;
		if (a->sizes[d] > 1 && a->strides[d] != expect)
			return false;
		expect *= a->sizes[d];
	}
	return true;
}

int32_t pb_array_dtype_as(const struct pb_array *a, int32_t want)
{
	bool bits = a->dtype == PT2BOX_UINT8 || a->dtype == PT2BOX_UINT16 || a->dtype == PT2BOX_UINT32;
	bool foreign = want == PT2BOX_BFLOAT16 || want == PT2BOX_FLOAT8_E5M2 || want == PT2BOX_FLOAT8_E4M3FN ||
		       want == PT2BOX_COMPLEX32;

	if (bits && (a->raw || foreign) && want >= 0 && pt2box_dtype_size(want) == pt2box_dtype_size(a->dtype))
		return want;
	return a->raw ? -1 : a->dtype;
}

struct pb_array *pb_array_file_add(struct pb_array_file *f)
{
	if (f->n == f->room) {
		size_t room = f->room ? f->room * 2 : 8;
		struct pb_array *item = reallocarray(f->item, room, sizeof(*item));

		if (!item)
			return NULL;
		f->item = item;
		f->room = room;
	}
	memset(&f->item[f->n], 0, sizeof(f->item[0]));
	return &f->item[f->n++];
}

pb_status pb_array_pread(const struct pb_array_file *f, void *dst, uint64_t n, uint64_t offset,
			 struct pt2box_error *err)
{
	uint8_t *at = dst;

	while (n > 0) {
		/* Linux moves at most 2 GiB at a time. */
		ssize_t got = pread(f->fd, at, n > 1u << 30 ? 1u << 30 : n, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return pb_error_set(err, PT2BOX_IO, "%s cannot be read: %s", f->name, strerror(errno));
		if (got == 0)
			return pb_error_set(err, PT2BOX_BAD_TENSOR, "%s ends too early", f->name);
		at += got;
		offset += (uint64_t)got;
		n -= (uint64_t)got;
	}
	return PT2BOX_OK;
}

struct pb_array_file *pb_array_file_free(struct pb_array_file *f)
{
	if (!f)
		return NULL;
	pb_npz_close(f);
	for (size_t i = 0; i < f->n; i++)
		free(f->item[i].name);
	free(f->item);
	free(f->name);
	if (f->fd >= 0)
		close(f->fd);
	free(f);
	return NULL;
}

static pb_status parse(struct pb_array_file *f, struct pt2box_error *err)
{
	switch (f->format) {
	case PB_FORMAT_NPY:
		return pb_npy_open(f, err);
	case PB_FORMAT_NPZ:
		return pb_npz_open(f, err);
	case PB_FORMAT_SAFETENSORS:
		return pb_array_open_safetensors(f, err);
	case PB_FORMAT_NONE:
		break;
	}
	return pb_error_set(err, PT2BOX_USAGE, "%s: the name must end in .npz, .npy or .safetensors", f->name);
}

pb_status pb_array_file_open_fd(int fd, enum pb_format format, const char *name, struct pb_array_file **ret,
				struct pt2box_error *err)
{
	struct pb_array_file *f = calloc(1, sizeof(*f));
	struct stat sb;
	pb_status st;

	if (!f)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "out of memory");
	f->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	f->name = strdup(name);
	f->format = format;
	if (f->fd < 0 || !f->name || fstat(f->fd, &sb) != 0)
		st = pb_error_sys(err, "%s", name);
	else if (!S_ISREG(sb.st_mode))
		st = pb_error_set(err, PT2BOX_IO, "%s is not a regular file", name);
	else {
		f->size = (uint64_t)sb.st_size;
		st = parse(f, err);
	}
	if (st)
		pb_array_file_free(f);
	else
		*ret = f;
	return st;
}

pb_status pb_array_file_open(const char *path, struct pb_array_file **ret, struct pt2box_error *err)
{
	enum pb_format format = pb_format_of(path);
	pb_status st;
	int fd;

	if (format == PB_FORMAT_NONE)
		return pb_error_set(err, PT2BOX_USAGE, "%s: the name must end in .npz, .npy or .safetensors", path);
	/* Not blocking: a FIFO of that name is refused, not waited for. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return pb_error_set(err, PT2BOX_IO, "%s cannot be opened: %s", path, strerror(errno));
	st = pb_array_file_open_fd(fd, format, path, ret, err);
	close(fd);
	return st;
}

size_t pb_array_file_count(const struct pb_array_file *f)
{
	return f->n;
}

const struct pb_array *pb_array_file_get(const struct pb_array_file *f, size_t i)
{
	return &f->item[i];
}

static void swap_bytes(uint8_t *p, uint64_t bytes, size_t unit)
{
	for (uint64_t at = 0; at + unit <= bytes; at += unit)
		for (size_t i = 0; i < unit / 2; i++) {
			uint8_t t = p[at + i];

			p[at + i] = p[at + unit - 1 - i];
			p[at + unit - 1 - i] = t;
		}
}

static void to_machine_order(const struct pb_array *a, void *dst, uint64_t bytes)
{
	bool pair = a->dtype == PT2BOX_COMPLEX64 || a->dtype == PT2BOX_COMPLEX128;

	if (a->swap)
		swap_bytes(dst, bytes, pt2box_dtype_size(a->dtype) / (pair ? 2 : 1));
}

pb_status pb_array_file_read(struct pb_array_file *f, size_t i, void *dst, struct pt2box_error *err)
{
	const struct pb_array *a = &f->item[i];
	pb_status st;

	if (a->bytes == 0)
		return PT2BOX_OK;
	if (f->format == PB_FORMAT_NPZ)
		st = pb_npz_read(f, a, dst, err);
	else
		st = pb_array_pread(f, dst, a->bytes, a->offset, err);
	if (!st)
		to_machine_order(a, dst, a->bytes);
	return st;
}

pb_status pb_array_file_read_span(struct pb_array_file *f, size_t i, uint64_t from, uint64_t n, void *dst,
				  struct pt2box_error *err)
{
	struct pb_array *a = &f->item[i];
	pb_status st;

	if (!pb_span_fits(from, n, a->bytes))
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "%s ends too early", f->name);
	if (n == 0)
		return PT2BOX_OK;
	if (f->format == PB_FORMAT_NPZ)
		st = pb_npz_read_span(f, a, from, n, dst, err);
	else
		st = pb_array_pread(f, dst, n, a->offset + from, err);
	if (!st)
		to_machine_order(a, dst, n);
	return st;
}

pb_status pb_arrays_write(int fd, enum pb_format format, const struct pb_array_view *v, size_t n,
			  struct pt2box_error *err)
{
	struct pb_sink s = {.fd = fd};
	pb_status st;

	if (format == PB_FORMAT_NONE)
		return pb_error_set(err, PT2BOX_USAGE, "the output's name must end in .npz, .npy or .safetensors");
	if (format == PB_FORMAT_NPY && n != 1)
		return pb_error_set(err, PT2BOX_USAGE,
				    "an .npy file holds exactly one array and the model has %zu outputs: write .npz", n);
	if (!pb_sink_init(&s, fd))
		return pb_error_set(err, PT2BOX_NO_MEMORY, "out of memory");
	st = format == PB_FORMAT_NPY	 ? pb_npy_write(&s, &v[0], err)
	     : format == PB_FORMAT_NPZ ? pb_npz_write(&s, v, n, err)
				       : pb_array_write_safetensors(&s, v, n, err);
	if (!pb_sink_deinit(&s) && !st) {
		errno = s.error;
		st = pb_error_sys(err, "writing the output");
	}
	return st;
}
