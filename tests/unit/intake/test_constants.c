/* SPDX-License-Identifier: Apache-2.0 */
/* Where constants are, and constants from safetensors files. Attack cases P05, P06. */
#include "tests/unit/intake/kit.h"

#include "broker/intake/constants.h"
#include "broker/intake/const_memory.h"
#include "broker/intake/given.h"

/* ---- where they are ---- */

/* A description, a file of code, and what is found. */
struct place {
	struct pb_constant c[3];
	struct pb_wrapper w;
	struct pb_elf_facts elf;
	struct pb_model_files files;
	struct pb_entry blob;
	uint8_t *so;
	uint64_t so_bytes;
	bool brought;
	struct pb_manifest m;
};

static void set_up(struct place *p)
{
	*p = (struct place){.so_bytes = 65536 + 192 + 8};
	for (int i = 0; i < 3; i++)
		p->c[i] = (struct pb_constant){.name = "n", .fqn = "f", .dtype = PT2BOX_FLOAT32, .ndim = 2,
					       .sizes = {2, 8}, .strides = {8, 1}, .data_size = 64};
	p->w = (struct pb_wrapper){.has_counts = true, .has_constants = true, .constants = p->c, .n_constants = 3};
	p->so = calloc(1, p->so_bytes);
	p->elf = (struct pb_elf_facts){.constants_offset = 1000, .constants_bytes = 192, .image_end = 60000};
}

static pb_status find(struct place *p, struct pt2box_error *err)
{
	const struct pb_constants_in in = {.wrapper = &p->w, .elf = &p->elf, .files = &p->files, .so = p->so,
					   .so_bytes = p->so_bytes, .brought = p->brought};

	p->m = (struct pb_manifest){.n_constants = 0};
	return pb_constants_find(&in, &p->m, err);
}

static void put(struct place *p, uint64_t at, uint64_t v)
{
	memcpy(p->so + at, &v, sizeof(v));
}

static void test_embedded(void **state)
{
	struct pt2box_error err;
	struct place p;

	(void)state;
	set_up(&p);
	assert_int_equal(PT2BOX_OK, find(&p, &err));
	assert_int_equal(PB_CONSTS_EMBEDDED_RO, p.m.const_source);
	assert_int_equal(192, p.m.const_bytes);
	assert_int_equal(1000, p.m.const_file_offset);
	assert_false(p.m.mutates);
	assert_int_equal(128, p.m.constants[2].blob_offset);
	p.elf.constants_writable = true;
	assert_int_equal(PT2BOX_OK, find(&p, &err));
	assert_int_equal(PB_CONSTS_EMBEDDED_RW, p.m.const_source);
	assert_int_equal(1000, p.m.const_file_offset);
	assert_true(p.m.mutates);
	/* Folded ones have no place. */
	p.c[1].folded = true;
	assert_int_equal(PT2BOX_PKG_REJECTED, find(&p, &err));
	p.elf.constants_bytes = 128;
	assert_int_equal(PT2BOX_OK, find(&p, &err));
	assert_int_equal(64, p.m.constants[2].blob_offset);
	/* oneDNN's own layouts are padded, and their strides say nothing; the others are still held to theirs. */
	p.c[0].opaque = true;
	p.c[0].strides[0] = 1000;
	assert_int_equal(PT2BOX_OK, find(&p, &err));
	p.c[2].strides[0] = 1000;
	assert_int_equal(PT2BOX_PKG_REJECTED, find(&p, &err));
	p.c[2].strides[0] = 8;
	/* Without a description any size is right; nothing is known of each. */
	p.w.has_constants = false;
	p.w.n_constants = 0;
	assert_int_equal(PT2BOX_OK, find(&p, &err));
	assert_int_equal(128, p.m.const_bytes);
	/* No constants, with the one byte that every model has. */
	p.w.has_constants = true;
	p.elf.constants_bytes = 1;
	assert_int_equal(PT2BOX_OK, find(&p, &err));
	assert_int_equal(PB_CONSTS_NONE, p.m.const_source);
	assert_false(p.m.mutates); /* there is nothing to change */
	free(p.so);
}

