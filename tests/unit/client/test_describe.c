/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptions: every key that the public header promises, call specs as PyTorch writes them and as
 * nobody does. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "client/callspec.h"
#include "client/internal.h"
#include "tests/lib/check.h"

static const char *names[] = {"model", "other"};
static struct pb_key_value metadata[] = {{"AOTI_DEVICE_KEY", "cpu"}, {"quote", "\"\\"}};
static struct pb_sig_input inputs[] = {
	{.name = "arg0_1",
	 .dtype = PT2BOX_FLOAT32,
	 .ndim = 2,
	 .dims = {{1, INT64_MAX, -1}, {64, 64, 1}}},
	{.name = "arg1_1", .dtype = -1, .ndim = -1},
};
static struct pb_constant constants[] = {
	{.name = "fc_weight",
	 .fqn = "fc.weight",
	 .dtype = PT2BOX_FLOAT32,
	 .ndim = 1,
	 .sizes = {4},
	 .strides = {1},
	 .data_size = 16,
	 .type = PB_CONST_PARAMETER},
};
static struct pb_import imports[] = {
	{"aoti_torch_cpu_addmm_out", PB_SHIM_IS_NATIVE, ""},
	{"aoti_torch_cpu_nope", PB_SHIM_IS_ABSENT, "aten::nope"},
};

static struct pb_manifest sample(void)
{
	struct pb_manifest m = {
		.model_name = "model",
		.model_names = names,
		.n_model_names = 2,
		.device = "cpu",
		.metadata = metadata,
		.n_metadata = 2,
		.in_spec = "no JSON",
		.out_spec = "[1, {\"type\": null, \"context\": null, \"children_spec\": []}]",
		.inputs = inputs,
		.n_inputs = 2,
		.n_outputs = 3,
		.has_signature = true,
		.constants = constants,
		.n_constants = 1,
		.const_source = PB_CONSTS_BLOB,
		.const_bytes = 64,
		.imports = imports,
		.n_imports = 2,
		.n_absent = 1,
		.so_bytes = 1234,
		.init_array_count = 2,
		.so_sha256 = {0xab, 1},
		.cpu_isa = "AVX512",
		.cpu_needs = "avx2  fma f16c",
		.nodes = NULL};

	return m;
}

static json_t *describe(const struct pb_manifest *m, const struct pb_msg_loaded *loaded)
{
	char *text;
	json_t *o;

	assert_int_equal(pb_describe(m, loaded, &text, NULL), PT2BOX_OK);
	o = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(o);
	free(text);
	return o;
}

/* A path of keys and indices, "inputs.0.name". */
static const json_t *at(const json_t *o, const char *path)
{
	char copy[100], *save = NULL;

	strncpy(copy, path, sizeof(copy) - 1);
	copy[sizeof(copy) - 1] = '\0';
	for (char *k = strtok_r(copy, ".", &save); k && o; k = strtok_r(NULL, ".", &save))
		o = json_is_array(o) ? json_array_get(o, (size_t)atoi(k)) : json_object_get(o, k);
	if (!o)
		fail_msg("no %s", path);
	return o;
}

static void is_text(const json_t *o, const char *path, const char *want)
{
	assert_string_equal(json_string_value(at(o, path)), want);
}

static void is_number(const json_t *o, const char *path, json_int_t want)
{
	assert_true(json_is_integer(at(o, path)));
	assert_int_equal(json_integer_value(at(o, path)), want);
}

