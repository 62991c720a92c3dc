/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ELF gate: real models pass, and each reason for a refusal is met once, by changing one thing in a real model. Then
 * every byte that the gate reads is changed and every length is tried: it must never read outside the file.
 */
#include "tests/lib/check.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "confine/elf_gate.h"
#include "tests/unit/confine/model_file.h"

/* A real model in memory that a case changes. */
struct elf {
	uint8_t *p;
	size_t n;
};

static struct elf original;

static int load_original(void **state)
{
	(void)state;
	original.p = fixture_file("mlp", ".so", &original.n);
	return original.p ? 0 : -1;
}

static int free_original(void **state)
{
	(void)state;
	free(original.p);
	return 0;
}

static struct elf copy_of(const uint8_t *p, size_t n)
{
	struct elf e = {malloc(n ? n : 1), n};

	assert_non_null(e.p);
	memcpy(e.p, p, n);
	return e;
}

/* ---- places in a file ---- */

static Elf64_Ehdr *header(struct elf *e)
{
	return (Elf64_Ehdr *)(void *)e->p;
}

static Elf64_Phdr *segment(struct elf *e, uint32_t type, int nth)
{
	Elf64_Phdr *p = (Elf64_Phdr *)(void *)(e->p + header(e)->e_phoff);

	for (int i = 0; i < header(e)->e_phnum; i++)
		if (p[i].p_type == type && nth-- == 0)
			return &p[i];
	fail_msg("no program header of type 0x%x", type);
	return NULL;
}

static uint8_t *at_address(struct elf *e, uint64_t vaddr)
{
	for (int i = 0; i < 5; i++) {
		Elf64_Phdr *p = segment(e, PT_LOAD, i);

		if (vaddr >= p->p_vaddr && vaddr < p->p_vaddr + p->p_filesz)
			return e->p + p->p_offset + (vaddr - p->p_vaddr);
	}
	fail_msg("no segment at 0x%lx", (unsigned long)vaddr);
	return NULL;
}

static Elf64_Dyn *dyn(struct elf *e, int64_t tag)
{
	Elf64_Dyn *d = (Elf64_Dyn *)(void *)(e->p + segment(e, PT_DYNAMIC, 0)->p_offset);

	for (; d->d_tag != DT_NULL; d++)
		if (d->d_tag == tag)
			return d;
	return tag == DT_NULL ? d : NULL;
}

static void *table(struct elf *e, int64_t tag)
{
	return at_address(e, dyn(e, tag)->d_un.d_ptr);
}

static Elf64_Sym *symbol(struct elf *e, const char *name)
{
	Elf64_Sym *s = table(e, DT_SYMTAB);
	const char *strings = table(e, DT_STRTAB);

	for (uint32_t i = 1; i < 576; i++)
		if (strcmp(strings + s[i].st_name, name) == 0)
			return &s[i];
	fail_msg("no symbol %s", name);
	return NULL;
}

/* A symbol of the file that is defined in it. */
static Elf64_Sym *defined(struct elf *e)
{
	return symbol(e, "AOTInductorModelContainerRun");
}

static uint32_t *gnu_hash(struct elf *e)
{
	return table(e, DT_GNU_HASH);
}

static uint32_t *buckets(struct elf *e)
{
	uint32_t *h = gnu_hash(e);

	return h + 4 + 2 * h[2];
}

/* ---- cases: change one thing, expect one word ---- */

struct refusal {
	const char *name, *word;
	void (*change)(struct elf *e);
};

#define CHANGE(name) static void name(struct elf *e)

CHANGE(magic) { e->p[1] = 'X'; }
CHANGE(class32) { e->p[EI_CLASS] = ELFCLASS32; }
CHANGE(big_endian) { e->p[EI_DATA] = ELFDATA2MSB; }
CHANGE(arm) { header(e)->e_machine = EM_AARCH64; }
CHANGE(abi) { e->p[EI_OSABI] = ELFOSABI_SOLARIS; }
CHANGE(executable) { header(e)->e_type = ET_EXEC; }
CHANGE(header_size) { header(e)->e_phentsize = 55; }
CHANGE(no_phdrs) { header(e)->e_phnum = 0; }
CHANGE(many_phdrs) { header(e)->e_phnum = 33; }
CHANGE(phdrs_outside) { header(e)->e_phoff = e->n - 8; }
CHANGE(phdrs_wrap) { header(e)->e_phoff = UINT64_MAX - 7; }
CHANGE(phdrs_unmapped) { memmove(e->p + e->n / 8 * 8 - 11 * 56 - 8, e->p + 64, 11 * 56), header(e)->e_phoff = e->n / 8 * 8 - 11 * 56 - 8; }