static void test_lies(void **state)
{
	struct pt2box_error err;
	struct place p;

	(void)state;
	set_up(&p);
	p.c[0].sizes[0] = 3; /* 96 bytes in 64 */
	assert_int_equal(PT2BOX_PKG_REJECTED, find(&p, &err));
	assert_memory_equal("meta.constants: ", err.text, 16);
	p.c[0].sizes[0] = INT64_MAX;
	assert_int_equal(PT2BOX_PKG_REJECTED, find(&p, &err));
	p.c[0].sizes[0] = 2;
	p.c[0].strides[0] = INT64_MAX;
	assert_int_equal(PT2BOX_PKG_REJECTED, find(&p, &err));
	p.c[0].strides[0] = 8;
	p.c[0].storage_offset = 1;
	assert_int_equal(PT2BOX_PKG_REJECTED, find(&p, &err));
	p.c[0].storage_offset = INT64_MAX;
	assert_int_equal(PT2BOX_PKG_REJECTED, find(&p, &err));
	p.c[0].storage_offset = 0;
	p.c[0].data_size = p.c[1].data_size = p.c[2].data_size = INT64_MAX;
	assert_int_equal(PT2BOX_PKG_REJECTED, find(&p, &err));
	p.c[0].data_size = p.c[1].data_size = p.c[2].data_size = 64;
	p.elf.constants_bytes = 256;
	assert_int_equal(PT2BOX_PKG_REJECTED, find(&p, &err));
	assert_non_null(strstr(err.text, "192"));
	free(p.so);
}

#define MAGIC 0x1234567890abcdefull

static void test_appended(void **state)
{
	struct pt2box_error err;
	struct place p;

	(void)state;
	set_up(&p);
	p.elf.constants_bytes = 16;
	put(&p, 1000, 192 + 8);
	put(&p, 1008, MAGIC);
	put(&p, p.so_bytes - 8, MAGIC);
	assert_int_equal(PT2BOX_OK, find(&p, &err));
	assert_int_equal(PB_CONSTS_MMAP_SELF, p.m.const_source);
	assert_int_equal(192, p.m.const_bytes);
	/* Another end, another place, inside the image, too large: then it is 16 bytes of constants, which do not fit. */
	put(&p, p.so_bytes - 8, MAGIC + 1);
	assert_int_equal(PT2BOX_PKG_REJECTED, find(&p, &err));
	put(&p, p.so_bytes - 8, MAGIC);
	p.elf.image_end = 65537;
	assert_int_equal(PT2BOX_PKG_REJECTED, find(&p, &err));
	p.elf.image_end = 60000;
	put(&p, 1000, 192);
	assert_int_equal(PT2BOX_PKG_REJECTED, find(&p, &err));
	put(&p, 1000, UINT64_MAX);
	assert_int_equal(PT2BOX_PKG_REJECTED, find(&p, &err));
	put(&p, 1000, 7);
	assert_int_equal(PT2BOX_PKG_REJECTED, find(&p, &err));
	/* Changed by the model, though not in its memory. */
	put(&p, 1000, 200);
	assert_int_equal(PT2BOX_OK, find(&p, &err));
	assert_int_equal(65536, p.m.const_file_offset);
	assert_false(p.m.mutates);
	p.elf.constants_writable = true;
	assert_int_equal(PT2BOX_OK, find(&p, &err));
	assert_int_equal(PB_CONSTS_MMAP_SELF, p.m.const_source);
	assert_true(p.m.mutates);
	/* The client's are used instead of those in the file. */
	p.brought = true;
	assert_int_equal(PT2BOX_OK, find(&p, &err));
	assert_int_equal(PB_CONSTS_EXTERNAL, p.m.const_source);
	assert_int_equal(0, p.m.const_file_offset);
	assert_true(p.m.mutates);
	free(p.so);
}

