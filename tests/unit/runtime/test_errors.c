/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a refused call says, of a sample of operators: the operator, and the shapes, dtypes or numbers that do not fit, so
 * that whoever reads a failed run sees what to change; some are in PyTorch's words, which name no operator. And it gives out
 * no tensor.
 */
#include <string.h>

#include "runtime/hooks.h"
#include "runtime/ops/attention.h"
#include "runtime/ops/conv.h"
#include "runtime/ops/distance.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/fused.h"
#include "runtime/ops/index.h"
#include "runtime/ops/join.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/nonzero.h"
#include "runtime/ops/norm.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/pool.h"
#include "runtime/ops/rnn.h"
#include "runtime/ops/scan.h"
#include "runtime/ops/scatter.h"
#include "runtime/ops/search.h"
#include "runtime/ops/sort.h"
#include "runtime/ops/views.h"
#include "tests/lib/check.h"
#include "tests/unit/runtime/draw.h"

static AtenTensorHandle made[16], ret[4];
static int n_made;

static AtenTensorHandle keep(struct pb_rt_tensor *t)
{
	assert_non_null(t);
	assert_true(n_made < 16);
	return made[n_made++] = t;
}

#define LIST(...) (int64_t[]){__VA_ARGS__}, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)
#define OF(dtype, ...) \
	keep(draw_contiguous(dtype, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (int64_t[]){__VA_ARGS__}))
#define T(...) OF(PB_RT_F32, __VA_ARGS__)

static AtenTensorHandle longs(int64_t a, int64_t b)
{
	AtenTensorHandle t = OF(PB_RT_I64, 2);

	((int64_t *)pb_rt_data(t))[0] = a;
	((int64_t *)pb_rt_data(t))[1] = b;
	return t;
}

/* @texts: each is in the error; ends with NULL. */
static void refused(int rc, const char *call, const char *const *texts)
{
	if (!rc)
		fail_msg("succeeds: %s", call);
	for (; *texts; texts++)
		if (!strstr(pb_rt_last_error(), *texts))
			fail_msg("%s: \"%s\" is not in: %s", call, *texts, pb_rt_last_error());
	for (int i = 0; i < 4; i++)
		assert_null(ret[i]);
	while (n_made)
		pb_rt_delete(made[--n_made]);
	pb_rt_clear_error();
}

#define REFUSED(call, ...) refused(call, #call, (const char *const[]){__VA_ARGS__, NULL})

static void test_products(void **state)
{
	(void)state;
	REFUSED(aoti_torch_cpu_mm_out(T(2, 5), T(2, 3), T(4, 5)), "mm: ", "(2x3 and 4x5)");
	REFUSED(aoti_torch_cpu_mm_out(T(2, 5), T(2, 3, 1), T(3, 5)), "mm: ", "[2, 3, 1]", "[3, 5]");
	REFUSED(aoti_torch_cpu_mm_out(T(2, 5), T(2, 3), OF(PB_RT_F64, 3, 5)), "mm: ", "float32", "float64");
	REFUSED(aoti_torch_cpu_addmm_out(T(2, 5), T(4), T(2, 3), T(3, 5), 1, 1), "addmm: ", "[4]", "[2, 5]");
	REFUSED(aoti_torch_cpu_addmm_out(T(2, 5), T(5), T(2, 3), T(4, 5), 1, 1), "addmm: ", "(2x3 and 4x5)");
	REFUSED(aoti_torch_cpu_bmm_out(T(2, 3, 5), T(2, 3, 4), T(3, 4, 5)), "bmm: ", "[2, 4]", "[3, 4]");
	REFUSED(aoti_torch_cpu_bmm_out(T(2, 3, 5), T(2, 3), T(3, 4, 5)), "bmm: ", "[2, 3]", "[3, 4, 5]");
	REFUSED(aoti_torch_cpu__linear_pointwise(T(2, 3), T(5, 4), NULL, "none", NULL, 0, NULL, ret), "linear", "[2, 3]", "[5, 4]");
	REFUSED(aoti_torch_cpu__cdist_forward(T(2, 3), T(2, 4), 2, NULL, ret), "cdist", "3", "4");
}

