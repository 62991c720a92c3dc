/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host of plugins: tables, calls of real nodes through the example plugin, what a bad plugin may do. All in one
 * process; the nodes of the fixtures come from their packages, and go through the runtime's proxy executor as a model's
 * calls do.
 */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/intake/nodes.h"
#include "broker/intake/package.h"
#include "proxy/host.h"
#include "runtime/abi.h"
#include "runtime/hooks.h"
#include "tests/lib/check.h"
#include "tests/lib/fixture.h"

#define EXAMPLE "tests/plugins/example.so"

static struct pt2box_error err;
static struct pb_arena arena;

static const char *example_path(void)
{
	static char path[512];
	const char *b = getenv("B");

	snprintf(path, sizeof(path), "%s/" EXAMPLE, b ? b : "build");
	return path;
}

static struct pb_host *new_host(void)
{
	const struct pb_host_options opt = PB_HOST_OPTIONS_INIT;
	struct pb_host *h;

	assert_int_equal(PT2BOX_OK, pb_host_new(&opt, &h, &err));
	return h;
}

static struct pb_host *example_host(void)
{
	struct pb_host *h = new_host();

	if (pb_host_load(h, example_path(), &err))
		fail_msg("%s", err.text);
	return h;
}

static void read_nodes(const char *fixture, struct pb_nodes *ret)
{
	char path[512];
	struct pb_package p = PB_PACKAGE_INIT;
	struct pb_model_files files;
	char *text;
	int fd;

	snprintf(path, sizeof(path), TEST_FIXTURES "/%s/model.pt2", fixture);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(PT2BOX_OK, pb_package_open(&p, fd, 1 << 30, &err));
	assert_int_equal(PT2BOX_OK, pb_package_choose(&p, "model", &files, &err));
	assert_int_equal(PT2BOX_OK, pb_package_read(&p, files.nodes, files.nodes->size, &text, &err));
	if (pb_nodes_read(text, files.nodes->size, &arena, ret, &err))
		fail_msg("%s", err.text);
	free(text);
	pb_package_deinit(&p);
	close(fd);
}

/* ---- real nodes ---- */

static struct pb_host_node *prepared[4];
static const struct pb_nodes *real;

/* As the ops process will be called: slots in, results out; here without a process in between. */
static int call_host(void *arg, uint32_t node, const struct pt2box_op_value *args, uint32_t n_args, AtenTensorHandle *ret,
		     uint32_t n_ret, int64_t *ret_ints, uint32_t n_ret_ints)
{
	const struct pb_node *n = &real->list[node];
	const struct pb_host_result *r;
	struct pt2box_op_tensor tensors[16];
	int64_t ints[16];
	uint32_t n_results;

	(void)arg, (void)ret_ints, (void)n_ret_ints;
	for (uint32_t i = 0; i < n_args; i++) {
		const struct pb_node_arg *a = &n->args[i];
		uint32_t slot = a->tensor_at;

		if (a->kind == PT2BOX_OP_TENSOR)
			tensors[slot] = *args[i].v.tensor;
		for (uint32_t k = 0; a->kind == PT2BOX_OP_TENSORS && k < a->count; k++)
			if (args[i].v.tensors[k])
				tensors[slot++] = *args[i].v.tensors[k];
		if (a->kind == PT2BOX_OP_INT)
			ints[a->int_at] = args[i].v.i;
		for (uint32_t k = 0; a->kind == PT2BOX_OP_INTS && k < a->count; k++)
			ints[a->int_at + k] = args[i].v.ints[k];
	}
	if (pb_host_call(prepared[node], ints, n->n_ints, tensors, n->n_tensors - n_ret, &r, &n_results, &err))
		return 1;
	assert_int_equal(n_ret, n_results);
	for (uint32_t i = 0; i < n_results; i++) {
		const struct pt2box_op_tensor *t = &r[i].tensor;

		assert_int_equal(0, aoti_torch_empty_strided(t->ndim, t->sizes, t->strides, t->dtype, 0, -1, &ret[i]));
		void *data;

		assert_int_equal(0, aoti_torch_get_data_ptr(ret[i], &data));
		memcpy(data, t->data, r[i].bytes);
	}
	return 0;
}

static AtenTensorHandle matrix(float *data, int64_t rows, int64_t cols)
{
	const int64_t sizes[2] = {rows, cols}, strides[2] = {cols, 1};
	AtenTensorHandle t;

	assert_int_equal(0, aoti_torch_create_tensor_from_blob(data, 2, sizes, strides, 0, 6, 0, -1, &t));
	return t;
}

