/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The proxy executor as a model calls it: counts that do not fit the node, results, the callback; and the operators behind
 * it: their errors in PyTorch's words, and small cases that can be checked by eye. Larger ones: the fixtures linalg and
 * uniques.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/op_schema.h"
#include "runtime/abi.h"
#include "runtime/hooks.h"
#include "runtime/proxy.h"
#include "tests/lib/check.h"

static const struct {
	const char *target, *schema;
} rows[] = {
#define PROXIED(function, target, library, schema) {target, schema},
#include "runtime/proxied.def"
#undef PROXIED
};

/* ---- one node, as the worker would give it ---- */

static struct pb_schema schema;
static struct pb_node_arg bound[PB_SCHEMA_MAX_ARGS], outs[PB_SCHEMA_MAX_RETURNS];
static struct pb_node node;

/* The node of @target with these arguments, by name; the rest are defaults. */
static void set_node(const char *target, struct pb_node_arg *args, uint32_t n)
{
	struct pt2box_error err;
	size_t i = 0;

	while (strcmp(rows[i].target, target) != 0)
		i++;
	assert_int_equal(PT2BOX_OK, pb_schema_parse(rows[i].schema, &schema, &err));
	for (uint32_t k = 0; k < schema.n_returns; k++)
		outs[k] = (struct pb_node_arg){.name = "", .kind = PT2BOX_OP_TENSOR};
	node = (struct pb_node){.target = target, .args = args, .n_args = n, .outs = outs, .n_outs = schema.n_returns,
				.native = true};
	assert_int_equal(PT2BOX_OK, pb_node_layout(&node, &err));
	if (pb_schema_bind(&schema, &node, bound, &err))
		fail_msg("%s", err.text);
	node.args = bound;
	node.n_args = schema.n_args;
	assert_int_equal(0, pb_rt_set_nodes(&node, 1, NULL, NULL));
}

#define T(arg_name) {.name = arg_name, .kind = PT2BOX_OP_TENSOR}
#define I(arg_name) {.name = arg_name, .kind = PT2BOX_OP_INT}
#define B(arg_name, value) {.name = arg_name, .kind = PT2BOX_OP_BOOL, .v.i = value}
#define S(arg_name, value) {.name = arg_name, .kind = PT2BOX_OP_STRING, .v.s = value}
#define SET(target, ...)                                                                \
	do {                                                                            \
		struct pb_node_arg args_[] = {__VA_ARGS__};                             \
		set_node(target, args_, (uint32_t)(sizeof(args_) / sizeof(args_[0])));  \
	} while (0)

static AtenTensorHandle made[32];
static int n_made;

static AtenTensorHandle keep(AtenTensorHandle t)
{
	assert_true(n_made < 32);
	return made[n_made++] = t;
}

static void drop_all(void)
{
	while (n_made)
		aoti_torch_delete_tensor_object(made[--n_made]);
	assert_int_equal(0, pb_rt_set_nodes(NULL, 0, NULL, NULL));
}

static AtenTensorHandle tensor(int32_t dtype, int ndim, const int64_t *sizes, const void *data)
{
	struct pb_rt_tensor *t = pb_rt_empty(dtype, ndim, sizes, NULL);

	assert_non_null(t);
	if (t->numel)
		memcpy(pb_rt_data(t), data, (size_t)t->numel * pb_rt_dtype_size(dtype));
	return keep(t);
}

static AtenTensorHandle out(void)
{
	return keep(pb_rt_uninitialized());
}

#define DIMS(...) (sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__}
#define F32(dims, ...) tensor(PB_RT_F32, dims, (float[]){__VA_ARGS__})
#define I64(dims, ...) tensor(PB_RT_I64, dims, (int64_t[]){__VA_ARGS__})

static int call_n(const int64_t *ints, int32_t n_ints, AtenTensorHandle *tensors, int32_t n)
{
	pb_rt_clear_error();
	return aoti_torch_proxy_executor_call_function(NULL, 0, n_ints, (int64_t *)(uintptr_t)ints, n, tensors);
}

static void ok(const int64_t *ints, AtenTensorHandle *tensors)
{
	if (call_n(ints, (int32_t)node.n_ints, tensors, (int32_t)node.n_tensors))
		fail_msg("%s", pb_rt_last_error());
}

