/* SPDX-License-Identifier: Apache-2.0 */
/* See intake.h. Cheap refusals first: names, metadata; then the code, the constants, the hashes. */
#include "broker/intake/intake.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "broker/intake/constants.h"
#include "broker/intake/cpu.h"
#include "broker/intake/fileio.h"
#include "broker/intake/given.h"
#include "broker/intake/hash.h"
#include "broker/intake/imports.h"
#include "broker/intake/metadata.h"
#include "broker/intake/nodes.h"
#include "broker/intake/package.h"
#include "broker/intake/wrapper.h"
#include "confine/elf_gate.h"

/* Generated C++: resnet18 has 139 KB. Longer ones are not looked at, as if they were not there. */
#define TEXT_MAX_BYTES (64u << 20)

struct work {
	const struct pb_intake *in;
	struct pb_arena arena;
	struct pb_package package;
	struct pb_model_files files;
	struct pb_metadata metadata;
	struct pb_wrapper wrapper;
	struct pb_build build;
	struct pb_elf_facts elf;
	uint8_t *so;
	uint64_t so_bytes;
	struct pb_nodes nodes; /* calls through the proxy executor */
	const char *lacking;   /* those of them that are not native, as text */
	char cpu_needs[512];
	struct pb_hash blob_hash;
	char digest[PB_DIGEST_TEXT];
	struct pb_manifest manifest;
};

/* ---- texts ---- */

static pb_status read_metadata(struct work *w, struct pt2box_error *err)
{
	const struct pb_entry *e = w->files.metadata;
	char *text;
	pb_status st;

	if (!e)
		return pb_error_set(err, PT2BOX_PKG_REJECTED, "meta.json: the model has no metadata");
	if (e->size > PB_METADATA_MAX_BYTES)
		return pb_error_set(err, PT2BOX_PKG_REJECTED, "meta.json: longer than %u bytes", PB_METADATA_MAX_BYTES);
	st = pb_package_read(&w->package, e, e->size, &text, err);
	if (st)
		return st;
	st = pb_metadata_read(text, e->size, &w->arena, &w->metadata, err);
	free(text);
	if (st || w->in->brief) /* texts can be read on any machine */
		return st;
	return pb_metadata_check(&w->metadata, err);
}

static pb_status read_nodes(struct work *w, struct pt2box_error *err)
{
	const struct pb_entry *e = w->files.nodes;
	char *text;
	pb_status st;

	w->lacking = "";
	w->manifest.nodes = &w->nodes;
	if (!e)
		return PT2BOX_OK;
	if (e->size > PB_NODES_MAX_BYTES)
		return pb_error_set(err, PT2BOX_PKG_REJECTED, "meta.nodes: longer than %u bytes", PB_NODES_MAX_BYTES);
	st = pb_package_read(&w->package, e, e->size, &text, err);
	if (st)
		return st;
	st = pb_nodes_read(text, e->size, &w->arena, &w->nodes, err);
	free(text);
	return st ? st : pb_nodes_classify(&w->nodes, &w->arena, &w->lacking, &w->manifest.needs_lapack, err);
}

static pb_status read_cpp(struct work *w, const struct pb_entry *e, bool wrapper, struct pt2box_error *err)
{
	bool ok = true;
	char *text;
	pb_status st;

	if (!e || e->size > TEXT_MAX_BYTES)
		return PT2BOX_OK;
	st = pb_package_read(&w->package, e, TEXT_MAX_BYTES, &text, err);
	if (st)
		return st;
	pb_wrapper_scan_build(text, e->size, &w->build);
	if (wrapper)
		ok = pb_wrapper_scan(text, e->size, &w->arena, &w->wrapper);
	free(text);
	return ok ? PT2BOX_OK : pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for the model's description");
}

static pb_status read_texts(struct work *w, struct pt2box_error *err)
{
	pb_status st;

	w->wrapper = (struct pb_wrapper){.in_spec = "", .out_spec = ""};
	st = read_cpp(w, w->files.wrapper, true, err);
	if (!st)
		st = read_cpp(w, w->files.kernel, false, err);
	if (st)
		return st;
	pb_cpu_needs(w->metadata.cpu_isa, w->build.command, w->build.tiles, w->cpu_needs, sizeof(w->cpu_needs));
	return w->in->inspect ? PT2BOX_OK : pb_cpu_check(w->cpu_needs, err);
}

/* ---- code ---- */

static pb_status check_machine(const struct work *w, struct pt2box_error *err)
{
	Elf64_Ehdr h;

	if (w->so_bytes < sizeof(h))
		return PT2BOX_OK; /* the gate says it */
	memcpy(&h, w->so, sizeof(h));
	if (memcmp(h.e_ident, ELFMAG, SELFMAG) == 0 && h.e_machine != EM_X86_64)
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "the code is for another machine (ELF machine %u, %s)",
				    h.e_machine, h.e_machine == EM_AARCH64 ? "aarch64" : "not x86-64");
	return PT2BOX_OK;
}

