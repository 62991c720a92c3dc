/* SPDX-License-Identifier: Apache-2.0 */
/* The C ABI as generated code and containers use it: offsets in elements, NULL shapes, identity of
 * handles, errors. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/abi.h"
#include "runtime/hooks.h"
#include "tests/unit/runtime/draw.h"

#define OK(call) assert_int_equal(0, (call))
#define FAILS(call, text)                                                          \
	do {                                                                       \
		pb_rt_clear_error();                                               \
		assert_int_equal(1, (call));                                       \
		if (!strstr(torch_exception_get_what_without_backtrace(), (text))) \
			fail_msg("the error is: %s",                               \
				 torch_exception_get_what_without_backtrace());    \
	} while (0)

static AtenTensorHandle blob(float *data, int64_t ndim, const int64_t *sizes,
			     const int64_t *strides, int64_t offset)
{
	AtenTensorHandle t;

	OK(aoti_torch_create_tensor_from_blob_v2(data, ndim, sizes, strides, offset, PB_RT_F32, 0,
						 -1, &t, 0, NULL, 0));
	return t;
}

static void *data_of(AtenTensorHandle t)
{
	void *p;

	OK(aoti_torch_get_data_ptr(t, &p));
	return p;
}

/* The numbers are PyTorch's and never change. */
static void test_numbers(void **state)
{
	(void)state;
	assert_int_equal(aoti_torch_dtype_uint8(), 0);
	assert_int_equal(aoti_torch_dtype_float16(), 5);
	assert_int_equal(aoti_torch_dtype_float32(), 6);
	assert_int_equal(aoti_torch_dtype_float64(), 7);
	assert_int_equal(aoti_torch_dtype_bool(), 11);
	assert_int_equal(aoti_torch_dtype_bfloat16(), 15);
	assert_int_equal(aoti_torch_dtype_float8_e5m2(), 23);
	assert_int_equal(aoti_torch_dtype_float8_e4m3fn(), 24);
	assert_int_equal(aoti_torch_dtype_uint16(), 27);
	assert_int_equal(aoti_torch_dtype_float8_e8m0fnu(), 44);
	assert_int_equal(aoti_torch_device_type_cpu(), 0);
	assert_int_equal(aoti_torch_device_type_cuda(), 1);
	assert_int_equal(aoti_torch_layout_strided(), 0);
	assert_int_equal(aoti_torch_layout__mkldnn(), 3);
	assert_int_equal(aoti_torch_memory_format_channels_last(), 2);
	assert_true(aoti_torch_abi_version() == UINT64_C(0x020d000000000000));
	assert_int_equal(aoti_torch_dtype_element_size(PB_RT_C128), 16);
}

static void test_blob_and_getters(void **state)
{
	static float memory[64];
	const int64_t sizes[2] = {3, 4}, strides[2] = {10, 2};
	AtenTensorHandle t = blob(memory, 2, sizes, strides, 5);
	int64_t v, *list;
	int32_t n;
	bool yes;

	(void)state;
	assert_ptr_equal(data_of(t), memory + 5); /* offsets count elements, from the base */
	OK(aoti_torch_get_storage_offset(t, &v));
	assert_int_equal(v, 5);
	OK(aoti_torch_get_storage_size(t, &v));
	assert_int_equal(v, (5 + 2 * 10 + 3 * 2 + 1) * 4);
	OK(aoti_torch_get_storage_numel(t, &v));
	assert_int_equal(v, 32);
	OK(aoti_torch_get_numel(t, &v));
	assert_int_equal(v, 12);
	OK(aoti_torch_get_dim(t, &v));
	assert_int_equal(v, 2);
	OK(aoti_torch_get_sizes(t, &list));
	assert_memory_equal(list, sizes, sizeof(sizes));
	assert_int_equal(list[PB_RT_MAX_DIMS - 1], 1); /* read before ndim is checked */
	OK(aoti_torch_get_strides(t, &list));
	assert_memory_equal(list, strides, sizeof(strides));
	OK(aoti_torch_get_size(t, -1, &v));
	assert_int_equal(v, 4);
	OK(aoti_torch_get_stride(t, 0, &v));
	assert_int_equal(v, 10);
	FAILS(aoti_torch_get_size(t, 2, &v), "out of range");
	FAILS(aoti_torch_get_stride(t, -3, &v), "out of range");
	OK(aoti_torch_get_dtype(t, &n));
	assert_int_equal(n, PB_RT_F32);
	OK(aoti_torch_get_device_type(t, &n));
	assert_int_equal(n, 0);
	OK(aoti_torch_get_device_index(t, &n));
	assert_int_equal(n, -1);
	OK(aoti_torch_get_layout(t, &n));
	assert_int_equal(n, 0);
	OK(aoti_torch_is_contiguous(t, &yes));
	assert_false(yes);
	OK(aoti_torch_is_defined(t, &yes));
	assert_true(yes);
	OK(aoti_torch_delete_tensor_object(t));
}