static void test_convolutions(void **state)
{
#define CONV(x, w, bias, stride, groups) \
	aoti_torch_cpu_convolution(x, w, bias, LIST(stride, 1), LIST(0, 0), LIST(1, 1), 0, LIST(0, 0), groups, ret)
	AtenTensorHandle bias;

	(void)state;
	REFUSED(CONV(T(1, 3, 8, 8), T(4, 5, 3, 3), NULL, 1, 1), "conv", "groups=1", "[4, 5, 3, 3]", "[1, 3, 8, 8]", "5", "3 channels");
	REFUSED(CONV(T(1, 3, 2, 2), T(4, 3, 3, 3), NULL, 1, 1), "conv", "2", "3");
	REFUSED(CONV(T(1, 3, 8, 8), T(4, 3, 3, 3), NULL, 0, 1), "convolution: ", "stride 0");
	REFUSED(CONV(T(1, 3, 8, 8), OF(PB_RT_F64, 4, 3, 3, 3), NULL, 1, 1), "conv", "float32", "float64");
	bias = T(7);
	REFUSED(CONV(T(1, 3, 8, 8), T(4, 3, 3, 3), &bias, 1, 1), "conv", "[4, 3, 3, 3]", "[7]");
	REFUSED(CONV(T(8), T(4, 3, 3), NULL, 1, 1), "conv", "[8]", "[4, 3, 3]");
#undef CONV
	REFUSED(aoti_torch_cpu_max_pool2d_with_indices(T(1, 3, 2, 2), LIST(3, 3), LIST(1, 1), LIST(0, 0), LIST(1, 1), 0, ret, ret + 1),
		"max_pool2d: ", "[1, 3, 2, 2]");
	REFUSED(aoti_torch_cpu_max_pool2d_with_indices(T(3), LIST(3, 3), LIST(1, 1), LIST(0, 0), LIST(1, 1), 0, ret, ret + 1),
		"Expected 3D or 4D", "[3]");
}

static void test_attention(void **state)
{
	AtenTensorHandle mask;

	(void)state;
#define ATTEND(q, k, v, mask) \
	aoti_torch_cpu__scaled_dot_product_flash_attention_for_cpu(q, k, v, 0, 0, mask, NULL, ret, ret + 1)
	REFUSED(ATTEND(T(1, 2, 3, 8), T(1, 2, 5, 7), T(1, 2, 5, 8), NULL), "flash_attention", "[1, 2, 3, 8]", "[1, 2, 5, 7]");
	REFUSED(ATTEND(T(2, 3, 8), T(1, 2, 5, 8), T(1, 2, 5, 8), NULL), "flash_attention", "[2, 3, 8]");
	REFUSED(ATTEND(T(1, 2, 3, 8), T(1, 2, 5, 8), T(1, 2, 6, 8), NULL), "flash_attention", "[1, 2, 5, 8]", "[1, 2, 6, 8]");
	mask = T(4, 4);
	REFUSED(ATTEND(T(1, 2, 3, 8), T(1, 2, 5, 8), T(1, 2, 5, 8), &mask), "flash_attention", "mask", "[4, 4]");
#undef ATTEND
#define LSTM(x, w, h)                                                                                                            \
	aoti_torch_cpu_mkldnn_rnn_layer(x, w, T(20, 5), T(20), T(20), h, T(2, 5), 0, NULL, 0, 2, 5, 1, 1, 0, 0, 0, ret, ret + 1, \
					ret + 2, ret + 3)
	REFUSED(LSTM(T(4, 2, 3), T(20, 4), T(2, 5)), "mkldnn_rnn_layer: ", "[20, 4]", "[4, 2, 3]");
	REFUSED(LSTM(T(4, 2, 3), T(20, 3), T(2, 6)), "mkldnn_rnn_layer: ", "[2, 6]", "hidden size 5");
	REFUSED(LSTM(T(4, 3), T(20, 3), T(2, 5)), "mkldnn_rnn_layer: ", "[4, 3]");
#undef LSTM
	REFUSED(aoti_torch_cpu__fused_rms_norm(T(2, 3), LIST(4), NULL, NULL, ret, ret + 1), "rms_norm", "[2, 3]", "4");
}

