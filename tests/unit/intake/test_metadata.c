/* SPDX-License-Identifier: Apache-2.0 */
/* JSON of packages, CPU features, imports. Attack case P06. */
#include "tests/unit/intake/kit.h"

#include "broker/intake/cpu.h"
#include "broker/intake/imports.h"
#include "broker/intake/metadata.h"

static pb_status metadata(const char *text, size_t n, struct pt2box_error *err)
{
	struct pb_arena a = {NULL};
	struct pb_metadata m;
	pb_status st = pb_metadata_read(text, n, &a, &m, err);

	if (!st)
		st = pb_metadata_check(&m, err);
	pb_arena_deinit(&a);
	return st;
}

static void test_pairs(void **state)
{
	static const char text[] = "{\"AOTI_DEVICE_KEY\": \"cpu\", \"AOTI_CPU_ISA\": \"AVX2\", \"mine\": \"\\u00e9\"}";
	struct pb_arena a = {NULL};
	struct pb_metadata m;

	(void)state;
	assert_int_equal(PT2BOX_OK, pb_metadata_read(text, sizeof(text) - 1, &a, &m, NULL));
	assert_int_equal(3, m.n);
	assert_string_equal("AVX2", m.cpu_isa);
	assert_string_equal("", m.platform);
	assert_string_equal("\xc3\xa9", m.pairs[2].value);
	pb_arena_deinit(&a);
}

