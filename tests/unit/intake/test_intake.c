/* SPDX-License-Identifier: Apache-2.0 */
/* ldflags: -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=ftruncate,--wrap=pread */
/* Whole packages: what is found in every fixture; refusals in the order in which they come; damage; failing calls. */
#include "tests/unit/intake/kit.h"

#include <fcntl.h>

#include "broker/intake/hash.h"
#include "broker/intake/intake.h"
#include "confine/elf_gate.h"
#include "ipc/manifest.h"
#include "ipc/socket.h"

#define MAX (1ull << 30)

struct result {
	pb_status st;
	struct pt2box_error err;
	int model, constants, manifest;
	struct pb_manifest *m;
	char digest[PB_DIGEST_TEXT];
};

enum how { LOAD, INSPECT, BRIEF };

static struct result run(int package, const char *model, int constants, enum how how)
{
	struct result r = {.model = memfd_create("model", MFD_CLOEXEC),
			   .constants = memfd_create("constants", MFD_CLOEXEC),
			   .manifest = memfd_create("manifest", MFD_CLOEXEC)};
	const struct pb_intake in = {.model = model, .max_package_bytes = MAX, .inspect = how != LOAD, .brief = how == BRIEF,
				     .package = package, .constants_in = constants, .out_model = r.model, .out_constants = r.constants,
				     .out_manifest = r.manifest};
	uint8_t *data;
	size_t n;

	r.st = pb_intake_run(&in, r.digest, &r.err);
	if (r.st)
		return r;
	assert_int_equal(PT2BOX_OK, pb_fd_slurp(r.manifest, PB_MANIFEST_MAX_BYTES, &data, &n, NULL));
	assert_int_equal(PT2BOX_OK, pb_manifest_decode(data, n, &r.m, NULL));
	free(data);
	return r;
}

static void done(struct result *r)
{
	close(r->model);
	close(r->constants);
	close(r->manifest);
	pb_manifest_free(r->m);
}

static int open_fixture(const char *name, const char *file)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "tests/fixtures/%s/%s", name, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fail_msg("%s", path);
	return fd;
}

static off_t size_of(int fd)
{
	return lseek(fd, 0, SEEK_END);
}

/* ---- every fixture ---- */

