/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a file of constants for a model that wants three, one of them with strides of its own. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "broker/intake/safetensors.h"
#include "tests/fuzz/replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pb_constant c[3] = {
		{.name = "a", .fqn = "a", .dtype = PT2BOX_FLOAT32, .ndim = 1, .sizes = {4}, .strides = {1}, .data_size = 64},
		{.name = "b", .fqn = "b", .dtype = PT2BOX_INT64, .data_size = 64, .blob_offset = 64},
		{.name = "c", .fqn = "c", .dtype = PT2BOX_FLOAT16, .ndim = 2, .sizes = {2, 3}, .strides = {1, 2},
		 .storage_offset = 1, .data_size = 64, .blob_offset = 128}};
	const struct pb_manifest m = {.constants = c, .n_constants = 3, .const_bytes = 192};
	uint8_t *dst = calloc(1, m.const_bytes);
	int fd = memfd_create("constants", MFD_CLOEXEC);

	if (!dst || fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	(void)!pb_safetensors_read(fd, &m, dst, NULL);
	close(fd);
	free(dst);
	return 0;
}