/* Everything large that was in the package, and its hash, at once. */
static pb_status take_large(struct work *w, struct pt2box_error *err)
{
	struct pb_sink sinks[2] = {{.entry = w->files.so, .fd = w->in->out_model},
				   {.entry = w->files.blob, .fd = w->in->out_constants, .hash = &w->blob_hash}};
	bool blob = w->files.blob && !w->in->inspect && w->in->constants_in < 0;

	pb_hash_begin(&w->blob_hash);
	return pb_package_stream(&w->package, sinks, blob ? 2 : 1, w->manifest.pkg_sha256, err);
}

static pb_status take_code(struct work *w, struct pt2box_error *err)
{
	void *p = NULL;
	pb_status st;

	w->so_bytes = w->files.so->size;
	if (w->so_bytes)
		p = mmap(NULL, w->so_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, w->in->out_model, 0);
	if (p == MAP_FAILED)
		return pb_error_sys(err, "cannot map the code");
	w->so = p;
	st = check_machine(w, err);
	if (!st)
		st = pb_elf_gate(w->so, w->so_bytes, PB_ELF_PACKAGED, &w->elf, err);
	if (st)
		return st;
	pb_elf_patch(w->so, w->so_bytes);
	return pb_imports_classify(w->elf.imports, w->elf.n_imports, w->lacking, &w->arena, &w->manifest, err);
}

/* The hash that names the code: of the rewritten file without constants, which are large and in the package's hash. */
static void hash_code(struct work *w)
{
	uint64_t skip = w->elf.constants_offset, from = skip + w->elf.constants_bytes;
	struct pb_hash h = {{0}};

	pb_hash_begin(&h);
	pb_hash_add(&h, w->so, skip);
	pb_hash_add(&h, w->so + from, (w->elf.image_end > from ? w->elf.image_end : from) - from);
	pb_hash_end(&h, w->manifest.so_sha256);
}

/* ---- constants ---- */

static pb_status find_constants(struct work *w, struct pt2box_error *err)
{
	struct pb_constants_in c = {.wrapper = &w->wrapper,
				    .elf = &w->elf,
				    .files = &w->files,
				    .so = w->so,
				    .so_bytes = w->so_bytes,
				    .brought = w->in->constants_in >= 0};
	pb_status st = pb_constants_find(&c, &w->manifest, err);

	if (st || w->in->inspect)
		return st;
	/* Only the container itself can make them, from what is in the code. */
	if (w->wrapper.opaque_constant && w->manifest.const_source != PB_CONSTS_EMBEDDED_RO &&
	    w->manifest.const_source != PB_CONSTS_EMBEDDED_RW && w->manifest.const_source != PB_CONSTS_MMAP_SELF)
		return pb_error_set(err, PT2BOX_UNSUPPORTED,
				    "the constant %.100s has a layout of its own (mkldnn), so it must be inside the "
				    "package: compile without freezing, or with aot_inductor.package_constants_in_so=True",
				    w->wrapper.opaque_constant);
	if (w->manifest.const_source == PB_CONSTS_WEIGHTS_FILE)
		return pb_error_set(err, PT2BOX_PKG_REJECTED,
				    "const.format: the constants are pickled, and nothing is ever unpickled: give them with "
				    "--constants FILE.safetensors");
	if (w->manifest.const_source == PB_CONSTS_EXTERNAL && w->in->constants_in < 0)
		return pb_error_set(err, PT2BOX_NOT_FOUND,
				    "the package has no constants inside: give them with --constants FILE.safetensors");
	if (w->manifest.const_source == PB_CONSTS_NONE && w->in->constants_in >= 0)
		return pb_error_set(err, PT2BOX_USAGE, "constants were given, but the model has none");
	return PT2BOX_OK;
}

/* All of them must be there: no other place has them. */
static pb_status take_external(struct work *w, struct pt2box_error *err)
{
	const struct pb_manifest *m = &w->manifest;
	const struct pb_stored_tensor **given = calloc((size_t)m->n_constants + 1, sizeof(*given));
	struct pb_safetensors f = {.fd = -1};
	const struct pb_const_parts parts = {.file = &f, .given = given, .parameters = {.fd = -1}, .others = {.fd = -1}};
	pb_status st;

	if (!given)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a list of constants");
	st = pb_safetensors_open(w->in->constants_in, &f, err);
	if (!st)
		st = pb_given_match(m, &f, false, PB_REQUIRED_ALL, given, err);
	if (!st)
		st = pb_const_memory_write(m, &parts, w->in->max_package_bytes, w->in->out_constants, w->digest, err);
	pb_safetensors_close(&f);
	free(given);
	return st;
}