/* signature: "dtype:size/stride,..." for each input; "1-64": from, to; stride -1: follows from the sizes. */
static const struct golden {
	const char *fixture, *model, *signature;
	uint32_t n_outputs, n_constants;
	enum pb_const_source source;
	uint64_t const_bytes;
	uint32_t n_imports, openmp_threads;
} golden[] = {
	{"alias", "model", "6:4/6,6/1 6:3/5,5/1", 7, 0, PB_CONSTS_NONE, 0, 21, 0},
	{"arrayref", "model", "6:4/64,64/1", 1, 4, PB_CONSTS_EMBEDDED_RO, 76864, 23, 0},
	{"attn", "model", "6:1-64/-1,1-256/64,64/1", 1, 4, PB_CONSTS_EMBEDDED_RO, 66560, 24, 0},
	{"bert", "model", "4:2/16,16/1", 1, 39, PB_CONSTS_EMBEDDED_RO, 414208, 27, 0},
	{"bf16", "model", "15:4/64,64/1", 1, 4, PB_CONSTS_EMBEDDED_RO, 38464, 23, 0},
	{"blobconst", "model", "6:1-1024/64,64/1", 1, 4, PB_CONSTS_BLOB, 76864, 23, 0},
	{"cond", "model", "6:6/1 11:", 1, 0, PB_CONSTS_NONE, 0, 25, 0},
	{"convs", "model", "6:2/60,4/15,15/1 6:1/420,2/210,5/42,6/7,7/1 6:2/648,8/81,9/9,9/1", 6, 5,
	 PB_CONSTS_EMBEDDED_RO, 2688, 23, 0},
	{"customop", "model", "6:3/4,4/1", 1, 0, PB_CONSTS_NONE, 0, 21, 0},
	{"deflated", "model", "6:1-1024/64,64/1", 1, 4, PB_CONSTS_EMBEDDED_RO, 76864, 23, 0},
	{"dtypes", "model", "7:7/1 6:7/1 5:7/1 15:7/1 1:7/1 0:7/1 2:7/1 3:7/1 4:7/1 11:7/1", 11, 0, PB_CONSTS_NONE, 0,
	 30, 0},
	{"extconst", "model", "6:1-1024/64,64/1", 1, 4, PB_CONSTS_EXTERNAL, 76864, 23, 0},
	{"extfold", "model", "6:4/32,32/1", 1, 5, PB_CONSTS_EXTERNAL, 4224, 22, 0},
	{"f16", "model", "5:4/64,64/1", 1, 4, PB_CONSTS_EMBEDDED_RO, 38464, 23, 0},
	{"f64mm", "model", "7:6/5,5/1 7:5/4,4/1", 3, 0, PB_CONSTS_NONE, 0, 24, 0},
	{"first64", "model", "6:64-268435456/1", 1, 0, PB_CONSTS_NONE, 0, 20, 0},
	{"gpt2", "model", "4:1/12,12/1", 1, 28, PB_CONSTS_EMBEDDED_RO, 570368, 29, 0},
	{"inplace", "model", "6:5/7,7/1 6:5/7,7/1", 1, 0, PB_CONSTS_NONE, 0, 20, 0},
	{"kitchen", "model", "6:6/16,16/1 6:6/16,16/1", 14, 0, PB_CONSTS_NONE, 0, 29, 0},
	{"linalg", "model", "6:2/48,3/16,4/4,4/1 6:2/60,3/20,4/5,5/1 6:2/24,6/4,4/1 6:3/6,3/2,2/1", 17, 0,
	 PB_CONSTS_NONE, 0, 28, 0},
	{"llama", "model", "4:1/10,10/1", 1, 21, PB_CONSTS_EMBEDDED_RO, 652544, 30, 0},
	{"lstm", "model", "6:3/112,7/16,16/1", 3, 9, PB_CONSTS_EMBEDDED_RO, 60032, 24, 0},
	{"mlp", "model", "6:1-1024/64,64/1", 1, 4, PB_CONSTS_EMBEDDED_RO, 76864, 23, 0},
	{"mmapconst", "model", "6:1-1024/64,64/1", 1, 4, PB_CONSTS_MMAP_SELF, 76864, 23, 0},
	{"mutbuf", "model", "6:3/8,8/1", 2, 2, PB_CONSTS_EMBEDDED_RW, 192, 23, 0},
	{"nested", "model", "6:3/4,4/1 6:3/4,4/1 6:5/1 6:5/1 6:2/1 6:2/1 6:5/1 6:4/1 6:1/2,2/1", 10, 0, PB_CONSTS_NONE, 0,
	 21, 0},
	{"noneint", "model", "6:1-64/3,3/1", 5, 0, PB_CONSTS_NONE, 0, 21, 0},
	{"nonzero", "model", "6:6/4,4/1 4:6/1", 3, 0, PB_CONSTS_NONE, 0, 27, 0},
	{"omp2", "model", "6:300/1000,1000/1", 2, 0, PB_CONSTS_NONE, 0, 21, 2},
	{"opkinds", "model", "6:4/3,3/1 6:4/3,3/1", 5, 0, PB_CONSTS_NONE, 0, 22, 0},
	{"resnet18", "model", "6:2/12288,3/4096,64/64,64/1", 1, 102, PB_CONSTS_EMBEDDED_RO, 2823168, 24, 0},
	{"rtfold", "model", "6:4/32,32/1", 1, 3, PB_CONSTS_EMBEDDED_RO, 4096, 22, 0},
	{"shared_a", "model", "6:4/64,64/1", 1, 4, PB_CONSTS_EXTERNAL, 37376, 23, 0},
	{"shared_b", "model", "6:4/64,64/1", 1, 4, PB_CONSTS_EXTERNAL, 37376, 24, 0},
	{"sorts", "model", "6:5/8,8/1 4:5/4,4/1 6:5/8,8/1", 15, 0, PB_CONSTS_NONE, 0, 27, 0},
	{"strided", "model", "6:5/1,8/5", 2, 0, PB_CONSTS_NONE, 0, 20, 0},
	{"torch29", "model", "6:1-1024/64,64/1", 1, 4, PB_CONSTS_EMBEDDED_RO, 76864, 23, 0},
	{"twomodels", "first", "6:4/64,64/1", 1, 4, PB_CONSTS_EMBEDDED_RO, 76864, 23, 0},
	{"twomodels", "second", "6:4/64,64/1", 1, 4, PB_CONSTS_EMBEDDED_RO, 76864, 23, 0},
	{"unet", "model", "6:1/1024,1/1024,32/32,32/1", 1, 20, PB_CONSTS_EMBEDDED_RO, 117184, 23, 0},
	{"uniques", "model", "6:5/4,4/1 4:30/1 4:8/3,3/1", 23, 0, PB_CONSTS_NONE, 0, 28, 0},
	{"vit", "model", "6:2/3072,3/1024,32/32,32/1", 1, 40, PB_CONSTS_EMBEDDED_RO, 324928, 26, 0},
	{"whisper", "model", "6:1/1600,16/100,100/1", 1, 37, PB_CONSTS_EMBEDDED_RO, 342528, 27, 0},
	{"zerod", "model", "6: 6:0/4,4/1 6:3/4,4/1", 5, 0, PB_CONSTS_NONE, 0, 21, 0},
};

