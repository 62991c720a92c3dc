/* SPDX-License-Identifier: Apache-2.0 */
/* The generated C++ text: what real ones say, what becomes of those that are of another shape, hostile ones. */
#include "tests/unit/intake/kit.h"

#include "broker/intake/expr.h"
#include "broker/intake/wrapper.h"

/* ---- expressions ---- */

static struct pb_expr expr(const char *s, size_t *ret_left)
{
	struct pb_cursor c = {s, s + strlen(s)};
	struct pb_expr e = pb_expr_read(&c);

	*ret_left = (size_t)(c.end - c.at);
	return e;
}

static void test_expressions(void **state)
{
	size_t left;
	struct pb_expr e = expr("64L*s27, 64L", &left), f, g;

	(void)state;
	assert_true(e.known && e.monotone && !e.constant);
	assert_int_equal(5, left);
	assert_int_equal(64, e.ones);
	assert_int_equal(128, e.twos);
	e = expr("1024L}", &left);
	assert_true(e.known && e.constant && e.ones == 1024 && left == 1);
	e = expr("2L + 3L*(s0 + static_cast<int64_t>(s1))}", &left);
	assert_true(e.known && e.ones == 8 && e.twos == 14);
	e = expr("s0 - 1L}", &left);
	assert_true(e.known && !e.monotone && e.ones == 0);
	e = expr("c10::div_floor_integer(static_cast<int64_t>(s0), 2L), 7", &left);
	assert_true(!e.known && left == 3);
	assert_false(expr("99999999999999999999}", &left).known);
	assert_false(expr("", &left).known);
	assert_false(expr("((((((((((((((((((((s0))))))))))))))))))))}", &left).known); /* too deep for real text */
	e = expr("s0*s1}", &left);
	f = expr("s1*s0}", &left);
	g = expr("s1*s1}", &left);
	assert_true(pb_expr_same(&e, &f));
	assert_false(pb_expr_same(&e, &g));
}

/* ---- the text of a model with one input of two dimensions ---- */

struct text {
	char s[16384];
	size_t n;
};

static void add(struct text *t, const char *fmt, ...) PB_PRINTF(2, 3);
static void add(struct text *t, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	t->n += (size_t)vsnprintf(t->s + t->n, sizeof(t->s) - t->n, fmt, ap);
	va_end(ap);
	assert_true(t->n < sizeof(t->s));
}

static void add_head(struct text *t, int inputs, int outputs, int constants)
{
	t->n = 0;
	add(t, "AOTInductorModel::AOTInductorModel(std::shared_ptr<ConstantMap> constants_map)\n"
	       "    : AOTInductorModelBase(%d,\n                           %d,\n                           %d,\n"
	       "                           device_str) {\n", inputs, outputs, constants);
	for (int i = 0; i < inputs; i++)
		add(t, "    inputs_info_[%d].name = \"arg%d_1\";\n", i, i);
}

static void add_check(struct text *t, int i, const char *dtype, const char *body)
{
	add(t, "AOTI_NOINLINE static void check_input_%d(\n    AtenTensorHandle* input_handles\n) {\n"
	       "    ConstantHandle arg%d_1 = ConstantHandle(input_handles[%d]);\n"
	       "    int32_t arg%d_1_expected_dtype = aoti_torch_dtype_%s();\n"
	       "    if (arg%d_1_expected_dtype != arg%d_1_dtype) {\n%s"
	       "    int32_t arg%d_1_expected_device_type = 0;\n}\n", i, i, i, i, dtype, i, i, body, i);
}

static void add_assert(struct text *t, const char *args)
{
	add(t, "    if (_check_aoti_runtime_check_inputs_env()) { assert_size_stride(arg0_1, %s, \"input\"); }\n", args);
}

#define FIXED(d, v) "    if (" #v " != arg0_1_size[" #d "]) {\n"
#define ATLEAST(d, v) "    if (arg0_1_size[" #d "] < " #v ") {\n"
#define ATMOST(d, v) "    if (arg0_1_size[" #d "] > " #v ") {\n"
#define STRIDE(d, v) "    if (" #v " != arg0_1_stride[" #d "]) {\n"

