/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ELF gate's first half: header, segments, dynamic section; facts and patch. See elf_gate.h for what is refused.
 *
 * The rule behind the details (glibc 2.31 to 2.41, elf/dl-load.c, elf/get-dynamic-info.h, elf/dl-version.c,
 * sysdeps/x86_64/dl-machine.h): the dynamic linker must be able to do its work without an access outside what the file
 * maps, without a write to anything that this gate has looked at, and without a call into the file.
 */
#include "confine/elf_gate.h"

#include <stdio.h>
#include <stdlib.h>

#include "confine/elf_image.h"
#include "confine/test_layers.h"
#include "ipc/checked.h"

#define PHDRS_MAX 32
#define ALIGN_MAX (2ull << 20)
#define TLS_MAX (1ull << 20)
#define BSS_MAX (256ull << 20)	    /* zeroed memory that the file does not back */
#define GAPS_MAX (64ull << 20)	    /* address space between segments */
#define FUNCTIONS_MAX 4096	    /* constructors; real: 3 */
#define NEEDED_TEXT "libtorch_cpu.so, libstdc++.so.6, libgcc_s.so.1, libm.so.6, libgomp.so.1, libc.so.6"

/*
 * A dynamic tag that is taken out keeps its place and value under this number. DT_NULL would end the section there. The
 * range begins at DT_LOOS and is far below the version, value and address tags (0x6ffffd00 on): elf_get_dynamic_info()
 * files tags by range and steps over one that is in none, and so do other linkers.
 */
#define TAKEN(tag) (0x6e000000ull | (tag))

bool pb_elf_refuse(const struct pb_elf_image *im, const char *word, const char *fmt, ...)
{
	char text[300], safe[300];
	va_list ap;

	if (pb_test_layer_off("gate") && strstr(" ifunc needed rpath wx interp ", word))
		return true; /* not what our own reading of the file rests on */
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	pb_text_escape(safe, sizeof(safe), text, strlen(text)); /* it may name a symbol */
	pb_error_set(im->err, PT2BOX_PKG_REJECTED, "elf.%s: %s", word, safe);
	return false;
}

static bool flags_fit(const struct pb_elf_segment *s, uint32_t mask, uint32_t want)
{
	return (s->flags & mask) == want;
}

const uint8_t *pb_elf_at(const struct pb_elf_image *im, uint64_t vaddr, uint64_t len, uint32_t mask, uint32_t want)
{
	for (uint32_t i = 0; i < im->n_load; i++) {
		const struct pb_elf_segment *s = &im->load[i];

		if (vaddr >= s->vaddr && pb_span_fits(vaddr - s->vaddr, len, s->filesz))
			return flags_fit(s, mask, want) ? im->file + s->offset + (vaddr - s->vaddr) : NULL;
	}
	return NULL;
}

bool pb_elf_in_memory(const struct pb_elf_image *im, uint64_t vaddr, uint64_t len, uint32_t mask, uint32_t want)
{
	for (uint32_t i = 0; i < im->n_load; i++) {
		const struct pb_elf_segment *s = &im->load[i];

		if (vaddr >= s->vaddr && pb_span_fits(vaddr - s->vaddr, len, s->memsz))
			return flags_fit(s, mask, want);
	}
	return false;
}

const char *pb_elf_string(const struct pb_elf_image *im, uint64_t offset)
{
	return offset < im->value[PB_D_STRSZ] ? im->strings + offset : NULL; /* the last byte is a zero */
}

/* ---- header ---- */