static void fails(const int64_t *ints, AtenTensorHandle *tensors, const char *text)
{
	assert_int_equal(1, call_n(ints, (int32_t)node.n_ints, tensors, (int32_t)node.n_tensors));
	if (!strstr(pb_rt_last_error(), text))
		fail_msg("the error is: %s", pb_rt_last_error());
}

static void is_f32(AtenTensorHandle t, const float *want, int64_t n)
{
	assert_int_equal(PB_RT_F32, t->dtype);
	assert_int_equal(n, t->numel);
	for (int64_t i = 0; i < n; i++) {
		float got = ((float *)pb_rt_data(t))[i];

		if (!(fabsf(got - want[i]) < 1e-4f || (isnan(got) && isnan(want[i]))))
			fail_msg("element %ld is %g, not %g", (long)i, got, want[i]);
	}
}

static void is_i64(AtenTensorHandle t, const int64_t *want, int64_t n)
{
	assert_int_equal(PB_RT_I64, t->dtype);
	assert_int_equal(n, t->numel);
	for (int64_t i = 0; i < n; i++)
		assert_int_equal(want[i], ((int64_t *)pb_rt_data(t))[i]);
}

#define IS_F32(t, ...) is_f32(t, (float[]){__VA_ARGS__}, (int64_t)(sizeof((float[]){__VA_ARGS__}) / sizeof(float)))
#define IS_I64(t, ...) is_i64(t, (int64_t[]){__VA_ARGS__}, (int64_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)))

/* ---- the executor ---- */

static void test_counts(void **state)
{
	const int64_t ints[2] = {0, 0};
	AtenTensorHandle t[4];

	(void)state;
	assert_int_equal(0, pb_rt_set_nodes(NULL, 0, NULL, NULL));
	assert_int_equal(1, call_n(NULL, 0, NULL, 0));
	assert_non_null(strstr(pb_rt_last_error(), "describes 0 operators"));
	SET("aten::bincount", T("self"), I("minlength"));
	t[0] = I64(DIMS(3), 1, 1, 2);
	t[1] = out();
	t[2] = t[3] = t[1];
	ok(ints, t);
	IS_I64(t[1], 0, 2, 1);
	assert_int_equal(1, aoti_torch_proxy_executor_call_function(NULL, 1, 1, (int64_t *)(uintptr_t)ints, 2, t));
	assert_int_equal(1, aoti_torch_proxy_executor_call_function(NULL, -1, 1, (int64_t *)(uintptr_t)ints, 2, t));
	for (int n = -1; n <= 3; n++) {
		if (n != 1)
			assert_int_equal(1, call_n(ints, n, t, 2));
		if (n != 2)
			assert_int_equal(1, call_n(ints, 1, t, n));
	}
	assert_non_null(strstr(pb_rt_last_error(), "aten::bincount: called with 3 tensors; the package describes 2"));
	assert_int_equal(1, call_n(NULL, 1, t, 2));
	assert_int_equal(1, call_n(ints, 1, NULL, 2));
	t[0] = out();
	fails(ints, t, "tensor 0 of the call has no contents");
	t[0] = NULL;
	fails(ints, t, "tensor 0 of the call has no contents");
	t[0] = I64(DIMS(1), 1);
	t[1] = NULL;
	fails(ints, t, "result 0 is missing");
	drop_all();
}

/* A handle keeps its identity, and what it held before is let go. */
static void test_results_replace(void **state)
{
	const int64_t ints[1] = {0};
	AtenTensorHandle t[2];

	(void)state;
	SET("aten::bincount", T("self"), I("minlength"));
	t[0] = I64(DIMS(2), 0, 0);
	t[1] = F32(DIMS(4), 1, 2, 3, 4);
	ok(ints, t);
	IS_I64(t[1], 2);
	t[1] = t[0]; /* the argument's own handle: its contents are read before they are replaced */
	ok(ints, t);
	IS_I64(t[0], 2);
	drop_all();
}

static int calls;

