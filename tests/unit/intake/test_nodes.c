/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON of extern nodes: what PyTorch writes, and what it would not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <fcntl.h>

#include "broker/intake/nodes.h"
#include "broker/intake/package.h"
#include "tests/lib/check.h"
#include "tests/lib/fixture.h"

static struct pb_arena arena;
static struct pt2box_error err;

static pb_status read_text(const char *text, struct pb_nodes *ret)
{
	return pb_nodes_read(text, strlen(text), &arena, ret, &err);
}

/* One node with one argument, whose value is @value. */
static pb_status read_arg(const char *value, struct pb_nodes *ret)
{
	char text[512];

	snprintf(text, sizeof(text), "{\"nodes\": [{\"name\": \"b\", \"node\": {\"target\": \"lab::op\", \"inputs\": [{\"name\": "
				     "\"x\", \"arg\": %s, \"kind\": 1}], \"outputs\": [], \"metadata\": {}}}]}", value);
	return read_text(text, ret);
}

static const struct pb_node_arg *arg(const char *value)
{
	static struct pb_nodes nodes;

	if (read_arg(value, &nodes))
		fail_msg("%s: %s", value, err.text);
	return &nodes.list[0].args[0];
}

/* ---- the fixture with every kind ---- */

static void read_fixture(const char *name, struct pb_nodes *ret)
{
	char path[512];
	struct pb_package p = PB_PACKAGE_INIT;
	struct pb_model_files files;
	char *text;
	int fd;

	snprintf(path, sizeof(path), TEST_FIXTURES "/%s/model.pt2", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(PT2BOX_OK, pb_package_open(&p, fd, 1 << 30, &err));
	assert_int_equal(PT2BOX_OK, pb_package_choose(&p, "model", &files, &err));
	assert_non_null(files.nodes);
	assert_int_equal(PT2BOX_OK, pb_package_read(&p, files.nodes, files.nodes->size, &text, &err));
	if (pb_nodes_read(text, files.nodes->size, &arena, ret, &err))
		fail_msg("%s", err.text);
	free(text);
	pb_package_deinit(&p);
	close(fd);
}

static const struct pb_node_arg *named(const struct pb_node *n, const char *name)
{
	for (uint32_t i = 0; i < n->n_args; i++)
		if (strcmp(n->args[i].name, name) == 0)
			return &n->args[i];
	fail_msg("no argument %s", name);
	return NULL;
}

static void test_every_kind(void **state)
{
	struct pb_nodes nodes;
	const struct pb_node *n;

	(void)state;
	read_fixture("opkinds", &nodes);
	assert_int_equal(3, nodes.n);
	n = &nodes.list[0];
	assert_string_equal("pt2box_kinds::big", n->target);
	assert_int_equal(PT2BOX_OP_TENSOR, named(n, "x")->kind);
	assert_int_equal(2, named(n, "ys")->count);
	assert_int_equal(4, named(n, "n")->v.i);
	assert_int_equal(11, named(n, "ni")->v.i);
	assert_true(named(n, "f")->v.f == 0.5);
	assert_int_equal(1, named(n, "b")->v.i);
	assert_string_equal("name", named(n, "s")->v.s);
	assert_int_equal(2, named(n, "shape")->count);
	assert_int_equal(PT2BOX_OP_TENSOR, named(n, "opt")->kind);
	assert_int_equal(PT2BOX_OP_NONE, named(n, "optn")->kind);
	assert_int_equal(PT2BOX_OP_DTYPE, named(n, "dt")->kind);
	assert_int_equal(PT2BOX_FLOAT64, named(n, "dt")->v.i); /* 8 in the JSON */
	assert_int_equal(PT2BOX_OP_DEVICE, named(n, "dev")->kind);
	assert_int_equal(0, named(n, "dev")->v.i);
	assert_int_equal(-1, named(n, "dev")->device_index);
	assert_true(named(n, "fl")->v.floats[1] == 0.5);
	assert_int_equal(PT2BOX_OP_NONE, named(n, "oi")->kind);
	assert_int_equal(PT2BOX_OP_INT, named(n, "sc")->kind);
	assert_int_equal(PT2BOX_OP_FLOAT, named(n, "fs")->kind);
	assert_int_equal(2, named(n, "mf")->v.i);  /* channels last: 2 in both */
	assert_int_equal(0, named(n, "lay")->v.i); /* strided: 7 in the JSON */
	assert_int_equal(3, named(n, "tl")->count);
	assert_int_equal(0, named(n, "tl")->v.bools[1]);
	assert_int_equal(3, named(n, "bl")->count);
	assert_string_equal("bcd", named(n, "sl")->v.strings[1]);
	assert_int_equal(2, n->n_outs);
	assert_string_equal("pt2box_kinds::mut", nodes.list[1].target);
	assert_int_equal(0, nodes.list[1].n_outs);
	assert_int_equal(PT2BOX_OP_TENSORS, nodes.list[2].outs[0].kind);
	assert_int_equal(2, nodes.list[2].outs[0].count);
	pb_arena_deinit(&arena);
}

/* ---- values ---- */

static void test_enums(void **state)
{
	/* torch/_export/serde/schema.py, then c10/core/ScalarType.h, torch 2.13.0 */
	static const int dtypes[][2] = {{1, 0},	 {2, 1},   {3, 2},   {4, 3},   {5, 4},	 {6, 5},   {7, 6},
					{8, 7},	 {9, 8},   {10, 9},  {11, 10}, {12, 11}, {13, 15}, {28, 27},
					{29, 24}, {30, 23}, {31, 26}, {32, 25}, {33, 44}, {34, 28}, {35, 29}};
	static const int layouts[][2] = {{1, 1}, {2, 2}, {3, 4}, {4, 5}, {5, 6}, {6, 3}, {7, 0}};
	static const int formats[][2] = {{1, 0}, {2, 2}, {3, 3}, {4, 1}};
	static const char *const bad[] = {"{\"as_scalar_type\": 0}", "{\"as_scalar_type\": 14}", "{\"as_scalar_type\": 36}",
					  "{\"as_scalar_type\": -1}", "{\"as_layout\": 0}", "{\"as_layout\": 8}",
					  "{\"as_memory_format\": 0}", "{\"as_memory_format\": 5}",
					  "{\"as_scalar_type\": \"7\"}"};
	struct pb_nodes nodes;
	char text[64];

	(void)state;
	for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++) {
		snprintf(text, sizeof(text), "{\"as_scalar_type\": %d}", dtypes[i][0]);
		assert_int_equal(dtypes[i][1], arg(text)->v.i);
	}
	for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
		snprintf(text, sizeof(text), "{\"as_layout\": %d}", layouts[i][0]);
		assert_int_equal(layouts[i][1], arg(text)->v.i);
	}
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		snprintf(text, sizeof(text), "{\"as_memory_format\": %d}", formats[i][0]);
		assert_int_equal(formats[i][1], arg(text)->v.i);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(PT2BOX_PKG_REJECTED, read_arg(bad[i], &nodes));
	pb_arena_deinit(&arena);
}