static bool check_header(struct pb_elf_image *im)
{
	const Elf64_Ehdr *h = &im->eh;

	if (im->bytes < sizeof(*h))
		return pb_elf_refuse(im, "header", "the file is too short");
	memcpy(&im->eh, im->file, sizeof(*h));
	if (memcmp(h->e_ident, ELFMAG, SELFMAG) != 0)
		return pb_elf_refuse(im, "header", "not an ELF file");
	if (h->e_machine != EM_X86_64 || h->e_ident[EI_CLASS] != ELFCLASS64 || h->e_ident[EI_DATA] != ELFDATA2LSB)
		return pb_elf_refuse(im, "machine", "not code for x86-64 (machine %u)", h->e_machine);
	if (h->e_ident[EI_VERSION] != EV_CURRENT || h->e_version != EV_CURRENT ||
	    (h->e_ident[EI_OSABI] != ELFOSABI_NONE && h->e_ident[EI_OSABI] != ELFOSABI_GNU) ||
	    h->e_ident[EI_ABIVERSION] != 0)
		return pb_elf_refuse(im, "header", "an unknown version or ABI");
	if (h->e_type != ET_DYN)
		return pb_elf_refuse(im, "header", "not a shared object (type %u)", h->e_type);
	if (h->e_ehsize != sizeof(*h) || h->e_phentsize != sizeof(Elf64_Phdr))
		return pb_elf_refuse(im, "header", "headers of an unknown size");
	if (h->e_phnum == 0 || h->e_phnum > PHDRS_MAX || h->e_phoff % 8 ||
	    !pb_span_fits(h->e_phoff, h->e_phnum * sizeof(Elf64_Phdr), im->bytes))
		return pb_elf_refuse(im, "phdr", "the program headers are outside the file, or too many");
	return true;
}

static Elf64_Phdr phdr(const struct pb_elf_image *im, uint32_t i)
{
	Elf64_Phdr p;

	memcpy(&p, im->file + im->eh.e_phoff + i * sizeof(p), sizeof(p));
	return p;
}

/* ---- segments ---- */

static uint64_t page_up(uint64_t v)
{
	return (v + PB_ELF_PAGE - 1) & ~(uint64_t)(PB_ELF_PAGE - 1);
}

/* The rules of one PT_LOAD by itself. */
static bool load_is_sound(const struct pb_elf_image *im, const Elf64_Phdr *p)
{
	uint64_t end;

	if (p->p_flags & ~(uint32_t)(PF_R | PF_W | PF_X) || !(p->p_flags & PF_R))
		return pb_elf_refuse(im, "load", "a segment has flags 0x%x", p->p_flags);
	if ((p->p_flags & PF_W) && (p->p_flags & PF_X))
		return pb_elf_refuse(im, "wx", "a segment is writable and executable");
	if (p->p_align < PB_ELF_PAGE || p->p_align > ALIGN_MAX || (p->p_align & (p->p_align - 1)) ||
	    ((p->p_vaddr - p->p_offset) & (p->p_align - 1)))
		return pb_elf_refuse(im, "load", "a segment is not aligned");
	if (p->p_filesz > p->p_memsz || p->p_memsz == 0 || !pb_span_fits(p->p_offset, p->p_filesz, im->bytes))
		return pb_elf_refuse(im, "load", "a segment is outside the file");
	/* ld.so makes the page writable to zero its rest: only for segments that are. */
	if (p->p_memsz != p->p_filesz && !(p->p_flags & PF_W))
		return pb_elf_refuse(im, "load", "a read-only segment is larger in memory than in the file");
	if (!pb_add_u64(p->p_vaddr, p->p_memsz, &end) ||
	    end > im->bytes + BSS_MAX + GAPS_MAX || p->p_memsz - p->p_filesz > BSS_MAX)
		return pb_elf_refuse(im, "load", "a segment takes too much memory");
	return true;
}

static bool add_load(struct pb_elf_image *im, const Elf64_Phdr *p)
{
	const struct pb_elf_segment *last = im->n_load ? &im->load[im->n_load - 1] : NULL;

	if (im->n_load == PB_ELF_LOADS_MAX)
		return pb_elf_refuse(im, "load", "more than %d segments", PB_ELF_LOADS_MAX);
	if (!load_is_sound(im, p))
		return false;
	/* The first one has the headers and begins at 0, as every linker makes it: addresses are offsets from it. */
	if (!last && (p->p_offset || p->p_vaddr || (p->p_flags & PF_W)))
		return pb_elf_refuse(im, "load", "the first segment does not begin with the file's header");
	/* Pages of one must not be pages of another: the later mapping would replace the earlier, with its own rights. */
	if (last && (p->p_vaddr & ~(uint64_t)(PB_ELF_PAGE - 1)) < page_up(last->vaddr + last->memsz))
		return pb_elf_refuse(im, "load", "segments overlap or are not in order");
	im->load[im->n_load++] =
		(struct pb_elf_segment){p->p_vaddr, p->p_memsz, p->p_offset, p->p_filesz, p->p_flags};
	return true;
}