static void test_wrong_arguments(void **state)
{
	static float memory[4];
	const int64_t one = 1;
	AtenTensorHandle t;

	(void)state;
	FAILS(aoti_torch_empty_strided(1, &one, &one, PB_RT_F32, 1, 0, &t), "device type 1");
	FAILS(aoti_torch_create_tensor_from_blob(memory, 1, &one, &one, 0, PB_RT_F32, 1, 0, &t),
	      "device type 1");
	FAILS(aoti_torch_create_tensor_from_blob(memory, 1, &one, &one, -1, PB_RT_F32, 0, 0, &t),
	      "negative offset");
	FAILS(aoti_torch_create_tensor_from_blob_v2(memory, 1, &one, &one, 0, PB_RT_F32, 0, 0, &t,
						    3, NULL, 0),
	      "a descriptor of 0 bytes");
	FAILS(aoti_torch_create_tensor_from_blob(NULL, 1, &one, &one, 0, PB_RT_F32, 0, 0, &t),
	      "no memory");
	FAILS(aoti_torch_empty_strided(1, &one, &one, 99, 0, 0, &t), "dtype number 99");
}

static void test_zero_dimensions_with_null_shapes(void **state)
{
	AtenTensorHandle t;
	int64_t v;

	(void)state;
	OK(aoti_torch_empty_strided(0, NULL, NULL, PB_RT_I64, 0, -1, &t));
	OK(aoti_torch_get_numel(t, &v));
	assert_int_equal(v, 1);
	*(int64_t *)data_of(t) = -7;
	OK(aoti_torch_item_int64(t, &v));
	assert_int_equal(v, -7);
	OK(aoti_torch_delete_tensor_object(t));
}

static void test_identity_of_handles(void **state)
{
	static float memory[8];
	const int64_t eight = 8, one = 1;
	AtenTensorHandle a = blob(memory, 1, &eight, &one, 0), b, u;
	int64_t v;
	bool yes;

	(void)state;
	OK(aoti_torch_new_tensor_handle(a, &b));
	assert_ptr_not_equal(a, b);
	assert_ptr_equal(data_of(a), data_of(b));
	OK(aoti_torch_new_uninitialized_tensor(&u));
	OK(aoti_torch_is_defined(u, &yes));
	assert_false(yes);
	FAILS(aoti_torch_get_storage_size(u, &v), "not defined");
	OK(aoti_torch_delete_tensor_object(a)); /* b keeps what a had */
	OK(aoti_torch_assign_tensors(b, u));
	assert_ptr_equal(data_of(u), memory);
	OK(aoti_torch_delete_tensor_object(b));
	OK(aoti_torch_assign_tensors_out(u, &a));
	assert_ptr_not_equal(a, u);
	assert_ptr_equal(data_of(a), memory);
	OK(aoti_torch_delete_tensor_object(u));
	OK(aoti_torch_delete_tensor_object(a));
	OK(aoti_torch_delete_tensor_object(NULL));
}