static void test_inspected(void **state)
{
	struct pb_manifest m = sample();
	json_t *o = describe(&m, NULL);

	(void)state;
	is_text(o, "model", "model");
	is_text(o, "models.1", "other");
	is_text(o, "state", "inspected");
	assert_true(json_is_null(at(o, "backend")));
	is_number(o, "n_outputs", 3);
	assert_true(json_is_false(at(o, "stateful")));
	is_text(o, "inputs.0.dtype", "float32");
	is_number(o, "inputs.0.dims.0.min", 1);
	assert_true(json_is_null(at(o, "inputs.0.dims.0.max")));
	assert_true(json_is_null(at(o, "inputs.0.dims.0.stride")));
	is_number(o, "inputs.0.dims.1.max", 64);
	is_number(o, "inputs.0.dims.1.stride", 1);
	assert_true(json_is_null(at(o, "inputs.1.dtype")));
	assert_true(json_is_null(at(o, "inputs.1.dims")));
	is_text(o, "call_spec.in.text", "no JSON");
	assert_true(json_is_null(at(o, "call_spec.in.tree")));
	is_number(o, "call_spec.out.tree", 0);
	is_text(o, "metadata.quote", "\"\\");
	is_text(o, "constants.source", "weights blob");
	is_number(o, "constants.bytes", 64);
	is_number(o, "constants.count", 1);
	is_text(o, "constants.list.0.fqn", "fc.weight");
	is_text(o, "constants.list.0.type", "parameter");
	is_number(o, "constants.list.0.shape.0", 4);
	is_text(o, "cpu.needs.2", "f16c");
	assert_int_equal(json_array_size(at(o, "cpu.needs")), 3);
	assert_true(json_is_null(at(o, "cpu.openmp_threads")));
	is_number(o, "code.constructors", 2);
	assert_int_equal(strncmp(json_string_value(at(o, "code.sha256")), "ab01000", 7), 0);
	assert_int_equal(strlen(json_string_value(at(o, "package_sha256"))), 64);
	is_number(o, "import_counts.native", 1);
	is_number(o, "import_counts.absent", 1);
	is_text(o, "imports.1.state", "absent");
	is_text(o, "imports.1.note", "aten::nope");
	assert_int_equal(0, json_array_size(at(o, "extern_nodes")));
	assert_null(json_object_get(o, "start_us"));
	json_decref(o);
}

static void test_loaded(void **state)
{
	struct pb_msg_loaded l = {
		.n_inputs = 5, .n_outputs = 6, .stateful = 1, .run_deadline_ms = -1, .start_us = 3000, .backend = "torch"};
	struct pb_manifest m = sample();
	json_t *o;

	(void)state;
	m.n_absent = 0;
	m.has_signature = false;
	o = describe(&m, &l);
	is_text(o, "state", "loaded");
	is_text(o, "backend", "torch"); /* what the broker says that it has */
	is_number(o, "n_inputs", 5); /* the container has the last word */
	is_number(o, "n_outputs", 6);
	assert_true(json_is_null(at(o, "inputs")));
	assert_true(json_is_true(at(o, "stateful")));
	is_number(o, "run_deadline_ms", -1);
	is_number(o, "start_us", 3000);
	json_decref(o);
}

static void test_brief(void **state)
{
	struct pb_manifest m = sample();
	char *text;
	json_t *o;

	(void)state;
	assert_int_equal(pb_describe_brief(&m, &text, NULL), PT2BOX_OK);
	o = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	free(text);
	assert_int_equal(json_object_size(o), 4);
	is_text(o, "models.1", "other");
	is_text(o, "device", m.device);
	is_text(o, "metadata.quote", "\"\\");
	json_decref(o);
}

/* What the handle of a model says without any text. */
static void test_handle(void **state)
{
	struct pb_manifest m = sample();
	struct pt2box_model h = {.manifest = &m, .loaded = {.stateful = 1}};
	struct pt2box_constant_info k;
	const char *in, *out;

	(void)state;
	pt2box_model_call_spec(&h, &in, &out);
	assert_ptr_equal(in, m.in_spec);
	assert_ptr_equal(out, m.out_spec);
	assert_int_equal(pt2box_model_is_stateful(&h), 1);
	for (size_t i = 0; i < m.n_constants; i++) {
		assert_int_equal(pt2box_model_constant(&h, i, &k), 1);
		assert_string_equal(k.name, constants[i].name);
		assert_string_equal(k.fqn, constants[i].fqn);
		assert_int_equal(k.dtype, constants[i].dtype);
		assert_int_equal(k.ndim, constants[i].ndim);
		assert_int_equal(k.bytes, constants[i].data_size);
		assert_int_equal(k.folded, constants[i].folded);
		assert_int_equal(k.type, constants[i].type);
		assert_memory_equal(k.sizes, constants[i].sizes, sizeof(k.sizes));
		assert_memory_equal(k.strides, constants[i].strides, sizeof(k.strides));
	}
	assert_int_equal(pt2box_model_constant(&h, m.n_constants, &k), 0);
	assert_int_equal(pt2box_model_constant(&h, SIZE_MAX, &k), 0);
}

