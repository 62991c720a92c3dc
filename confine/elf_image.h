/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shared object as the gate sees it: bytes, segments, the dynamic section's values. Internal to the gate: elf_gate.c
 * reads headers and the dynamic section, elf_tables.c what these point to. Every access is a checked one, by memcpy:
 * nothing in a hostile file is aligned.
 */
#ifndef PT2BOX_CONFINE_ELF_IMAGE_H
#define PT2BOX_CONFINE_ELF_IMAGE_H

#include <elf.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "confine/elf_gate.h"

#define PB_ELF_PAGE 4096u
#define PB_ELF_LOADS_MAX 16
#define PB_ELF_NEEDED_MAX 32

/* Dynamic tags that a model may have, each at most once (NEEDED: several times). */
enum pb_elf_slot {
	PB_D_NEEDED,
	PB_D_PLTRELSZ,
	PB_D_PLTGOT,
	PB_D_HASH,
	PB_D_STRTAB,
	PB_D_SYMTAB,
	PB_D_RELA,
	PB_D_RELASZ,
	PB_D_RELAENT,
	PB_D_STRSZ,
	PB_D_SYMENT,
	PB_D_INIT,
	PB_D_FINI,
	PB_D_SYMBOLIC,
	PB_D_PLTREL,
	PB_D_JMPREL,
	PB_D_BIND_NOW,
	PB_D_INIT_ARRAY,
	PB_D_FINI_ARRAY,
	PB_D_INIT_ARRAYSZ,
	PB_D_FINI_ARRAYSZ,
	PB_D_FLAGS,
	PB_D_GNU_HASH,
	PB_D_VERSYM,
	PB_D_RELACOUNT,
	PB_D_FLAGS_1,
	PB_D_VERNEED,
	PB_D_VERNEEDNUM,
	PB_D_SLOTS
};

struct pb_elf_segment {
	uint64_t vaddr, memsz, offset, filesz;
	uint32_t flags;
};

struct pb_elf_image {
	const uint8_t *file;
	uint64_t bytes;
	enum pb_elf_stage stage;
	struct pt2box_error *err;

	Elf64_Ehdr eh;
	struct pb_elf_segment load[PB_ELF_LOADS_MAX];
	uint32_t n_load;
	struct pb_elf_segment dynamic, tls;
	bool has_dynamic, has_tls, has_stack, has_relro;

	uint64_t value[PB_D_SLOTS];
	bool has[PB_D_SLOTS];
	uint64_t needed[PB_ELF_NEEDED_MAX]; /* offsets into the strings */
	uint32_t n_needed;

	const char *strings;
	const uint8_t *symbols;
	uint32_t n_symbols; /* as far as hash tables and versions reach */
};

/* Refuse: "elf.@word: sentence". Always false. */
bool pb_elf_refuse(const struct pb_elf_image *im, const char *word, const char *fmt, ...) PB_PRINTF(3, 4);
/*
 * The file's bytes for addresses [vaddr, vaddr + len), NULL unless they all come from one segment whose flags have
 * exactly @want of the bits in @mask. Tables that ld.so reads while it relocates must lie in one that is not writable
 * (mask PF_W, want 0): a relocation could otherwise change what was checked here.
 */
const uint8_t *pb_elf_at(const struct pb_elf_image *im, uint64_t vaddr, uint64_t len, uint32_t mask, uint32_t want);
/* [vaddr, vaddr + len) lies in the memory of one segment with these flags. */
bool pb_elf_in_memory(const struct pb_elf_image *im, uint64_t vaddr, uint64_t len, uint32_t mask, uint32_t want);
/* A string of the dynamic string table; NULL if there is none at @offset. */
const char *pb_elf_string(const struct pb_elf_image *im, uint64_t offset);

/* ---- elf_tables.c, in this order ---- */
bool pb_elf_check_strings(struct pb_elf_image *im);
/* Hash tables; finds the number of symbols. */
bool pb_elf_check_hashes(struct pb_elf_image *im);
bool pb_elf_check_symbols(struct pb_elf_image *im);
bool pb_elf_check_versions(const struct pb_elf_image *im);
bool pb_elf_check_relocations(const struct pb_elf_image *im);

static inline uint16_t pb_elf_u16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint32_t pb_elf_u32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline Elf64_Sym pb_elf_symbol(const struct pb_elf_image *im, uint32_t i)
{
	Elf64_Sym s;

	memcpy(&s, im->symbols + (uint64_t)i * sizeof(s), sizeof(s));
	return s;
}

#endif