CHANGE(load_flags) { segment(e, PT_LOAD, 2)->p_flags = 8 | PF_R; }
CHANGE(load_unreadable) { segment(e, PT_LOAD, 2)->p_flags = 0; }
CHANGE(load_wx) { segment(e, PT_LOAD, 1)->p_flags |= PF_W; }
CHANGE(load_wx_data) { segment(e, PT_LOAD, 3)->p_flags |= PF_X; }
CHANGE(load_align) { segment(e, PT_LOAD, 1)->p_align = 16; }
CHANGE(load_align_odd) { segment(e, PT_LOAD, 1)->p_align = 4097; }
CHANGE(load_misplaced) { segment(e, PT_LOAD, 1)->p_offset += 16; }
CHANGE(load_outside) { segment(e, PT_LOAD, 4)->p_filesz = segment(e, PT_LOAD, 4)->p_memsz = e->n; }
CHANGE(load_filesz) { segment(e, PT_LOAD, 2)->p_filesz += 1; }
CHANGE(load_memsz) { segment(e, PT_LOAD, 3)->p_memsz = 1ull << 40; }
CHANGE(load_wrap) { segment(e, PT_LOAD, 4)->p_memsz = UINT64_MAX; }
CHANGE(load_bss_readonly) { segment(e, PT_LOAD, 2)->p_memsz += 64; }
CHANGE(load_overlap) { segment(e, PT_LOAD, 3)->p_memsz = 0x3000; }
CHANGE(load_order) { Elf64_Phdr t = *segment(e, PT_LOAD, 1); *segment(e, PT_LOAD, 1) = *segment(e, PT_LOAD, 2); *segment(e, PT_LOAD, 2) = t; }
CHANGE(load_first) { segment(e, PT_LOAD, 0)->p_vaddr = 0x1000; }
CHANGE(load_far) { Elf64_Phdr *p = segment(e, PT_LOAD, 4); p->p_vaddr += 65ull << 20; }
CHANGE(no_load) { for (int i = 0; i < 5; i++) segment(e, PT_LOAD, 0)->p_type = PT_NULL; }

CHANGE(interp) { segment(e, PT_NOTE, 0)->p_type = PT_INTERP; }
CHANGE(phdr_type) { segment(e, PT_NOTE, 0)->p_type = 0x12345; }
CHANGE(phdr_itself) { segment(e, PT_NOTE, 0)->p_type = PT_PHDR; }
CHANGE(two_dynamics) { *segment(e, PT_NOTE, 0) = *segment(e, PT_DYNAMIC, 0); }
CHANGE(no_dynamic) { segment(e, PT_DYNAMIC, 0)->p_type = PT_NULL; }
CHANGE(dynamic_readonly) { segment(e, PT_DYNAMIC, 0)->p_vaddr = 0x1000; }
CHANGE(dynamic_elsewhere) { segment(e, PT_DYNAMIC, 0)->p_offset += 16; }
CHANGE(dynamic_size) { segment(e, PT_DYNAMIC, 0)->p_filesz = segment(e, PT_DYNAMIC, 0)->p_memsz = 17; }
CHANGE(dynamic_endless) { Elf64_Phdr *p = segment(e, PT_DYNAMIC, 0); p->p_filesz = p->p_memsz = (uint64_t)((uint8_t *)dyn(e, DT_NULL) - e->p) - p->p_offset; }
CHANGE(no_stack) { segment(e, PT_GNU_STACK, 0)->p_type = PT_NULL; }
CHANGE(two_stacks) { segment(e, PT_NOTE, 0)->p_type = PT_GNU_STACK; }
CHANGE(relro_outside) { segment(e, PT_GNU_RELRO, 0)->p_vaddr = 0x16000; }
CHANGE(relro_long) { segment(e, PT_GNU_RELRO, 0)->p_memsz = 0x10000; }
CHANGE(eh_frame) { segment(e, PT_GNU_EH_FRAME, 0)->p_vaddr += 1ull << 40; }
CHANGE(tls_size) { segment(e, PT_TLS, 0)->p_memsz = 2u << 20; }
CHANGE(tls_align) { segment(e, PT_TLS, 0)->p_align = 3; }
CHANGE(tls_image) { segment(e, PT_TLS, 0)->p_filesz = 8, segment(e, PT_TLS, 0)->p_vaddr = 1ull << 40; }
CHANGE(note_place) { segment(e, PT_NOTE, 0)->p_vaddr = 0x46000; }
CHANGE(note_long) { *(uint32_t *)(void *)(e->p + segment(e, PT_NOTE, 0)->p_offset) = 0xfffffff0; }
CHANGE(note_short) { segment(e, PT_NOTE, 0)->p_filesz = segment(e, PT_NOTE, 0)->p_memsz = 5; }