static AtenTensorHandle unmade(void)
{
	AtenTensorHandle t;

	assert_int_equal(0, aoti_torch_new_uninitialized_tensor(&t));
	return t;
}

static void *data_of(AtenTensorHandle t)
{
	void *p;

	assert_int_equal(0, aoti_torch_get_data_ptr(t, &p));
	return p;
}

static struct pb_host *prepare_all(const struct pb_nodes *nodes)
{
	struct pb_host *h = example_host();

	real = nodes;
	for (uint32_t i = 0; i < nodes->n; i++)
		if (pb_host_prepare(h, &nodes->list[i], &prepared[i], &err))
			fail_msg("%s", err.text);
	assert_int_equal(0, pb_rt_set_nodes(nodes->list, nodes->n, call_host, NULL));
	return h;
}

static void end_all(struct pb_host *h)
{
	assert_int_equal(0, pb_rt_set_nodes(NULL, 0, NULL, NULL));
	pb_host_free(h);
	pb_arena_deinit(&arena);
}

static void near(double a, double b)
{
	if (!(fabs(a - b) <= 1e-4 * fabs(b) + 1e-4))
		fail_msg("%g is not %g", a, b);
}

/* The package of an operator that only Python has, with a plugin that has it too, against what PyTorch computed. */
static void test_customop(void **state)
{
	struct test_arrays in, want;
	struct test_fixture f;
	struct pb_nodes nodes;
	struct pb_host *h;
	AtenTensorHandle t[2];
	int64_t ints[1] = {4};

	(void)state;
	read_nodes("customop", &nodes);
	h = prepare_all(&nodes);
	assert_int_equal(0, test_fixture_load("customop", &f));
	assert_int_equal(0, test_arrays_read(f.cases[0].in, NULL, 0, &in));
	assert_int_equal(0, test_arrays_read(f.cases[0].out, NULL, 0, &want));
	t[0] = matrix((float *)(uintptr_t)in.v[0].data, 3, 4);
	t[1] = unmade();
	assert_int_equal(0, aoti_torch_proxy_executor_call_function(NULL, 0, 1, ints, 2, t));
	for (int i = 0; i < 12; i++) /* the model goes on with relu */
		near(fmaxf(((float *)data_of(t[1]))[i], 0), ((const float *)want.v[0].data)[i]);
	aoti_torch_delete_tensor_object(t[0]);
	aoti_torch_delete_tensor_object(t[1]);
	test_arrays_free(&in);
	test_arrays_free(&want);
	end_all(h);
}