static void test_values(void **state)
{
	(void)state;
	assert_int_equal(-5, arg("{\"as_int\": -5}")->v.i);
	assert_int_equal(PT2BOX_OP_INT, arg("{\"as_sym_int\": {\"as_name\": \"s0\"}}")->kind);
	assert_int_equal(9, arg("{\"as_sym_int\": {\"as_int\": 9}}")->v.i);
	assert_int_equal(2, arg("{\"as_sym_ints\": [{\"as_int\": 1}, {\"as_name\": \"s1\"}]}")->count);
	assert_true(arg("{\"as_float\": 1}")->v.f == 1);
	assert_int_equal(0, arg("{\"as_ints\": []}")->count);
	assert_int_equal(1, arg("{\"as_device\": {\"type\": \"cuda\", \"index\": 3}}")->v.i);
	assert_int_equal(3, arg("{\"as_device\": {\"type\": \"cuda\", \"index\": 3}}")->device_index);
	assert_int_equal(PT2BOX_OP_TENSOR, arg("{\"as_optional_tensor\": {\"as_tensor\": {\"name\": \"x\"}}}")->kind);
	assert_int_equal(PT2BOX_OP_NONE, arg("{\"as_optional_tensor\": {\"as_none\": true}}")->kind);
	assert_string_equal("obj_1", arg("{\"as_custom_obj\": {\"name\": \"obj_1\", \"class_fqn\": \"a.b\"}}")->v.s);
	/* No kind for it here: kept, so that the refusal names the operator. */
	assert_int_equal(PT2BOX_OP_OBJECT, arg("{\"as_complex\": {\"real\": 1, \"imag\": 2}}")->kind);
	assert_int_equal(PT2BOX_OP_OBJECT, arg("{\"as_of_the_future\": 1}")->kind);
	pb_arena_deinit(&arena);
}