static void print_signature(const struct pb_manifest *m, char *dst, size_t cap)
{
	size_t n = 0;

	dst[0] = '\0';
	for (uint32_t i = 0; i < m->n_inputs; i++) {
		const struct pb_sig_input *in = &m->inputs[i];

		n += (size_t)snprintf(dst + n, cap - n, "%s%d:", i ? " " : "", in->dtype);
		for (int32_t d = 0; d < in->ndim; d++) {
			n += (size_t)snprintf(dst + n, cap - n, "%s%lld", d ? "," : "", (long long)in->dims[d].lo);
			if (in->dims[d].hi != in->dims[d].lo)
				n += (size_t)snprintf(dst + n, cap - n, "-%lld", (long long)in->dims[d].hi);
			n += (size_t)snprintf(dst + n, cap - n, "/%lld", (long long)in->dims[d].stride);
		}
	}
}

/* The code that came out passes the gate that the template will hold it to. */
static void check_code(const struct result *r)
{
	const off_t n = size_of(r->model);
	void *p = mmap(NULL, (size_t)n, PROT_READ, MAP_SHARED, r->model, 0);
	struct pb_elf_facts f;

	assert_int_equal(n, r->m->so_bytes);
	assert_true(p != MAP_FAILED);
	assert_int_equal(PT2BOX_OK, pb_elf_gate(p, (uint64_t)n, PB_ELF_PATCHED, &f, NULL));
	pb_elf_facts_deinit(&f);
	munmap(p, (size_t)n);
}

/* Constants that are not in the code: their bytes, then a one for each but the folded ones; and the digest of both. */
static void check_memory(const struct golden *g, const struct result *r)
{
	struct pb_hash h = {{0}};
	char text[PB_DIGEST_TEXT];
	uint8_t *data, sum[32];
	size_t n;

	assert_int_equal(PT2BOX_OK, pb_fd_slurp(r->constants, MAX, &data, &n, NULL));
	if (g->source != PB_CONSTS_EXTERNAL && g->source != PB_CONSTS_BLOB) {
		assert_int_equal(0, n);
		assert_string_equal("", r->digest);
		free(data);
		return;
	}
	assert_int_equal(g->const_bytes + g->n_constants, n);
	for (uint32_t i = 0; i < g->n_constants; i++)
		assert_int_equal(!r->m->constants[i].folded, data[g->const_bytes + i]);
	pb_hash_begin(&h);
	pb_hash_add(&h, data, n);
	pb_hash_end(&h, sum);
	for (int i = 0; i < 32; i++)
		snprintf(text + 2 * i, 3, "%02x", sum[i]);
	assert_string_equal(text, r->digest);
	free(data);
}