/* Scan; the arena is to be freed. */
static struct pb_wrapper scan(const struct text *t, struct pb_arena *a)
{
	char *exact = malloc(t->n + 1);
	struct pb_wrapper w;

	assert_non_null(exact);
	memcpy(exact, t->s, t->n);
	assert_true(pb_wrapper_scan(exact, t->n, a, &w));
	free(exact);
	return w;
}

/* One input with this check body and, unless NULL, this assertion. */
static bool one_input(const char *body, const char *args, struct pb_sig_input *ret)
{
	struct pb_arena a = {NULL};
	struct pb_wrapper w;
	struct text t;

	add_head(&t, 1, 1, 0);
	add_check(&t, 0, "float32", body);
	if (args)
		add_assert(&t, args);
	w = scan(&t, &a);
	assert_true(w.has_counts);
	assert_int_equal(1, w.n_inputs);
	if (w.has_signature && ret)
		*ret = w.inputs[0];
	else
		assert_true(w.has_signature || (w.inputs[0].dtype == -1 && w.inputs[0].ndim == -1));
	pb_arena_deinit(&a);
	return w.has_signature;
}

static void test_dimensions(void **state)
{
	struct pb_sig_input in;

	(void)state;
	/* As MLP has it: a free first dimension, its default lower bound 2 is 1. */
	assert_true(one_input(ATLEAST(0, 2) ATMOST(0, 1024) FIXED(1, 64) STRIDE(0, 64) STRIDE(1, 1),
			      "{s77, 64L}, {64L, 1L}", &in));
	assert_int_equal(2, in.ndim);
	assert_int_equal(1, in.dims[0].lo);
	assert_int_equal(1024, in.dims[0].hi);
	assert_int_equal(64, in.dims[0].stride);
	assert_int_equal(64, in.dims[1].lo);
	assert_int_equal(64, in.dims[1].hi);
	/* A real lower bound stays; no upper bound. */
	assert_true(one_input(ATLEAST(0, 64) STRIDE(0, 1), "{s0, }, {1L, }", &in));
	assert_int_equal(64, in.dims[0].lo);
	assert_true(in.dims[0].hi == INT64_MAX);
	/* Zero allowed, and a bound near the greatest number is none. */
	assert_true(one_input(ATLEAST(0, 0) ATMOST(0, 9223372036854775806) STRIDE(0, 1), "{s0, }, {1L, }", &in));
	assert_int_equal(0, in.dims[0].lo);
	assert_true(in.dims[0].hi == INT64_MAX);
	/* A derived size: twice something that begins at 2. */
	assert_true(one_input(ATLEAST(0, 4) ATMOST(0, 200) STRIDE(0, 1), "{2L*s0, }, {1L, }", &in));
	assert_int_equal(2, in.dims[0].lo);
	assert_true(one_input(ATLEAST(0, 3) ATMOST(0, 9) STRIDE(0, 1), "{1L + s0, }, {1L, }", &in));
	assert_int_equal(2, in.dims[0].lo);
	/* 0-d, empty. */
	assert_true(one_input("", "{}, {}", &in));
	assert_int_equal(0, in.ndim);
	assert_true(one_input(FIXED(0, 0) FIXED(1, 4) STRIDE(0, 4) STRIDE(1, 1), NULL, &in));
	assert_int_equal(2, in.ndim);
	assert_int_equal(0, in.dims[0].hi);
	/* Without bounds there is no check of the size: only the assertion tells. */
	assert_true(one_input(FIXED(1, 3) STRIDE(0, 3) STRIDE(1, 1), "{s0, 3L}, {3L, 1L}", &in));
	assert_int_equal(0, in.dims[0].lo);
	assert_false(one_input(FIXED(1, 3) STRIDE(0, 3) STRIDE(1, 1), NULL, NULL));
}

