/* SPDX-License-Identifier: Apache-2.0 */
/* ldflags: -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=ftruncate,--wrap=pread,--wrap=mmap */
/* New constants for a loaded model: what is given, what is kept and from where, every refusal; and comparing memories. */
#include "tests/unit/intake/kit.h"

#include <fcntl.h>

#include "broker/intake/hash.h"
#include "broker/intake/update.h"
#include "ipc/socket.h"

#define BYTES 320
#define N 6
enum { W, B, BUF, FOLD, T, EMPTY };

/* A transposed matrix with an offset, a scalar, a buffer, and a tensor whose full name is the matrix's internal one. */
static const struct pb_constant declared[N] = {
	{.name = "w_", .fqn = "w", .dtype = PT2BOX_FLOAT32, .ndim = 2, .sizes = {2, 3}, .strides = {1, 2}, .storage_offset = 1,
	 .data_size = 64, .blob_offset = 0, .type = PB_CONST_PARAMETER},
	{.name = "b_", .fqn = "b", .dtype = PT2BOX_INT64, .data_size = 64, .blob_offset = 64, .type = PB_CONST_UNKNOWN},
	{.name = "buf", .fqn = "m.buf", .dtype = PT2BOX_COMPLEX64, .ndim = 1, .sizes = {2}, .strides = {1}, .data_size = 64,
	 .blob_offset = 128, .type = PB_CONST_BUFFER},
	{.name = "fold", .fqn = "f", .dtype = PT2BOX_FLOAT32, .folded = true, .blob_offset = 192, .type = PB_CONST_FOLDED},
	{.name = "t", .fqn = "w_", .dtype = PT2BOX_UINT8, .ndim = 1, .sizes = {4}, .strides = {1}, .data_size = 64,
	 .blob_offset = 192, .type = PB_CONST_TENSOR},
	{.name = "e", .fqn = "empty", .dtype = PT2BOX_FLOAT32, .ndim = 1, .strides = {1}, .blob_offset = 256,
	 .type = PB_CONST_PARAMETER},
};

static struct pb_constant constants[N];
static struct pb_manifest manifest;
static struct pb_update job;

struct result {
	pb_status st;
	struct pt2box_error err;
	uint8_t *out;
	size_t n;
	char digest[PB_DIGEST_TEXT];
};

static int filled(uint8_t fill, size_t before)
{
	uint8_t data[BYTES + 100];

	memset(data, 0x99, before);
	memset(data + before, fill, BYTES);
	return kit_memfd(data, before + BYTES);
}

static void set_up(void)
{
	memcpy(constants, declared, sizeof(constants));
	manifest = (struct pb_manifest){.constants = constants, .n_constants = N, .const_source = PB_CONSTS_EXTERNAL,
					.const_bytes = BYTES};
	job = (struct pb_update){.manifest = -1, .file = -1, .out = -1, .base = {filled(0x11, 100), 100},
				 .parameters = {filled(0x22, 0), 0}, .max_bytes = BYTES};
}

static void tear_down(void)
{
	close(job.base.fd);
	close(job.parameters.fd);
}

/* A file of @header and 64 bytes 0, 1, 2 ... */
static int file_of(const char *header)
{
	const uint64_t n = strlen(header);
	uint8_t *all = malloc(8 + n + 64);
	int fd;

	assert_non_null(all);
	memcpy(all, &n, 8);
	memcpy(all + 8, header, n);
	for (uint8_t i = 0; i < 64; i++)
		all[8 + n + i] = i;
	fd = kit_memfd(all, 8 + n + 64);
	free(all);
	return fd;
}

static int manifest_file(void)
{
	uint8_t *data;
	size_t n;
	int fd;

	assert_int_equal(PT2BOX_OK, pb_manifest_encode(&manifest, &data, &n, NULL));
	fd = kit_memfd(data, n);
	free(data);
	return fd;
}

static struct result run(const char *header)
{
	struct result r = {.st = PT2BOX_OK};