/* Every kind of argument; an argument that is written; a list of results. */
static void test_opkinds(void **state)
{
	struct test_arrays in, want;
	struct test_fixture f;
	struct pb_nodes nodes;
	struct pb_host *h;
	float *x, *w, twice[12], more[12];
	AtenTensorHandle t[8], out[3];
	int64_t ints[] = {4, 11, 4, 3, 7, 4, 5, 9}, five[] = {5}, two[] = {2};

	(void)state;
	read_nodes("opkinds", &nodes);
	h = prepare_all(&nodes);
	assert_int_equal(0, test_fixture_load("opkinds", &f));
	assert_int_equal(0, test_arrays_read(f.cases[0].in, NULL, 0, &in));
	assert_int_equal(0, test_arrays_read(f.cases[0].out, NULL, 0, &want));
	x = (float *)(uintptr_t)in.v[0].data;
	w = (float *)(uintptr_t)in.v[1].data;
	for (int i = 0; i < 12; i++) {
		twice[i] = w[i] * 2;
		more[i] = w[i] + 1;
	}
	t[0] = matrix(x, 4, 3);
	t[1] = matrix(w, 4, 3);
	t[2] = matrix(twice, 4, 3);
	t[3] = matrix(more, 4, 3);
	t[4] = t[0];
	t[5] = t[1];
	t[6] = unmade();
	t[7] = unmade();
	if (aoti_torch_proxy_executor_call_function(NULL, 0, 8, ints, 8, t))
		fail_msg("%s", err.text);
	for (int i = 0; i < 12; i++) {
		near(((float *)data_of(t[6]))[i], ((const float *)want.v[0].data)[i]);
		near(((double *)data_of(t[7]))[i], ((const double *)want.v[1].data)[i]);
		twice[i] = x[i] * 2;
		more[i] = x[i] + 1;
	}
	if (aoti_torch_proxy_executor_call_function(NULL, 1, 1, five, 1, &t[2]))
		fail_msg("%s", err.text);
	for (int i = 0; i < 12; i++)
		near(twice[i], ((const float *)want.v[2].data)[i]);
	out[0] = t[3];
	out[1] = unmade();
	out[2] = unmade();
	if (aoti_torch_proxy_executor_call_function(NULL, 2, 1, two, 3, out))
		fail_msg("%s", err.text);
	for (int i = 0; i < 6; i++) {
		near(((float *)data_of(out[1]))[i], ((const float *)want.v[3].data)[i]);
		near(((float *)data_of(out[2]))[i], ((const float *)want.v[4].data)[i]);
	}
	two[0] = 1; /* four results, of which the package takes two */
	assert_int_equal(1, aoti_torch_proxy_executor_call_function(NULL, 2, 1, two, 3, out));
	assert_int_equal(PT2BOX_UNSUPPORTED, err.status);
	two[0] = 4; /* one */
	assert_int_equal(1, aoti_torch_proxy_executor_call_function(NULL, 2, 1, two, 3, out));
	assert_non_null(strstr(err.text, "result 1 is missing"));
	for (int i = 0; i < 4; i++)
		aoti_torch_delete_tensor_object(t[i]);
	aoti_torch_delete_tensor_object(t[6]);
	aoti_torch_delete_tensor_object(t[7]);
	aoti_torch_delete_tensor_object(out[1]);
	aoti_torch_delete_tensor_object(out[2]);
	test_arrays_free(&in);
	test_arrays_free(&want);
	end_all(h);
}

/* ---- tables ---- */

static int nothing(struct pt2box_op_call *c)
{
	(void)c;
	return 0;
}

static pb_status add(struct pb_host *h, const struct pt2box_op *ops, size_t n)
{
	const struct pt2box_op_plugin p = {PT2BOX_OP_ABI, sizeof(*ops), "test", ops, n};

	return pb_host_add(h, &p, &err);
}

static void test_tables(void **state)
{
	static const struct pt2box_op good[] = {{"a::b", "(Tensor x) -> Tensor", nothing}, {"a::c", "() -> ()", nothing}};
	static const struct pt2box_op bad[][1] = {{{NULL, "() -> ()", nothing}},   {{"a::x", NULL, nothing}},
						  {{"a::x", "() -> ()", NULL}},	   {{"ax", "() -> ()", nothing}},
						  {{"a::x", "(Thing x) -> ()", nothing}}, {{"a::x", "() -> int", nothing}}};
	static const struct pt2box_op second[] = {{"a::new", "() -> ()", nothing}, {"a::b", "() -> ()", nothing}};
	const struct pt2box_op_plugin old = {PT2BOX_OP_ABI + 1, sizeof(*good), "old", good, 2};
	const struct pt2box_op_plugin nameless = {PT2BOX_OP_ABI, sizeof(*good), NULL, good, 2};
	struct pb_host *h = new_host();

	(void)state;
	assert_int_equal(PT2BOX_OK, add(h, good, 2));
	assert_true(pb_host_has(h, "a::b") && pb_host_has(h, "a::c") && !pb_host_has(h, "a::x"));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_not_equal(PT2BOX_OK, add(h, bad[i], 1));
	assert_int_equal(PT2BOX_USAGE, add(h, second, 2)); /* nothing of it stays */
	assert_non_null(strstr(err.text, "a::b"));
	assert_false(pb_host_has(h, "a::new"));
	assert_int_equal(PT2BOX_UNSUPPORTED, pb_host_add(h, &old, &err));
	assert_int_equal(PT2BOX_UNSUPPORTED, pb_host_add(h, &nameless, &err));
	assert_int_equal(PT2BOX_UNSUPPORTED, pb_host_add(h, NULL, &err));
	assert_int_equal(PT2BOX_UNSUPPORTED, pb_host_load(h, "/nowhere/plugin.so", &err));
	assert_int_equal(PT2BOX_UNSUPPORTED, pb_host_load(h, "libm.so.6", &err));
	assert_non_null(strstr(err.text, "not a plugin"));
	assert_null(pb_host_free(h));
	assert_null(pb_host_free(NULL));
}