static bool once(const struct pb_elf_image *im, bool *seen, const char *what)
{
	if (*seen)
		return pb_elf_refuse(im, "phdr", "more than one %s", what);
	*seen = true;
	return true;
}

/* The segment's bytes lie where its addresses say: ld.so looks at one or the other. */
static const uint8_t *consistent(const struct pb_elf_image *im, const Elf64_Phdr *p, uint32_t mask, uint32_t want)
{
	const uint8_t *at = pb_elf_at(im, p->p_vaddr, p->p_filesz, mask, want);

	return at && (uint64_t)(at - im->file) == p->p_offset ? at : NULL;
}

static bool check_notes(const struct pb_elf_image *im, const Elf64_Phdr *p)
{
	const uint8_t *at = consistent(im, p, PF_W, 0);
	uint64_t align = p->p_align == 8 ? 8 : 4, left = p->p_filesz;

	if (!at || p->p_filesz != p->p_memsz)
		return pb_elf_refuse(im, "note", "notes are not inside a read-only segment");
	while (left) {
		uint64_t name, desc, total;

		if (left < sizeof(Elf64_Nhdr) || !pb_align_u64(pb_elf_u32(at), 4, &name) ||
		    !pb_align_u64(sizeof(Elf64_Nhdr) + name, align, &name) ||
		    !pb_align_u64(pb_elf_u32(at + 4), align, &desc))
			return pb_elf_refuse(im, "note", "a note is cut short");
		total = name + desc;
		if (total > left)
			return pb_elf_refuse(im, "note", "a note is longer than its segment");
		at += total;
		left -= total;
	}
	return true;
}

static bool check_tls(struct pb_elf_image *im, const Elf64_Phdr *p)
{
	if (!once(im, &im->has_tls, "PT_TLS"))
		return false;
	if (p->p_filesz > p->p_memsz || p->p_memsz > TLS_MAX || p->p_align > PB_ELF_PAGE ||
	    (p->p_align & (p->p_align - 1)))
		return pb_elf_refuse(im, "tls", "thread-local memory of an impossible size");
	if (p->p_filesz && !pb_elf_at(im, p->p_vaddr, p->p_filesz, 0, 0))
		return pb_elf_refuse(im, "tls", "the thread-local image is not inside a segment");
	im->tls = (struct pb_elf_segment){p->p_vaddr, p->p_memsz, p->p_offset, p->p_filesz, p->p_flags};
	return true;
}

static bool check_relro(struct pb_elf_image *im, const Elf64_Phdr *p)
{
	if (!once(im, &im->has_relro, "PT_GNU_RELRO"))
		return false;
	for (uint32_t i = 0; i < im->n_load; i++) {
		const struct pb_elf_segment *s = &im->load[i];

		if ((s->flags & PF_W) && p->p_vaddr >= s->vaddr &&
		    pb_span_fits(p->p_vaddr - s->vaddr, p->p_memsz, page_up(s->vaddr + s->memsz) - s->vaddr))
			return true;
	}
	return pb_elf_refuse(im, "relro", "the part to protect is not inside a writable segment");
}

static bool check_dynamic_segment(struct pb_elf_image *im, const Elf64_Phdr *p)
{
	if (!once(im, &im->has_dynamic, "PT_DYNAMIC"))
		return false;
	/* Writable: ld.so adds the load address to its values in place. */
	if (p->p_filesz == 0 || p->p_filesz != p->p_memsz || p->p_filesz % sizeof(Elf64_Dyn) || p->p_vaddr % 8 ||
	    !consistent(im, p, PF_W, PF_W))
		return pb_elf_refuse(im, "dynamic", "the dynamic section is not inside a writable segment");
	im->dynamic = (struct pb_elf_segment){p->p_vaddr, p->p_memsz, p->p_offset, p->p_filesz, p->p_flags};
	return true;
}