	job.manifest = manifest_file();
	job.file = file_of(header);
	job.out = memfd_create("out", MFD_CLOEXEC);
	r.st = pb_update_run(&job, r.digest, &r.err);
	assert_int_equal(PT2BOX_OK, pb_fd_slurp(job.out, 1 << 20, &r.out, &r.n, NULL));
	close(job.manifest);
	close(job.file);
	close(job.out);
	return r;
}

#define GIVE(name, dtype, shape, begin, end)                                                                           \
	"\"" name "\": {\"dtype\": \"" dtype "\", \"shape\": [" shape "], \"data_offsets\": [" #begin ", " #end "]}"
#define GIVE_W GIVE("w", "F32", "2, 3", 0, 24)
#define GIVE_B GIVE("b", "I64", "", 8, 16)
#define GIVE_BUF GIVE("m.buf", "C64", "2", 16, 32)
#define GIVE_T GIVE("w_", "U8", "4", 60, 64)

static void check_filled(const uint8_t *p, size_t n, uint8_t fill)
{
	for (size_t i = 0; i < n; i++)
		assert_int_equal(fill, p[i]);
}

static void check_counts(const uint8_t *p, size_t n, uint8_t from)
{
	for (size_t i = 0; i < n; i++)
		assert_int_equal(from + i, p[i]);
}

static void check_digest(const struct result *r)
{
	struct pb_hash h = {{0}};
	char text[PB_DIGEST_TEXT];
	uint8_t sum[32];

	pb_hash_begin(&h);
	pb_hash_add(&h, r->out, r->n);
	pb_hash_end(&h, sum);
	for (int i = 0; i < 32; i++)
		snprintf(text + 2 * i, 3, "%02x", sum[i]);
	assert_string_equal(text, r->digest);
}

/* Nothing given: all is kept, parameters from their own base; space between constants is zero. */
static void test_nothing(void **state)
{
	struct result r;

	(void)state;
	set_up();
	r = run("{}");
	assert_int_equal(PT2BOX_OK, r.st);
	assert_int_equal(BYTES + N, r.n);
	check_filled(r.out, 128, 0x22);
	check_filled(r.out + 128, 128, 0x11);
	check_filled(r.out + 256, 64 + N, 0);
	check_digest(&r);
	free(r.out);
	tear_down();
}

static void test_one(void **state)
{
	struct result r;

	(void)state;
	set_up();
	r = run("{\"__metadata__\": {\"format\": \"pt\"}, " GIVE_B "}");
	assert_int_equal(PT2BOX_OK, r.st);
	check_filled(r.out, 64, 0x22);
	check_counts(r.out + 64, 8, 8);
	check_filled(r.out + 72, 56, 0);
	check_filled(r.out + 128, 128, 0x11);
	assert_memory_equal("\0\1\0\0\0\0", r.out + BYTES, N);
	check_digest(&r);
	free(r.out);
	tear_down();
}

/* In the package's strides and storage offset, with zeros around. */
static void test_all(void **state)
{
	static const int place[6] = {1, 3, 5, 2, 4, 6}; /* of each element in row-major order */
	struct result r;

	(void)state;
	set_up();
	job.full = true;
	r = run("{" GIVE_T ", " GIVE_BUF ", " GIVE_W ", " GIVE_B ", " GIVE("empty", "F32", "0", 64, 64) "}");
	assert_int_equal(PT2BOX_OK, r.st);
	check_filled(r.out, 4, 0);
	for (uint8_t i = 0; i < 6; i++)
		check_counts(r.out + 4 * place[i], 4, 4 * i);
	check_filled(r.out + 28, 36, 0);
	check_counts(r.out + 64, 8, 8);
	check_counts(r.out + 128, 16, 16);
	check_filled(r.out + 144, 48, 0);
	check_counts(r.out + 192, 4, 60);
	check_filled(r.out + 196, 124, 0);
	assert_memory_equal("\1\1\1\0\1\1", r.out + BYTES, N);
	check_digest(&r);
	free(r.out);
	tear_down();
}

