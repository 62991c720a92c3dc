/* SPDX-License-Identifier: Apache-2.0 */
/* Schemas: what is one, and how nodes are joined to them. */
#include <stdio.h>
#include <string.h>

#include "ipc/op_schema.h"
#include "tests/lib/check.h"

static struct pb_schema schema;

static void test_parse(void **state)
{
	static const char text[] =
		"(Tensor(a!) x, Tensor[] ys, SymInt n=-3, int[2] k=[], float f=1e-05, bool b=True, str s='up', *, Tensor? o=None, "
		"Tensor?[] tl, int[]? il=None, Scalar sc=0.5, Scalar si=2, ScalarType? dt=None, MemoryFormat mf=preserve_format, "
		"float[] fl=[0.5, 1], bool[] bl=[True, False], Generator? generator=None, Device dev) -> (Tensor(a!) y, Tensor[], "
		"Tensor?, int)";
	const struct pb_schema *s = &schema;

	(void)state;
	assert_int_equal(PT2BOX_OK, pb_schema_parse(text, &schema, NULL));
	assert_int_equal(18, s->n_args);
	assert_string_equal("x", s->args[0].name);
	assert_true(s->args[0].written && s->args[0].alias == 'a' && !s->args[0].has_default);
	assert_true(s->args[1].list && !s->args[1].optional && !s->args[1].optional_items);
	assert_int_equal(PB_SCHEMA_INT, s->args[2].type);
	assert_int_equal(-3, s->args[2].preset.v.i);
	assert_int_equal(PT2BOX_OP_INTS, s->args[3].preset.kind);
	assert_int_equal(0, s->args[3].preset.count);
	assert_true(s->args[4].preset.v.f == 1e-05);
	assert_int_equal(1, s->args[5].preset.v.i);
	assert_string_equal("up", s->args[6].preset.v.s);
	assert_true(s->args[7].optional && s->args[7].preset.kind == PT2BOX_OP_NONE);
	assert_true(s->args[8].list && s->args[8].optional_items && !s->args[8].optional);
	assert_true(s->args[9].list && !s->args[9].optional_items && s->args[9].optional);
	assert_int_equal(PT2BOX_OP_FLOAT, s->args[10].preset.kind);
	assert_int_equal(PT2BOX_OP_INT, s->args[11].preset.kind);
	assert_int_equal(1, s->args[13].preset.v.i);
	assert_true(s->args[14].preset.v.floats[1] == 1);
	assert_int_equal(0, s->args[15].preset.v.bools[1]);
	assert_int_equal(PB_SCHEMA_DEVICE, s->args[17].type);
	assert_int_equal(4, s->n_returns);
	assert_true(s->returns[0].alias == 'a' && s->returns[1].list && s->returns[2].optional);
	assert_int_equal(PB_SCHEMA_INT, s->returns[3].type);
	assert_true(!s->args[6].kwarg_only && s->args[7].kwarg_only && s->args[17].kwarg_only);
	/* As torch.library writes which memory is meant: the number of the argument. */
	assert_int_equal(PT2BOX_OK, pb_schema_parse("(Tensor(a0!) x, Tensor(a12!)[] y, Tensor(b) z) -> Tensor(a0!)", &schema, NULL));
	assert_true(s->args[0].written && s->args[1].written && !s->args[2].written);
	assert_true(s->args[0].alias == s->returns[0].alias && s->args[0].alias != s->args[1].alias);
	assert_int_equal(PT2BOX_OK, pb_schema_parse("() -> ()", &schema, NULL));
	assert_int_equal(PT2BOX_OK, pb_schema_parse("(Tensor x) -> Tensor", &schema, NULL));
}