static bool check_other(struct pb_elf_image *im, const Elf64_Phdr *p)
{
	switch (p->p_type) {
	case PT_NULL:
	case PT_LOAD:
		return true;
	case PT_DYNAMIC:
		return check_dynamic_segment(im, p);
	case PT_INTERP:
		return pb_elf_refuse(im, "interp", "a model does not choose its dynamic linker");
	case PT_NOTE:
	case PT_GNU_PROPERTY:
		return check_notes(im, p);
	case PT_PHDR:
		if (p->p_offset != im->eh.e_phoff || p->p_vaddr != p->p_offset ||
		    p->p_filesz != im->eh.e_phnum * sizeof(Elf64_Phdr))
			return pb_elf_refuse(im, "phdr", "PT_PHDR is not where the header says");
		return true;
	case PT_TLS:
		return check_tls(im, p);
	case PT_GNU_EH_FRAME:
	case 0x6474e554: /* PT_GNU_SFRAME of newer binutils: for unwinders, as the former */
		if (!consistent(im, p, PF_W, 0))
			return pb_elf_refuse(im, "phdr", "the unwind table is not inside a read-only segment");
		return true;
	case PT_GNU_STACK:
		if (!once(im, &im->has_stack, "PT_GNU_STACK"))
			return false;
		if (im->stage == PB_ELF_PATCHED && (p->p_flags & PF_X))
			return pb_elf_refuse(im, "stack", "it asks for an executable stack");
		return true;
	case PT_GNU_RELRO:
		return check_relro(im, p);
	default:
		return pb_elf_refuse(im, "phdr", "a program header of type 0x%x", p->p_type);
	}
}

static bool check_segments(struct pb_elf_image *im)
{
	uint64_t gaps = 0;

	for (uint32_t i = 0; i < im->eh.e_phnum; i++) {
		Elf64_Phdr p = phdr(im, i);

		if (p.p_type == PT_LOAD && !add_load(im, &p))
			return false;
	}
	if (im->n_load == 0 || im->load[0].filesz < im->eh.e_phoff + im->eh.e_phnum * sizeof(Elf64_Phdr))
		return pb_elf_refuse(im, "load", "no segment has the program headers");
	for (uint32_t i = 1; i < im->n_load; i++)
		gaps += im->load[i].vaddr - (im->load[i - 1].vaddr + im->load[i - 1].memsz);
	if (gaps > GAPS_MAX)
		return pb_elf_refuse(im, "load", "the segments are too far apart");
	for (uint32_t i = 0; i < im->eh.e_phnum; i++) {
		Elf64_Phdr p = phdr(im, i);

		if (!check_other(im, &p))
			return false;
	}
	if (!im->has_dynamic)
		return pb_elf_refuse(im, "dynamic", "no dynamic section");
	/* Without this header the dynamic linker takes the default of old times: an executable stack. */
	if (!im->has_stack)
		return pb_elf_refuse(im, "stack", "it does not say which stack it wants");
	return true;
}

/* ---- dynamic section ---- */

struct tag_row {
	uint64_t tag;
	int slot;		/* enum pb_elf_slot; -1: refused; -2: also, but taken out of a PB_ELF_EXTENSION */
	const char *word, *why; /* of the refusal */
};