/* ---- bad plugins ---- */

static int how;
static struct pt2box_op_tensor own = {.dtype = 6};

static int misbehave(struct pt2box_op_call *c)
{
	static const int64_t one[] = {2}, huge[] = {INT64_MAX / 2, 8}, negative[] = {-1}, large[] = {1 << 20};
	struct pt2box_op_tensor *t = NULL;

	switch (how) {
	case 0: /* nothing at all */
		return 0;
	case 1:
		return 1;
	case 2:
		return (c->fail)(c, "as the plugin says: %d", 5); /* cmocka has a macro of that name */
	case 3:
		t = c->new_tensor(c, 6, 2, huge, NULL);
		break;
	case 4:
		t = c->new_tensor(c, 6, 1, negative, NULL);
		break;
	case 5:
		t = c->new_tensor(c, 99, 1, one, NULL);
		break;
	case 6:
		t = c->new_tensor(c, 6, 17, one, NULL);
		break;
	case 7:
		t = c->new_tensor(c, 6, 1, one, negative);
		break;
	case 8: /* more than the limit */
		t = c->new_tensor(c, 6, 1, large, NULL);
		break;
	case 9:
		while ((t = c->new_tensor(c, 6, 0, NULL, NULL)))
			;
		break;
	case 10:
		return c->set_result(c, 0, &own);
	case 11:
		return c->set_result(c, 1, c->new_tensor(c, 6, 1, one, NULL));
	case 12:
		return c->set_result(c, 0, NULL);
	case 13:
		return c->append_result(c, 0, c->new_tensor(c, 6, 1, one, NULL));
	case 14:
		t = c->new_tensor(c, 6, 1, one, NULL);
		return c->set_result(c, 0, t) || c->set_result(c, 0, t);
	case 15: /* an argument, which its schema does not return */
		return c->set_result(c, 0, c->args[0].v.tensor);
	case 16: /* a failure that it forgets */
		(void)c->new_tensor(c, 99, 1, one, NULL);
		return c->set_result(c, 0, c->new_tensor(c, 6, 1, one, NULL));
	case 17: /* a description that it changes */
		t = c->new_tensor(c, 6, 1, one, NULL);
		t->ndim = 16;
		t->dtype = 99;
		t->data = NULL;
		return c->set_result(c, 0, t);
	default:
		return 0;
	}
	return t ? c->set_result(c, 0, t) : 1;
}

static const struct {
	pb_status st;
	const char *text;
} outcome[] = {
	{PT2BOX_UNSUPPORTED, "result 0 is missing"}, {PT2BOX_MODEL_ERROR, "gave no reason"},
	{PT2BOX_MODEL_ERROR, "as the plugin says: 5"}, {PT2BOX_UNSUPPORTED, "size of"}, {PT2BOX_UNSUPPORTED, "size of -1"},
	{PT2BOX_UNSUPPORTED, "dtype 99"}, {PT2BOX_UNSUPPORTED, "17 dimensions"}, {PT2BOX_UNSUPPORTED, "strides"},
	{PT2BOX_LIMIT, "more than 4096 bytes"}, {PT2BOX_LIMIT, "10 tensors"}, {PT2BOX_UNSUPPORTED, "neither"},
	{PT2BOX_UNSUPPORTED, "no result 1"}, {PT2BOX_UNSUPPORTED, "no result 0"}, {PT2BOX_UNSUPPORTED, "that is a list"},
	{PT2BOX_UNSUPPORTED, "given twice"}, {PT2BOX_UNSUPPORTED, "is an argument"}, {PT2BOX_UNSUPPORTED, "dtype 99"},
	{PT2BOX_OK, ""},
};

static int held;

static void *counted_alloc(void *arg, uint64_t bytes)
{
	(void)arg;
	held++;
	return aligned_alloc(64, (bytes + 63) & ~63ull);
}

static void counted_free(void *arg, void *p)
{
	(void)arg;
	held--;
	free(p);
}