static void test_blob(void **state)
{
	struct pt2box_error err;
	struct place p;

	(void)state;
	set_up(&p);
	p.elf.constants_bytes = 8;
	put(&p, 1000, 192);
	assert_int_equal(PT2BOX_PKG_REJECTED, find(&p, &err)); /* the file is missing */
	p.files.blob = &p.blob;
	p.blob.size = 191;
	assert_int_equal(PT2BOX_PKG_REJECTED, find(&p, &err));
	p.blob.size = 192;
	assert_int_equal(PT2BOX_OK, find(&p, &err));
	assert_int_equal(PB_CONSTS_BLOB, p.m.const_source);
	assert_false(p.m.mutates);
	p.elf.constants_writable = true;
	assert_int_equal(PT2BOX_OK, find(&p, &err));
	assert_int_equal(PB_CONSTS_BLOB, p.m.const_source);
	assert_true(p.m.mutates);
	free(p.so);
}

static void test_outside(void **state)
{
	struct pb_entry config = {.size = 1};
	struct pt2box_error err;
	struct place p;

	(void)state;
	set_up(&p);
	p.elf.constants_bytes = 1;
	assert_int_equal(PT2BOX_OK, find(&p, &err));
	assert_int_equal(PB_CONSTS_EXTERNAL, p.m.const_source);
	assert_int_equal(192, p.m.const_bytes);
	p.files.weights_config = &config;
	assert_int_equal(PT2BOX_OK, find(&p, &err));
	assert_int_equal(PB_CONSTS_WEIGHTS_FILE, p.m.const_source);
	p.brought = true;
	assert_int_equal(PT2BOX_OK, find(&p, &err));
	assert_int_equal(PB_CONSTS_EXTERNAL, p.m.const_source);
	/* Brought ones take the place of those inside. */
	p.elf.constants_bytes = 192;
	assert_int_equal(PT2BOX_OK, find(&p, &err));
	assert_int_equal(PB_CONSTS_EXTERNAL, p.m.const_source);
	p.elf.constants_writable = true;
	assert_int_equal(PT2BOX_OK, find(&p, &err));
	assert_int_equal(PB_CONSTS_EXTERNAL, p.m.const_source);
	assert_true(p.m.mutates);
	/* Not described: nobody knows where each goes. */
	p.elf.constants_writable = false;
	p.elf.constants_bytes = 1;
	p.w.has_constants = false;
	p.w.n_constants = 0;
	assert_int_equal(PT2BOX_PKG_REJECTED, find(&p, &err));
	free(p.so);
}

/* ---- safetensors ---- */

static float numbers[6] = {1, 2, 3, 4, 5, 6};

static int safetensors(const char *header, const void *data, size_t bytes)
{
	const uint64_t n = strlen(header);
	uint8_t *all = malloc(8 + n + bytes);
	int fd;

	memcpy(all, &n, 8);
	memcpy(all + 8, header, n);
	memcpy(all + 8 + n, data, bytes);
	fd = kit_memfd(all, 8 + n + bytes);
	free(all);
	return fd;
}

/* One float32 [2, 3] named "w" is wanted, at offset 64, with these strides; all of it, as for a load. */
static pb_status read_into(int fd_take, int64_t s0, int64_t s1, float out[16], struct pt2box_error *err)
{
	struct pb_constant c[2] = {{.name = "fold", .fqn = "fold", .folded = true},
				   {.name = "w_", .fqn = "w", .dtype = PT2BOX_FLOAT32, .ndim = 2, .sizes = {2, 3},
				    .strides = {s0, s1}, .storage_offset = 1, .data_size = 64, .blob_offset = 64}};
	const struct pb_manifest m = {.constants = c, .n_constants = 2, .const_bytes = 128};
	const struct pb_stored_tensor *given[2];
	struct pb_safetensors f;
	const struct pb_const_parts parts = {.file = &f, .given = given, .parameters = {.fd = -1}, .others = {.fd = -1}};
	char digest[PB_DIGEST_TEXT];
	const int to = memfd_create("out", MFD_CLOEXEC);
	uint8_t table[3];
	pb_status st = pb_safetensors_open(fd_take, &f, err);

	if (!st)
		st = pb_given_match(&m, &f, false, PB_REQUIRED_ALL, given, err);
	if (!st)
		st = pb_const_memory_write(&m, &parts, 128, to, digest, err);
	if (!st) {
		assert_int_equal(64, pread(to, out, 64, 64));
		assert_int_equal(2, pread(to, table, 3, 128));
		assert_memory_equal("\0\1", table, 2);
	}
	pb_safetensors_close(&f);
	close(to);
	close(fd_take);
	return st;
}