/* One tag instead of one that is not missed. */
static void retag(struct elf *e, int64_t tag)
{
	dyn(e, DT_FINI)->d_tag = tag;
}
CHANGE(rpath) { retag(e, DT_RPATH); }
CHANGE(runpath) { retag(e, DT_RUNPATH); }
CHANGE(audit) { retag(e, DT_AUDIT); }
CHANGE(depaudit) { retag(e, DT_DEPAUDIT); }
CHANGE(filter) { retag(e, DT_FILTER); }
CHANGE(auxiliary) { retag(e, DT_AUXILIARY); }
CHANGE(preinit) { retag(e, DT_PREINIT_ARRAY); }
CHANGE(textrel) { retag(e, DT_TEXTREL); }
CHANGE(soname) { retag(e, DT_SONAME); }
CHANGE(rel) { retag(e, DT_REL); }
CHANGE(relr) { retag(e, 36); }
CHANGE(verdef) { retag(e, DT_VERDEF); }
CHANGE(debug) { retag(e, DT_DEBUG); }
CHANGE(taken_tag) { retag(e, 0x6e00000c); }
CHANGE(tag_twice) { retag(e, DT_SYMTAB); }
static void flags(struct elf *e, int64_t tag, uint64_t v)
{
	retag(e, tag);
	dyn(e, tag)->d_un.d_val = v;
}
CHANGE(flag_textrel) { flags(e, DT_FLAGS, DF_TEXTREL); }
CHANGE(flag_static_tls) { flags(e, DT_FLAGS, DF_STATIC_TLS); }
CHANGE(flag_origin) { flags(e, DT_FLAGS, DF_ORIGIN); }
CHANGE(flag_initfirst) { flags(e, DT_FLAGS_1, DF_1_INITFIRST); }
CHANGE(flag_pie) { flags(e, DT_FLAGS_1, 0x08000000); }
CHANGE(init_in_data) { dyn(e, DT_INIT)->d_un.d_ptr = 0x47000; }
CHANGE(init_array_outside) { dyn(e, DT_INIT_ARRAY)->d_un.d_ptr = 1ull << 40; }
CHANGE(init_array_long) { dyn(e, DT_INIT_ARRAYSZ)->d_un.d_val = 8 * 5000; }
CHANGE(init_array_odd) { dyn(e, DT_INIT_ARRAYSZ)->d_un.d_val = 7; }
CHANGE(init_array_alone) { dyn(e, DT_INIT_ARRAYSZ)->d_tag = DT_BIND_NOW; }
CHANGE(fini_in_data) { dyn(e, DT_FINI)->d_un.d_ptr = 0; }
CHANGE(pltgot) { dyn(e, DT_PLTGOT)->d_un.d_ptr = 0x16000; }

CHANGE(needed_path) { memcpy((char *)table(e, DT_STRTAB) + dyn(e, DT_NEEDED)->d_un.d_val, "/x.so", 6); }
CHANGE(needed_other) { memcpy((char *)table(e, DT_STRTAB) + dyn(e, DT_NEEDED)->d_un.d_val, "libx.so.1", 10); }
CHANGE(needed_outside) { dyn(e, DT_NEEDED)->d_un.d_val = 1ull << 32; }
CHANGE(strings_outside) { dyn(e, DT_STRTAB)->d_un.d_ptr = 1ull << 40; }
CHANGE(strings_writable) { dyn(e, DT_STRTAB)->d_un.d_ptr = 0x46720, dyn(e, DT_STRSZ)->d_un.d_val = 16; }
CHANGE(strings_long) { dyn(e, DT_STRSZ)->d_un.d_val = 1u << 20; }
CHANGE(strings_empty) { dyn(e, DT_STRSZ)->d_un.d_val = 0; }
CHANGE(strings_open) { dyn(e, DT_STRSZ)->d_un.d_val -= 1; }
CHANGE(no_strings) { dyn(e, DT_STRTAB)->d_tag = DT_BIND_NOW; }