/* Internal names, only where they are allowed, and after the fully qualified ones. */
static void test_internal_names(void **state)
{
	struct result r;

	(void)state;
	set_up();
	r = run("{" GIVE_T "}");
	assert_int_equal(PT2BOX_OK, r.st);
	assert_memory_equal("\0\0\0\0\1\0", r.out + BYTES, N);
	free(r.out);
	job.names = true;
	r = run("{" GIVE_T ", " GIVE("b_", "I64", "", 8, 16) ", " GIVE_BUF "}");
	assert_int_equal(PT2BOX_OK, r.st);
	assert_memory_equal("\0\1\1\0\1\0", r.out + BYTES, N);
	free(r.out);
	tear_down();
}

static void expect(const char *header, pb_status st, const char *text)
{
	struct result r = run(header);

	if (r.st != st || strcmp(r.err.text, text) != 0)
		fail_msg("want %d %s, got %d %s", st, text, r.st, r.err.text);
	assert_int_equal(0, r.n); /* nothing is written before all is checked */
	free(r.out);
}

static void test_refusals(void **state)
{
	(void)state;
	set_up();
	expect("{" GIVE("x", "F32", "", 0, 4) "}", PT2BOX_NOT_FOUND, "const.name: the model has no constant x");
	expect("{" GIVE("x", "F32", "", 0, 4) ", " GIVE_W ", " GIVE("b_", "F64", "9", 0, 72) "}", PT2BOX_PKG_REJECTED,
	       "const.format: the constants file describes a tensor that is not inside it: \"b_\"");
	/* By internal name, which is not asked for. */
	expect("{" GIVE("x", "F32", "", 0, 4) ", " GIVE_W ", " GIVE("b_", "F64", "8", 0, 64) "}", PT2BOX_NOT_FOUND,
	       "const.name: the model has no constant x, b_");
	expect("{" GIVE("w", "F64", "1, 3", 0, 24) "}", PT2BOX_BAD_TENSOR,
	       "const.dtype: \"w\" is float64, the model has float32");
	expect("{" GIVE("w", "F32", "6", 0, 24) "}", PT2BOX_BAD_TENSOR,
	       "const.shape: \"w\" has the shape [6], the model has [2, 3]");
	expect("{" GIVE("b", "I64", "1", 0, 8) "}", PT2BOX_BAD_TENSOR,
	       "const.shape: \"b\" has the shape [1], the model has []");
	expect("{" GIVE("f", "F32", "", 0, 4) "}", PT2BOX_BAD_TENSOR,
	       "const.folded: \"f\" is computed from other constants, it cannot be given");
	expect("{" GIVE_W ", " GIVE_W "}", PT2BOX_PKG_REJECTED, "const.format: the constants file names something twice");
	expect("{" GIVE("w", "F8_E8M0", "4", 0, 4) "}", PT2BOX_UNSUPPORTED,
	       "const.dtype: \"w\" has the type \"F8_E8M0\", which is not known");
	expect("[]", PT2BOX_PKG_REJECTED, "const.format: the constants file has a header that is not a JSON object");
	job.names = true;
	expect("{" GIVE_B ", " GIVE("b_", "I64", "", 0, 8) "}", PT2BOX_USAGE,
	       "const.name: \"b_\" is given twice, also as \"b\"");
	job.names = false;
	job.full = true;
	expect("{}", PT2BOX_NOT_FOUND, "const.name: not given: w, b");
	expect("{" GIVE_W ", " GIVE_T ", " GIVE_BUF "}", PT2BOX_NOT_FOUND, "const.name: not given: b");
	job.full = false;
	job.max_bytes = BYTES - 1;
	expect("{}", PT2BOX_LIMIT, "the constants have 320 bytes; 319 are allowed");
	tear_down();
}

/* Buffers and tensor constants may be missing from a full update. */
static void test_full(void **state)
{
	struct result r;

	(void)state;
	set_up();
	job.full = true;
	r = run("{" GIVE_W ", " GIVE_B "}");
	assert_int_equal(PT2BOX_OK, r.st);
	check_filled(r.out + 128, 128, 0x11);
	free(r.out);
	tear_down();
}