static const struct tag_row tags[] = {
	{DT_NEEDED, PB_D_NEEDED, NULL, NULL},
	{DT_PLTRELSZ, PB_D_PLTRELSZ, NULL, NULL},
	{DT_PLTGOT, PB_D_PLTGOT, NULL, NULL},
	{DT_HASH, PB_D_HASH, NULL, NULL},
	{DT_STRTAB, PB_D_STRTAB, NULL, NULL},
	{DT_SYMTAB, PB_D_SYMTAB, NULL, NULL},
	{DT_RELA, PB_D_RELA, NULL, NULL},
	{DT_RELASZ, PB_D_RELASZ, NULL, NULL},
	{DT_RELAENT, PB_D_RELAENT, NULL, NULL},
	{DT_STRSZ, PB_D_STRSZ, NULL, NULL},
	{DT_SYMENT, PB_D_SYMENT, NULL, NULL},
	{DT_INIT, PB_D_INIT, NULL, NULL},
	{DT_FINI, PB_D_FINI, NULL, NULL},
	{DT_SYMBOLIC, PB_D_SYMBOLIC, NULL, NULL},
	{DT_PLTREL, PB_D_PLTREL, NULL, NULL},
	{DT_JMPREL, PB_D_JMPREL, NULL, NULL},
	{DT_BIND_NOW, PB_D_BIND_NOW, NULL, NULL},
	{DT_INIT_ARRAY, PB_D_INIT_ARRAY, NULL, NULL},
	{DT_FINI_ARRAY, PB_D_FINI_ARRAY, NULL, NULL},
	{DT_INIT_ARRAYSZ, PB_D_INIT_ARRAYSZ, NULL, NULL},
	{DT_FINI_ARRAYSZ, PB_D_FINI_ARRAYSZ, NULL, NULL},
	{DT_FLAGS, PB_D_FLAGS, NULL, NULL},
	{DT_GNU_HASH, PB_D_GNU_HASH, NULL, NULL},
	{DT_VERSYM, PB_D_VERSYM, NULL, NULL},
	{DT_RELACOUNT, PB_D_RELACOUNT, NULL, NULL},
	{DT_FLAGS_1, PB_D_FLAGS_1, NULL, NULL},
	{DT_VERNEED, PB_D_VERNEED, NULL, NULL},
	{DT_VERNEEDNUM, PB_D_VERNEEDNUM, NULL, NULL},
	{DT_RPATH, -2, "rpath", "it would search folders of its own"},
	{DT_RUNPATH, -2, "rpath", "it would search folders of its own"},
	{DT_AUDIT, -1, "audit", "it would load a library that watches the linker"},
	{DT_DEPAUDIT, -1, "audit", "it would load a library that watches the linker"},
	{DT_FILTER, -1, "filter", "it would load a library to look names up in"},
	{DT_AUXILIARY, -1, "filter", "it would load a library to look names up in"},
	{DT_CONFIG, -1, "filter", "it would read a configuration file"},
	{DT_PREINIT_ARRAY, -1, "preinit", "functions that run before all others"},
	{DT_PREINIT_ARRAYSZ, -1, "preinit", "functions that run before all others"},
	{DT_TEXTREL, -1, "textrel", "relocations in code"},
	{DT_SONAME, -2, "soname", "it would answer to a name of its own"},
	{DT_REL, -1, "reloc", "relocations without addends"},
	{DT_RELSZ, -1, "reloc", "relocations without addends"},
	{DT_RELENT, -1, "reloc", "relocations without addends"},
	{DT_RELR, -1, "relr", "packed relocations: link without -z pack-relative-relocs"},
	{DT_RELRSZ, -1, "relr", "packed relocations: link without -z pack-relative-relocs"},
	{DT_RELRENT, -1, "relr", "packed relocations: link without -z pack-relative-relocs"},
};

static const struct tag_row *find_tag(uint64_t tag)
{
	for (size_t i = 0; i < sizeof(tags) / sizeof(tags[0]); i++)
		if (tags[i].tag == tag)
			return &tags[i];
	return NULL;
}

static bool was_taken(const struct pb_elf_image *im, uint64_t tag)
{
	return im->stage == PB_ELF_PATCHED && (tag == TAKEN(DT_INIT) || tag == TAKEN(DT_INIT_ARRAY) ||
					       tag == TAKEN(DT_INIT_ARRAYSZ) || tag == TAKEN(DT_NEEDED) ||
					       tag == TAKEN(DT_RPATH) || tag == TAKEN(DT_RUNPATH) || tag == TAKEN(DT_SONAME));
}

static bool add_tag(struct pb_elf_image *im, const Elf64_Dyn *d)
{
	const struct tag_row *row = find_tag((uint64_t)d->d_tag);

	if (was_taken(im, (uint64_t)d->d_tag))
		return true;
	if (!row)
		return pb_elf_refuse(im, "tag", "the dynamic tag 0x%llx is not one that packages have",
				     (unsigned long long)d->d_tag);
	if (row->slot == -2 && im->stage == PB_ELF_EXTENSION)
		return true;
	if (row->slot < 0)
		return pb_elf_refuse(im, row->word, "%s", row->why);
	if (row->slot == PB_D_NEEDED) {
		if (im->n_needed == PB_ELF_NEEDED_MAX)
			return pb_elf_refuse(im, "needed", "too many libraries");
		im->needed[im->n_needed++] = d->d_un.d_val;
		return true;
	}
	if (im->has[row->slot])
		return pb_elf_refuse(im, "tag", "the dynamic tag 0x%llx is there twice", (unsigned long long)d->d_tag);
	im->has[row->slot] = true;
	im->value[row->slot] = d->d_un.d_val;
	return true;
}

static Elf64_Dyn dynamic_entry(const struct pb_elf_image *im, uint64_t i)
{
	Elf64_Dyn d;

	memcpy(&d, im->file + im->dynamic.offset + i * sizeof(d), sizeof(d));
	return d;
}