static void test_views(void **state)
{
	static float memory[64];
	const int64_t sizes[2] = {4, 6}, strides[2] = {8, 1};
	AtenTensorHandle t = blob(memory, 2, sizes, strides, 3), v;
	int64_t n;

	(void)state;
	/* Adds its offset to the tensor's own. */
	OK(aoti_torch__reinterpret_tensor(t, 1, (int64_t[]){5}, (int64_t[]){2}, 10, &v));
	assert_ptr_equal(data_of(v), memory + 13);
	OK(aoti_torch_delete_tensor_object(v));
	OK(aoti_torch_as_strided(t, (int64_t[]){2, 2}, (int64_t[]){1, 1}, &v));
	assert_ptr_equal(data_of(v), memory + 3);
	OK(aoti_torch_delete_tensor_object(v));
	FAILS(aoti_torch_as_strided(t, (int64_t[]){2, 2}, (int64_t[]){1, 100}, &v),
	      "out of bounds");
	FAILS(aoti_torch__alloc_from_pool(t, 16, PB_RT_F64, 1, sizes, strides, &v), "pool");
	OK(aoti_torch_aten_narrow(t, 1, -2, 2, &v));
	assert_ptr_equal(data_of(v), memory + 3 + 4);
	OK(aoti_torch_get_size(v, 1, &n));
	assert_int_equal(n, 2);
	OK(aoti_torch_delete_tensor_object(v));
	FAILS(aoti_torch_aten_narrow(t, 1, 3, 4, &v), "exceeds");
	FAILS(aoti_torch_aten_narrow(t, 1, INT64_MAX, INT64_MAX, &v), "exceeds");
	FAILS(aoti_torch_aten_narrow(t, 2, 0, 1, &v), "dimension 2");
	OK(aoti_torch_delete_tensor_object(t));

	t = blob(memory, 2, (int64_t[]){2, 4}, (int64_t[]){4, 1}, 0);
	OK(aoti_torch__alloc_from_pool(t, 16, PB_RT_F64, 1, (int64_t[]){2}, (int64_t[]){1}, &v));
	assert_ptr_equal(data_of(v), memory + 4);
	OK(aoti_torch_delete_tensor_object(v));
	FAILS(aoti_torch__alloc_from_pool(t, 12, PB_RT_F64, 1, (int64_t[]){2}, (int64_t[]){1}, &v),
	      "whole elements");
	OK(aoti_torch_delete_tensor_object(t));
}

static void test_views_of_other_types(void **state)
{
	static float memory[16];
	AtenTensorHandle t = blob(memory, 2, (int64_t[]){2, 4}, (int64_t[]){8, 1}, 4), v;
	int64_t *list;

	(void)state;
	OK(aoti_torch_view_dtype(t, PB_RT_I32, &v));
	assert_ptr_equal(data_of(v), memory + 4);
	OK(aoti_torch_delete_tensor_object(v));
	OK(aoti_torch_view_dtype(t, PB_RT_U8, &v));
	OK(aoti_torch_get_sizes(v, &list));
	assert_int_equal(list[1], 16);
	OK(aoti_torch_get_strides(v, &list));
	assert_int_equal(list[0], 32);
	assert_ptr_equal(data_of(v), memory + 4);
	OK(aoti_torch_delete_tensor_object(v));
	OK(aoti_torch_view_dtype(t, PB_RT_C64, &v));
	OK(aoti_torch_get_sizes(v, &list));
	assert_int_equal(list[1], 2);
	assert_ptr_equal(data_of(v), memory + 4);
	OK(aoti_torch_delete_tensor_object(t));
	t = v;
	OK(aoti_torch_view_as_real(t, &v));
	OK(aoti_torch_get_strides(v, &list));
	assert_int_equal(list[0], 8);
	assert_int_equal(list[1], 2);
	assert_int_equal(list[2], 1);
	assert_ptr_equal(data_of(v), memory + 4);
	OK(aoti_torch_delete_tensor_object(t));
	FAILS(aoti_torch_view_as_real(v, &t), "complex");
	OK(aoti_torch_delete_tensor_object(v));
	t = blob(memory, 1, (int64_t[]){3}, (int64_t[]){1}, 0);
	FAILS(aoti_torch_view_dtype(t, PB_RT_F64, &v), "does not fit");
	OK(aoti_torch_delete_tensor_object(t));
	t = blob(memory, 1, (int64_t[]){3}, (int64_t[]){2}, 0);
	FAILS(aoti_torch_view_dtype(t, PB_RT_U8, &v), "stride 1");
	OK(aoti_torch_delete_tensor_object(t));
}

static void test_clone_keeps_dense_strides(void **state)
{
	static const struct {
		int64_t strides[3], want[3];
	} cases[] = {
		{{12, 4, 1}, {12, 4, 1}},
		{{1, 2, 6}, {1, 2, 6}},	  /* dense, another order */
		{{24, 8, 2}, {12, 4, 1}}, /* gaps go */
		{{2, 1, 100}, {3, 1, 6}}, /* not dense, the order is kept */
	};
	static float memory[512];
	AtenTensorHandle t, c;
	int64_t *list;

	(void)state;
	for (int i = 0; i < 512; i++)
		memory[i] = (float)i;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		t = blob(memory, 3, (int64_t[]){2, 3, 4}, cases[i].strides, 7);
		OK(aoti_torch_clone(t, &c));
		OK(aoti_torch_get_strides(c, &list));
		assert_memory_equal(list, cases[i].want, sizeof(cases[i].want));
		assert_int_equal(c->offset, 0);
		for (int64_t a = 0; a < 2; a++)
			for (int64_t b = 0; b < 3; b++)
				for (int64_t d = 0; d < 4; d++)
					assert_true(get(c, (int64_t[]){a, b, d}, 3) ==
						    get(t, (int64_t[]){a, b, d}, 3));
		OK(aoti_torch_delete_tensor_object(c));
		OK(aoti_torch_clone_preserve_strides(t, &c));
		OK(aoti_torch_get_strides(c, &list));
		assert_memory_equal(list, cases[i].strides, sizeof(cases[i].strides));
		assert_true(get(c, (int64_t[]){1, 2, 3}, 3) == get(t, (int64_t[]){1, 2, 3}, 3));
		OK(aoti_torch_delete_tensor_object(c));
		OK(aoti_torch_delete_tensor_object(t));
	}
}