static void test_refused(void **state)
{
	static const char *const bad_args[] = {
		"{}", "1", "null", "{\"as_int\": 1, \"as_float\": 2}", "{\"as_int\": 1.5}", "{\"as_int\": \"1\"}",
		"{\"as_float\": \"x\"}", "{\"as_bool\": 1}", "{\"as_string\": 1}", "{\"as_ints\": 3}", "{\"as_floats\": [\"x\"]}",
		"{\"as_strings\": [1]}", "{\"as_tensors\": {}}", "{\"as_device\": {\"type\": \"cpu\", \"index\": 1000}}",
		"{\"as_device\": {}}",
	};
	static const char *const bad[] = {
		"{}", "x", "[]", "{\"nodes\": {}}", "{\"nodes\": [1]}", "{\"nodes\": [{}]}", "{\"nodes\": [{\"node\": {}}]}",
		"{\"nodes\": [{\"node\": {\"target\": 3, \"inputs\": [], \"outputs\": []}}]}",
		"{\"nodes\": [{\"node\": {\"target\": \"\", \"inputs\": [], \"outputs\": []}}]}",
		"{\"nodes\": [{\"node\": {\"target\": \"a\", \"inputs\": {}, \"outputs\": []}}]}",
		"{\"nodes\": [{\"node\": {\"target\": \"a\", \"inputs\": []}}]}",
		"{\"nodes\": [{\"node\": {\"target\": \"a\", \"inputs\": [1], \"outputs\": []}}]}",
		"{\"nodes\": [{\"node\": {\"target\": \"a\", \"inputs\": [], \"outputs\": [{\"as_float\": 1.0}]}}]}",
		"{\"nodes\": [], \"nodes\": []}",
	};
	struct pb_nodes nodes;

	(void)state;
	for (size_t i = 0; i < sizeof(bad_args) / sizeof(bad_args[0]); i++)
		if (read_arg(bad_args[i], &nodes) != PT2BOX_PKG_REJECTED || strncmp(err.text, "meta.nodes: node 0: ", 20))
			fail_msg("%s: %s", bad_args[i], err.text);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(PT2BOX_PKG_REJECTED, read_text(bad[i], &nodes));
	assert_int_equal(PT2BOX_PKG_REJECTED, pb_nodes_read("", PB_NODES_MAX_BYTES + 1, &arena, &nodes, &err));
	pb_arena_deinit(&arena);
}

/* ---- which are native ---- */

static void test_classify(void **state)
{
	static const char text[] =
		"{\"nodes\": ["
		"{\"node\": {\"target\": \"aten::linalg_inv_ex\", \"inputs\": [{\"name\": \"A\", \"arg\": {\"as_tensor\": {}}}],"
		" \"outputs\": [{\"as_tensor\": {}}, {\"as_tensor\": {}}]}},"
		"{\"node\": {\"target\": \"aten::bincount\", \"inputs\": [{\"name\": \"self\", \"arg\": {\"as_tensor\": {}}}],"
		" \"outputs\": [{\"as_tensor\": {}}]}},"
		"{\"node\": {\"target\": \"aten::bincount\", \"inputs\": [{\"name\": \"other\", \"arg\": {\"as_tensor\": {}}}],"
		" \"outputs\": [{\"as_tensor\": {}}]}},"
		"{\"node\": {\"target\": \"my::op\", \"inputs\": [], \"outputs\": []}},"
		"{\"node\": {\"target\": \"my::op\", \"inputs\": [], \"outputs\": []}},"
		"{\"node\": {\"target\": \"my::op2\", \"inputs\": [], \"outputs\": [], \"metadata\": {\"torch_library_custom_op\": "
		"\"1\"}}}]}";
	struct pb_nodes nodes;
	const char *lacking;
	bool lapack;

	(void)state;
	assert_int_equal(PT2BOX_OK, read_text(text, &nodes));
	assert_int_equal(PT2BOX_OK, pb_nodes_classify(&nodes, &arena, &lacking, &lapack, &err));
	assert_true(nodes.list[0].native && nodes.list[1].native);
	assert_false(nodes.list[2].native || nodes.list[3].native);
	assert_true(lapack);
	assert_string_equal("aten::bincount (the operator has no argument \"other\"), my::op, my::op2 (in Python)", lacking);
	nodes.list++;
	nodes.n = 1;
	assert_int_equal(PT2BOX_OK, pb_nodes_classify(&nodes, &arena, &lacking, &lapack, &err));
	assert_string_equal("", lacking);
	assert_false(lapack);
	pb_arena_deinit(&arena);
}

/* A list of a thousand operators is cut. */
static void test_many(void **state)
{
	char *many = malloc(1 << 20);
	struct pb_nodes nodes;
	const char *lacking;
	bool lapack;
	size_t n;

	(void)state;
	n = (size_t)sprintf(many, "{\"nodes\": [");
	for (int i = 0; i < 1000; i++)
		n += (size_t)sprintf(many + n, "%s{\"node\": {\"target\": \"lab::op%d\", \"inputs\": [], \"outputs\": []}}",
				     i ? "," : "", i);
	sprintf(many + n, "]}");
	assert_int_equal(PT2BOX_OK, read_text(many, &nodes));
	assert_int_equal(PT2BOX_OK, pb_nodes_classify(&nodes, &arena, &lacking, &lapack, &err));
	assert_true(strlen(lacking) < 300);
	assert_string_equal("...", lacking + strlen(lacking) - 3);
	free(many);
	pb_arena_deinit(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_every_kind), CHECK_TEST(test_enums),	CHECK_TEST(test_values),
		CHECK_TEST(test_refused),    CHECK_TEST(test_classify), CHECK_TEST(test_many),
	};

	return cmocka_run_group_tests_name("intake_nodes", tests, NULL, NULL);
}