#define W "\"w\": {\"dtype\": \"F32\", \"shape\": [2, 3], \"data_offsets\": [0, 24]}"

static void test_safetensors(void **state)
{
	struct pt2box_error err;
	float out[16];

	(void)state;
	assert_int_equal(PT2BOX_OK, read_into(safetensors("{\"__metadata__\": {\"a\": \"b\"}, " W "}", numbers, 24), 3, 1, out,
					      &err));
	assert_memory_equal(numbers, out + 1, 24);
	/* Transposed, and with a gap. */
	assert_int_equal(PT2BOX_OK, read_into(safetensors("{" W "}   ", numbers, 24), 1, 2, out, &err));
	assert_true(out[1] == 1 && out[2] == 4 && out[3] == 2 && out[4] == 5 && out[5] == 3 && out[6] == 6);
	assert_int_equal(PT2BOX_OK, read_into(safetensors("{" W "}", numbers, 24), 8, 2, out, &err));
	assert_true(out[1] == 1 && out[3] == 2 && out[5] == 3 && out[9] == 4 && out[11] == 5 && out[13] == 6);
}

static void test_safetensors_refused(void **state)
{
	static const struct {
		const char *header;
		pb_status st;
		const char *word;
	} cases[] = {
		{"{}", PT2BOX_NOT_FOUND, "const.name: not given: w"},
		{"{" W ", \"extra\": {\"dtype\": \"F32\", \"shape\": [], \"data_offsets\": [0, 4]}}", PT2BOX_NOT_FOUND,
		 "const.name: the model has no constant extra"},
		{"{" W ", \"fold\": {\"dtype\": \"F32\", \"shape\": [], \"data_offsets\": [0, 4]}}", PT2BOX_BAD_TENSOR,
		 "const.folded: \"fold\" is computed from other constants"},
		{"{\"w\": {\"dtype\": \"F64\", \"shape\": [1, 3], \"data_offsets\": [0, 24]}}", PT2BOX_BAD_TENSOR,
		 "const.dtype: \"w\" is float64, the model has float32"},
		{"{\"w\": {\"dtype\": \"F32\", \"shape\": [3, 2], \"data_offsets\": [0, 24]}}", PT2BOX_BAD_TENSOR,
		 "const.shape: \"w\" has the shape [3, 2], the model has [2, 3]"},
		{"{\"w\": {\"dtype\": \"F32\", \"shape\": [6], \"data_offsets\": [0, 24]}}", PT2BOX_BAD_TENSOR, "const.shape: "},
		{"{\"w\": {\"dtype\": \"F32\", \"shape\": [2, 3], \"data_offsets\": [0, 25]}}", PT2BOX_PKG_REJECTED, "const.format: "},
		{"{\"w\": {\"dtype\": \"F32\", \"shape\": [2, 3], \"data_offsets\": [24, 0]}}", PT2BOX_PKG_REJECTED, "const.format: "},
		{"{\"w\": {\"dtype\": \"F32\", \"shape\": [2, 3], \"data_offsets\": [8, 32]}}", PT2BOX_PKG_REJECTED, "const.format: "},
		{"{\"w\": {\"dtype\": \"F32\", \"shape\": [2, 3], \"data_offsets\": [-1, 23]}}", PT2BOX_PKG_REJECTED, "const.format: "},
		{"{\"w\": {\"dtype\": \"F32\", \"shape\": [2, -3], \"data_offsets\": [0, 24]}}", PT2BOX_PKG_REJECTED, "const.format: "},
		{"{\"w\": {\"dtype\": \"F32\", \"shape\": [4611686018427387904, 8], \"data_offsets\": [0, 24]}}", PT2BOX_PKG_REJECTED,
		 "const.format: "},
		{"{\"w\": {\"dtype\": \"X9\", \"shape\": [2, 3], \"data_offsets\": [0, 24]}}", PT2BOX_UNSUPPORTED,
		 "const.dtype: \"w\" has the type \"X9\""},
		{"{\"w\": {\"shape\": [2, 3], \"data_offsets\": [0, 24]}}", PT2BOX_PKG_REJECTED, "const.format: "},
		{"{\"w\": {\"dtype\": \"F32\", \"shape\": [2, 3], \"data_offsets\": [0.0, 24]}}", PT2BOX_PKG_REJECTED, "const.format: "},
		{"{\"w\": {\"dtype\": \"F32\", \"shape\": [2, 3.0], \"data_offsets\": [0, 24]}}", PT2BOX_PKG_REJECTED, "const.format: "},
		{"{\"w\": {\"dtype\": \"F32\", \"shape\": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,"
		 "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,6], \"data_offsets\": [0, 24]}}", PT2BOX_PKG_REJECTED,
		 "const.format: "},
		{"{\"w\": {\"dtype\": \"F32\", \"shape\": \"x\", \"data_offsets\": [0, 24]}}", PT2BOX_PKG_REJECTED, "const.format: "},
		{"{\"w\": {\"dtype\": \"F32\", \"shape\": [2, 3]}}", PT2BOX_PKG_REJECTED, "const.format: "},
		{"{\"w\": 3}", PT2BOX_PKG_REJECTED, "const.format: "},
		{"[]", PT2BOX_PKG_REJECTED, "const.format: "},
		{"{", PT2BOX_PKG_REJECTED, "const.format: "},
		{"{" W ", " W "}", PT2BOX_PKG_REJECTED, "const.format: the constants file names something twice"},
	};
	float out[16];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct pt2box_error err = {.status = PT2BOX_OK};
		pb_status st = read_into(safetensors(cases[i].header, numbers, 24), 3, 1, out, &err);

		if (st != cases[i].st || strncmp(err.text, cases[i].word, strlen(cases[i].word)) != 0)
			fail_msg("case %zu: %d %s", i, st, err.text);
	}
}