static int callback(void *arg, uint32_t index, const struct pt2box_op_value *args, uint32_t n_args, AtenTensorHandle *ret,
		    uint32_t n_ret, int64_t *ret_ints, uint32_t n_ret_ints)
{
	assert_ptr_equal(&calls, arg);
	assert_int_equal(0, index);
	assert_int_equal(2, n_args);
	assert_int_equal(1, n_ret);
	assert_int_equal(1, n_ret_ints);
	calls++;
	if (args[1].v.i < 0)
		return pb_rt_fail("the callback's reason");
	ret_ints[0] = args[1].v.i;
	ret[0] = args[1].v.i == 1 ? args[0].v.tensor->host : args[1].v.i == 2 ? NULL : pb_rt_empty(PB_RT_F32, 0, NULL, NULL);
	return 0;
}

static void test_callback(void **state)
{
	struct pb_node_arg args[] = {T("x"), I("k")}, results[] = {{.name = "", .kind = PT2BOX_OP_TENSOR},
								   {.name = "", .kind = PT2BOX_OP_INT}};
	AtenTensorHandle t[2];

	(void)state;
	node = (struct pb_node){.target = "my::op", .args = args, .n_args = 2, .outs = results, .n_outs = 2};
	assert_int_equal(PT2BOX_OK, pb_node_layout(&node, NULL));
	t[0] = F32(DIMS(2), 5, 6);
	t[1] = out();
	assert_int_equal(0, pb_rt_set_nodes(&node, 1, NULL, NULL));
	fails((int64_t[]){1, 1}, t, "my::op: the native runtime does not have this operator");
	assert_int_equal(0, pb_rt_set_nodes(&node, 1, callback, &calls));
	fails((int64_t[]){-1, 1}, t, "the callback's reason");
	ok((int64_t[]){1, 1}, t); /* returns its argument */
	IS_F32(t[1], 5, 6);
	IS_F32(t[0], 5, 6);
	fails((int64_t[]){2, 2}, t, "result 0 is missing");
	ok((int64_t[]){3, 3}, t);
	assert_int_equal(0, t[1]->ndim);
	fails((int64_t[]){3, 4}, t, "returned 3, the package was compiled for 4");
	assert_int_equal(5, calls);
	drop_all();
}

/* Every row has a function. */
static void test_table(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_non_null(pb_proxy_find(rows[i].target));
	assert_null(pb_proxy_find("aten::add"));
}

/* ---- linear algebra ---- */

static void test_check_errors(void **state)
{
	static const struct {
		const char *api;
		int32_t info;
		bool matrix;
		const char *text;
	} cases[] = { /* as torch 2.13.0 says */
		{"linalg.inv", 3, true, "linalg.inv: The diagonal element 3 is zero, the inversion could not be completed because "
					"the input matrix is singular."},
		{"torch.linalg.solve", 3, false, "torch.linalg.solve: (Batch element 1): The solver failed because the input matrix "
						 "is singular."},
		{"linalg.cholesky", 2, true, "linalg.cholesky: The factorization could not be completed because the input is not "
					     "positive-definite (the leading minor of order 2 is not positive-definite)."},
		{"linalg.eigh", 1, true, "linalg.eigh: The algorithm failed to converge because the input matrix is "
					 "ill-conditioned or has too many repeated eigenvalues (error code: 1)."},
		{"torch.linalg.svd", -4, true, "torch.linalg.svd: The algorithm failed to converge because the input matrix "
					       "contained non-finite values."},
		{"torch.linalg.svd", 4, true, "has too many repeated singular values (error code: 4)."},
		{"linalg.lu_factor", 2, true, "linalg.lu_factor: U[2,2] is zero and using it on lu_solve would result in a division "
					      "by zero."},
		{"linalg.lstsq", 5, true, "does not have full rank (error code: 5)."},
		{"other", 5, true, "other: Unknown error code: 5."},
		{"other", -5, true, "other: Argument 5 has illegal value."},
	};
	AtenTensorHandle t[1];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const int32_t info[2] = {cases[i].matrix ? cases[i].info : 0, cases[i].info};

		SET("aten::_linalg_check_errors", T("info"), S("api_name", cases[i].api), B("is_matrix", cases[i].matrix));
		t[0] = tensor(PB_RT_I32, cases[i].matrix ? 0 : 1, &(int64_t){2}, info);
		fails(NULL, t, cases[i].text);
	}
	t[0] = tensor(PB_RT_I32, DIMS(2), (int32_t[2]){0, 0});
	ok(NULL, t);
	t[0] = F32(DIMS(1), 0);
	fails(NULL, t, "Expected info to be Int");
	drop_all();
}