static bool read_dynamic(struct pb_elf_image *im)
{
	for (uint64_t i = 0; i < im->dynamic.filesz / sizeof(Elf64_Dyn); i++) {
		Elf64_Dyn d = dynamic_entry(im, i);

		if (d.d_tag == DT_NULL)
			return true;
		if (!add_tag(im, &d))
			return false;
	}
	return pb_elf_refuse(im, "dynamic", "the dynamic section has no end");
}

/* Functions that run at start or end. */
static bool check_functions(const struct pb_elf_image *im, const char *word, enum pb_elf_slot one,
			    enum pb_elf_slot array, enum pb_elf_slot size)
{
	if (im->has[one] && !pb_elf_in_memory(im, im->value[one], 1, PF_X, PF_X))
		return pb_elf_refuse(im, word, "the function is not in code");
	if (im->has[array] != im->has[size])
		return pb_elf_refuse(im, word, "the array of functions is incomplete");
	if (im->has[array] && (im->value[size] % 8 || im->value[size] / 8 > FUNCTIONS_MAX || im->value[array] % 8 ||
			       !pb_elf_at(im, im->value[array], im->value[size], 0, 0)))
		return pb_elf_refuse(im, word, "the array of functions is not inside a segment, or too long");
	return true;
}

static bool check_values(const struct pb_elf_image *im)
{
	if ((im->value[PB_D_FLAGS] & DF_TEXTREL) != 0)
		return pb_elf_refuse(im, "textrel", "relocations in code");
	/* STATIC_TLS and ORIGIN are not among them. */
	if (im->value[PB_D_FLAGS] & ~(uint64_t)(DF_SYMBOLIC | DF_BIND_NOW) ||
	    im->value[PB_D_FLAGS_1] & ~(uint64_t)(DF_1_NOW | DF_1_NODELETE))
		return pb_elf_refuse(im, "flags", "flags 0x%llx, 0x%llx",
				     (unsigned long long)im->value[PB_D_FLAGS],
				     (unsigned long long)im->value[PB_D_FLAGS_1]);
	if (im->stage == PB_ELF_PATCHED &&
	    (im->has[PB_D_INIT] || im->has[PB_D_INIT_ARRAY] || im->has[PB_D_INIT_ARRAYSZ]))
		return pb_elf_refuse(im, "init", "constructors are still in the file");
	if (im->has[PB_D_PLTGOT] && !pb_elf_in_memory(im, im->value[PB_D_PLTGOT], 24, PF_W, PF_W))
		return pb_elf_refuse(im, "reloc", "the PLT's table is not in a writable segment");
	return check_functions(im, "init", PB_D_INIT, PB_D_INIT_ARRAY, PB_D_INIT_ARRAYSZ) &&
	       check_functions(im, "fini", PB_D_FINI, PB_D_FINI_ARRAY, PB_D_FINI_ARRAYSZ);
}

/*
 * Libraries that a linker without --as-needed puts in. All that models use of them is in libtorch_cpu.so, and extensions find
 * libc10.so with it, in the global scope: taken out. Builders of extensions add libtorch_python.so even if there is no Python in it.
 */
static bool is_surplus(const struct pb_elf_image *im, const char *name)
{
	return strcmp(name, "libtorch.so") == 0 || strcmp(name, "libc10.so") == 0 ||
	       (im->stage == PB_ELF_EXTENSION && strcmp(name, "libtorch_python.so") == 0);
}

/* What is in the worker before the model is: nothing is searched for, nothing is opened. */
static bool is_present(const char *name)
{
	static const char *const present[] = {"libtorch_cpu.so", "libstdc++.so.6", "libgcc_s.so.1",
					      "libc.so.6",	 "libm.so.6",	   "libgomp.so.1",
					      "ld-linux-x86-64.so.2"};

	for (size_t i = 0; i < sizeof(present) / sizeof(present[0]); i++)
		if (strcmp(present[i], name) == 0)
			return true;
	return false;
}