static void test_no_schema(void **state)
{
	static const char *const bad[] = {
		"", "Tensor x", "(Tensor x)", "(Tensor x) ->", "(Tensor) -> ()", "(Thing x) -> ()", "(Tensor x -> ()",
		"(Tensor x) -> () x", "(Tensor x=1) -> ()", "(int n=) -> ()", "(int n=1.5) -> ()", "(int n=None) -> ()",
		"(int[] n=3) -> ()", "(int[ n) -> ()", "(int n, int n) -> ()", "(int?[] n) -> ()", "(str s=\"x) -> ()",
		"(Tensor x) -> float", "(Tensor x) -> int[]", "(Tensor(a -> *) x) -> ()", "(Tensor(A) x) -> ()", "(Tensor(a99!) x) -> ()", "(Tensor(b1) x) -> ()",
		"(int[] n=[1,2,3,4,5,6,7,8,9]) -> ()", "(bool b=yes) -> ()", "(Device d=0) -> ()", "(MemoryFormat m=x) -> ()",
		"(Tensor[] x=[]) -> ()", "(int n=99999999999999999999) -> ()",
	};
	char many[2048] = "(";
	struct pt2box_error err;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		err.text[0] = '\0';
		if (pb_schema_parse(bad[i], &schema, &err) != PT2BOX_USAGE || strncmp(err.text, "schema: ", 8) != 0)
			fail_msg("%s: %s", bad[i], err.text);
	}
	for (int i = 0; i <= PB_SCHEMA_MAX_ARGS; i++)
		sprintf(many + strlen(many), "%sint n%d", i ? ", " : "", i);
	strcat(many, ") -> ()");
	assert_int_equal(PT2BOX_USAGE, pb_schema_parse(many, &schema, &err));
	memset(many, 'x', 200);
	memcpy(many, "(int ", 5);
	strcpy(many + 200, ") -> ()");
	assert_int_equal(PT2BOX_USAGE, pb_schema_parse(many, &schema, &err));
}

/* ---- nodes ---- */

static pb_status bind(const char *text, const struct pb_node_arg *args, uint32_t n, struct pb_node_arg *ret, const char *why)
{
	static const struct pb_node_arg out = {.name = "", .kind = PT2BOX_OP_TENSOR};
	struct pb_node_arg own[4] = {{.name = ""}}, outs[1] = {out};
	struct pb_node node = {.target = "lab::op", .args = own, .n_args = n, .outs = outs, .n_outs = 1};
	struct pt2box_error err;
	pb_status st;

	memcpy(own, args, n * sizeof(*args));
	assert_int_equal(PT2BOX_OK, pb_schema_parse(text, &schema, NULL));
	assert_int_equal(PT2BOX_OK, pb_node_layout(&node, NULL));
	st = pb_schema_bind(&schema, &node, ret, &err);
	if (st && !strstr(err.text, why))
		fail_msg("%s", err.text);
	return st;
}

static const struct pb_node_arg x = {.name = "x", .kind = PT2BOX_OP_TENSOR};
static const struct pb_node_arg k = {.name = "k", .kind = PT2BOX_OP_INT, .v.i = 7};

/* In whatever order the package gives them; what it leaves out is the default, and takes no slot. */
static void test_bind(void **state)
{
	const struct pb_node_arg args[] = {k, x};
	struct pb_node_arg got[PB_SCHEMA_MAX_ARGS];

	(void)state;
	assert_int_equal(PT2BOX_OK, bind("(Tensor x, int n=5, *, int k, bool b=False) -> Tensor", args, 2, got, ""));
	assert_int_equal(PT2BOX_OP_TENSOR, got[0].kind);
	assert_int_equal(0, got[0].tensor_at);
	assert_int_equal(5, got[1].v.i);
	assert_int_equal(PB_SLOT_NONE, got[1].int_at);
	assert_int_equal(0, got[2].int_at);
	assert_int_equal(PT2BOX_OP_BOOL, got[3].kind);
}