/* Long lists of names are cut, and say so. */
static void test_many_names(void **state)
{
	char *header = malloc(1 << 20), *at = header;
	struct result r;

	(void)state;
	assert_non_null(header);
	set_up();
	at += sprintf(at, "{");
	for (int i = 0; i < 5000; i++)
		at += sprintf(at, "%s\"unknown.%d\\n\": {\"dtype\": \"F32\", \"shape\": [], \"data_offsets\": [0, 4]}",
			      i ? ", " : "", i);
	sprintf(at, "}");
	r = run(header);
	assert_int_equal(PT2BOX_NOT_FOUND, r.st);
	assert_memory_equal("const.name: the model has no constant unknown.0?, unknown.1?", r.err.text, 60);
	assert_non_null(strstr(r.err.text, " more"));
	assert_true(strlen(r.err.text) < 479);
	free(r.out);
	free(header);
	tear_down();
}

/* Bases that are shorter than the manifest says. */
static void test_short_bases(void **state)
{
	(void)state;
	set_up();
	job.base.offset = 101;
	expect("{}", PT2BOX_INTERNAL, "the present constants are shorter than they should be");
	job.base.offset = INT64_MAX;
	expect("{}", PT2BOX_INTERNAL, "the present constants are shorter than they should be");
	job.base.offset = 0;
	job.parameters.offset = 1;
	expect("{}", PT2BOX_INTERNAL, "the present constants are shorter than they should be");
	tear_down();
}

/* A manifest of an intake that a package has taken over. */
static void test_hostile_manifest(void **state)
{
	static const char *const unfit[] = {"meta.constants: w does not fit the bytes it has",
					    "meta.constants: b does not fit the bytes it has",
					    "meta.constants: w_ does not fit the bytes it has"};
	struct result r;

	(void)state;
	set_up();
#define LIE(change, text)                                                                                              \
	do {                                                                                                           \
		memcpy(constants, declared, sizeof(constants));                                                        \
		change;                                                                                                \
		expect("{}", PT2BOX_PKG_REJECTED, text);                                                               \
	} while (0)
	LIE(constants[W].storage_offset = 11, unfit[0]);
	LIE(constants[W].storage_offset = INT64_MAX, unfit[0]);
	LIE(constants[W].strides[0] = INT64_MAX, unfit[0]);
	LIE(constants[W].sizes[0] = 1 << 20, unfit[0]);
	LIE(constants[W].dtype = 99, unfit[0]);
	LIE(constants[W].data_size = 65, unfit[1]);
	LIE(constants[B].blob_offset = 63, unfit[1]);
	LIE(constants[T].blob_offset = 257, unfit[2]);
	LIE(constants[T].blob_offset = INT64_MAX, unfit[2]);
#undef LIE
	memcpy(constants, declared, sizeof(constants));
	manifest.n_constants = 0;
	expect("{}", PT2BOX_UNSUPPORTED, "the package does not describe its constants");
	manifest.const_source = PB_CONSTS_NONE;
	manifest.const_bytes = 0;
	expect("{" GIVE_W "}", PT2BOX_NOT_FOUND, "const.name: the model has no constant w");
	r = run("{}");
	assert_int_equal(PT2BOX_OK, r.st);
	assert_int_equal(0, r.n);
	free(r.out);
	job.manifest = kit_memfd("x", 1);
	job.file = file_of("{}");
	assert_int_equal(PT2BOX_PKG_REJECTED, pb_update_run(&job, r.digest, &r.err));
	assert_string_equal("meta.manifest: malformed", r.err.text);
	close(job.manifest);
	close(job.file);
	tear_down();
}

