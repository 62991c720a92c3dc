/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ELF gate: what a model.so must look like before the dynamic linker may see it. Called twice, on hostile bytes: by
 * intake on the file as it came, and by the template on the sealed file that intake wrote. Reads only inside
 * [file, file + bytes); changes nothing.
 *
 * Refused, with a sub-word in the text ("elf.ifunc: ..."): anything that would run code or open files while linking
 * (IFUNC, IRELATIVE, PREINIT_ARRAY, AUDIT, RPATH, PT_INTERP, names in DT_NEEDED that are not on the list), and anything
 * that is not inside the file or a segment (relocations, symbols, strings, hash tables), W+X segments, text relocations.
 */
#ifndef PT2BOX_CONFINE_ELF_GATE_H
#define PT2BOX_CONFINE_ELF_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/status.h"

enum pb_elf_stage {
	PB_ELF_PACKAGED, /* as it came: may have constructors and ask for an executable stack */
	/* As it came, a library with PyTorch operators: may also have a name, folders to search and libtorch_python.so, which
	 * pb_elf_patch() takes out */
	PB_ELF_EXTENSION,
	PB_ELF_PATCHED,	 /* as pb_elf_patch() leaves it: neither is there any more, else refused */
};

struct pb_elf_facts {
	uint64_t init_addr;	  /* DT_INIT, 0 none; relative to the load address */
	uint64_t init_array_addr; /* DT_INIT_ARRAY, 0 none */
	uint32_t init_array_count;
	const char **imports; /* undefined dynamic symbols, borrowed from the file's bytes; the array is owned */
	uint32_t n_imports;
	const char **needed; /* DT_NEEDED, the same */
	uint32_t n_needed;
	/* The embedded constants, from _binary_constants_bin_start and _end; zero if there are none. */
	uint64_t constants_offset, constants_bytes; /* in the file */
	bool constants_writable;		    /* they lie in a writable segment: the model mutates a buffer */
	uint64_t image_end; /* end of the last byte that a segment or section takes from the file: mmap'd weights follow */
};
#define PB_ELF_FACTS_INIT {0}

/* OK, or PKG_REJECTED with "elf.WORD: sentence", NO_MEMORY. *ret is to be deinitialised in either case. */
PB_CHECK pb_status pb_elf_gate(const uint8_t *file, uint64_t bytes, enum pb_elf_stage stage, struct pb_elf_facts *ret,
			       struct pt2box_error *err);
/* Begins as an ELF file does, whatever comes after it. */
bool pb_elf_is(const uint8_t *file, uint64_t bytes);
/* A library that it names (DT_NEEDED) is, or begins with, @prefix. Of any file; false for one that cannot be read. */
bool pb_elf_names(const uint8_t *file, uint64_t bytes, const char *prefix);
void pb_elf_facts_deinit(struct pb_elf_facts *f);
/*
 * Rewrite a file that has passed the gate as PACKAGED or EXTENSION: clear PF_X of PT_GNU_STACK, take DT_INIT, DT_INIT_ARRAY,
 * DT_INIT_ARRAYSZ and what else is to be out of the dynamic section. The constructors are called later, by address.
 */
void pb_elf_patch(uint8_t *file, uint64_t bytes);

#endif
