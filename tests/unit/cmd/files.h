/* SPDX-License-Identifier: Apache-2.0 */
/* Files in memory for tests of formats, and what is asked of every parser: no flipped or cut file may do harm. */
#ifndef TESTS_UNIT_CMD_FILES_H
#define TESTS_UNIT_CMD_FILES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/cmd/array.h"

static inline int file_of(const void *data, size_t n)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, n), (ssize_t)n);
	return fd;
}

static inline pb_status open_bytes(const void *data, size_t n, enum pb_format format, struct pb_array_file **ret,
				   struct pt2box_error *err)
{
	int fd = file_of(data, n);
	pb_status st = pb_array_file_open_fd(fd, format, "file", ret, err);

	close(fd);
	return st;
}

static inline uint8_t *bytes_of_fd(int fd, size_t *ret_n)
{
	struct stat sb;
	uint8_t *p;

	assert_int_equal(fstat(fd, &sb), 0);
	p = malloc((size_t)sb.st_size + 1);
	assert_non_null(p);
	assert_int_equal(pread(fd, p, (size_t)sb.st_size, 0), sb.st_size);
	*ret_n = (size_t)sb.st_size;
	return p;
}

/* Written, then opened again. */
static inline struct pb_array_file *round_trip(const struct pb_array_view *v, size_t n, enum pb_format format)
{
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct pb_array_file *f = NULL;
	int fd = memfd_create("test", MFD_CLOEXEC);

	if (pb_arrays_write(fd, format, v, n, &e) || pb_array_file_open_fd(fd, format, "file", &f, &e))
		fail_msg("%s", e.text);
	close(fd);
	return f;
}

/* Everything that can be done with a file is done; it may only fail. Returns how many arrays could be read. */
static inline size_t use(const void *data, size_t n, enum pb_format format)
{
	struct pb_array_file *f = NULL;
	struct pt2box_error e = {.status = PT2BOX_OK};
	size_t read = 0;

	if (open_bytes(data, n, format, &f, &e)) {
		assert_true(e.text[0] != '\0');
		return 0;
	}
	for (size_t i = 0; i < pb_array_file_count(f); i++) {
		const struct pb_array *a = pb_array_file_get(f, i);
		uint8_t *dst;

		/* Nothing claims more than a deflated file can hold. */
		assert_true(a->bytes <= n * 1032 + 65536);
		dst = malloc(a->bytes ? a->bytes : 1);
		assert_non_null(dst);
		read += pb_array_file_read(f, i, dst, &e) == PT2BOX_OK;
		free(dst);
	}
	pb_array_file_free(f);
	return read;
}

/* Each byte flipped in each way that matters, and each length. */
static inline void torture(const uint8_t *good, size_t n, enum pb_format format)
{
	static const uint8_t masks[] = {0x01, 0x80, 0xff, 0x20};
	uint8_t *p = malloc(n);

	assert_non_null(p);
	for (size_t cut = 0; cut < n; cut++)
		use(good, cut, format);
	for (size_t at = 0; at < n; at++)
		for (size_t m = 0; m < sizeof(masks); m++) {
			memcpy(p, good, n);
			p[at] ^= masks[m];
			use(p, n, format);
		}
	free(p);
}

#endif