static void test_strides(void **state)
{
	struct pb_sig_input in;

	(void)state;
	/* A free stride that follows from the sizes. */
	assert_true(one_input(ATLEAST(0, 2) ATLEAST(1, 2) FIXED(2, 64) STRIDE(1, 64) STRIDE(2, 1),
			      "{s0, s1, 64L}, {64L*s1, 64L, 1L}", &in));
	assert_int_equal(-1, in.dims[0].stride);
	assert_int_equal(64, in.dims[1].stride);
	/* Transposed with a free size: cannot be said in a signature, so there is none. */
	assert_false(one_input(FIXED(0, 8) ATLEAST(1, 2) STRIDE(0, 1), "{8L, s0}, {1L, 8L*s1}", NULL));
	assert_false(one_input(ATLEAST(0, 2) FIXED(1, 8) STRIDE(0, 1), "{s0, 8L}, {1L, s0}", NULL));
	assert_false(one_input(ATLEAST(0, 2) ATLEAST(1, 2) STRIDE(1, 1), "{s0, s1}, {s7, 1L}", NULL));
	/* Transposed and fixed. */
	assert_true(one_input(FIXED(0, 5) FIXED(1, 8) STRIDE(0, 1) STRIDE(1, 5), "{5L, 8L}, {1L, 5L}", &in));
	assert_int_equal(1, in.dims[0].stride);
	assert_int_equal(5, in.dims[1].stride);
	/* A free stride and no assertion: an older version; unknown. */
	assert_false(one_input(ATLEAST(0, 2) ATLEAST(1, 2) STRIDE(1, 1), NULL, NULL));
}