static void check_golden(const struct golden *g)
{
	const int pkg = open_fixture(g->fixture, "model.pt2");
	const bool external = g->source == PB_CONSTS_EXTERNAL;
	const int consts = external ? open_fixture(g->fixture, "constants.safetensors") : -1;
	struct result r = run(pkg, g->model, consts, LOAD);
	char signature[400];

	if (r.st)
		fail_msg("%s: %s", g->fixture, r.err.text);
	print_signature(r.m, signature, sizeof(signature));
	assert_string_equal(g->signature, signature);
	assert_true(r.m->has_signature);
	assert_int_equal(g->n_outputs, r.m->n_outputs);
	assert_int_equal(g->n_constants, r.m->n_constants);
	assert_int_equal(g->source, r.m->const_source);
	assert_int_equal(g->const_bytes, r.m->const_bytes);
	assert_int_equal(g->source == PB_CONSTS_EMBEDDED_RW, r.m->mutates);
	if (g->source == PB_CONSTS_MMAP_SELF) /* 8 bytes of magic follow */
		assert_int_equal(r.m->so_bytes - 8 - g->const_bytes, r.m->const_file_offset);
	assert_int_equal(g->n_imports, r.m->n_imports);
	assert_int_equal(g->openmp_threads, r.m->openmp_threads);
	assert_int_equal(g->openmp_threads != 0, r.m->uses_openmp);
	assert_int_equal(3, r.m->init_array_count);
	assert_true(r.m->init_addr > 0);
	assert_string_equal("cpu", r.m->device);
	assert_string_equal("AVX2", r.m->cpu_isa);
	assert_non_null(strstr(r.m->cpu_needs, "avx2"));
	assert_null(strstr(r.m->cpu_needs, "avx512"));
	assert_memory_equal("[1, {", r.m->in_spec, 5);
	assert_memory_equal("[1, {", r.m->out_spec, 5);
	assert_string_equal(g->model, r.m->model_name);
	check_memory(g, &r);
	check_code(&r);
	done(&r);
	/* Only looking: the same description, nothing else, and constants need not be there. */
	r = run(pkg, g->model, -1, INSPECT);
	assert_int_equal(PT2BOX_OK, r.st);
	assert_int_equal(g->source, r.m->const_source);
	assert_int_equal(0, size_of(r.model));
	assert_int_equal(0, size_of(r.constants));
	done(&r);
	close(pkg);
	if (external)
		close(consts);
}

static void test_fixtures(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(golden) / sizeof(golden[0]); i++)
		check_golden(&golden[i]);
}

static void test_names(void **state)
{
	const int pkg = open_fixture("twomodels", "model.pt2");
	struct result r = run(pkg, "first", -1, LOAD);

	(void)state;
	assert_int_equal(2, r.m->n_model_names);
	assert_string_equal("second", r.m->model_names[1]);
	assert_string_equal("fc1.weight", r.m->constants[0].fqn);
	assert_string_equal("fc1_weight", r.m->constants[0].name);
	assert_int_equal(65536, r.m->constants[1].blob_offset);
	done(&r);
	r = run(pkg, "model", -1, LOAD);
	assert_int_equal(PT2BOX_NOT_FOUND, r.st);
	assert_non_null(strstr(r.err.text, "first, second"));
	done(&r);
	close(pkg);
}

/* An operator that only Python knows is named, and how it is called. */
static void test_custom_op(void **state)
{
	const int pkg = open_fixture("customop", "model.pt2");
	struct result r = run(pkg, "model", -1, LOAD);
	bool named = false;

	(void)state;
	assert_int_equal(1, r.m->nodes->n);
	assert_string_equal("pt2box_test::triple", r.m->nodes->list[0].target);
	assert_true(r.m->nodes->list[0].python);
	assert_false(r.m->nodes->list[0].native);
	assert_int_equal(2, r.m->nodes->list[0].n_args);
	assert_int_equal(2, r.m->nodes->list[0].n_tensors);
	assert_int_equal(1, r.m->nodes->list[0].n_ints);
	for (uint32_t i = 0; i < r.m->n_imports; i++)
		named |= strstr(r.m->imports[i].note, "pt2box_test::triple") != NULL;
	assert_true(named);
	assert_int_equal(1, r.m->n_absent + r.m->n_proxied);
	done(&r);
	close(pkg);
}

