/* SPDX-License-Identifier: Apache-2.0 */
/* See constants.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "client/constants.h"
#include "client/safetensors_header.h"

#define WRITE_MOST (64u << 20)

static pb_status write_at(int fd, const void *data, uint64_t bytes, uint64_t at, struct pt2box_error *err)
{
	const uint8_t *p = data;

	while (bytes) {
		ssize_t n = pwrite(fd, p, bytes < WRITE_MOST ? bytes : WRITE_MOST, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return pb_error_sys(err, "cannot write constants to memory");
		p += n;
		at += (uint64_t)n;
		bytes -= (uint64_t)n;
	}
	return PT2BOX_OK;
}

/* Element by element, through a mapping. */
static pb_status gather_at(int fd, const struct pt2box_tensor_info *f, uint64_t bytes, uint64_t at,
			   struct pt2box_error *err)
{
	uint64_t begin = at & ~4095ull;
	int64_t strides[PT2BOX_MAX_DIMS];
	uint8_t *map = mmap(NULL, at - begin + bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)begin);

	if (map == MAP_FAILED)
		return pb_error_sys(err, "cannot map memory for constants");
	pb_strides_contiguous(f->ndim, f->sizes, strides);
	pb_copy_strided(f->ndim, f->sizes, pt2box_dtype_size(f->dtype), map + (at - begin), strides, f->data,
			f->strides);
	munmap(map, at - begin + bytes);
	return PT2BOX_OK;
}

static pb_status put(int fd, const struct pt2box_tensor_info *f, uint64_t *at, struct pt2box_error *err)
{
	uint64_t bytes = (uint64_t)f->numel * pt2box_dtype_size(f->dtype), begin = *at;
	int64_t strides[PT2BOX_MAX_DIMS];

	*at += bytes;
	if (!bytes)
		return PT2BOX_OK;
	pb_strides_contiguous(f->ndim, f->sizes, strides);
	if (pb_strides_equal(f->ndim, f->sizes, f->strides, strides))
		return write_at(fd, f->data, bytes, begin, err);
	return gather_at(fd, f, bytes, begin, err);
}

static pb_status fill(int fd, const struct pt2box_constant *list, size_t n, const struct pb_safetensors_entry *e,
		      struct pt2box_error *err)
{
	uint64_t elements, at;
	uint8_t *header;
	size_t bytes;
	pb_status st = pb_safetensors_header(e, n, &header, &bytes, &elements, err);

	if (st)
		return st;
	at = bytes;
	if (ftruncate(fd, (off_t)(bytes + elements)) != 0)
		st = pb_error_sys(err, "no memory for %llu bytes of constants", (unsigned long long)elements);
	if (!st)
		st = write_at(fd, header, bytes, 0, err);
	free(header);
	for (size_t i = 0; i < n && !st; i++)
		st = put(fd, &list[i].tensor->info, &at, err);
	return st;
}

pb_status pb_constants_file(const struct pt2box_constant *list, size_t n, int *ret_fd, struct pt2box_error *err)
{
	PB_CLEANUP(pb_close_fd) int fd = -1;
	struct pb_safetensors_entry *e = calloc(n + 1, sizeof(*e));
	pb_status st;

	if (!e)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a list of constants");
	for (size_t i = 0; i < n; i++) {
		const struct pt2box_tensor_info *f = &list[i].tensor->info;

		e[i] = (struct pb_safetensors_entry){list[i].name, f->dtype, f->ndim, f->sizes};
	}
	st = pb_memfd_unsealed("pt2box-constants", &fd, err);
	if (!st)
		st = fill(fd, list, n, e, err);
	free(e);
	if (!st)
		st = pb_memfd_seal(fd, err);
	if (!st)
		*ret_fd = pb_take_fd(&fd);
	return st;
}
