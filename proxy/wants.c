/* SPDX-License-Identifier: Apache-2.0 */
/* See wants.h. */
#include "proxy/wants.h"

#include "confine/elf_gate.h"

const char *pb_ops_wants(const uint8_t *file, uint64_t bytes)
{
	if (!pb_elf_is(file, bytes))
		return "python";
	return pb_elf_names(file, bytes, "libtorch") || pb_elf_names(file, bytes, "libc10") ? "torch" : "";
}