static bool check_needed(struct pb_elf_image *im)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < im->n_needed; i++) {
		const char *name = pb_elf_string(im, im->needed[i]);

		if (!name)
			return pb_elf_refuse(im, "needed", "a library's name is outside the string table");
		if (im->stage != PB_ELF_PATCHED && is_surplus(im, name))
			continue;
		if (!is_present(name))
			return pb_elf_refuse(im, "needed", "%.80s; code for the CPU has only " NEEDED_TEXT, name);
		im->needed[kept++] = im->needed[i];
	}
	im->n_needed = kept;
	return true;
}

/* ---- facts ---- */

static bool allocate(const struct pb_elf_image *im, struct pb_elf_facts *f)
{
	uint32_t n = 0;

	for (uint32_t i = 1; i < im->n_symbols; i++)
		n += pb_elf_symbol(im, i).st_shndx == SHN_UNDEF;
	f->imports = calloc(n + 1, sizeof(*f->imports));
	f->needed = calloc(im->n_needed + 1, sizeof(*f->needed));
	if (f->imports && f->needed)
		return true;
	pb_error_set(im->err, PT2BOX_NO_MEMORY, "no memory for the names of %u symbols", n);
	return false;
}

static bool note_constants(const struct pb_elf_image *im, struct pb_elf_facts *f, uint64_t begin, uint64_t end)
{
	for (uint32_t i = 0; i < im->n_load; i++) {
		const struct pb_elf_segment *s = &im->load[i];

		if (begin < s->vaddr || end < begin || !pb_span_fits(begin - s->vaddr, end - begin, s->filesz))
			continue;
		f->constants_offset = s->offset + (begin - s->vaddr);
		f->constants_bytes = end - begin;
		f->constants_writable = (s->flags & PF_W) != 0;
		return true;
	}
	return pb_elf_refuse(im, "constants", "the constants are not inside a segment");
}

static bool read_symbols(const struct pb_elf_image *im, struct pb_elf_facts *f)
{
	uint64_t begin = 0, end = 0;
	bool has_begin = false, has_end = false;

	for (uint32_t i = 1; i < im->n_symbols; i++) {
		Elf64_Sym s = pb_elf_symbol(im, i);
		const char *name = pb_elf_string(im, s.st_name);

		if (s.st_shndx == SHN_UNDEF) {
			f->imports[f->n_imports++] = name;
		} else if (strcmp(name, "_binary_constants_bin_start") == 0) {
			begin = s.st_value;
			has_begin = true;
		} else if (strcmp(name, "_binary_constants_bin_end") == 0) {
			end = s.st_value;
			has_end = true;
		}
	}
	if (has_begin != has_end)
		return pb_elf_refuse(im, "constants", "the constants have a begin or an end, not both");
	return !has_begin || note_constants(im, f, begin, end);
}

static bool read_image_end(const struct pb_elf_image *im, struct pb_elf_facts *f)
{
	const Elf64_Ehdr *h = &im->eh;
	uint64_t end = 0;

	for (uint32_t i = 0; i < im->n_load; i++)
		if (im->load[i].offset + im->load[i].filesz > end)
			end = im->load[i].offset + im->load[i].filesz;
	if (h->e_shoff && (h->e_shentsize != sizeof(Elf64_Shdr) || h->e_shnum == 0 ||
			   !pb_span_fits(h->e_shoff, (uint64_t)h->e_shnum * sizeof(Elf64_Shdr), im->bytes)))
		return pb_elf_refuse(im, "section", "the section headers are outside the file");
	for (uint32_t i = 0; h->e_shoff && i < h->e_shnum; i++) {
		Elf64_Shdr s;

		memcpy(&s, im->file + h->e_shoff + i * sizeof(s), sizeof(s));
		if (s.sh_type == SHT_NULL || s.sh_type == SHT_NOBITS)
			continue;
		if (!pb_span_fits(s.sh_offset, s.sh_size, im->bytes))
			return pb_elf_refuse(im, "section", "section %u is outside the file", i);
		end = s.sh_offset + s.sh_size > end ? s.sh_offset + s.sh_size : end;
	}
	if (h->e_shoff && h->e_shoff + (uint64_t)h->e_shnum * sizeof(Elf64_Shdr) > end)
		end = h->e_shoff + (uint64_t)h->e_shnum * sizeof(Elf64_Shdr);
	f->image_end = end;
	return true;
}