static void test_refused(void **state)
{
	static const struct {
		const char *text;
		pb_status st;
		const char *word;
	} cases[] = {
		{KIT_METADATA, PT2BOX_OK, ""},
		{"", PT2BOX_PKG_REJECTED, "meta.json: "},
		{"[]", PT2BOX_PKG_REJECTED, "meta.json: "},
		{"{\"AOTI_DEVICE_KEY\": \"cpu\"", PT2BOX_PKG_REJECTED, "meta.json: "},
		{"{\"AOTI_DEVICE_KEY\": \"cpu\"} x", PT2BOX_PKG_REJECTED, "meta.json: "},
		{"{\"a\": 1}", PT2BOX_PKG_REJECTED, "meta.json: the value of \"a\""},
		{"{\"a\": {\"b\": \"c\"}}", PT2BOX_PKG_REJECTED, "meta.json: "},
		{"{\"a\": \"1\", \"a\": \"2\"}", PT2BOX_PKG_REJECTED, "meta.json: "},
		{"{\"a\": \"\\u0000\"}", PT2BOX_PKG_REJECTED, "meta.json: "},
		{"{\"a\": \"\xff\"}", PT2BOX_PKG_REJECTED, "meta.json: "},
		{"{}", PT2BOX_PKG_REJECTED, "meta.device: "},
		{"{\"AOTI_DEVICE_KEY\": \"cuda\"}", PT2BOX_UNSUPPORTED, "the package is compiled for \"cuda\"; this version runs "
								       "CPU packages"},
		{"{\"AOTI_DEVICE_KEY\": \"cpu\", \"AOTI_PLATFORM\": \"win32\"}", PT2BOX_UNSUPPORTED, "the package"},
		{"{\"AOTI_DEVICE_KEY\": \"cpu\", \"AOTI_MACHINE\": \"aarch64\"}", PT2BOX_UNSUPPORTED, "the package"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct pt2box_error err = {.status = PT2BOX_OK};

		assert_int_equal(cases[i].st, metadata(cases[i].text, strlen(cases[i].text), &err));
		if (strncmp(err.text, cases[i].word, strlen(cases[i].word)) != 0)
			fail_msg("case %zu: %s", i, err.text);
	}
}

/* Depth 10000, and a megabyte of it. */
static void test_deep(void **state)
{
	char *text = malloc(PB_METADATA_MAX_BYTES + 1);
	struct pt2box_error err;

	(void)state;
	memcpy(text, "{\"a\":", 5);
	memset(text + 5, '[', PB_METADATA_MAX_BYTES - 4);
	assert_int_equal(PT2BOX_PKG_REJECTED, metadata(text, 10000, &err));
	assert_int_equal(PT2BOX_PKG_REJECTED, metadata(text, PB_METADATA_MAX_BYTES, &err));
	assert_int_equal(PT2BOX_PKG_REJECTED, metadata(text, PB_METADATA_MAX_BYTES + 1, &err));
	assert_non_null(strstr(err.text, "longer"));
	free(text);
}

/* ---- CPU features ---- */

static void test_cpu(void **state)
{
	struct pt2box_error err = {.status = PT2BOX_OK};
	char needs[512];

	(void)state;
	pb_cpu_needs("AVX2", "g++ -O3 -mavx2 -mfma -mf16c -march=native -Wall -mtune=x", false, needs, sizeof(needs));
	assert_string_equal("fma f16c avx2", needs);
	pb_cpu_needs("INVALID_VEC_ISA", "-march=x86-64-v2", false, needs, sizeof(needs));
	assert_string_equal("sse3 ssse3 sse4.1 sse4.2 popcnt", needs);
	pb_cpu_needs("AVX512 AVX512_VNNI AMX_TILE", "-mamx-tile -mamx-int8", false, needs, sizeof(needs));
	assert_string_equal("fma avx512f avx512dq avx512bw avx512vl avx512vnni", needs);
	pb_cpu_needs("AVX512 AMX_TILE", "", true, needs, sizeof(needs));
	assert_non_null(strstr(needs, "amx-tile"));
	pb_cpu_needs("", "", false, needs, sizeof(needs));
	assert_string_equal("", needs);
	pb_cpu_needs("AVX512", "-march=x86-64-v4", true, needs, 20); /* cut, not overrun */
	assert_true(strlen(needs) < 20);
	assert_int_equal(PT2BOX_OK, pb_cpu_check("", &err));
	assert_int_equal(PT2BOX_OK, pb_cpu_check("sse3 unknown", &err));
	/* Every CPU that these tests run on lacks this. */
	if (!pb_cpu_check("amx-fp16", &err))
		skip();
	assert_int_equal(PT2BOX_UNSUPPORTED, pb_cpu_check("sse3 amx-fp16", &err));
	assert_non_null(strstr(err.text, "amx-fp16"));
	assert_null(strstr(err.text, "sse3"));
}

/* What the compiler's own detection says. */
static void test_cpu_agrees(void **state)
{
	(void)state;
	assert_int_equal(!__builtin_cpu_supports("avx2"), pb_cpu_check("avx2", NULL) != PT2BOX_OK);
	assert_int_equal(!__builtin_cpu_supports("fma"), pb_cpu_check("fma", NULL) != PT2BOX_OK);
	assert_int_equal(!__builtin_cpu_supports("avx512f"), pb_cpu_check("avx512f", NULL) != PT2BOX_OK);
	assert_int_equal(!__builtin_cpu_supports("avx512vnni"), pb_cpu_check("avx512vnni", NULL) != PT2BOX_OK);
	assert_int_equal(!__builtin_cpu_supports("bmi2"), pb_cpu_check("bmi2", NULL) != PT2BOX_OK);
	assert_int_equal(!__builtin_cpu_supports("popcnt"), pb_cpu_check("popcnt", NULL) != PT2BOX_OK);
}

/* ---- imports ---- */

static void test_imports(void **state)
{
	static const char *const symbols[] = {"malloc", "aoti_torch_get_data_ptr", "_ZNSt6vectorE", "Sleef_expf8_u10",
					      "aoti_torch_cpu_of_the_future", "_ZN2at6native7cublas4brgemmE",
					      "aoti_torch_proxy_executor_call_function", "__gmon_start__"};
	struct pb_arena a = {NULL};
	struct pb_node node = {.target = "lab::big"};
	struct pb_nodes nodes = {&node, 1};
	struct pb_manifest m = {.n_imports = 0, .nodes = &nodes};

	(void)state;
	assert_int_equal(PT2BOX_OK, pb_imports_classify(symbols, 8, "lab::big", &a, &m, NULL));
	assert_int_equal(5, m.n_imports);
	assert_string_equal("aoti_torch_get_data_ptr", m.imports[0].name);
	assert_int_equal(PB_SHIM_IS_NATIVE, m.imports[0].state);
	assert_string_equal("", m.imports[0].note);
	assert_int_equal(PB_SHIM_IS_OTHER, m.imports[1].state);
	assert_int_equal(PB_SHIM_IS_ABSENT, m.imports[2].state);
	assert_true(strlen(m.imports[2].note) > 0);
	assert_int_equal(PB_SHIM_IS_ABSENT, m.imports[3].state);
	assert_int_not_equal(PB_SHIM_IS_NATIVE, m.imports[4].state);
	assert_non_null(strstr(m.imports[4].note, "lab::big"));
	assert_int_equal(3, m.n_absent + m.n_proxied);
	assert_false(m.needs_lapack);
	pb_arena_deinit(&a);
}

/* The proxy executor is there if every operator is; and of no use if the package does not say which. */
static void test_proxy_import(void **state)
{
	static const char *const symbol[] = {"aoti_torch_proxy_executor_call_function"};
	struct pb_arena a = {NULL};
	struct pb_node node = {.target = "aten::x"};
	struct pb_nodes nodes = {&node, 1};
	struct pb_manifest m = {.nodes = &nodes}, none = {.nodes = NULL};

	(void)state;
	assert_int_equal(PT2BOX_OK, pb_imports_classify(symbol, 1, "", &a, &m, NULL));
	assert_int_equal(PB_SHIM_IS_NATIVE, m.imports[0].state);
	assert_int_equal(0, m.n_absent + m.n_proxied);
	assert_int_equal(PT2BOX_OK, pb_imports_classify(symbol, 1, "", &a, &none, NULL));
	assert_int_equal(PB_SHIM_IS_ABSENT, none.imports[0].state);
	assert_non_null(strstr(none.imports[0].note, "does not say"));
	pb_arena_deinit(&a);
}

static void test_too_many_imports(void **state)
{
	const char **symbols = calloc(PB_MANIFEST_MAX_IMPORTS + 1, sizeof(*symbols));
	struct pb_arena a = {NULL};
	struct pb_manifest m = {.n_imports = 0};

	(void)state;
	for (int i = 0; i <= PB_MANIFEST_MAX_IMPORTS; i++)
		symbols[i] = "aoti_torch_x";
	assert_int_equal(PT2BOX_LIMIT, pb_imports_classify(symbols, PB_MANIFEST_MAX_IMPORTS + 1, "", &a, &m, NULL));
	free(symbols);
	pb_arena_deinit(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_pairs), CHECK_TEST(test_refused), CHECK_TEST(test_deep),
		CHECK_TEST(test_cpu),	CHECK_TEST(test_cpu_agrees), CHECK_TEST(test_imports), CHECK_TEST(test_proxy_import), CHECK_TEST(test_too_many_imports),
	};

	return cmocka_run_group_tests_name("metadata", tests, NULL, NULL);
}