CHANGE(no_hash) { dyn(e, DT_GNU_HASH)->d_tag = DT_BIND_NOW; }
CHANGE(hash_outside) { dyn(e, DT_GNU_HASH)->d_un.d_ptr = 1ull << 40; }
CHANGE(hash_no_buckets) { gnu_hash(e)[0] = 0; }
CHANGE(hash_many_buckets) { gnu_hash(e)[0] = 0x40000000; }
CHANGE(hash_bloom) { gnu_hash(e)[2] = 3; }
CHANGE(hash_bloom_large) { gnu_hash(e)[2] = 0x80000000; }
CHANGE(hash_shift) { gnu_hash(e)[3] = 64; }
CHANGE(hash_low_bucket) { buckets(e)[0] = gnu_hash(e)[1] - 1; }
CHANGE(hash_high_bucket) { buckets(e)[0] = 0x7fffffff; }
CHANGE(sysv_hash_circle)
{
	/* A hash table of the older kind instead of the newer, in its place: one bucket, two symbols in a circle. */
	uint32_t *h = gnu_hash(e);

	dyn(e, DT_GNU_HASH)->d_tag = DT_HASH;
	h[0] = 1;
	h[1] = 3;
	h[2] = 1; /* bucket */
	h[3] = 0;
	h[4] = 2;
	h[5] = 1;
}
CHANGE(sysv_hash_index)
{
	sysv_hash_circle(e);
	((uint32_t *)table(e, DT_HASH))[4] = 3;
}

CHANGE(no_symbols) { dyn(e, DT_SYMTAB)->d_tag = DT_BIND_NOW; }
CHANGE(symbols_outside) { dyn(e, DT_SYMTAB)->d_un.d_ptr = 1ull << 40; }
CHANGE(symbols_writable) { dyn(e, DT_SYMTAB)->d_un.d_ptr = 0x46720; }
CHANGE(symbol_size) { dyn(e, DT_SYMENT)->d_un.d_val = 16; }
CHANGE(symbol_name) { defined(e)->st_name = 0xfffffff0; }
CHANGE(symbol_type) { defined(e)->st_info = ELF64_ST_INFO(STB_GLOBAL, 9); }
CHANGE(symbol_binding) { defined(e)->st_info = ELF64_ST_INFO(9, STT_FUNC); }
CHANGE(symbol_ifunc) { defined(e)->st_info = ELF64_ST_INFO(STB_GLOBAL, STT_GNU_IFUNC); }
CHANGE(symbol_ifunc_undefined) { symbol(e, "aoti_torch_get_dtype")->st_info = ELF64_ST_INFO(STB_GLOBAL, STT_GNU_IFUNC); }
CHANGE(symbol_absolute) { defined(e)->st_shndx = SHN_ABS; }
CHANGE(symbol_common) { defined(e)->st_shndx = SHN_COMMON; }
CHANGE(symbol_outside) { defined(e)->st_value = 1ull << 40; }
CHANGE(symbol_tls) { defined(e)->st_info = ELF64_ST_INFO(STB_GLOBAL, STT_TLS); }
CHANGE(symbol_runtime) { symbol(e, "aoti_torch_get_dtype")->st_shndx = 12; }

CHANGE(version_index) { ((uint16_t *)table(e, DT_VERSYM))[1] = 0x7fff; }
CHANGE(version_alone) { dyn(e, DT_VERNEED)->d_tag = DT_BIND_NOW; }
CHANGE(version_outside) { dyn(e, DT_VERNEED)->d_un.d_ptr = 1ull << 40; }
CHANGE(version_table) { dyn(e, DT_VERSYM)->d_un.d_ptr = 0x15ee0; }
CHANGE(version_count) { dyn(e, DT_VERNEEDNUM)->d_un.d_val = 5; }
CHANGE(version_kind) { ((Elf64_Verneed *)table(e, DT_VERNEED))->vn_version = 2; }
CHANGE(version_file) { ((Elf64_Verneed *)table(e, DT_VERNEED))->vn_file = 0; }
CHANGE(version_back) { ((Elf64_Verneed *)table(e, DT_VERNEED))->vn_next = 1; }
CHANGE(version_aux) { ((Elf64_Verneed *)table(e, DT_VERNEED))->vn_aux = 0xffffff; }
CHANGE(version_aux_count) { ((Elf64_Verneed *)table(e, DT_VERNEED))->vn_cnt = 0xffff; }

