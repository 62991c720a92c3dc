/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as an .safetensors file: opened, and every array read. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/cmd/array.h"
#include "tests/fuzz/replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	struct pb_array_file *f = NULL;
	struct pt2box_error e;

	if (fd < 0)
		fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
		abort();
	if (pb_array_file_open_fd(fd, PB_FORMAT_SAFETENSORS, "fuzz", &f, &e))
		return 0;
	for (size_t i = 0; i < pb_array_file_count(f); i++) {
		uint64_t bytes = pb_array_file_get(f, i)->bytes;
		void *dst = bytes <= 1u << 24 ? malloc(bytes ? bytes : 1) : NULL;

		if (dst)
			(void)!pb_array_file_read(f, i, dst, &e);
		free(dst);
	}
	pb_array_file_free(f);
	return 0;
}