/* Where the parts disagree, or are not understood, there is no signature. */
static void test_contradictions(void **state)
{
	static const struct {
		const char *body, *args;
	} wrong[] = {
		{FIXED(0, 4), "{5L, }, {1L, }"},			     /* sizes differ */
		{FIXED(0, 4) STRIDE(0, 2), "{4L, }, {1L, }"},		     /* strides differ */
		{FIXED(0, 4) STRIDE(0, 1), "{4L, 4L}, {4L, 1L}"},	     /* a dimension without a check */
		{FIXED(0, 4) FIXED(1, 4), "{4L, }, {1L, }"},		     /* a check without a dimension */
		{FIXED(0, 4), "{s0, }, {1L, }"},			     /* free and fixed */
		{ATLEAST(0, 2) STRIDE(0, 1), "{4L, }, {1L, }"},		     /* the same */
		{FIXED(0, 4) FIXED(0, 5) STRIDE(0, 1), NULL},		     /* twice */
		{FIXED(0, 4) ATLEAST(0, 2) STRIDE(0, 1), NULL},		     /* both */
		{FIXED(0, 4) STRIDE(0, 1) STRIDE(0, 2), NULL},		     /* twice */
		{ATLEAST(0, 9) ATMOST(0, 3) STRIDE(0, 1), "{s0, }, {1L, }"}, /* none fits */
		{ATLEAST(0, -1) STRIDE(0, 1), "{s0, }, {1L, }"},	     /* not a number that we know */
		{ATLEAST(16, 2), NULL},					     /* too many dimensions */
		{FIXED(1, 4) STRIDE(1, 1), NULL},			     /* a gap */
		{FIXED(0, 4), "{4L, }, {1L, 1L}"},			     /* lengths differ */
		{"    int32_t arg0_1_expected_device_type = 1;\n" FIXED(0, 4) STRIDE(0, 1), NULL}, /* not on the CPU */
		{"    int32_t arg0_1_expected_dtype = aoti_torch_dtype_int8();\n" FIXED(0, 4) STRIDE(0, 1), NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		if (one_input(wrong[i].body, wrong[i].args, NULL))
			fail_msg("case %zu has a signature", i);
}

static void test_other_shapes(void **state)
{
	struct pb_arena a = {NULL};
	struct pb_wrapper w;
	struct text t;

	(void)state;
	/* An input without a check function. */
	add_head(&t, 2, 1, 0);
	add_check(&t, 0, "int64", FIXED(0, 4) STRIDE(0, 1));
	w = scan(&t, &a);
	assert_true(w.has_counts && !w.has_signature && w.n_inputs == 2);
	assert_string_equal("arg1_1", w.inputs[1].name);
	/* An element type that we do not know. */
	add_head(&t, 1, 1, 0);
	add_check(&t, 0, "float4_e2m1fn_x2", FIXED(0, 4) STRIDE(0, 1));
	w = scan(&t, &a);
	assert_true(w.has_counts && !w.has_signature);
	/* Two check functions for one input; two models in one text. */
	add_head(&t, 1, 1, 0);
	add_check(&t, 0, "int8", FIXED(0, 4) STRIDE(0, 1));
	add_check(&t, 0, "int8", FIXED(0, 4) STRIDE(0, 1));
	assert_false(scan(&t, &a).has_signature);
	add_head(&t, 1, 1, 0);
	add_check(&t, 0, "int8", FIXED(0, 4) STRIDE(0, 1));
	add(&t, "    : AOTInductorModelBase(1,\n 1,\n 0,\n device_str) {\n%s", "                                ");
	assert_false(scan(&t, &a).has_signature);
	/* Checks of outputs, which debug builds have, are no inputs. */
	add_head(&t, 1, 1, 0);
	add_check(&t, 0, "int8", FIXED(0, 4) STRIDE(0, 1));
	add(&t, "    ConstantHandle output0 = ConstantHandle(output_handles[0]);\n    if (9 != output0_size[0]) {\n");
	w = scan(&t, &a);
	assert_true(w.has_signature && w.inputs[0].dims[0].lo == 4);
	/* Nothing, and nothing of it. */
	t.n = 0;
	w = scan(&t, &a);
	assert_true(!w.has_counts && !w.has_signature && !w.has_constants && w.n_inputs == 0);
	add(&t, "hello\n\n\nworld");
	assert_false(scan(&t, &a).has_counts);
	/* No inputs at all is a signature too. */
	add_head(&t, 0, 1, 0);
	add(&t, "%s", "                                                      ");
	assert_true(scan(&t, &a).has_signature);
	/* More than the text could hold. */
	add_head(&t, 0, 65000, 65000);
	assert_false(scan(&t, &a).has_counts);
	pb_arena_deinit(&a);
}

/* ---- constants ---- */

static void add_constant(struct text *t, int i, const char *more)
{
	add(t, "    constants_info_[%d].name = \"w%d\";\n"
	       "    constants_info_[%d].dtype = static_cast<int32_t>(cached_torch_dtype_bfloat16);\n"
	       "    constants_info_[%d].device_type = cached_torch_device_type_cpu;\n"
	       "    constants_info_[%d].offset = 0;\n    constants_info_[%d].data_size = 128;\n"
	       "    constants_info_[%d].from_folded = false;\n"
	       "    constants_info_[%d].type = static_cast<int32_t>(torch::aot_inductor::ConstantType::Buffer);\n"
	       "    constants_info_[%d].shape = {4, 8};\n    constants_info_[%d].stride = {8, 1};\n"
	       "    constants_info_[%d].layout = static_cast<int32_t>(cached_torch_layout_strided);\n%s"
	       "    constants_info_[%d].original_fqn = \"m.w\\\"%d\\\\\";\n", i, i, i, i, i, i, i, i, i, i, i, more, i, i);
}

static struct pb_wrapper one_constant(const char *more, struct pb_arena *a)
{
	struct text t;

	add_head(&t, 0, 1, 1);
	add_constant(&t, 0, more);
	return scan(&t, a);
}

static void test_constants(void **state)
{
	struct pb_arena a = {NULL};
	struct pb_wrapper w = one_constant("", &a);
	struct text t;

	(void)state;
	assert_true(w.has_constants && w.n_constants == 1 && !w.opaque_constant);
	assert_string_equal("w0", w.constants[0].name);
	assert_string_equal("m.w\"0\\", w.constants[0].fqn);
	assert_int_equal(PT2BOX_BFLOAT16, w.constants[0].dtype);
	assert_int_equal(2, w.constants[0].ndim);
	assert_int_equal(8, w.constants[0].sizes[1]);
	assert_int_equal(8, w.constants[0].strides[0]);
	assert_int_equal(128, w.constants[0].data_size);
	assert_int_equal(PB_CONST_BUFFER, w.constants[0].type);
	assert_true(one_constant("    constants_info_[0].shape = {};\n", &a).has_constants == false);
	assert_false(one_constant("    constants_info_[0].dtype = cached_torch_dtype_float4;\n", &a).has_constants);
	assert_false(one_constant("    constants_info_[0].device_type = cached_torch_device_type_cuda;\n", &a).has_constants);
	assert_false(one_constant("    constants_info_[0].shape = {4, -8};\n", &a).has_constants);
	assert_false(one_constant("    constants_info_[1].shape = {4, 8};\n", &a).has_constants);
	assert_false(one_constant("    constants_info_[0].data_size = 99999999999999999999;\n", &a).has_constants);
	assert_false(one_constant("    constants_info_[0].name = \"open\n", &a).has_constants);
	assert_false(one_constant("    constants_info_[0].from_folded = maybe;\n", &a).has_constants);
	assert_true(one_constant("    constants_info_[0].new_field = 3;\n", &a).has_constants);
	assert_string_equal("w0", one_constant("    constants_info_[0].layout = static_cast<int32_t>("
					       "cached_torch_layout_mkldnn);\n", &a).opaque_constant);
	/* One of two is missing. */
	add_head(&t, 0, 1, 2);
	add_constant(&t, 0, "");
	w = scan(&t, &a);
	assert_true(!w.has_constants && w.n_constants == 0);
	pb_arena_deinit(&a);
}

/* ---- call spec ---- */

static void test_spec(void **state)
{
	struct pb_arena a = {NULL};
	struct pb_wrapper w;
	struct text t;

	(void)state;
	add_head(&t, 0, 1, 0);
	/* It may hold anything, even what looks like the text around it. */
	add(&t, "    in_spec_ = R\"([1, {\"type\": \"x\n    : AOTInductorModelBase(7,7,7,\n\"}])\";\n"
		"    out_spec_ =\nR\"(one)\"\nR\"( two)\"\n;\n");
	w = scan(&t, &a);
	assert_int_equal(0, w.n_inputs);
	assert_true(w.has_signature);
	assert_string_equal("[1, {\"type\": \"x\n    : AOTInductorModelBase(7,7,7,\n\"}]", w.in_spec);
	assert_string_equal("one two", w.out_spec);
	add_head(&t, 0, 1, 0);
	add(&t, "    in_spec_ = R\"(never closed\n    out_spec_ = R\"(x");
	w = scan(&t, &a);
	assert_string_equal("", w.in_spec);
	assert_string_equal("", w.out_spec);
	pb_arena_deinit(&a);
}

/* ---- how it was compiled ---- */

static void test_build(void **state)
{
	static const char text[] = "x\n#pragma omp parallel num_threads(8)\nfor (int tid = 0; tid < 4; tid++)\n"
				   "// Compile cmd\n// g++ a -mavx512f\n// Compile cmd\n// g++ b -mavx2\n// Link cmd\n// ld";
	struct pb_build b = {.openmp_threads = 0};
	char *large = malloc(20000);

	(void)state;
	pb_wrapper_scan_build(text, sizeof(text) - 1, &b);
	assert_int_equal(4, b.openmp_threads);
	assert_string_equal(" // g++ b -mavx2", b.command);
	assert_false(b.tiles);
	/* Added to, and cut where it would be too long. */
	memset(large, 'y', 20000);
	memcpy(large, "\n// Compile cmd\n", 16);
	pb_wrapper_scan_build(large, 20000, &b);
	pb_wrapper_scan_build(large, 20000, &b);
	assert_int_equal(sizeof(b.command) - 1, strlen(b.command));
	assert_memory_equal(" // g++ b -mavx2 yyy", b.command, 20);
	free(large);
	pb_wrapper_scan_build("", 0, &b);
	pb_wrapper_scan_build("\n// Compile cmd\n", 16, &b);
}

/* ---- real texts ---- */

static void test_real(void **state)
{
	struct pb_arena a = {NULL};
	struct pb_wrapper w;
	size_t n;
	char *p = (char *)fixture_file("rtfold", ".wrapper.cpp", &n);

	(void)state;
	assert_true(pb_wrapper_scan(p, n, &a, &w));
	assert_true(w.has_signature && w.has_constants);
	assert_int_equal(3, w.n_constants);
	assert_true(w.constants[2].folded);
	assert_int_equal(PB_CONST_FOLDED, w.constants[2].type);
	assert_string_equal("_FOLDED_CONST_relu", w.constants[2].fqn);
	assert_int_equal(PB_CONST_PARAMETER, w.constants[0].type);
	free(p);
	p = (char *)fixture_file("dtypes", ".wrapper.cpp", &n);
	assert_true(pb_wrapper_scan(p, n, &a, &w));
	assert_int_equal(10, w.n_inputs);
	assert_int_equal(11, w.n_outputs);
	assert_int_equal(PT2BOX_BOOL, w.inputs[9].dtype);
	assert_non_null(strstr(w.in_spec, "[\\\"f64\\\", \\\"f32\\\""));
	free(p);
	pb_arena_deinit(&a);
}

/* ---- sweeps: no crash, linear time ---- */

static void scan_bytes(const char *p, size_t n)
{
	struct pb_arena a = {NULL};
	struct pb_build b = {.openmp_threads = 0};
	struct pb_wrapper w;

	(void)pb_wrapper_scan(p, n, &a, &w);
	pb_wrapper_scan_build(p, n, &b);
	pb_arena_deinit(&a);
}

static void test_cut_and_flip(void **state)
{
	size_t n;
	char *p = (char *)fixture_file("mlp", ".wrapper.cpp", &n);
	const size_t step = CHECK_SANITIZED ? 401 : 97;

	(void)state;
	for (size_t i = 0; i < n; i += step) {
		char *exact = malloc(i ? i : 1);

		memcpy(exact, p, i);
		scan_bytes(exact, i);
		free(exact);
		p[i] ^= 0x15;
		scan_bytes(p, n);
		p[i] ^= 0x15;
	}
	/* The part that is read, byte by byte. */
	for (size_t i = 26000; i < n && i < 34000; i += CHECK_SANITIZED ? 13 : 3) {
		p[i] ^= 0x7;
		scan_bytes(p, n);
		p[i] ^= 0x7;
	}
	free(p);
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Text made to be slow: lookups that never hit, long lines, raw strings that never end, brackets. */
static void test_linear(void **state)
{
	static const char *const pieces[] = {"    assert_size_stride(nobody, {1L}, {1L}, \"input\");\n",
					     "    in_spec_ = R\"(\n", "    in_spec_ =\n R\"(\n", "{{{{{{{{((((((((",
					     "    constants_info_[0].type = x\n", "ConstantType::", "\n// Compile cmd\n",
					     "for (int tid = 0; tid < ", "\n", " ", "    if (1 != "};
	const size_t max = 1u << 20;
	char *p = malloc(max + 200);

	(void)state;
	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		size_t k = strlen(pieces[i]), n;
		double t;

		n = (size_t)sprintf(p, "    : AOTInductorModelBase(20000,\n1,\n1,\n");
		while (n + k < max) {
			memcpy(p + n, pieces[i], k);
			n += k;
		}
		t = seconds();
		scan_bytes(p, n);
		t = seconds() - t;
		if (t > (CHECK_SANITIZED ? 10 : 0.5))
			fail_msg("piece %zu: %.2f s for a megabyte", i, t);
	}
	free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_expressions), CHECK_TEST(test_dimensions),   CHECK_TEST(test_strides),
		CHECK_TEST(test_contradictions), CHECK_TEST(test_other_shapes), CHECK_TEST(test_constants),
		CHECK_TEST(test_spec),	      CHECK_TEST(test_build),	     CHECK_TEST(test_real),
		CHECK_TEST(test_cut_and_flip), CHECK_TEST(test_linear),
	};

	return cmocka_run_group_tests_name("wrapper", tests, NULL, NULL);
}