static void test_inverse(void **state)
{
	AtenTensorHandle t[3];

	(void)state;
	SET("aten::linalg_inv_ex", T("A"));
	t[0] = F32(DIMS(2, 2), 1, 2, 3, 4);
	t[1] = out();
	t[2] = out();
	ok(NULL, t);
	IS_F32(t[1], -2, 1.5f, 1, -0.5f); /* column by column: so PyTorch lays it out */
	assert_int_equal(1, t[1]->strides[0]);
	assert_int_equal(2, t[1]->strides[1]);
	assert_int_equal(0, *(int32_t *)pb_rt_data(t[2]));
	t[0] = F32(DIMS(2, 2), 1, 2, 2, 4);
	ok(NULL, t); /* says so in info */
	assert_int_equal(2, *(int32_t *)pb_rt_data(t[2]));
	SET("aten::linalg_inv_ex", T("A"), B("check_errors", 1));
	fails(NULL, t, "linalg.inv_ex: The diagonal element 2 is zero");
	t[0] = F32(DIMS(2, 1), 1, 2);
	fails(NULL, t, "linalg.inv: A must be batches of square matrices, but they are 2 by 1 matrices");
	t[0] = F32(DIMS(2), 1, 2);
	fails(NULL, t, "linalg.inv: The input tensor A must have at least 2 dimensions.");
	t[0] = I64(DIMS(1, 1), 1);
	fails(NULL, t, "linalg.inv: Expected a floating point or complex tensor as input. Got Long");
	t[0] = tensor(PB_RT_F16, DIMS(1, 1), (uint16_t[1]){0});
	fails(NULL, t, "linalg.inv: Low precision dtypes not supported. Got Half");
	t[0] = tensor(PB_RT_F32, DIMS(3, 0, 0), NULL);
	ok(NULL, t);
	assert_int_equal(0, t[1]->numel);
	assert_int_equal(3, t[2]->numel);
	drop_all();
}

static void test_solve(void **state)
{
	AtenTensorHandle t[6];

	(void)state;
	SET("aten::_linalg_solve_ex", T("A"), T("B"));
	t[0] = F32(DIMS(2, 2), 2, 0, 0, 4);
	t[1] = F32(DIMS(2), 2, 2); /* a vector */
	for (int i = 2; i < 6; i++)
		t[i] = out();
	ok(NULL, t);
	IS_F32(t[2], 1, 0.5f);
	assert_int_equal(1, t[2]->ndim);
	t[1] = F32(DIMS(3, 2, 1), 2, 2, 4, 4, 6, 6); /* the matrix serves for all */
	ok(NULL, t);
	IS_F32(t[2], 1, 0.5f, 2, 1, 3, 1.5f);
	assert_int_equal(2, t[3]->ndim);
	t[1] = F32(DIMS(3, 1), 1, 2, 3);
	fails(NULL, t, "linalg.solve: Incompatible shapes of A and B for the equation AX = B (2x2 and 3x1)");
	t[1] = tensor(PB_RT_F64, DIMS(2, 1), (double[2]){1, 2});
	fails(NULL, t, "linalg.solve: Expected A and B to have the same dtype, but found A of type Float and B of type Double");
	drop_all();
}

/* A pivot that LAPACK would swap with a row outside of the matrix. */
static void test_hostile_pivots(void **state)
{
	static const int32_t bad[][2] = {{1, 1000000}, {0, 1}, {-5, 2}};
	AtenTensorHandle t[4];

	(void)state;
	SET("aten::linalg_lu_solve", T("LU"), T("pivots"), T("B"));
	t[0] = F32(DIMS(2, 2), 1, 0, 0, 1);
	t[2] = F32(DIMS(2, 1), 1, 2);
	t[3] = out();
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		t[1] = tensor(PB_RT_I32, DIMS(2), bad[i]);
		fails(NULL, t, "Pivots given to lu_solve must all be");
	}
	t[1] = tensor(PB_RT_I32, DIMS(2), (int32_t[]){2, 2});
	ok(NULL, t);
	IS_F32(t[3], 2, 1);
	drop_all();
}