static void test_hash(void **state)
{
	const int pkg = open_fixture("mlp", "model.pt2");
	struct result r = run(pkg, "model", -1, LOAD);
	struct pb_hash h = {{0}};
	uint8_t *data, want[32];
	size_t n;

	(void)state;
	assert_int_equal(PT2BOX_OK, pb_fd_slurp(pkg, MAX, &data, &n, NULL));
	pb_hash_begin(&h);
	pb_hash_add(&h, data, n);
	pb_hash_end(&h, want);
	assert_memory_equal(want, r.m->pkg_sha256, 32);
	free(data);
	done(&r);
	close(pkg);
}

/* The constants of a file lie where the manifest says. */
static void test_external(void **state)
{
	const int pkg = open_fixture("extconst", "model.pt2"), other = open_fixture("mlp", "model.pt2");
	const int st = open_fixture("extconst", "constants.safetensors");
	struct result r = run(pkg, "model", st, LOAD);
	uint8_t *file, *got;
	size_t n, k;
	char *at;
	unsigned begin, end;

	(void)state;
	assert_int_equal(PT2BOX_OK, pb_fd_slurp(st, MAX, &file, &n, NULL));
	assert_int_equal(PT2BOX_OK, pb_fd_slurp(r.constants, MAX, &got, &k, NULL));
	at = strstr((char *)file + 8, "\"fc2.weight\"");
	assert_non_null(at);
	at = strstr(at, "data_offsets");
	assert_int_equal(2, sscanf(strchr(at, '['), "[%u,%u]", &begin, &end));
	assert_int_equal(10240, end - begin);
	assert_memory_equal(file + 8 + *(uint64_t *)(void *)file + begin, got + r.m->constants[2].blob_offset, 10240);
	free(file);
	free(got);
	done(&r);
	r = run(pkg, "model", -1, LOAD);
	assert_int_equal(PT2BOX_NOT_FOUND, r.st);
	assert_non_null(strstr(r.err.text, "--constants"));
	done(&r);
	/* They also take the place of constants that a package has inside. */
	r = run(other, "model", st, LOAD);
	assert_int_equal(PT2BOX_OK, r.st);
	assert_int_equal(PB_CONSTS_EXTERNAL, r.m->const_source);
	done(&r);
	close(pkg);
	close(other);
	close(st);
}

/* Models that change constants which are not in their code: in a blob, given by the client, given for a blob. */
static void test_mutates(void **state)
{
	const int blob = open_fixture("blobmut", "model.pt2"), ext = open_fixture("extmut", "model.pt2");
	const int given = open_fixture("extmut", "constants.safetensors");
	struct result r = run(blob, "model", -1, LOAD);

	(void)state;
	assert_int_equal(PT2BOX_OK, r.st);
	assert_int_equal(PB_CONSTS_BLOB, r.m->const_source);
	assert_true(r.m->mutates);
	done(&r);
	r = run(ext, "model", given, LOAD);
	assert_int_equal(PT2BOX_OK, r.st);
	assert_int_equal(PB_CONSTS_EXTERNAL, r.m->const_source);
	assert_true(r.m->mutates);
	assert_int_equal(r.m->const_bytes + r.m->n_constants, size_of(r.constants));
	done(&r);
	close(blob);
	close(ext);
	close(given);
}

/* ---- packages made here ---- */

/* The parts of mlp, to be changed. */
static struct kit_entry part[5];
enum { WRAPPER, KERNEL, META, SO, MORE };
static void *owned[4];