static Elf64_Rela *rela(struct elf *e, int i)
{
	return (Elf64_Rela *)table(e, DT_RELA) + i;
}
CHANGE(rela_irelative) { rela(e, 200)->r_info = ELF64_R_INFO(0, R_X86_64_IRELATIVE); }
CHANGE(rela_copy) { rela(e, 200)->r_info = ELF64_R_INFO(1, R_X86_64_COPY); }
CHANGE(rela_tpoff) { rela(e, 200)->r_info = ELF64_R_INFO(1, R_X86_64_TPOFF64); }
CHANGE(rela_tlsdesc) { rela(e, 200)->r_info = ELF64_R_INFO(1, R_X86_64_TLSDESC); }
CHANGE(rela_32) { rela(e, 200)->r_info = ELF64_R_INFO(1, R_X86_64_32); }
CHANGE(rela_unknown) { rela(e, 200)->r_info = ELF64_R_INFO(1, 0xffff); }
CHANGE(rela_symbol) { rela(e, 200)->r_info = ELF64_R_INFO(576, R_X86_64_64); }
CHANGE(rela_relative_symbol) { rela(e, 0)->r_info = ELF64_R_INFO(3, R_X86_64_RELATIVE); }
CHANGE(rela_text) { rela(e, 0)->r_offset = 0x17600; }
CHANGE(rela_headers) { rela(e, 0)->r_offset = 0; }
CHANGE(rela_outside) { rela(e, 0)->r_offset = 1ull << 40; }
CHANGE(rela_wrap) { rela(e, 0)->r_offset = UINT64_MAX - 3; }
CHANGE(rela_edge) { rela(e, 0)->r_offset = 0x46720 + 0x1850 - 4; }
CHANGE(rela_dynamic) { rela(e, 0)->r_offset = 0x46aa0 - 4; }
CHANGE(rela_count) { dyn(e, DT_RELACOUNT)->d_un.d_val = 1u << 20; }
CHANGE(rela_counted_other) { rela(e, 0)->r_info = ELF64_R_INFO(1, R_X86_64_64); }
CHANGE(rela_size) { dyn(e, DT_RELASZ)->d_un.d_val -= 1; }
CHANGE(rela_entry) { dyn(e, DT_RELAENT)->d_un.d_val = 16; }
CHANGE(rela_table) { dyn(e, DT_RELA)->d_un.d_ptr = 0x46720; }
CHANGE(rela_table_outside) { dyn(e, DT_RELA)->d_un.d_ptr = 1ull << 40; }
CHANGE(rela_table_wrap) { dyn(e, DT_RELASZ)->d_un.d_val = UINT64_MAX / 24 * 24; }
CHANGE(rela_no_size) { dyn(e, DT_RELASZ)->d_tag = DT_BIND_NOW; }
CHANGE(plt_kind) { dyn(e, DT_PLTREL)->d_un.d_val = DT_REL; }
CHANGE(plt_overlap) { dyn(e, DT_JMPREL)->d_un.d_ptr = dyn(e, DT_RELA)->d_un.d_ptr + 153 * 24; dyn(e, DT_PLTRELSZ)->d_un.d_val = 24; }

CHANGE(constants_end) { symbol(e, "_binary_constants_bin_end")->st_value -= 0x20000; }
CHANGE(constants_alone) { symbol(e, "_binary_constants_bin_end")->st_shndx = SHN_UNDEF; }
CHANGE(constants_across) { symbol(e, "_binary_constants_bin_start")->st_value = 0x40000; }
CHANGE(sections_outside) { header(e)->e_shoff = e->n; }
CHANGE(sections_size) { header(e)->e_shentsize = 1; }
CHANGE(section_outside) { ((Elf64_Shdr *)(void *)(e->p + header(e)->e_shoff))[12].sh_size = 1ull << 60; }