static void test_more_errors(void **state)
{
	AtenTensorHandle t[5];

	(void)state;
	for (int i = 1; i < 5; i++)
		t[i] = out();
	t[0] = F32(DIMS(2, 2), 1, 2, 2, 1);
	SET("aten::linalg_qr", T("A"), S("mode", "foo"));
	fails(NULL, t, "qr received unrecognized mode 'foo' but expected one of 'reduced' (default), 'r', or 'complete'");
	SET("aten::_linalg_eigh", T("A"), S("UPLO", "X"));
	fails(NULL, t, "Expected UPLO argument to be 'L' or 'U', but got X");
	SET("aten::linalg_lu_factor_ex", T("A"), B("pivot", 0));
	fails(NULL, t, "linalg.lu_factor: LU without pivoting is not implemented on the CPU");
	SET("aten::cholesky", T("self"));
	fails(NULL, t, "cholesky: The factorization could not be completed because the input is not positive-definite (the leading "
		       "minor of order 2 is not positive-definite).");
	t[0] = F32(DIMS(2, 2), NAN, 1, 1, 1);
	SET("aten::_linalg_svd", T("A"));
	fails(NULL, t, "linalg.svd: The algorithm failed to converge because the input matrix contained non-finite values.");
	drop_all();
}

/* ---- order, counting, samples ---- */

static void test_median_dim(void **state)
{
	const int64_t dim[1] = {1};
	AtenTensorHandle t[3];

	(void)state;
	t[0] = F32(DIMS(3, 4), 4, 1, 3, 2, 1, NAN, 0, NAN, NAN, NAN, NAN, NAN);
	t[1] = out();
	t[2] = out();
	SET("aten::median.dim", T("self"), I("dim"));
	ok(dim, t);
	IS_F32(t[1], 2, NAN, NAN);
	IS_I64(t[2], 3, 1, 0);
	SET("aten::nanmedian.dim", T("self"), I("dim"), B("keepdim", 1));
	ok(dim, t);
	IS_F32(t[1], 2, 0, NAN);
	assert_int_equal(2, t[1]->ndim);
	t[0] = tensor(PB_RT_F32, DIMS(2, 0), NULL);
	fails(dim, t, "median(): Expected reduction dim 1 to have non-zero size.");
	t[0] = tensor(PB_RT_BOOL, DIMS(1, 2), (uint8_t[2]){0, 1});
	fails(dim, t, "\"median_out\" not implemented for 'Bool'");
	drop_all();
}

static void test_unique(void **state)
{
	AtenTensorHandle t[4];

	(void)state;
	for (int i = 1; i < 4; i++)
		t[i] = out();
	SET("aten::_unique2", T("self"), B("sorted", 1), B("return_inverse", 1), B("return_counts", 1));
	t[0] = F32(DIMS(2, 3), NAN, 1, NAN, -0.0f, 0, 2);
	ok(NULL, t);
	IS_F32(t[1], 0, 1, 2, NAN, NAN);
	assert_true(signbit(*(float *)pb_rt_data(t[1]))); /* of equals the first */
	IS_I64(t[2], 3, 1, 4, 0, 0, 2);
	assert_int_equal(2, t[2]->ndim);
	IS_I64(t[3], 2, 1, 1, 1, 1);
	SET("aten::unique_consecutive", T("self"), B("return_inverse", 1), B("return_counts", 1));
	t[0] = I64(DIMS(5), 1, 1, 2, 1, 1);
	ok(NULL, t);
	IS_I64(t[1], 1, 2, 1);
	IS_I64(t[2], 0, 0, 1, 2, 2);
	SET("aten::unique_dim", T("self"), I("dim"));
	t[0] = I64(DIMS(2, 3), 5, 1, 5, 6, 2, 6);
	ok((int64_t[]){-1}, t);
	IS_I64(t[3], 1, 2);
	IS_I64(t[2], 1, 0, 1);
	assert_true(t[1]->sizes[0] == 2 && t[1]->sizes[1] == 2 && t[1]->strides[0] == 1);
	t[0] = tensor(PB_RT_F32, DIMS(3, 0), NULL);
	fails((int64_t[]){0}, t, "There are 0 sized dimensions, and they aren't selected, so unique cannot be applied");
	t[0] = tensor(PB_RT_F32, DIMS(0, 0), NULL);
	fails((int64_t[]){0}, t, "Number of zero sized dimensions is more than one, so unique cannot be applied");
	drop_all();
}

