/* SPDX-License-Identifier: Apache-2.0 */
/* The ELF gate on any bytes. What passes can be patched, and passes then as the template will hold it to. */
#include <stdlib.h>
#include <string.h>

#include "confine/elf_gate.h"
#include "tests/fuzz/replay.h"

static pb_status gate(const uint8_t *data, size_t size, enum pb_elf_stage stage)
{
	struct pb_elf_facts f;
	pb_status st = pb_elf_gate(data, size, stage, &f, NULL);

	/* Whatever is told must be inside. */
	if (st == PT2BOX_OK &&
	    (f.constants_offset > size || f.constants_bytes > size - f.constants_offset || f.image_end > size))
		abort();
	for (uint32_t i = 0; st == PT2BOX_OK && i < f.n_imports; i++)
		if (strlen(f.imports[i]) > size)
			abort();
	pb_elf_facts_deinit(&f);
	return st;
}

/* What passes as it came passes once it is patched. */
static void gate_and_patch(const uint8_t *data, size_t size, enum pb_elf_stage stage)
{
	uint8_t *copy;

	if (gate(data, size, stage))
		return;
	copy = malloc(size);
	if (!copy)
		return;
	memcpy(copy, data, size);
	pb_elf_patch(copy, size);
	if (gate(copy, size, PB_ELF_PATCHED))
		abort();
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	(void)gate(data, size, PB_ELF_PATCHED);
	(void)pb_elf_names(data, size, "libtorch");
	gate_and_patch(data, size, PB_ELF_PACKAGED);
	gate_and_patch(data, size, PB_ELF_EXTENSION);
	return 0;
}