#define REFUSED(name, word) {#name, word, name}
static const struct refusal refusals[] = {
	REFUSED(magic, "header"), REFUSED(class32, "machine"), REFUSED(big_endian, "machine"), REFUSED(arm, "machine"),
	REFUSED(abi, "header"), REFUSED(executable, "header"), REFUSED(header_size, "header"),
	REFUSED(no_phdrs, "phdr"), REFUSED(many_phdrs, "phdr"), REFUSED(phdrs_outside, "phdr"),
	REFUSED(phdrs_wrap, "phdr"), REFUSED(phdrs_unmapped, "load"), REFUSED(load_flags, "load"),
	REFUSED(load_unreadable, "load"), REFUSED(load_wx, "wx"), REFUSED(load_wx_data, "wx"),
	REFUSED(load_align, "load"), REFUSED(load_align_odd, "load"), REFUSED(load_misplaced, "load"),
	REFUSED(load_outside, "load"), REFUSED(load_filesz, "load"), REFUSED(load_memsz, "load"),
	REFUSED(load_wrap, "load"), REFUSED(load_bss_readonly, "load"), REFUSED(load_overlap, "load"),
	REFUSED(load_order, "load"), REFUSED(load_first, "load"), REFUSED(load_far, "load"), REFUSED(no_load, "load"),
	REFUSED(interp, "interp"), REFUSED(phdr_type, "phdr"), REFUSED(phdr_itself, "phdr"),
	REFUSED(two_dynamics, "phdr"), REFUSED(no_dynamic, "dynamic"), REFUSED(dynamic_readonly, "dynamic"),
	REFUSED(dynamic_elsewhere, "dynamic"), REFUSED(dynamic_size, "dynamic"), REFUSED(dynamic_endless, "dynamic"),
	REFUSED(no_stack, "stack"), REFUSED(two_stacks, "phdr"), REFUSED(relro_outside, "relro"),
	REFUSED(relro_long, "relro"), REFUSED(eh_frame, "phdr"), REFUSED(tls_size, "tls"), REFUSED(tls_align, "tls"),
	REFUSED(tls_image, "tls"), REFUSED(note_place, "note"), REFUSED(note_long, "note"),
	REFUSED(note_short, "note"), REFUSED(rpath, "rpath"), REFUSED(runpath, "rpath"), REFUSED(audit, "audit"),
	REFUSED(depaudit, "audit"), REFUSED(filter, "filter"), REFUSED(auxiliary, "filter"),
	REFUSED(preinit, "preinit"), REFUSED(textrel, "textrel"), REFUSED(soname, "soname"), REFUSED(rel, "reloc"),
	REFUSED(relr, "relr"), REFUSED(verdef, "tag"), REFUSED(debug, "tag"), REFUSED(taken_tag, "tag"),
	REFUSED(tag_twice, "tag"), REFUSED(flag_textrel, "textrel"), REFUSED(flag_static_tls, "flags"),
	REFUSED(flag_origin, "flags"), REFUSED(flag_initfirst, "flags"), REFUSED(flag_pie, "flags"),
	REFUSED(init_in_data, "init"), REFUSED(init_array_outside, "init"), REFUSED(init_array_long, "init"),
	REFUSED(init_array_odd, "init"), REFUSED(init_array_alone, "init"), REFUSED(fini_in_data, "fini"),
	REFUSED(pltgot, "reloc"), REFUSED(needed_path, "needed"), REFUSED(needed_other, "needed"),
	REFUSED(needed_outside, "needed"), REFUSED(strings_outside, "string"), REFUSED(strings_writable, "string"),
	REFUSED(strings_long, "string"), REFUSED(strings_empty, "string"), REFUSED(strings_open, "string"),
	REFUSED(no_strings, "string"), REFUSED(no_hash, "hash"), REFUSED(hash_outside, "hash"),
	REFUSED(hash_no_buckets, "hash"), REFUSED(hash_many_buckets, "hash"), REFUSED(hash_bloom, "hash"),
	REFUSED(hash_bloom_large, "hash"), REFUSED(hash_shift, "hash"), REFUSED(hash_low_bucket, "hash"),
	REFUSED(hash_high_bucket, "hash"), REFUSED(sysv_hash_circle, "hash"), REFUSED(sysv_hash_index, "hash"),
	REFUSED(no_symbols, "symbol"), REFUSED(symbols_outside, "symbol"), REFUSED(symbols_writable, "symbol"),
	REFUSED(symbol_size, "symbol"), REFUSED(symbol_name, "symbol"), REFUSED(symbol_type, "symbol"),
	REFUSED(symbol_binding, "symbol"), REFUSED(symbol_ifunc, "ifunc"), REFUSED(symbol_ifunc_undefined, "ifunc"),
	REFUSED(symbol_absolute, "symbol"), REFUSED(symbol_common, "symbol"), REFUSED(symbol_outside, "symbol"),
	REFUSED(symbol_tls, "symbol"), REFUSED(symbol_runtime, "export"), REFUSED(version_index, "version"),
	REFUSED(version_alone, "version"), REFUSED(version_outside, "version"), REFUSED(version_table, "version"),
	REFUSED(version_count, "version"), REFUSED(version_kind, "version"), REFUSED(version_file, "version"),
	REFUSED(version_back, "version"), REFUSED(version_aux, "version"), REFUSED(version_aux_count, "version"),
	REFUSED(rela_irelative, "ifunc"), REFUSED(rela_copy, "reloc"), REFUSED(rela_tpoff, "reloc"),
	REFUSED(rela_tlsdesc, "reloc"), REFUSED(rela_32, "reloc"), REFUSED(rela_unknown, "reloc"),
	REFUSED(rela_symbol, "reloc"), REFUSED(rela_relative_symbol, "reloc"), REFUSED(rela_text, "reloc"),
	REFUSED(rela_headers, "reloc"), REFUSED(rela_outside, "reloc"), REFUSED(rela_wrap, "reloc"),
	REFUSED(rela_edge, "reloc"), REFUSED(rela_dynamic, "reloc"), REFUSED(rela_count, "reloc"),
	REFUSED(rela_counted_other, "reloc"), REFUSED(rela_size, "reloc"), REFUSED(rela_entry, "reloc"),
	REFUSED(rela_table, "reloc"), REFUSED(rela_table_outside, "reloc"), REFUSED(rela_table_wrap, "reloc"),
	REFUSED(rela_no_size, "reloc"), REFUSED(plt_kind, "reloc"), REFUSED(plt_overlap, "reloc"),
	REFUSED(constants_end, "constants"), REFUSED(constants_alone, "constants"),
	REFUSED(constants_across, "constants"), REFUSED(sections_outside, "section"),
	REFUSED(sections_size, "section"), REFUSED(section_outside, "section"),
};

