/* SPDX-License-Identifier: Apache-2.0 */
/* Which backend runs a package, for everything that a package can lack and a machine can have. */
#include <stdio.h>
#include <string.h>

#include "broker/broker.h"
#include "ipc/manifest.h"
#include "tests/lib/check.h"

static const struct pb_torch_place there = {.path = "/somewhere/libtorch_cpu.so", .text = "found"};
static const struct pb_torch_place nowhere = {.text = "PyTorch is nowhere"};

static pb_status choose(const char *wanted, enum pb_shim_state second, const struct pb_torch_place *torch, char ret[16],
			struct pt2box_error *e)
{
	struct pb_import imports[] = {
		{.name = "aoti_torch_cpu_mm_out", .state = PB_SHIM_IS_NATIVE, .note = ""},
		{.name = "aoti_torch_cpu_rare", .state = second, .note = "aten::rare"},
		{.name = "Sleef_expf16_u10", .state = PB_SHIM_IS_OTHER, .note = ""},
	};
	struct pb_manifest m = {.imports = imports, .n_imports = 3};

	strcpy(ret, "?");
	e->text[0] = '\0';
	return pb_choose_backend(wanted, &m, false, torch, ret, e);
}

static void test_choices(void **state)
{
	static const struct {
		const char *wanted;
		enum pb_shim_state second;
		const struct pb_torch_place *torch;
		pb_status st;
		const char *backend, *text;
	} rows[] = {
		{"auto", PB_SHIM_IS_NATIVE, &there, PT2BOX_OK, "native", ""},
		{"auto", PB_SHIM_IS_NATIVE, &nowhere, PT2BOX_OK, "native", ""},
		{"auto", PB_SHIM_IS_ABSENT, &there, PT2BOX_OK, "torch", ""},
		{"auto", PB_SHIM_IS_PROXIED, &there, PT2BOX_OK, "torch", ""},
		{"auto", PB_SHIM_IS_ABSENT, &nowhere, PT2BOX_UNSUPPORTED, "?",
		 "the native runtime lacks 1 function: aoti_torch_cpu_rare: aten::rare; and PyTorch is nowhere"},
		{"native", PB_SHIM_IS_NATIVE, &there, PT2BOX_OK, "native", ""},
		{"native", PB_SHIM_IS_ABSENT, &there, PT2BOX_UNSUPPORTED, "?",
		 "the native runtime lacks 1 function: aoti_torch_cpu_rare: aten::rare"},
		{"torch", PB_SHIM_IS_NATIVE, &there, PT2BOX_OK, "torch", ""},
		{"torch", PB_SHIM_IS_ABSENT, &there, PT2BOX_OK, "torch", ""},
		{"torch", PB_SHIM_IS_NATIVE, &nowhere, PT2BOX_UNSUPPORTED, "?", "backend torch: PyTorch is nowhere"},
	};
	struct pt2box_error e;
	char backend[16];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(rows[i].st, choose(rows[i].wanted, rows[i].second, rows[i].torch, backend, &e));
		assert_string_equal(rows[i].backend, backend);
		assert_string_equal(rows[i].text, e.text);
	}
}

/* A plugin is for what is called by name and not native, and for nothing else. */
static void test_plugin(void **state)
{
	struct pb_import imports[] = {
		{.name = "aoti_torch_proxy_executor_call_function", .state = PB_SHIM_IS_ABSENT, .note = "my::op"},
		{.name = "aoti_torch_cpu_rare", .state = PB_SHIM_IS_ABSENT, .note = ""},
	};
	struct pb_node node = {.target = "my::op", .native = false};
	struct pb_nodes nodes = {&node, 1};
	struct pb_manifest m = {.imports = imports, .n_imports = 1, .nodes = &nodes};
	struct pt2box_error e;
	char backend[16];

	(void)state;
	assert_int_equal(PT2BOX_UNSUPPORTED, pb_choose_backend("native", &m, false, &nowhere, backend, &e));
	assert_int_equal(PT2BOX_OK, pb_choose_backend("native", &m, true, &nowhere, backend, &e));
	assert_int_equal(PT2BOX_OK, pb_choose_backend("auto", &m, true, &there, backend, &e));
	assert_string_equal("native", backend);
	m.n_imports = 2;
	assert_int_equal(PT2BOX_UNSUPPORTED, pb_choose_backend("native", &m, true, &nowhere, backend, &e));
	assert_null(strstr(e.text, "my::op"));
	m.n_imports = 1;
	m.nodes = NULL; /* it does not say which */
	assert_int_equal(PT2BOX_UNSUPPORTED, pb_choose_backend("native", &m, true, &nowhere, backend, &e));
}

/* However many are lacking, the text ends inside the error. */
static void test_many(void **state)
{
	static struct pb_import imports[1000];
	struct pb_manifest m = {.imports = imports, .n_imports = 1000};
	struct pt2box_error e;
	char backend[16];

	(void)state;
	for (int i = 0; i < 1000; i++)
		imports[i] = (struct pb_import){.name = "aoti_torch_cpu_one_of_many", .state = PB_SHIM_IS_ABSENT, .note = "note"};
	assert_int_equal(PT2BOX_UNSUPPORTED, pb_choose_backend("auto", &m, false, &nowhere, backend, &e));
	assert_non_null(strstr(e.text, "1000 functions"));
	assert_non_null(strstr(e.text, "and PyTorch is nowhere"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {CHECK_TEST(test_choices), CHECK_TEST(test_plugin), CHECK_TEST(test_many)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