/* P05: a pickle is not a safetensors file, nor are short or huge headers. */
static void test_not_safetensors(void **state)
{
	static const char pickle[] = "\x80\x02" "cos\nsystem\nq\x00" "U\x02" "idq\x01\x85q\x02Rq\x03.";
	static const uint8_t huge[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, '{', '}', 0};
	struct pt2box_error err;
	float out[16];

	(void)state;
	assert_int_equal(PT2BOX_PKG_REJECTED, read_into(kit_memfd(pickle, sizeof(pickle)), 3, 1, out, &err));
	assert_memory_equal("const.format: ", err.text, 14);
	assert_int_equal(PT2BOX_PKG_REJECTED, read_into(kit_memfd(huge, sizeof(huge)), 3, 1, out, &err));
	assert_int_equal(PT2BOX_PKG_REJECTED, read_into(kit_memfd("", 0), 3, 1, out, &err));
}

static void test_safetensors_sweep(void **state)
{
	static const char header[] = "{" W "}";
	uint8_t all[8 + sizeof(header) - 1 + 24];
	const uint64_t n = sizeof(header) - 1;
	struct pt2box_error err;
	float out[16];

	(void)state;
	memcpy(all, &n, 8);
	memcpy(all + 8, header, n);
	memcpy(all + 8 + n, numbers, 24);
	for (size_t i = 0; i < sizeof(all); i++)
		assert_int_not_equal(PT2BOX_OK, read_into(kit_memfd(all, i), 3, 1, out, &err));
	for (size_t i = 0; i < 8 + n; i++)
		for (int bit = 0; bit < 8; bit++) {
			all[i] ^= (uint8_t)(1u << bit);
			(void)!read_into(kit_memfd(all, sizeof(all)), 3, 1, out, &err);
			all[i] ^= (uint8_t)(1u << bit);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_embedded),    CHECK_TEST(test_lies),		    CHECK_TEST(test_appended),
		CHECK_TEST(test_blob),	      CHECK_TEST(test_outside),		    CHECK_TEST(test_safetensors),
		CHECK_TEST(test_safetensors_refused), CHECK_TEST(test_not_safetensors), CHECK_TEST(test_safetensors_sweep),
	};

	return cmocka_run_group_tests_name("constants", tests, NULL, NULL);
}
