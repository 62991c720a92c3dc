/* SPDX-License-Identifier: Apache-2.0 */
/* See fileio.h. */
#include "broker/intake/fileio.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define ONCE_MAX (1u << 30) /* the kernel moves at most 2 GiB in one call */

pb_status pb_read_at(int fd, uint64_t offset, void *dst, uint64_t bytes, struct pt2box_error *err)
{
	uint8_t *at = dst;

	while (bytes) {
		ssize_t n = pread(fd, at, bytes > ONCE_MAX ? ONCE_MAX : bytes, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return pb_error_set(err, PT2BOX_IO, "cannot read the file: %s", strerror(errno));
		if (n == 0)
			return pb_error_set(err, PT2BOX_IO, "the file became shorter while it was read");
		at += n;
		offset += (uint64_t)n;
		bytes -= (uint64_t)n;
	}
	return PT2BOX_OK;
}

pb_status pb_write_at(int fd, uint64_t offset, const void *src, uint64_t bytes, struct pt2box_error *err)
{
	const uint8_t *at = src;

	while (bytes) {
		ssize_t n = pwrite(fd, at, bytes > ONCE_MAX ? ONCE_MAX : bytes, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return pb_error_sys(err, "cannot write");
		at += n;
		offset += (uint64_t)n;
		bytes -= (uint64_t)n;
	}
	return PT2BOX_OK;
}
