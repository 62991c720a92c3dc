/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ELF gate's second half: what the dynamic section points to. The dynamic linker trusts all of it: it follows hash
 * chains, indexes versions and writes relocations without looking whether they are inside anything. See elf_image.h.
 */
#include "confine/elf_image.h"

#include "ipc/checked.h"

#define NO_WRITE PF_W, 0

/* A table of @count entries of @size bytes where no relocation can reach. */
static const uint8_t *table(const struct pb_elf_image *im, uint64_t vaddr, uint64_t count, uint64_t size)
{
	uint64_t len;

	return pb_mul_u64(count, size, &len) ? pb_elf_at(im, vaddr, len, NO_WRITE) : NULL;
}

/* ---- strings ---- */

bool pb_elf_check_strings(struct pb_elf_image *im)
{
	uint64_t size = im->value[PB_D_STRSZ];
	const uint8_t *p;

	if (!im->has[PB_D_STRTAB] || !im->has[PB_D_STRSZ] || size == 0)
		return pb_elf_refuse(im, "string", "no string table");
	p = table(im, im->value[PB_D_STRTAB], size, 1);
	if (!p)
		return pb_elf_refuse(im, "string", "the string table is not inside a read-only segment");
	if (p[0] || p[size - 1])
		return pb_elf_refuse(im, "string", "the string table does not begin and end with a zero");
	im->strings = (const char *)p;
	return true;
}

/* ---- hash tables: they alone say how many symbols there are ---- */

static bool gnu_hash(struct pb_elf_image *im, uint32_t *ret_n)
{
	uint64_t at = im->value[PB_D_GNU_HASH];
	const uint8_t *h = table(im, at, 4, 4), *buckets, *chain;
	uint32_t n_buckets, first, bloom, shift, max = 0;
	uint64_t chain_at;

	if (!h)
		return pb_elf_refuse(im, "hash", "the GNU hash table is not inside a read-only segment");
	n_buckets = pb_elf_u32(h);
	first = pb_elf_u32(h + 4);
	bloom = pb_elf_u32(h + 8);
	shift = pb_elf_u32(h + 12);
	if (n_buckets == 0 || first == 0 || bloom == 0 || (bloom & (bloom - 1)) || shift > 63)
		return pb_elf_refuse(im, "hash", "the GNU hash table has an impossible header");
	if (!table(im, at + 16, bloom, 8))
		return pb_elf_refuse(im, "hash", "the GNU hash table's filter leaves its segment");
	at += 16 + (uint64_t)bloom * 8;
	buckets = table(im, at, n_buckets, 4);
	if (!buckets)
		return pb_elf_refuse(im, "hash", "the GNU hash table's buckets leave their segment");
	for (uint32_t i = 0; i < n_buckets; i++) {
		uint32_t b = pb_elf_u32(buckets + (uint64_t)i * 4);

		if (b && b < first)
			return pb_elf_refuse(im, "hash", "a bucket points before the first hashed symbol");
		max = b > max ? b : max;
	}
	*ret_n = first;
	if (max == 0)
		return true;
	/* Every chain that begins before the last one ends at or before its end: looking at that one is enough. */
	chain_at = at + (uint64_t)n_buckets * 4;
	for (uint32_t i = max;; i++) {
		chain = table(im, chain_at + (uint64_t)(i - first) * 4, 1, 4);
		if (!chain || i == UINT32_MAX)
			return pb_elf_refuse(im, "hash", "the GNU hash table's chains leave their segment");
		if (pb_elf_u32(chain) & 1) {
			*ret_n = i + 1;
			return true;
		}
	}
}

static bool sysv_hash(struct pb_elf_image *im, uint32_t *ret_n)
{
	uint64_t at = im->value[PB_D_HASH], steps = 0;
	const uint8_t *h = table(im, at, 2, 4), *words;
	uint32_t n_buckets, n;

	if (!h)
		return pb_elf_refuse(im, "hash", "the hash table is not inside a read-only segment");
	n_buckets = pb_elf_u32(h);
	n = pb_elf_u32(h + 4);
	words = table(im, at + 8, (uint64_t)n_buckets + n, 4);
	if (n_buckets == 0 || n == 0 || !words)
		return pb_elf_refuse(im, "hash", "the hash table leaves its segment or is empty");
	for (uint64_t i = 0; i < (uint64_t)n_buckets + n; i++)
		if (pb_elf_u32(words + i * 4) >= n)
			return pb_elf_refuse(im, "hash", "the hash table names a symbol that is not there");
	for (uint32_t i = 0; i < n_buckets; i++)
		for (uint32_t s = pb_elf_u32(words + (uint64_t)i * 4); s;
		     s = pb_elf_u32(words + ((uint64_t)n_buckets + s) * 4))
			if (++steps > n)
				return pb_elf_refuse(im, "hash", "the hash table's chains run in a circle");
	*ret_n = n;
	return true;
}