/* Every dtype that a safetensors file can say. */
static void test_dtypes(void **state)
{
	static const struct {
		const char *name;
		int32_t dtype;
	} cases[] = {{"BOOL", PT2BOX_BOOL},	 {"U8", PT2BOX_UINT8},	       {"I8", PT2BOX_INT8},
		     {"I16", PT2BOX_INT16},	 {"U16", PT2BOX_UINT16},       {"I32", PT2BOX_INT32},
		     {"U32", PT2BOX_UINT32},	 {"I64", PT2BOX_INT64},	       {"U64", PT2BOX_UINT64},
		     {"F16", PT2BOX_FLOAT16},	 {"BF16", PT2BOX_BFLOAT16},    {"F32", PT2BOX_FLOAT32},
		     {"F64", PT2BOX_FLOAT64},	 {"C64", PT2BOX_COMPLEX64},    {"F8_E5M2", PT2BOX_FLOAT8_E5M2},
		     {"C128", PT2BOX_COMPLEX128}, {"F8_E4M3", PT2BOX_FLOAT8_E4M3FN}};

	(void)state;
	set_up();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const size_t bytes = 2 * pt2box_dtype_size(cases[i].dtype);
		char header[200];
		struct result r;

		constants[BUF].dtype = cases[i].dtype;
		snprintf(header, sizeof(header), "{\"m.buf\": {\"dtype\": \"%s\", \"shape\": [2], \"data_offsets\": [0, %zu]}}",
			 cases[i].name, bytes);
		r = run(header);
		if (r.st)
			fail_msg("%s: %s", cases[i].name, r.err.text);
		check_counts(r.out + 128, bytes, 0);
		free(r.out);
	}
	tear_down();
}

/* More than one step of the copy, with odd sizes; strided in both directions of the stride. */
static void test_large(void **state)
{
	enum { ROWS = 700, COLS = 501 };
	const uint64_t bytes = ROWS * COLS * 2, padded = (bytes + 63) / 64 * 64;
	uint16_t *data = malloc(bytes), *got;
	char header[300];
	uint64_t n;
	struct pb_constant c[2];
	struct result r = {.st = PT2BOX_OK};

	(void)state;
	assert_non_null(data);
	for (uint32_t i = 0; i < ROWS * COLS; i++)
		data[i] = (uint16_t)(i * 7919);
	set_up();
	for (int i = 0; i < 2; i++)
		c[i] = (struct pb_constant){.name = i ? "y" : "x", .fqn = i ? "y" : "x", .dtype = PT2BOX_FLOAT16, .ndim = 2,
					    .sizes = {ROWS, COLS}, .strides = {i ? 1 : COLS, i ? ROWS : 1}, .data_size = bytes,
					    .blob_offset = i ? padded : 0, .type = PB_CONST_PARAMETER};
	manifest.constants = c;
	manifest.n_constants = 2;
	manifest.const_bytes = 2 * padded;
	close(job.base.fd);
	job.base = job.parameters;
	job.base.fd = dup(job.parameters.fd);
	assert_int_equal(0, ftruncate(job.parameters.fd, (off_t)(2 * padded)));
	job.max_bytes = 1 << 30;
	n = (uint64_t)snprintf(header, sizeof(header),
			       "{\"x\": {\"dtype\": \"F16\", \"shape\": [%d, %d], \"data_offsets\": [0, %llu]}, "
			       "\"y\": {\"dtype\": \"F16\", \"shape\": [%d, %d], \"data_offsets\": [0, %llu]}}",
			       ROWS, COLS, (unsigned long long)bytes, ROWS, COLS, (unsigned long long)bytes);
	job.file = memfd_create("file", MFD_CLOEXEC);
	assert_int_equal(8, write(job.file, &n, 8));
	assert_int_equal(n, write(job.file, header, n));
	assert_int_equal(bytes, write(job.file, data, bytes));
	job.manifest = manifest_file();
	job.out = memfd_create("out", MFD_CLOEXEC);
	assert_int_equal(PT2BOX_OK, pb_update_run(&job, r.digest, &r.err));
	assert_int_equal(PT2BOX_OK, pb_fd_slurp(job.out, 1 << 30, &r.out, &r.n, NULL));
	assert_int_equal(2 * padded + 2, r.n);
	assert_memory_equal(data, r.out, bytes);
	got = (uint16_t *)(void *)(r.out + padded);
	for (int i = 0; i < ROWS; i++)
		for (int k = 0; k < COLS; k++)
			assert_int_equal(data[i * COLS + k], got[k * ROWS + i]);
	check_digest(&r);
	free(r.out);
	free(data);
	close(job.manifest);
	close(job.file);
	close(job.out);
	tear_down();
}