static void test_indexing(void **state)
{
	AtenTensorHandle a, b;
	const AtenTensorHandle *both[] = {&a, &b};

	(void)state;
	a = longs(0, 5);
	b = longs(0, 1);
	REFUSED(aoti_torch_cpu_index_Tensor(T(3, 4), both, 2, ret), "index 5 is out of bounds for dimension 0 with size 3");
	a = longs(0, 1);
	b = OF(PB_RT_I64, 3);
	REFUSED(aoti_torch_cpu_index_Tensor(T(3, 4), both, 2, ret), "index", "[2]", "[3]");
	a = OF(PB_RT_BOOL, 2);
	REFUSED(aoti_torch_cpu_index_Tensor(T(3, 4), both, 1, ret), "mask", "[2]", "[3, 4]");
	a = longs(0, 1);
	REFUSED(aoti_torch_cpu_index_put(T(3, 4), both, 1, T(3), 0, ret), "[3]", "[2, 4]");
	REFUSED(aoti_torch_cpu_scatter_src_out(T(3), T(3), 0, longs(0, 9), T(3)), "index 9", "size 3");
	REFUSED(aoti_torch_cpu_scatter_src_out(T(3), T(3), 0, OF(PB_RT_I64, 4, 2), T(3)), "Index tensor", "[4, 2]", "[3]");
	REFUSED(aoti_torch_cpu_masked_scatter(T(3, 4), OF(PB_RT_BOOL, 5), T(3), ret), "5", "4");
	REFUSED(aoti_torch_cpu_topk(T(3), 4, 0, 1, 1, ret, ret + 1), "k", "range");
	REFUSED(aoti_torch_cpu_kthvalue(T(3), 4, 0, 0, ret, ret + 1), "kthvalue", "k");
	REFUSED(aoti_torch_cpu_searchsorted_Tensor(T(2, 3), T(3, 3), 0, 0, NULL, NULL, ret), "searchsorted", "[2, 3]", "[3, 3]");
}

static void test_shapes(void **state)
{
	AtenTensorHandle list[2];

	(void)state;
	list[0] = T(2, 3);
	list[1] = T(2, 4);
	REFUSED(aoti_torch_cpu_cat(list, 2, 0, ret), "Expected size 3 but got size 4 for tensor number 1");
	list[0] = T(2, 3);
	list[1] = T(2);
	REFUSED(aoti_torch_cpu_cat(list, 2, 0, ret), "got 2 and 1");
	REFUSED(aoti_torch_cpu_reshape(T(2, 3), LIST(4, 2), ret), "shape '[4, 2]' is invalid for input of size 6");
	REFUSED(aoti_torch_cpu_permute(T(2, 3), LIST(0), ret), "permute", "2", "1");
	REFUSED(aoti_torch_cpu_narrow(T(2, 3), 1, 2, 2, ret), "start (2) + length (2) exceeds dimension size (3)");
	REFUSED(aoti_torch_cpu_cumsum(T(2, 3), 2, NULL, ret), "Dimension out of range (expected to be in range of [-2, 1], but got 2)");
	REFUSED(aoti_torch_cpu_add_Tensor(T(2, 3), T(2, 4), 1, ret), "tensor a (3)", "tensor b (4)", "dimension 1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_products), CHECK_TEST(test_convolutions), CHECK_TEST(test_attention),
		CHECK_TEST(test_indexing), CHECK_TEST(test_shapes),
	};

	return cmocka_run_group_tests_name("test_errors", tests, NULL, NULL);
}