static void test_does_not_fit(void **state)
{
	static const uint8_t there[] = {1, 0};
	const struct pb_node_arg both[] = {x, k}, twice[] = {x, x}, none[] = {{.name = "x", .kind = PT2BOX_OP_NONE}};
	const struct pb_node_arg list[] = {{.name = "x", .kind = PT2BOX_OP_TENSORS, .count = 2, .v.bools = there}};
	struct pb_node_arg got[PB_SCHEMA_MAX_ARGS];

	(void)state;
	assert_int_equal(PT2BOX_UNSUPPORTED, bind("(Tensor x) -> Tensor", both, 2, got, "no argument \"k\""));
	assert_int_equal(PT2BOX_UNSUPPORTED, bind("(Tensor x) -> Tensor", twice, 2, got, "given twice"));
	assert_int_equal(PT2BOX_UNSUPPORTED, bind("(Tensor x, int k) -> Tensor", both, 1, got, "does not give \"k\""));
	assert_int_equal(PT2BOX_UNSUPPORTED, bind("(Tensor x, float k) -> Tensor", both, 2, got, "is float, the package gives int"));
	assert_int_equal(PT2BOX_UNSUPPORTED, bind("(Tensor[] x, int k) -> Tensor", both, 2, got, "Tensor[]"));
	assert_int_equal(PT2BOX_UNSUPPORTED, bind("(Tensor x, int k) -> ()", both, 2, got, "1 results, the operator has 0"));
	assert_int_equal(PT2BOX_UNSUPPORTED, bind("(Tensor x, int k) -> Tensor[]", both, 2, got, "another kind"));
	assert_int_equal(PT2BOX_UNSUPPORTED, bind("(Tensor x) -> Tensor", none, 1, got, "gives none"));
	assert_int_equal(PT2BOX_OK, bind("(Tensor? x) -> Tensor", none, 1, got, ""));
	assert_int_equal(PT2BOX_OK, bind("(Tensor?[] x) -> Tensor", list, 1, got, ""));
	assert_int_equal(PT2BOX_UNSUPPORTED, bind("(Tensor[] x) -> Tensor", list, 1, got, "tensor[]"));
	assert_int_equal(PT2BOX_OK, bind("(Tensor x, Scalar k) -> Tensor", both, 2, got, ""));
	assert_int_equal(PT2BOX_UNSUPPORTED, bind("(Tensor x, Device k) -> Tensor", both, 2, got, "Device"));
}

/* An empty list has no kind of its own. */
static void test_empty_list(void **state)
{
	const struct pb_node_arg list[] = {{.name = "x", .kind = PT2BOX_OP_INTS}};
	struct pb_node_arg got[PB_SCHEMA_MAX_ARGS];

	(void)state;
	assert_int_equal(PT2BOX_OK, bind("(float[] x) -> Tensor", list, 1, got, ""));
	assert_int_equal(PT2BOX_OP_FLOATS, got[0].kind);
	assert_int_equal(PT2BOX_OK, bind("(Tensor[] x) -> Tensor", list, 1, got, ""));
	assert_int_equal(PT2BOX_OP_TENSORS, got[0].kind);
	assert_int_equal(PT2BOX_UNSUPPORTED, bind("(Device[] x) -> Tensor", list, 1, got, "x"));
}

/* Every row of the native table is a schema. */
static void test_native_table(void **state)
{
	static const struct {
		const char *target, *text;
	} rows[] = {
#define PROXIED(function, target, library, text) {target, text},
#include "runtime/proxied.def"
#undef PROXIED
	};
	struct pt2box_error err;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (pb_schema_parse(rows[i].text, &schema, &err))
			fail_msg("%s: %s", rows[i].target, err.text);
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(rows[i].target, rows[j].target);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_parse),	       CHECK_TEST(test_no_schema),  CHECK_TEST(test_bind),
		CHECK_TEST(test_does_not_fit), CHECK_TEST(test_empty_list), CHECK_TEST(test_native_table),
	};

	return cmocka_run_group_tests_name("op_schema", tests, NULL, NULL);
}