static void test_items_and_scalars(void **state)
{
	AtenTensorHandle t;
	struct pb_complex64 z;
	uint16_t h;
	double d;
	int8_t i8;
	bool b;

	(void)state;
	OK(aoti_torch_scalar_to_tensor_float64(2.75, &t));
	OK(aoti_torch_item_float64(t, &d));
	assert_true(d == 2.75);
	OK(aoti_torch_item_float16(t, &h));
	assert_int_equal(h, 0x4180);
	OK(aoti_torch_item_bfloat16(t, &h));
	assert_int_equal(h, 0x4030);
	OK(aoti_torch_item_int8(t, &i8));
	assert_int_equal(i8, 2);
	OK(aoti_torch_item_bool(t, &b));
	assert_true(b);
	OK(aoti_torch_delete_tensor_object(t));
	OK(aoti_torch_scalar_to_tensor_bool(false, &t));
	OK(aoti_torch_item_bool(t, &b));
	assert_false(b);
	OK(aoti_torch_delete_tensor_object(t));
	OK(aoti_torch_scalar_to_tensor_complex128((struct pb_complex128){1.5, -2}, &t));
	OK(aoti_torch_item_complex64(t, &z));
	assert_true(z.re == 1.5f && z.im == -2);
	OK(aoti_torch_delete_tensor_object(t));
	OK(aoti_torch_empty_strided(1, (int64_t[]){2}, (int64_t[]){1}, PB_RT_F32, 0, 0, &t));
	FAILS(aoti_torch_item_float64(t, &d), "2 elements");
	OK(aoti_torch_delete_tensor_object(t));
	OK(aoti_torch_empty_strided(1, (int64_t[]){0}, (int64_t[]){1}, PB_RT_F32, 0, 0, &t));
	FAILS(aoti_torch_item_float64(t, &d), "0 elements");
	OK(aoti_torch_delete_tensor_object(t));
}

static void test_filling(void **state)
{
	static float memory[12];
	AtenTensorHandle t = blob(memory, 2, (int64_t[]){3, 2}, (int64_t[]){4, 1}, 0), n;
	int32_t dtype = PB_RT_I64, meta = 14;

	(void)state;
	for (int i = 0; i < 12; i++)
		memory[i] = 9;
	OK(aoti_torch_zero_(t));
	for (int i = 0; i < 12; i++)
		assert_true(memory[i] == (i % 4 < 2 && i < 10 ? 0 : 9));
	OK(aoti_torch_aten_fill__Scalar(t, 2.5));
	assert_true(memory[9] == 2.5f && memory[10] == 9);
	OK(aoti_torch_aten_full((int64_t[]){2, 2}, 2, 3, &dtype, NULL, NULL, -1, NULL, &n));
	assert_int_equal(((int64_t *)data_of(n))[3], 3);
	OK(aoti_torch_delete_tensor_object(n));
	OK(aoti_torch_aten_new_zeros(t, (int64_t[]){5}, 1, NULL, NULL, NULL, -1, NULL, &n));
	assert_int_equal(n->dtype, PB_RT_F32);
	assert_true(((float *)data_of(n))[4] == 0);
	OK(aoti_torch_copy_(n, t->storage ? n : t, 0));
	OK(aoti_torch_delete_tensor_object(n));
	FAILS(aoti_torch_aten_new_empty(t, (int64_t[]){5}, 1, NULL, NULL, &meta, -1, NULL, &n),
	      "CPU");
	OK(aoti_torch_delete_tensor_object(t));
}