static bool read_facts(const struct pb_elf_image *im, struct pb_elf_facts *f)
{
	if (!allocate(im, f) || !read_symbols(im, f) || !read_image_end(im, f))
		return false;
	for (uint32_t i = 0; i < im->n_needed; i++)
		f->needed[f->n_needed++] = pb_elf_string(im, im->needed[i]);
	f->init_addr = im->value[PB_D_INIT];
	f->init_array_addr = im->value[PB_D_INIT_ARRAY];
	f->init_array_count = (uint32_t)(im->value[PB_D_INIT_ARRAYSZ] / 8);
	return true;
}

pb_status pb_elf_gate(const uint8_t *file, uint64_t bytes, enum pb_elf_stage stage, struct pb_elf_facts *ret,
		      struct pt2box_error *err)
{
	struct pt2box_error local = {.status = PT2BOX_OK};
	struct pb_elf_image im = {.file = file, .bytes = bytes, .stage = stage, .err = err ? err : &local};

	*ret = (struct pb_elf_facts)PB_ELF_FACTS_INIT;
	if (check_header(&im) && check_segments(&im) && read_dynamic(&im) && check_values(&im) &&
	    pb_elf_check_strings(&im) && check_needed(&im) && pb_elf_check_hashes(&im) &&
	    pb_elf_check_symbols(&im) && pb_elf_check_versions(&im) && pb_elf_check_relocations(&im) &&
	    read_facts(&im, ret))
		return PT2BOX_OK;
	return im.err->status;
}

/* As far as the names of libraries, with tags that only some files may have. */
static bool read_names(struct pb_elf_image *im)
{
	return check_header(im) && check_segments(im) && read_dynamic(im) && pb_elf_check_strings(im);
}

bool pb_elf_is(const uint8_t *file, uint64_t bytes)
{
	return bytes >= SELFMAG && memcmp(file, ELFMAG, SELFMAG) == 0;
}

bool pb_elf_names(const uint8_t *file, uint64_t bytes, const char *prefix)
{
	struct pt2box_error e;
	struct pb_elf_image im = {.file = file, .bytes = bytes, .stage = PB_ELF_EXTENSION, .err = &e};

	if (!read_names(&im))
		return false;
	for (uint32_t i = 0; i < im.n_needed; i++) {
		const char *name = pb_elf_string(&im, im.needed[i]);

		if (name && strncmp(name, prefix, strlen(prefix)) == 0)
			return true;
	}
	return false;
}

void pb_elf_facts_deinit(struct pb_elf_facts *f)
{
	free(f->imports);
	free(f->needed);
	*f = (struct pb_elf_facts)PB_ELF_FACTS_INIT;
}

/* ---- patch ---- */

static bool is_to_take(const struct pb_elf_image *im, const Elf64_Dyn *d)
{
	switch (d->d_tag) {
	case DT_INIT:
	case DT_INIT_ARRAY:
	case DT_INIT_ARRAYSZ:
	case DT_RPATH:
	case DT_RUNPATH:
	case DT_SONAME:
		return true;
	case DT_NEEDED:
		return is_surplus(im, pb_elf_string(im, d->d_un.d_val));
	default:
		return false;
	}
}

static void take_tags_out(struct pb_elf_image *im, uint8_t *file)
{
	for (uint64_t i = 0; i < im->dynamic.filesz / sizeof(Elf64_Dyn); i++) {
		Elf64_Dyn d = dynamic_entry(im, i);

		if (d.d_tag == DT_NULL)
			return;
		if (!is_to_take(im, &d))
			continue;
		d.d_tag = (int64_t)TAKEN((uint64_t)d.d_tag);
		memcpy(file + im->dynamic.offset + i * sizeof(d), &d, sizeof(d));
	}
}

void pb_elf_patch(uint8_t *file, uint64_t bytes)
{
	struct pt2box_error e;
	struct pb_elf_image im = {.file = file, .bytes = bytes, .stage = PB_ELF_EXTENSION, .err = &e};

	/* It has passed, as one or the other: this only finds the places again. */
	if (!read_names(&im))
		return;
	for (uint32_t i = 0; i < im.eh.e_phnum; i++) {
		Elf64_Phdr p = phdr(&im, i);

		if (p.p_type != PT_GNU_STACK)
			continue;
		p.p_flags &= ~(uint32_t)PF_X;
		memcpy(file + im.eh.e_phoff + i * sizeof(p), &p, sizeof(p));
	}
	take_tags_out(&im, file);
}