/* ---- call specs ---- */

#define LEAF "{\"type\": null, \"context\": null, \"children_spec\": []}"

static void is_tree(const char *spec, const char *want)
{
	json_t *tree = pb_callspec_tree(spec);
	char *got = json_dumps(tree, JSON_COMPACT | JSON_ENCODE_ANY);

	assert_string_equal(got, want);
	free(got);
	json_decref(tree);
}

static void test_trees(void **state)
{
	(void)state;
	is_tree("[1, " LEAF "]", "0");
	is_tree("[1, {\"type\": \"builtins.tuple\", \"context\": \"null\", \"children_spec\": "
		"[" LEAF ", " LEAF "]}]",
		"{\"tuple\":[0,1]}");
	is_tree("[1, {\"type\": \"builtins.list\", \"context\": \"null\", \"children_spec\": []}]",
		"{\"list\":[]}");
	is_tree("[1, {\"type\": \"builtins.dict\", \"context\": \"[\\\"b\\\", 3]\", "
		"\"children_spec\": [" LEAF
		", {\"type\": \"builtins.tuple\", \"context\": \"null\", \"children_spec\": [" LEAF
		"]}]}]",
		"{\"dict\":[[\"b\",0],[3,{\"tuple\":[1]}]]}");
	is_tree("[1, {\"type\": \"my.Type\", \"context\": \"x\", \"children_spec\": [" LEAF "]}]",
		"{\"node\":\"my.Type\",\"context\":\"x\",\"children\":[0]}");
}

static void test_no_trees(void **state)
{
	static const char *const bad[] = {
		"",
		"[",
		"1",
		"null",
		"[]",
		"[1]",
		"[2, " LEAF "]",
		"[1, " LEAF ", 3]",
		"[1, 5]",
		"[1, {}]",
		"[1, {\"type\": 7, \"context\": null, \"children_spec\": []}]",
		"[1, {\"type\": null, \"context\": null, \"children_spec\": 1}]",
		"[1, {\"type\": \"builtins.dict\", \"context\": \"[]\", \"children_spec\": [" LEAF
		"]}]",
		"[1, {\"type\": \"builtins.dict\", \"context\": \"{\", \"children_spec\": []}]",
		"[1, {\"type\": \"builtins.dict\", \"context\": null, \"children_spec\": []}]",
		"[1, {\"type\": \"builtins.tuple\", \"context\": \"null\", \"children_spec\": "
		"[null]}]",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		is_tree(bad[i], "null");
}

static void test_deep(void **state)
{
	char *text = calloc(1, 1 << 20), *p = text;

	(void)state;
	p = stpcpy(p, "[1, ");
	for (int i = 0; i < 600; i++)
		p = stpcpy(p, "{\"type\": \"builtins.tuple\", \"context\": \"null\", "
			      "\"children_spec\": [");
	p = stpcpy(p, LEAF);
	for (int i = 0; i < 600; i++)
		p = stpcpy(p, "]}");
	stpcpy(p, "]");
	is_tree(text, "null");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_inspected), CHECK_TEST(test_loaded),	 CHECK_TEST(test_brief),
		CHECK_TEST(test_handle),    CHECK_TEST(test_trees),	 CHECK_TEST(test_no_trees),
		CHECK_TEST(test_deep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