static void test_failing_calls(void **state)
{
	long n = 0;

	(void)state;
	set_up();
	job.manifest = manifest_file();
	job.file = file_of("{" GIVE_W ", " GIVE_B "}");
	for (; check_fail_at(n); n++) {
		struct pt2box_error err = {.status = PT2BOX_OK};
		char digest[PB_DIGEST_TEXT];
		pb_status st;

		job.out = memfd_create("out", MFD_CLOEXEC);
		st = pb_update_run(&job, digest, &err);
		assert_int_equal(check_failed(), st != PT2BOX_OK);
		assert_int_equal(st, err.status);
		close(job.out);
	}
	assert_true(n > 15);
	close(job.manifest);
	close(job.file);
	tear_down();
}

/* ---- comparing ---- */

/* A sealed, read-only memory of @bytes bytes 7, one of them changed. */
static int memory_of(size_t bytes, size_t changed)
{
	int fd = memfd_create("m", MFD_CLOEXEC | MFD_ALLOW_SEALING), ro;
	uint8_t *data = malloc(bytes + 1);
	char path[64];

	assert_non_null(data);
	memset(data, 7, bytes);
	if (changed < bytes)
		data[changed] = 8;
	assert_int_equal(bytes, write(fd, data, bytes));
	free(data);
	assert_int_equal(PT2BOX_OK, pb_memfd_seal(fd, NULL));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(ro >= 0);
	close(fd);
	return ro;
}

static void expect_compare(int one_take, int other_take, pb_status st, const char *text)
{
	struct pt2box_error err = {.status = PT2BOX_OK};

	assert_int_equal(st, pb_compare_run(one_take, other_take, &err));
	if (st)
		assert_string_equal(text, err.text);
	close(one_take);
	close(other_take);
}

static void test_compare(void **state)
{
	const size_t large = (64u << 20) + 5000;

	(void)state;
	expect_compare(memory_of(0, 0), memory_of(0, 0), PT2BOX_OK, "");
	expect_compare(memory_of(5000, 5000), memory_of(5000, 5000), PT2BOX_OK, "");
	expect_compare(memory_of(5000, 0), memory_of(5000, 5000), PT2BOX_NOT_FOUND, "they differ");
	expect_compare(memory_of(5000, 4999), memory_of(5000, 5000), PT2BOX_NOT_FOUND, "they differ");
	expect_compare(memory_of(5000, 5000), memory_of(5001, 5001), PT2BOX_NOT_FOUND, "they differ");
	expect_compare(memory_of(large, large), memory_of(large, large), PT2BOX_OK, "");
	expect_compare(memory_of(large, large), memory_of(large, large - 1), PT2BOX_NOT_FOUND, "they differ");
	expect_compare(memory_of(large, 1 << 20), memory_of(large, large), PT2BOX_NOT_FOUND, "they differ");
	/* Could shrink while it is mapped. */
	expect_compare(kit_memfd("x", 1), memory_of(1, 1), PT2BOX_USAGE,
		       "only memory that is sealed against shrinking is compared");
	expect_compare(memory_of(1, 1), kit_memfd("x", 1), PT2BOX_USAGE,
		       "only memory that is sealed against shrinking is compared");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_nothing),	CHECK_TEST(test_one),	     CHECK_TEST(test_all),
		CHECK_TEST(test_internal_names), CHECK_TEST(test_refusals),   CHECK_TEST(test_full),
		CHECK_TEST(test_many_names),	CHECK_TEST(test_short_bases), CHECK_TEST(test_hostile_manifest),
		CHECK_TEST(test_dtypes),	CHECK_TEST(test_large),	     CHECK_TEST(test_failing_calls),
		CHECK_TEST(test_compare),
	};

	return cmocka_run_group_tests_name("update", tests, NULL, NULL);
}