static pb_status take_constants(struct work *w, struct pt2box_error *err)
{
	struct pb_manifest *m = &w->manifest;

	if (m->const_source != PB_CONSTS_BLOB && ftruncate(w->in->out_constants, 0) != 0) /* a blob that is not used */
		return pb_error_sys(err, "cannot drop a file");
	if (w->in->inspect)
		return PT2BOX_OK;
	if (m->const_source == PB_CONSTS_BLOB)
		return pb_const_memory_finish(m, &w->blob_hash, w->in->out_constants, w->digest, err);
	return m->const_source == PB_CONSTS_EXTERNAL ? take_external(w, err) : PT2BOX_OK;
}

/* ---- manifest ---- */

static bool uses_openmp(const struct pb_elf_facts *f)
{
	for (uint32_t i = 0; i < f->n_needed; i++)
		if (strcmp(f->needed[i], "libgomp.so.1") == 0)
			return true;
	return false;
}

static void describe(struct work *w)
{
	struct pb_manifest *m = &w->manifest;

	m->model_name = w->in->model;
	m->model_names = w->package.models;
	m->n_model_names = w->package.n_models;
	m->device = w->metadata.device;
	m->metadata = w->metadata.pairs;
	m->n_metadata = w->metadata.n;
	if (w->in->brief) {
		m->const_source = PB_CONSTS_NONE;
		return;
	}
	m->cpu_isa = w->metadata.cpu_isa;
	m->cpu_needs = w->cpu_needs;
	m->in_spec = w->wrapper.in_spec;
	m->out_spec = w->wrapper.out_spec;
	m->inputs = w->wrapper.inputs;
	m->n_inputs = w->wrapper.n_inputs;
	m->n_outputs = w->wrapper.n_outputs;
	m->has_signature = w->wrapper.has_signature;
	m->minimal_arrayref = w->wrapper.minimal_arrayref;
	m->so_bytes = w->so_bytes;
	m->init_addr = w->elf.init_addr;
	m->init_array_addr = w->elf.init_array_addr;
	m->init_array_count = w->elf.init_array_count;
	m->uses_openmp = uses_openmp(&w->elf);
	m->openmp_threads = m->uses_openmp ? w->build.openmp_threads : 0;
}

static pb_status write_manifest(struct work *w, struct pt2box_error *err)
{
	uint8_t *data;
	size_t bytes;
	pb_status st;

	describe(w);
	if (!w->in->brief)
		hash_code(w);
	st = pb_manifest_encode(&w->manifest, &data, &bytes, err);
	if (st)
		return st;
	st = pb_write_at(w->in->out_manifest, 0, data, bytes, err);
	free(data);
	return st;
}

/* Nobody asked for the code: give its memory back. */
static pb_status forget_code(struct work *w, struct pt2box_error *err)
{
	if (!w->in->inspect)
		return PT2BOX_OK;
	munmap(w->so, w->so_bytes);
	w->so = NULL;
	return ftruncate(w->in->out_model, 0) == 0 ? PT2BOX_OK : pb_error_sys(err, "cannot drop the code");
}

static pb_status run(struct work *w, struct pt2box_error *err)
{
	pb_status st = pb_package_open(&w->package, w->in->package, w->in->max_package_bytes, err);

	if (!st)
		st = pb_package_choose(&w->package, w->in->model, &w->files, err);
	if (!st)
		st = read_metadata(w, err);
	if (!st && w->in->brief)
		return write_manifest(w, err);
	if (!st)
		st = read_nodes(w, err);
	if (!st)
		st = read_texts(w, err);
	if (!st)
		st = take_large(w, err);
	if (!st)
		st = take_code(w, err);
	if (!st)
		st = find_constants(w, err);
	if (!st)
		st = take_constants(w, err);
	if (!st)
		st = write_manifest(w, err);
	return st ? st : forget_code(w, err);
}

pb_status pb_intake_run(const struct pb_intake *in, char ret_digest[PB_DIGEST_TEXT], struct pt2box_error *err)
{
	struct work *w = calloc(1, sizeof(*w));
	pb_status st;

	if (!w)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for an intake");
	w->in = in;
	w->package = (struct pb_package)PB_PACKAGE_INIT;
	st = run(w, err);
	memcpy(ret_digest, w->digest, sizeof(w->digest));
	if (w->so)
		munmap(w->so, w->so_bytes);
	pb_elf_facts_deinit(&w->elf);
	pb_package_deinit(&w->package);
	pb_arena_deinit(&w->arena);
	free(w);
	return st;
}