static int load_parts(void **state)
{
	static const char *const ends[] = {".wrapper.cpp", ".kernel.cpp", ".wrapper_metadata.json", ".wrapper.so"};
	static const char *const names[] = {KIT_FOLDER "H.wrapper.cpp", KIT_FOLDER "K.kernel.cpp",
					    KIT_FOLDER "H.wrapper_metadata.json", KIT_FOLDER "H.wrapper.so"};

	(void)state;
	for (int i = 0; i < 4; i++) {
		owned[i] = fixture_file("mlp", ends[i], &part[i].size);
		part[i].name = names[i];
		part[i].data = owned[i];
	}
	part[MORE] = kit_text("pkg/archive_format", "pt2");
	return 0;
}

static int free_parts(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++)
		free(owned[i]);
	return 0;
}

static void expect(const struct kit_entry *e, uint32_t n, enum how how, pb_status st, const char *word)
{
	const int fd = kit_zip_fd(e, n);
	struct result r = run(fd, "model", -1, how);

	if (r.st != st || (st && strncmp(r.err.text, word, strlen(word)) != 0))
		fail_msg("want %d %s, got %d %s", st, word, r.st, r.err.text);
	done(&r);
	close(fd);
}

/* The package with one part replaced. */
static void expect_with(int i, struct kit_entry e, pb_status st, const char *word)
{
	struct kit_entry all[5];

	memcpy(all, part, sizeof(all));
	all[i] = e;
	expect(all, 5, LOAD, st, word);
}

static void test_refusals(void **state)
{
	static uint8_t arm[64] = "\177ELF\2\1\1";
	struct kit_entry two[5];

	(void)state;
	expect(part, 5, LOAD, PT2BOX_OK, "");
	expect_with(META, kit_text("pkg/other", ""), PT2BOX_PKG_REJECTED, "meta.json");
	expect_with(META, kit_text(part[META].name, "{"), PT2BOX_PKG_REJECTED, "meta.json");
	expect_with(META, kit_text(part[META].name, "{\"AOTI_DEVICE_KEY\": \"cuda\"}"), PT2BOX_UNSUPPORTED, "the package");
	expect_with(SO, kit_text(part[SO].name, ""), PT2BOX_PKG_REJECTED, "elf.header");
	expect_with(SO, kit_text(part[SO].name, "not an object"), PT2BOX_PKG_REJECTED, "elf.header");
	arm[18] = 183;
	expect_with(SO, (struct kit_entry){.name = part[SO].name, .data = arm, .size = 64}, PT2BOX_UNSUPPORTED,
		    "the code is for another machine");
	expect_with(SO, kit_text("pkg/x", ""), PT2BOX_PKG_REJECTED, "no_so");
	expect_with(KERNEL, kit_text(part[KERNEL].name, "_tile_zero(0);\n// Compile cmd\n// g++ -mamx-fp16 -mamx-tile\n"),
		    PT2BOX_UNSUPPORTED, "the package is compiled for a CPU with");
	expect_with(MORE, kit_text(KIT_FOLDER "H.wrapper.json", "{\"nodes\": 3}"), PT2BOX_PKG_REJECTED, "meta.nodes");
	/* What cannot run here can still be looked at. */
	memcpy(two, part, sizeof(two));
	two[KERNEL] = kit_text(part[KERNEL].name, "_tile_zero(0);\n// Compile cmd\n// g++ -mamx-fp16 -mamx-tile\n");
	expect(two, 5, INSPECT, PT2BOX_OK, "");
}