bool pb_elf_check_hashes(struct pb_elf_image *im)
{
	uint32_t gnu = 0, sysv = 0;

	if (!im->has[PB_D_GNU_HASH] && !im->has[PB_D_HASH])
		return pb_elf_refuse(im, "hash", "no hash table");
	if (im->has[PB_D_GNU_HASH] && !gnu_hash(im, &gnu))
		return false;
	if (im->has[PB_D_HASH] && !sysv_hash(im, &sysv))
		return false;
	if (gnu && sysv && sysv < gnu)
		return pb_elf_refuse(im, "hash", "the two hash tables disagree");
	im->n_symbols = sysv ? sysv : gnu;
	return true;
}

/* ---- symbols ---- */

static bool starts_with(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

static bool check_defined(const struct pb_elf_image *im, const Elf64_Sym *s, const char *name)
{
	const struct pb_elf_segment *last;

	if (s->st_shndx >= SHN_LORESERVE) /* absolute or common: GNU ld makes neither in a shared object */
		return pb_elf_refuse(im, "symbol", "%.80s is in no section", name);
	if (ELF64_ST_TYPE(s->st_info) == STT_TLS) {
		if (!im->has_tls || !pb_span_fits(s->st_value, s->st_size, im->tls.memsz))
			return pb_elf_refuse(im, "symbol", "%.80s is outside the thread-local memory", name);
		return true;
	}
	/* ld.so never looks there; an address outside would only mislead. _end lies a few bytes after the last segment. */
	last = &im->load[im->n_load - 1];
	if (s->st_value > last->vaddr + last->memsz + PB_ELF_PAGE)
		return pb_elf_refuse(im, "symbol", "%.80s is outside the segments", name);
	/* The runtime's own functions are found first, but a model that brings some means no good. */
	if (starts_with(name, "aoti_torch_"))
		return pb_elf_refuse(im, "export", "%.80s is the runtime's to define", name);
	return true;
}

static bool check_symbol(const struct pb_elf_image *im, uint32_t i)
{
	Elf64_Sym s = pb_elf_symbol(im, i);
	const char *name = pb_elf_string(im, s.st_name);
	unsigned bind = ELF64_ST_BIND(s.st_info);

	if (!name)
		return pb_elf_refuse(im, "symbol", "the name of symbol %u is outside the string table", i);
	switch (ELF64_ST_TYPE(s.st_info)) {
	case STT_NOTYPE:
	case STT_OBJECT:
	case STT_FUNC:
	case STT_SECTION:
	case STT_TLS:
		break;
	case STT_GNU_IFUNC:
		/* Its resolver runs inside dlopen, before the run filter. */
		return pb_elf_refuse(im, "ifunc", "%.80s is chosen by a function that runs while linking", name);
	default:
		return pb_elf_refuse(im, "symbol", "%.80s has type %u", name, ELF64_ST_TYPE(s.st_info));
	}
	if (bind != STB_LOCAL && bind != STB_GLOBAL && bind != STB_WEAK && bind != STB_GNU_UNIQUE)
		return pb_elf_refuse(im, "symbol", "%.80s has binding %u", name, bind);
	return s.st_shndx == SHN_UNDEF || check_defined(im, &s, name);
}

bool pb_elf_check_symbols(struct pb_elf_image *im)
{
	if (!im->has[PB_D_SYMTAB] || im->value[PB_D_SYMENT] != sizeof(Elf64_Sym))
		return pb_elf_refuse(im, "symbol", "no symbol table");
	im->symbols = table(im, im->value[PB_D_SYMTAB], im->n_symbols, sizeof(Elf64_Sym));
	if (!im->symbols)
		return pb_elf_refuse(im, "symbol", "the symbol table is not inside a read-only segment");
	for (uint32_t i = 1; i < im->n_symbols; i++) /* 0 is the null symbol */
		if (!check_symbol(im, i))
			return false;
	return true;
}

/* ---- versions: ld.so indexes an array with them, sized by the greatest in VERNEED ---- */

static bool is_needed(const struct pb_elf_image *im, const char *file)
{
	for (uint32_t i = 0; i < im->n_needed; i++)
		if (strcmp(pb_elf_string(im, im->needed[i]), file) == 0)
			return true;
	return false;
}

/* The versions wanted of one library: a chain that only goes forward. */
static bool check_aux(const struct pb_elf_image *im, uint64_t at, uint32_t count, uint32_t *max)
{
	for (uint32_t i = 0; i < count; i++) {
		const uint8_t *p = table(im, at, 1, sizeof(Elf64_Vernaux));
		Elf64_Vernaux a;

		if (!p)
			return pb_elf_refuse(im, "version", "a version entry leaves its segment");
		memcpy(&a, p, sizeof(a));
		if (!pb_elf_string(im, a.vna_name) || (a.vna_other & 0x7fff) < 2)
			return pb_elf_refuse(im, "version", "a version entry is malformed");
		if ((i + 1 < count) != (a.vna_next != 0) || (a.vna_next && a.vna_next < sizeof(a)))
			return pb_elf_refuse(im, "version", "a chain of versions is broken");
		*max = (a.vna_other & 0x7fffu) > *max ? a.vna_other & 0x7fffu : *max;
		at += a.vna_next;
	}
	return true;
}

static bool check_needs(const struct pb_elf_image *im, uint32_t *max)
{
	uint64_t at = im->value[PB_D_VERNEED], count = im->value[PB_D_VERNEEDNUM];

	for (uint64_t i = 0; i < count; i++) {
		const uint8_t *p = table(im, at, 1, sizeof(Elf64_Verneed));
		const char *file;
		Elf64_Verneed v;

		if (!p)
			return pb_elf_refuse(im, "version", "a needed version leaves its segment");
		memcpy(&v, p, sizeof(v));
		file = pb_elf_string(im, v.vn_file);
		if (v.vn_version != VER_NEED_CURRENT || !file || !is_needed(im, file) || v.vn_cnt == 0 ||
		    v.vn_aux < sizeof(v))
			return pb_elf_refuse(im, "version", "a needed version is malformed or of no needed library");
		if ((i + 1 < count) != (v.vn_next != 0) || (v.vn_next && v.vn_next < sizeof(v)))
			return pb_elf_refuse(im, "version", "the chain of needed versions is broken");
		if (!check_aux(im, at + v.vn_aux, v.vn_cnt, max))
			return false;
		at += v.vn_next;
	}
	return true;
}

bool pb_elf_check_versions(const struct pb_elf_image *im)
{
	const uint8_t *versions;
	uint32_t max = 0;

	if (!im->has[PB_D_VERSYM] && !im->has[PB_D_VERNEED] && !im->has[PB_D_VERNEEDNUM])
		return true;
	if (!im->has[PB_D_VERSYM] || !im->has[PB_D_VERNEED] || im->value[PB_D_VERNEEDNUM] == 0)
		return pb_elf_refuse(im, "version", "the version tables are incomplete");
	if (!check_needs(im, &max))
		return false;
	versions = table(im, im->value[PB_D_VERSYM], im->n_symbols, 2);
	if (!versions)
		return pb_elf_refuse(im, "version", "the version table is not inside a read-only segment");
	for (uint32_t i = 0; i < im->n_symbols; i++)
		if ((pb_elf_u16(versions + (uint64_t)i * 2) & 0x7fffu) > max)
			return pb_elf_refuse(im, "version", "symbol %u has a version that is not there", i);
	return true;
}

/* ---- relocations ---- */

/*
 * The types of real packages, and DTPOFF64, the second half of DTPMOD64 that GNU ld emits for a thread-local variable
 * that others could define. Each writes 8 bytes that ld.so has computed itself. Not here, on purpose: IRELATIVE (runs
 * code), COPY (reads as much of another library as the file says; only executables have it), TPOFF64 (takes from the
 * worker's static thread-local space; needs -ftls-model=initial-exec), TLSDESC, and everything of fewer than 8 bytes.
 */
static bool known_type(uint32_t type)
{
	return type == R_X86_64_RELATIVE || type == R_X86_64_GLOB_DAT || type == R_X86_64_JUMP_SLOT ||
	       type == R_X86_64_64 || type == R_X86_64_DTPMOD64 || type == R_X86_64_DTPOFF64;
}

static bool check_relocation(const struct pb_elf_image *im, const Elf64_Rela *r)
{
	uint32_t type = (uint32_t)ELF64_R_TYPE(r->r_info), sym = (uint32_t)ELF64_R_SYM(r->r_info);

	if (type == R_X86_64_IRELATIVE)
		return pb_elf_refuse(im, "ifunc", "a relocation would run code while linking");
	if (!known_type(type))
		return pb_elf_refuse(im, "reloc", "type %u is not one that packages have", type);
	if (sym >= im->n_symbols)
		return pb_elf_refuse(im, "reloc", "symbol %u is not there", sym);
	if (type == R_X86_64_RELATIVE && sym)
		return pb_elf_refuse(im, "reloc", "a relative relocation names a symbol");
	if (!pb_elf_in_memory(im, r->r_offset, 8, PF_W, PF_W))
		return pb_elf_refuse(im, "reloc", "offset 0x%llx is not in a writable segment",
				     (unsigned long long)r->r_offset);
	/* ld.so reads the dynamic section again after it has relocated. */
	if (r->r_offset < im->dynamic.vaddr + im->dynamic.memsz && r->r_offset + 8 > im->dynamic.vaddr)
		return pb_elf_refuse(im, "reloc", "a relocation would change the dynamic section");
	if ((type == R_X86_64_DTPMOD64 || type == R_X86_64_DTPOFF64) && !im->has_tls && sym == 0)
		return pb_elf_refuse(im, "reloc", "a thread-local relocation without thread-local memory");
	return true;
}

static bool check_table(const struct pb_elf_image *im, uint64_t at, uint64_t size, uint64_t n_relative)
{
	uint64_t n = size / sizeof(Elf64_Rela);
	const uint8_t *p = table(im, at, size, 1);

	if (!p || size % sizeof(Elf64_Rela))
		return pb_elf_refuse(im, "reloc", "a relocation table is not inside a read-only segment");
	if (n_relative > n)
		return pb_elf_refuse(im, "reloc", "more relative relocations than relocations");
	for (uint64_t i = 0; i < n; i++) {
		Elf64_Rela r;

		memcpy(&r, p + i * sizeof(r), sizeof(r));
		/* ld.so does not look at the type of the first RELACOUNT. */
		if (i < n_relative && ELF64_R_TYPE(r.r_info) != R_X86_64_RELATIVE)
			return pb_elf_refuse(im, "reloc", "relocation %llu is counted as relative and is not",
					     (unsigned long long)i);
		if (!check_relocation(im, &r))
			return false;
	}
	return true;
}

bool pb_elf_check_relocations(const struct pb_elf_image *im)
{
	uint64_t rela = im->value[PB_D_RELA], rela_size = im->value[PB_D_RELASZ];
	uint64_t plt = im->value[PB_D_JMPREL], plt_size = im->value[PB_D_PLTRELSZ];

	if (im->has[PB_D_RELA] != im->has[PB_D_RELASZ] || im->has[PB_D_JMPREL] != im->has[PB_D_PLTRELSZ] ||
	    (im->has[PB_D_RELACOUNT] && !im->has[PB_D_RELA]))
		return pb_elf_refuse(im, "reloc", "the relocation tables are incomplete");
	if (im->has[PB_D_RELA] && im->value[PB_D_RELAENT] != sizeof(Elf64_Rela))
		return pb_elf_refuse(im, "reloc", "relocations of %llu bytes",
				     (unsigned long long)im->value[PB_D_RELAENT]);
	if (im->has[PB_D_JMPREL] && im->value[PB_D_PLTREL] != DT_RELA)
		return pb_elf_refuse(im, "reloc", "the PLT's relocations are of another kind");
	if (im->has[PB_D_RELA] && !check_table(im, rela, rela_size, im->value[PB_D_RELACOUNT]))
		return false;
	if (im->has[PB_D_JMPREL] && !check_table(im, plt, plt_size, 0))
		return false;
	/* Both are in segments, so these sums do not wrap. */
	if (im->has[PB_D_RELA] && im->has[PB_D_JMPREL] && rela < plt + plt_size && plt < rela + rela_size)
		return pb_elf_refuse(im, "reloc", "the relocation tables overlap");
	return true;
}
