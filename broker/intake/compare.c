/* SPDX-License-Identifier: Apache-2.0 */
/* Two memories, byte by byte. Nothing is parsed. See update.h. */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "broker/intake/update.h"

#define WINDOW (64ull << 20) /* mapped at a time */

static pb_status size_of(int fd, uint64_t *ret, struct pt2box_error *err)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat sb;

	if (seals < 0 || !(seals & F_SEAL_SHRINK))
		return pb_error_set(err, PT2BOX_USAGE, "only memory that is sealed against shrinking is compared");
	if (fstat(fd, &sb) != 0)
		return pb_error_sys(err, "the size of a memory");
	*ret = (uint64_t)sb.st_size;
	return PT2BOX_OK;
}

/* *ret: whether @bytes bytes from @at on are the same. */
static pb_status same_window(int one, int other, uint64_t at, uint64_t bytes, bool *ret, struct pt2box_error *err)
{
	void *a = mmap(NULL, bytes, PROT_READ, MAP_SHARED, one, (off_t)at);
	void *b = mmap(NULL, bytes, PROT_READ, MAP_SHARED, other, (off_t)at);
	bool mapped = a != MAP_FAILED && b != MAP_FAILED;

	if (mapped)
		*ret = memcmp(a, b, bytes) == 0;
	else
		pb_error_sys(err, "cannot map a memory");
	if (a != MAP_FAILED)
		munmap(a, bytes);
	if (b != MAP_FAILED)
		munmap(b, bytes);
	return mapped ? PT2BOX_OK : PT2BOX_SYSTEM;
}

pb_status pb_compare_run(int one, int other, struct pt2box_error *err)
{
	uint64_t bytes, other_bytes;
	pb_status st = size_of(one, &bytes, err);
	bool same;

	if (!st)
		st = size_of(other, &other_bytes, err);
	if (st)
		return st;
	same = bytes == other_bytes;
	for (uint64_t at = 0; same && at < bytes; at += WINDOW) {
		st = same_window(one, other, at, bytes - at < WINDOW ? bytes - at : WINDOW, &same, err);
		if (st)
			return st;
	}
	return same ? PT2BOX_OK : pb_error_set(err, PT2BOX_NOT_FOUND, "they differ");
}