/* Names and metadata, and nothing else: the rest of the package may be anything. */
static void test_brief(void **state)
{
	struct kit_entry e[5];
	struct result r;
	int fd = open_fixture("twomodels", "model.pt2");

	(void)state;
	r = run(fd, "second", -1, BRIEF);
	assert_int_equal(PT2BOX_OK, r.st);
	assert_string_equal("second", r.m->model_name);
	assert_int_equal(2, r.m->n_model_names);
	assert_string_equal("first", r.m->model_names[0]);
	assert_string_equal("cpu", r.m->device);
	assert_true(r.m->n_metadata >= 4);
	assert_int_equal(PB_CONSTS_NONE, r.m->const_source);
	assert_false(r.m->has_signature);
	assert_int_equal(0, r.m->so_bytes);
	assert_int_equal(0, size_of(r.model));
	done(&r);
	r = run(fd, "model", -1, BRIEF);
	assert_int_equal(PT2BOX_NOT_FOUND, r.st);
	assert_string_equal("no model \"model\" in the package; it has: first, second", r.err.text);
	done(&r);
	close(fd);
	memcpy(e, part, sizeof(e));
	e[SO] = kit_text(part[SO].name, "not an object");
	e[WRAPPER] = kit_text(part[WRAPPER].name, "\xff not C++");
	e[MORE] = kit_text(KIT_FOLDER "H.wrapper.json", "{\"nodes\": 3}");
	expect(e, 5, BRIEF, PT2BOX_OK, "");
	/* Written for another machine: still read. */
	e[META] = kit_text(part[META].name, "{\"AOTI_DEVICE_KEY\": \"cuda\", \"mine\": \"1\"}");
	fd = kit_zip_fd(e, 5);
	r = run(fd, "model", -1, BRIEF);
	assert_int_equal(PT2BOX_OK, r.st);
	assert_string_equal("cuda", r.m->device);
	assert_int_equal(2, r.m->n_metadata);
	done(&r);
	close(fd);
	e[META] = kit_text(part[META].name, "{");
	expect(e, 5, BRIEF, PT2BOX_PKG_REJECTED, "meta.json");
	e[META] = kit_text("pkg/other", "");
	expect(e, 5, BRIEF, PT2BOX_PKG_REJECTED, "meta.json: the model has no metadata");
	e[SO] = kit_text("pkg/x", "");
	expect(e, 5, BRIEF, PT2BOX_PKG_REJECTED, "no_so");
}

/* Without text there is no description, and the package still runs. */
static void test_no_text(void **state)
{
	struct kit_entry e[5];
	struct result r;
	int fd;

	(void)state;
	memcpy(e, part, sizeof(e));
	e[WRAPPER] = kit_text("pkg/nothing", "");
	fd = kit_zip_fd(e, 5);
	r = run(fd, "model", -1, LOAD);
	assert_int_equal(PT2BOX_OK, r.st);
	assert_false(r.m->has_signature);
	assert_int_equal(0, r.m->n_constants);
	assert_int_equal(PB_CONSTS_EMBEDDED_RO, r.m->const_source);
	assert_int_equal(76864, r.m->const_bytes);
	assert_string_equal("", r.m->in_spec);
	done(&r);
	close(fd);
}

/* P06: what the text says is compared with what is there. */
static void test_text_lies(void **state)
{
	char *text = strndup(part[WRAPPER].data, part[WRAPPER].size);
	char *at = strstr(text, "data_size = 65536");

	(void)state;
	assert_non_null(at);
	memcpy(at, "data_size = 65472", 17);
	expect_with(WRAPPER, kit_text(part[WRAPPER].name, text), PT2BOX_PKG_REJECTED, "meta.constants");
	memcpy(at, "data_size = 65600", 17);
	expect_with(WRAPPER, kit_text(part[WRAPPER].name, text), PT2BOX_PKG_REJECTED, "meta.constants");
	free(text);
}

/* P05: pickled weights are not read. */
static void test_pickled(void **state)
{
	struct kit_entry e[5];
	size_t n, m;
	uint8_t *so = fixture_file("extconst", ".so", &n), *cpp = fixture_file("extconst", ".wrapper.cpp", &m);
	const int st = open_fixture("extconst", "constants.safetensors");
	struct result r;
	int fd;

	(void)state;
	memcpy(e, part, sizeof(e));
	e[SO].data = so;
	e[SO].size = n;
	e[WRAPPER].data = cpp;
	e[WRAPPER].size = m;
	e[MORE] = kit_text(KIT_FOLDER "weights_config.json", "{}");
	expect(e, 5, LOAD, PT2BOX_PKG_REJECTED, "const.format");
	expect(e, 5, INSPECT, PT2BOX_OK, "");
	fd = kit_zip_fd(e, 5);
	r = run(fd, "model", st, LOAD);
	assert_int_equal(PT2BOX_OK, r.st);
	assert_int_equal(PB_CONSTS_EXTERNAL, r.m->const_source);
	done(&r);
	close(fd);
	close(st);
	free(so);
	free(cpp);
}