static void test_mm_plus_mm(void **state)
{
	AtenTensorHandle a = draw_contiguous(PB_RT_F32, 2, (int64_t[]){3, 4});
	AtenTensorHandle b = draw_contiguous(PB_RT_F32, 2, (int64_t[]){4, 5});
	AtenTensorHandle out = draw_contiguous(PB_RT_F32, 2, (int64_t[]){3, 5});

	(void)state;
	OK(aoti_torch__mm_plus_mm_out(out, a, b, a, b));
	for (int64_t i = 0; i < 3; i++)
		for (int64_t j = 0; j < 5; j++) {
			double want = 0;

			for (int64_t k = 0; k < 4; k++)
				want += 2 * get(a, (int64_t[]){i, k}, 2) *
					get(b, (int64_t[]){k, j}, 2);
			assert_true(fabs(want - get(out, (int64_t[]){i, j}, 2)) < 1e-5);
		}
	OK(aoti_torch_delete_tensor_object(a));
	OK(aoti_torch_delete_tensor_object(b));
	OK(aoti_torch_delete_tensor_object(out));
}

static void test_debugging(void **state)
{
	static float memory[4] = {1, 2, 3, 4};
	AtenTensorHandle t = blob(memory, 1, (int64_t[]){4}, (int64_t[]){1}, 0);
	void *guard = NULL;

	(void)state;
	OK(aoti_torch_check_inf_and_nan("x", t));
	memory[3] = INFINITY;
	FAILS(aoti_torch_check_inf_and_nan("x", t), "At least one INF in x");
	memory[1] = NAN;
	FAILS(aoti_torch_check_inf_and_nan("x", t), "At least one NaN in x");
	OK(aoti_record_function_start("f", NULL, NULL, 0, &guard));
	assert_non_null(guard);
	OK(aoti_record_function_end(guard));
	assert_true(aoti_torch_grad_mode_is_enabled());
	aoti_torch_grad_mode_set_enabled(false);
	assert_false(aoti_torch_grad_mode_is_enabled());
	aoti_torch_grad_mode_set_enabled(true);
	OK(aoti_torch_delete_tensor_object(t));
}

/* A model floods stderr: what comes through is bounded. */
static void test_messages_are_bounded(void **state)
{
	static char text[2000];
	size_t total = 0;
	int fds[2], status;
	char buf[4096];
	pid_t pid;
	ssize_t n;

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	assert_int_equal(0, pipe(fds));
	pid = fork();
	if (pid == 0) {
		dup2(fds[1], 2);
		close(fds[0]);
		close(fds[1]);
		for (int i = 0; i < 20000; i++)
			aoti_torch_warn("f", "file", 1, text);
		aoti_torch_warn(NULL, NULL, 1, NULL);
		_exit(0);
	}
	close(fds[1]);
	while ((n = read(fds[0], buf, sizeof(buf))) > 0)
		total += (size_t)n;
	close(fds[0]);
	assert_int_equal(pid, waitpid(pid, &status, 0));
	assert_int_equal(status, 0);
	assert_true(total > 1000 && total < 600 * 1000);
}

/* From C an exception that nobody catches ends the process; tests of packages see it caught. */
static void test_check(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	aoti_torch_check(true, "f", "file", 1, "fine");
	pid = fork();
	if (pid == 0) {
		signal(SIGABRT, SIG_DFL);
		close(2);
		aoti_torch_check(false, "f", "file", 1, "index out of bounds");
		_exit(0);
	}
	assert_int_equal(pid, waitpid(pid, &status, 0));
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void test_errors_are_cleared_by_a_run(void **state)
{
	AtenTensorHandle t;

	(void)state;
	assert_int_equal(1,
			 aoti_torch_empty_strided(1, (int64_t[]){-1}, NULL, PB_RT_F32, 0, 0, &t));
	assert_string_not_equal(torch_exception_get_what_without_backtrace(), "");
	pb_rt_run_begin(NULL, 0);
	assert_string_equal(torch_exception_get_what_without_backtrace(), "");
	pb_rt_run_end(NULL, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_blob_and_getters),
		cmocka_unit_test(test_wrong_arguments),
		cmocka_unit_test(test_zero_dimensions_with_null_shapes),
		cmocka_unit_test(test_identity_of_handles),
		cmocka_unit_test(test_views),
		cmocka_unit_test(test_views_of_other_types),
		cmocka_unit_test(test_clone_keeps_dense_strides),
		cmocka_unit_test(test_items_and_scalars),
		cmocka_unit_test(test_filling),
		cmocka_unit_test(test_mm_plus_mm),
		cmocka_unit_test(test_debugging),
		cmocka_unit_test(test_messages_are_bounded),
		cmocka_unit_test(test_check),
		cmocka_unit_test(test_errors_are_cleared_by_a_run),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