static pb_status gate(const uint8_t *p, size_t n, enum pb_elf_stage stage, struct pt2box_error *err)
{
	struct pb_elf_facts f;
	pb_status st = pb_elf_gate(p, n, stage, &f, err);

	pb_elf_facts_deinit(&f);
	return st;
}

static void test_refusals(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		struct elf e = copy_of(original.p, original.n);
		struct pt2box_error err = {.status = PT2BOX_OK};
		char want[40];

		refusals[i].change(&e);
		snprintf(want, sizeof(want), "elf.%s: ", refusals[i].word);
		if (gate(e.p, e.n, PB_ELF_PACKAGED, &err) != PT2BOX_PKG_REJECTED ||
		    strncmp(err.text, want, strlen(want)) != 0)
			fail_msg("%s: want %s, got \"%s\"", refusals[i].name, want, err.text);
		free(e.p);
	}
}

/* ---- what passes ---- */

static const char *const fixtures[] = {"alias",	  "arrayref", "attn",	 "bert",   "bf16",	"blobconst", "cond",
				       "convs",	  "customop", "deflated", "dtypes", "extconst", "f16",	     "f64mm",
				       "first64", "gpt2",     "inplace", "kitchen", "llama",	"lstm",	     "mlp",
				       "mmapconst", "mutbuf",  "noneint", "nonzero", "omp2",	"resnet18",  "rtfold",
				       "sorts",	  "strided",  "torch29", "twomodels", "unet",	"vit",	     "whisper",
				       "zerod"};

/* Every fixture passes, as it came and patched; patched it is the same but for what the patch is for. */
static void test_fixtures_pass(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(fixtures) / sizeof(fixtures[0]); i++) {
		struct pt2box_error err = {.status = PT2BOX_OK};
		struct pb_elf_facts before, after;
		struct elf e = {NULL, 0};

		e.p = fixture_file(fixtures[i], ".so", &e.n);
		assert_non_null(e.p);
		if (pb_elf_gate(e.p, e.n, PB_ELF_PACKAGED, &before, &err))
			fail_msg("%s: %s", fixtures[i], err.text);
		assert_int_not_equal(PT2BOX_OK, gate(e.p, e.n, PB_ELF_PATCHED, &err));
		pb_elf_patch(e.p, e.n);
		if (pb_elf_gate(e.p, e.n, PB_ELF_PATCHED, &after, &err))
			fail_msg("%s, patched: %s", fixtures[i], err.text);
		assert_int_equal(before.n_imports, after.n_imports);
		assert_int_equal(before.constants_offset, after.constants_offset);
		assert_int_equal(3, before.init_array_count);
		assert_int_equal(0, after.init_array_count);
		assert_int_equal(0, after.init_addr);
		pb_elf_facts_deinit(&before);
		pb_elf_facts_deinit(&after);
		free(e.p);
	}
}

static void test_facts(void **state)
{
	struct pb_elf_facts f;

	(void)state;
	assert_int_equal(PT2BOX_OK, pb_elf_gate(original.p, original.n, PB_ELF_PACKAGED, &f, NULL));
	assert_int_equal(0x16000, f.init_addr);
	assert_int_equal(0x46720, f.init_array_addr);
	assert_int_equal(3, f.init_array_count);
	assert_int_equal(5, f.n_needed);
	assert_string_equal("libtorch_cpu.so", f.needed[0]);
	assert_int_equal(0x46f80, f.constants_offset);
	assert_int_equal(76864, f.constants_bytes);
	assert_false(f.constants_writable);
	assert_int_equal(original.n, f.image_end);
	pb_elf_facts_deinit(&f);
	assert_null(f.imports);
}

/* A buffer that the model changes is in a writable segment. */
static void test_writable_constants(void **state)
{
	struct pb_elf_facts f;
	size_t n;
	uint8_t *p = fixture_file("mutbuf", ".so", &n);

	(void)state;
	assert_int_equal(PT2BOX_OK, pb_elf_gate(p, n, PB_ELF_PACKAGED, &f, NULL));
	assert_true(f.constants_writable);
	assert_int_equal(192, f.constants_bytes);
	pb_elf_facts_deinit(&f);
	free(p);
}