/* Constants for a model that has none. */
static void test_useless_constants(void **state)
{
	const int pkg = open_fixture("alias", "model.pt2"), st = open_fixture("extconst", "constants.safetensors");
	struct result r = run(pkg, "model", st, LOAD);

	(void)state;
	assert_int_equal(PT2BOX_USAGE, r.st);
	done(&r);
	close(pkg);
	close(st);
}

/* ---- damage ---- */

static void test_flips(void **state)
{
	struct kit_zip *z = calloc(1, sizeof(*z));
	uint64_t seed = 3;

	(void)state;
	kit_zip(z, part, 5);
	for (int i = 0; i < (CHECK_SANITIZED ? 60 : 600); i++) {
		/* Half of them where the structure is: the text of the wrapper, the head of the code, the directory. */
		const size_t at = i % 2 ? check_rand(&seed) % z->n : z->n - 1 - check_rand(&seed) % 700;
		struct result r;
		int fd;

		z->p[at] ^= (uint8_t)(1 + check_rand(&seed) % 255);
		fd = kit_memfd(z->p, z->n);
		r = run(fd, "model", -1, LOAD);
		done(&r);
		close(fd);
		if (i % 8 == 7) { /* some of them together, then fresh again */
			z->n = 0;
			kit_zip(z, part, 5);
		}
	}
	free(z->p);
	free(z);
}

static void test_cut(void **state)
{
	struct kit_zip *z = calloc(1, sizeof(*z));

	(void)state;
	kit_zip(z, part, 5);
	for (size_t n = 0; n < z->n; n += z->n / 50) {
		const int fd = kit_memfd(z->p, n);
		struct result r = run(fd, "model", -1, LOAD);

		assert_int_not_equal(PT2BOX_OK, r.st);
		done(&r);
		close(fd);
	}
	free(z->p);
	free(z);
}

/* ---- failing calls ---- */

static void test_failing_calls(void **state)
{
	const int pkg = open_fixture("extconst", "model.pt2"), st = open_fixture("extconst", "constants.safetensors");
	const struct pb_intake in = {.model = "model", .max_package_bytes = MAX, .package = pkg, .constants_in = st,
				     .out_model = memfd_create("a", MFD_CLOEXEC),
				     .out_constants = memfd_create("b", MFD_CLOEXEC),
				     .out_manifest = memfd_create("c", MFD_CLOEXEC)};
	long n = 0;

	(void)state;
	for (; check_fail_at(n); n++) {
		struct pt2box_error err = {.status = PT2BOX_OK};
		char digest[PB_DIGEST_TEXT];
		pb_status s = pb_intake_run(&in, digest, &err);

		if (check_failed()) {
			assert_int_not_equal(PT2BOX_OK, s);
			assert_int_equal(s, err.status);
		} else {
			assert_int_equal(PT2BOX_OK, s);
		}
	}
	assert_true(n > 20); /* calls of ours that can fail */
	close(in.out_model);
	close(in.out_constants);
	close(in.out_manifest);
	close(pkg);
	close(st);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_fixtures), CHECK_TEST(test_names),	CHECK_TEST(test_brief),
		CHECK_TEST(test_custom_op),
		CHECK_TEST(test_hash),	   CHECK_TEST(test_external),	CHECK_TEST(test_mutates),	CHECK_TEST(test_refusals),
		CHECK_TEST(test_no_text),  CHECK_TEST(test_text_lies),	CHECK_TEST(test_pickled),
		CHECK_TEST(test_useless_constants), CHECK_TEST(test_flips), CHECK_TEST(test_cut),
		CHECK_TEST(test_failing_calls),
	};

	return cmocka_run_group_tests_name("intake", tests, load_parts, free_parts);
}