static void test_bad_plugin(void **state)
{
	static const struct pt2box_op ops[] = {{"bad::op", "(Tensor x) -> Tensor", misbehave}};
	const struct pb_host_options opt = {.memory = {counted_alloc, counted_free, NULL}, .max_result_bytes = 4096,
					    .max_tensors = 10};
	struct pb_node_arg x = {.name = "x", .kind = PT2BOX_OP_TENSOR}, y = {.name = "", .kind = PT2BOX_OP_TENSOR};
	struct pb_node n = {.target = "bad::op", .args = &x, .n_args = 1, .outs = &y, .n_outs = 1};
	float data[2] = {1, 2};
	const int64_t two[] = {2}, step[] = {1};
	const struct pt2box_op_tensor in = {data, two, step, 6, 1, NULL};
	const struct pb_host_result *r;
	struct pb_host_node *p;
	struct pb_host *h;
	uint32_t k;

	(void)state;
	assert_int_equal(PT2BOX_OK, pb_node_layout(&n, &err));
	assert_int_equal(PT2BOX_OK, pb_host_new(&opt, &h, &err));
	assert_int_equal(PT2BOX_OK, add(h, ops, 1));
	assert_int_equal(PT2BOX_OK, pb_host_prepare(h, &n, &p, &err));
	for (how = 0; how < (int)(sizeof(outcome) / sizeof(outcome[0])); how++) {
		pb_status st = pb_host_call(p, NULL, 0, &in, 1, &r, &k, &err);

		if (st != outcome[how].st || (st && !strstr(err.text, outcome[how].text)))
			fail_msg("%d: %s", how, st ? err.text : "succeeded");
		if (st)
			assert_int_equal(0, held);
	}
	/* The last one succeeded: what the host knows counts. */
	assert_int_equal(1, k);
	assert_true(r[0].tensor.ndim == 1 && r[0].tensor.dtype == 6 && r[0].tensor.data && r[0].bytes == 8);
	assert_int_equal(1, held);
	pb_host_release(p);
	assert_int_equal(0, held);
	pb_host_free(h);
}

/* ---- bad callers ---- */

static void test_bad_caller(void **state)
{
	struct pb_nodes nodes;
	struct pb_host *h;
	float data[12] = {0};
	const int64_t sizes[] = {3, 4}, strides[] = {4, 1}, negative[] = {3, -4}, ints[] = {4};
	const struct pt2box_op_tensor good = {data, sizes, strides, 6, 2, NULL};
	const struct pt2box_op_tensor bad[] = {{data, sizes, strides, 99, 2, NULL}, {data, sizes, strides, 6, 17, NULL},
					       {data, sizes, strides, 6, -1, NULL}, {data, negative, strides, 6, 2, NULL},
					       {data, sizes, negative, 6, 2, NULL}, {NULL, sizes, strides, 6, 2, NULL},
					       {data, NULL, strides, 6, 2, NULL}};
	const struct pt2box_op_tensor f64 = {data, sizes, strides, 7, 2, NULL};
	const struct pb_host_result *r;
	uint32_t n;

	(void)state;
	read_nodes("customop", &nodes);
	h = prepare_all(&nodes);
	assert_int_equal(PT2BOX_USAGE, pb_host_call(prepared[0], ints, 0, &good, 1, &r, &n, &err));
	assert_int_equal(PT2BOX_USAGE, pb_host_call(prepared[0], ints, 2, &good, 1, &r, &n, &err));
	assert_int_equal(PT2BOX_USAGE, pb_host_call(prepared[0], ints, 1, &good, 0, &r, &n, &err));
	assert_int_equal(PT2BOX_USAGE, pb_host_call(prepared[0], ints, 1, &good, 2, &r, &n, &err));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(PT2BOX_USAGE, pb_host_call(prepared[0], ints, 1, &bad[i], 1, &r, &n, &err));
	assert_int_equal(PT2BOX_MODEL_ERROR, pb_host_call(prepared[0], ints, 1, &f64, 1, &r, &n, &err));
	assert_string_equal("pt2box_test::triple: expected float32, got dtype 7", err.text);
	nodes.list[0].target = "pt2box_test::other";
	assert_int_equal(PT2BOX_NOT_FOUND, pb_host_prepare(h, &nodes.list[0], &prepared[1], &err));
	nodes.list[0].target = "pt2box_kinds::mut"; /* an operator of another schema */
	assert_int_equal(PT2BOX_UNSUPPORTED, pb_host_prepare(h, &nodes.list[0], &prepared[1], &err));
	end_all(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_customop), CHECK_TEST(test_opkinds),	CHECK_TEST(test_tables),
		CHECK_TEST(test_bad_plugin), CHECK_TEST(test_bad_caller),
	};

	return cmocka_run_group_tests_name("host", tests, NULL, NULL);
}