/* The patch: no executable stack, three tags renamed in place, nothing else. */
static void test_patch(void **state)
{
	struct elf e = copy_of(original.p, original.n);
	size_t changed = 0;

	(void)state;
	pb_elf_patch(e.p, e.n);
	assert_int_equal(PF_R | PF_W, segment(&e, PT_GNU_STACK, 0)->p_flags);
	assert_null(dyn(&e, DT_INIT));
	assert_null(dyn(&e, DT_INIT_ARRAY));
	assert_null(dyn(&e, DT_INIT_ARRAYSZ));
	assert_int_equal(0x16000, dyn(&e, 0x6e00000c)->d_un.d_ptr);
	assert_non_null(dyn(&e, DT_VERSYM)); /* the section goes on after them */
	for (size_t i = 0; i < e.n; i++)
		changed += e.p[i] != original.p[i];
	assert_int_equal(1 + 3, changed);
	free(e.p);
}

/* Linked without --as-needed: libraries that nothing is used of are taken out. */
static void test_surplus_libraries(void **state)
{
	struct elf e = copy_of(original.p, original.n);
	struct pt2box_error err;
	Elf64_Dyn *d = dyn(&e, DT_FINI);
	struct pb_elf_facts f;

	(void)state;
	memcpy((char *)table(&e, DT_STRTAB) + symbol(&e, "AOTInductorModelDelete")->st_name, "libc10.so", 10);
	d->d_tag = DT_NEEDED;
	d->d_un.d_val = symbol(&e, "libc10.so")->st_name;
	assert_int_equal(PT2BOX_OK, pb_elf_gate(e.p, e.n, PB_ELF_PACKAGED, &f, NULL));
	assert_int_equal(5, f.n_needed);
	pb_elf_facts_deinit(&f);
	pb_elf_patch(e.p, e.n);
	assert_int_equal(0x6e000001, d->d_tag);
	assert_int_equal(PT2BOX_OK, gate(e.p, e.n, PB_ELF_PATCHED, NULL));
	/* Not patched, they are not accepted: the template would look for a file. */
	d->d_tag = DT_NEEDED;
	assert_int_equal(PT2BOX_PKG_REJECTED, gate(e.p, e.n, PB_ELF_PATCHED, &err));
	assert_memory_equal("elf.needed: ", err.text, 12);
	free(e.p);
}

/* ---- sweeps ---- */

static void test_cut(void **state)
{
	(void)state;
	for (size_t n = 0; n < original.n; n += n < 1000 ? 1 : 1009) {
		struct elf e = copy_of(original.p, n);

		assert_int_equal(PT2BOX_PKG_REJECTED, gate(e.p, e.n, PB_ELF_PACKAGED, NULL));
		free(e.p);
	}
}

/* Whatever passes can be patched and passes then too. */
static void flip(struct elf *e, size_t at, uint8_t mask)
{
	e->p[at] ^= mask;
	if (gate(e->p, e->n, PB_ELF_PACKAGED, NULL) == PT2BOX_OK) {
		struct elf c = copy_of(e->p, e->n);

		pb_elf_patch(c.p, c.n);
		assert_int_equal(PT2BOX_OK, gate(c.p, c.n, PB_ELF_PATCHED, NULL));
		free(c.p);
	}
	e->p[at] ^= mask;
}

static void test_flips(void **state)
{
	static const uint8_t masks[] = {0x01, 0x80, 0xff};
	struct elf e = copy_of(original.p, original.n);
	const size_t step = CHECK_SANITIZED ? 37 : 7;
	const Elf64_Phdr *d = segment(&e, PT_DYNAMIC, 0);

	(void)state;
	for (size_t m = 0; m < sizeof(masks); m++) {
		for (size_t i = 0; i < 64 + 11 * 56; i++)
			flip(&e, i, masks[m]);
		for (size_t i = d->p_offset; i < d->p_offset + d->p_filesz; i++)
			flip(&e, i, masks[m]);
		for (size_t i = 0x2a8 + m; i < 0x45c8; i += step) /* hash, symbols */
			flip(&e, i, masks[m]);
		for (size_t i = 0x11a08 + m; i < 0x15ee8; i += step) /* versions, relocations */
			flip(&e, i, masks[m]);
		for (size_t i = header(&e)->e_shoff + m; i < e.n; i += step)
			flip(&e, i, masks[m]);
	}
	free(e.p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refusals),	  cmocka_unit_test(test_fixtures_pass),
		cmocka_unit_test(test_facts),		  cmocka_unit_test(test_writable_constants),
		cmocka_unit_test(test_patch),		  cmocka_unit_test(test_surplus_libraries),
		cmocka_unit_test(test_cut),		  cmocka_unit_test(test_flips),
	};

	return cmocka_run_group_tests_name("elf_gate", tests, load_original, free_original);
}