static void test_bincount(void **state)
{
	AtenTensorHandle t[3];

	(void)state;
	SET("aten::bincount", T("self"), T("weights"), I("minlength"));
	t[0] = I64(DIMS(3), 1, 3, 1);
	t[1] = F32(DIMS(3), 0.5f, 1, 2);
	t[2] = out();
	ok((int64_t[]){5}, t);
	IS_F32(t[2], 0, 2.5f, 0, 1, 0);
	fails((int64_t[]){-1}, t, "minlength should be >= 0");
	t[1] = F32(DIMS(2), 0.5f, 1);
	fails((int64_t[]){0}, t, "weights should be 1-d and have the same length as input");
	t[0] = I64(DIMS(2), 1, -3);
	fails((int64_t[]){0}, t, "bincount only supports 1-d non-negative integral inputs.");
	t[0] = I64(DIMS(2), 1, INT64_MAX - 1); /* more than there is */
	assert_int_equal(1, call_n((int64_t[]){0}, 1, t, 3));
	t[0] = F32(DIMS(2), 1, 2);
	fails((int64_t[]){0}, t, "\"bincount_cpu\" not implemented for 'Float'");
	drop_all();
}

/* Numbers of torch 2.13.0 after torch.manual_seed(7). */
static void test_samples(void **state)
{
	const float p[] = {0.5f, 0.25f, 0.125f, 0.0625f, 0.0625f};
	AtenTensorHandle t[2];

	(void)state;
	t[0] = tensor(PB_RT_F32, DIMS(5), p);
	t[1] = out();
	SET("aten::multinomial", T("self"), I("num_samples"), B("replacement", 1));
	pb_rt_seed(7);
	ok((int64_t[]){6}, t);
	IS_I64(t[1], 0, 0, 2, 1, 3, 2);
	SET("aten::multinomial", T("self"), I("num_samples"));
	pb_rt_seed(7);
	ok((int64_t[]){4}, t);
	IS_I64(t[1], 0, 1, 2, 3);
	fails((int64_t[]){6}, t, "cannot sample n_sample > prob_dist.size(-1) samples without replacement");
	fails((int64_t[]){0}, t, "cannot sample n_sample <= 0 samples");
	t[0] = F32(DIMS(2), 1, -1);
	fails((int64_t[]){1}, t, "probability tensor contains either `inf`, `nan` or element < 0");
	t[0] = F32(DIMS(2), 0, 0);
	fails((int64_t[]){1}, t, "invalid multinomial distribution (sum of probabilities <= 0)");
	SET("aten::poisson", T("self"));
	t[0] = F32(DIMS(7), 0.5f, 3, 9.9f, 10, 30, 1000, 0);
	pb_rt_seed(7);
	ok(NULL, t);
	IS_F32(t[1], 0, 5, 6, 6, 33, 1047, 0);
	t[0] = F32(DIMS(1), -1);
	fails(NULL, t, "invalid Poisson rate, expected rate to be non-negative");
	drop_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_counts),       CHECK_TEST(test_results_replace), CHECK_TEST(test_callback),
		CHECK_TEST(test_table),	       CHECK_TEST(test_check_errors),	 CHECK_TEST(test_inverse),
		CHECK_TEST(test_solve),	       CHECK_TEST(test_hostile_pivots),	 CHECK_TEST(test_more_errors),
		CHECK_TEST(test_median_dim),   CHECK_TEST(test_unique),		 CHECK_TEST(test_bincount),
		CHECK_TEST(test_samples),
	};

	return cmocka_run_group_tests_name("proxy", tests, NULL, NULL);
}
