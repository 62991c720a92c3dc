/* SPDX-License-Identifier: Apache-2.0 */
/* Views, resizing, concatenation and padding against naive loops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "runtime/hooks.h"
#include "runtime/ops/join.h"
#include "runtime/ops/views.h"
#include "tests/unit/runtime/draw.h"

static const int32_t dtypes[] = {PB_RT_F32, PB_RT_F64, PB_RT_BF16, PB_RT_I64, PB_RT_U8};

static void coordinates(const struct pb_rt_tensor *t, int64_t i, int64_t *at)
{
	for (int d = t->ndim - 1; d >= 0; d--) {
		at[d] = i % t->sizes[d];
		i /= t->sizes[d];
	}
}

/* Row-major contents are the same; the shape is @b's. */
static void same_sequence(const struct pb_rt_tensor *a, const struct pb_rt_tensor *b)
{
	int64_t at[4], bt[4];

	assert_int_equal(a->numel, b->numel);
	for (int64_t i = 0; i < a->numel; i++) {
		coordinates(a, i, at);
		coordinates(b, i, bt);
		assert_true(get(a, at, a->ndim) == get(b, bt, b->ndim));
	}
}

static void test_reshape(void **state)
{
	static const int64_t shapes[][4] = {
		{24, 1, 1, 1}, {2, 12, 1, 1}, {4, -1, 1, 1}, {2, 3, 4, 1}, {3, 2, 2, 2}};

	(void)state;
	draw_state = 41;
	for (int round = 0; round < 300; round++) {
		struct pb_rt_tensor *t =
			draw_tensor(dtypes[draw_int(0, 4)], 3, (int64_t[]){2, 3, 4}, true);
		AtenTensorHandle out = NULL;

		assert_int_equal(0, aoti_torch_cpu_reshape(t, shapes[draw_int(0, 4)], 4, &out));
		same_sequence(t, out);
		pb_rt_delete(t);
		pb_rt_delete(out);
	}
}

/* A view where it can be one, else a copy. */
static void test_reshape_shares_memory(void **state)
{
	struct pb_rt_tensor *t = draw_contiguous(PB_RT_F32, 2, (int64_t[]){4, 6});
	AtenTensorHandle turned = NULL, out = NULL;

	(void)state;
	assert_int_equal(0, aoti_torch_cpu_reshape(t, (int64_t[]){2, 2, 6}, 3, &out));
	assert_ptr_equal(t->storage, out->storage);
	pb_rt_delete(out);
	assert_int_equal(0, aoti_torch_cpu_permute(t, (int64_t[]){1, 0}, 2, &turned));
	assert_ptr_equal(t->storage, turned->storage);
	assert_int_equal(0, aoti_torch_cpu_reshape(turned, (int64_t[]){24}, 1, &out));
	assert_ptr_not_equal(t->storage, out->storage);
	pb_rt_delete(out);
	assert_int_equal(1, aoti_torch_cpu_reshape(t, (int64_t[]){5, 5}, 2, &out));
	assert_string_equal("shape '[5, 5]' is invalid for input of size 24", pb_rt_last_error());
	assert_int_equal(1, aoti_torch_cpu_permute(t, (int64_t[]){0, 0}, 2, &out));
	pb_rt_delete(t);
	pb_rt_delete(turned);
}

static void test_narrow_and_slice(void **state)
{
	struct pb_rt_tensor *t = draw_contiguous(PB_RT_I64, 2, (int64_t[]){5, 6});
	AtenTensorHandle out = NULL;

	(void)state;
	assert_int_equal(0, aoti_torch_cpu_narrow(t, -1, -4, 3, &out));
	assert_int_equal(2, out->offset);
	assert_int_equal(3, out->sizes[1]);
	pb_rt_delete(out);
	assert_int_equal(
		0, aoti_torch_cpu_slice_Tensor(t, 1, &(int64_t){-100}, &(int64_t){100}, 4, &out));
	assert_int_equal(2, out->sizes[1]);
	assert_int_equal(4, out->strides[1]);
	pb_rt_delete(out);
	assert_int_equal(0,
			 aoti_torch_cpu_slice_Tensor(t, 0, &(int64_t){4}, &(int64_t){2}, 1, &out));
	assert_int_equal(0, out->numel);
	pb_rt_delete(out);
	out = NULL;
	assert_int_equal(1, aoti_torch_cpu_narrow(t, 1, 4, 3, &out));
	assert_int_equal(1, aoti_torch_cpu_narrow(t, 1, 0, -1, &out));
	assert_int_equal(1, aoti_torch_cpu_slice_Tensor(t, 1, NULL, NULL, 0, &out));
	assert_null(out);
	pb_rt_delete(t);
}

static void test_resize_keeps_what_fits(void **state)
{
	struct pb_rt_tensor *t = draw_contiguous(PB_RT_F32, 1, (int64_t[]){4});
	struct pb_rt_tensor *same = pb_rt_alias(t, 1, t->sizes, NULL, 0);

	(void)state;
	for (int i = 0; i < 4; i++)
		set_at(t, i, i);
	assert_int_equal(0, aoti_torch_cpu_resize_(t, (int64_t[]){2}, 1, NULL));
	assert_ptr_equal(t->storage, same->storage);
	assert_int_equal(0, aoti_torch_cpu_resize_(t, (int64_t[]){1000, 3}, 2, NULL));
	assert_int_equal(3000, t->numel);
	for (int i = 0; i < 4; i++)
		assert_true(get_at(t, i) == i && get_at(same, i) == i);
	assert_int_equal(1, aoti_torch_cpu_resize_(t, (int64_t[]){INT64_MAX, 3}, 2, NULL));
	assert_int_equal(1, aoti_torch_cpu_resize_(t, (int64_t[]){-1}, 1, NULL));
	assert_int_equal(3000, t->numel);
	pb_rt_delete(t);
	pb_rt_delete(same);
}

static void test_cat(void **state)
{
	(void)state;
	draw_state = 42;
	for (int round = 0; round < 300; round++) {
		const int n = (int)draw_int(1, 4), dim = (int)draw_int(0, 2);
		int64_t sizes[3] = {draw_int(1, 4), draw_int(1, 4), draw_int(1, 4)}, at[3],
			base = 0;
		struct pb_rt_tensor *t[4];
		AtenTensorHandle out = NULL;
		const int32_t dtype = dtypes[draw_int(0, 4)];

		for (int i = 0; i < n; i++) {
			sizes[dim] = draw_int(0, 4);
			t[i] = draw_int(0, 9) ? draw_tensor(dtype, 3, sizes, true)
					      : pb_rt_empty(dtype, 1, (int64_t[]){0}, NULL);
		}
		assert_int_equal(0, aoti_torch_cpu_cat(t, n, dim - 3, &out) && out);
		for (int i = 0; out && i < n; i++) {
			for (int64_t k = 0; k < t[i]->numel; k++) {
				double want;

				coordinates(t[i], k, at);
				want = get(t[i], at, 3);
				at[dim] += base;
				assert_true(get(out, at, 3) == want);
			}
			base += t[i]->ndim == 3 ? t[i]->sizes[dim] : 0;
		}
		for (int i = 0; i < n; i++)
			pb_rt_delete(t[i]);
		pb_rt_delete(out);
	}
}

static void test_cat_promotes_and_refuses(void **state)
{
	struct pb_rt_tensor *a = draw_contiguous(PB_RT_I32, 2, (int64_t[]){2, 3});
	struct pb_rt_tensor *b = draw_contiguous(PB_RT_BF16, 2, (int64_t[]){2, 1});
	struct pb_rt_tensor *c = draw_contiguous(PB_RT_F32, 2, (int64_t[]){3, 1});
	AtenTensorHandle out = NULL;

	(void)state;
	assert_int_equal(0, aoti_torch_cpu_cat((AtenTensorHandle[]){a, b}, 2, 1, &out));
	assert_int_equal(PB_RT_BF16, out->dtype);
	assert_int_equal(4, out->sizes[1]);
	pb_rt_delete(out);
	assert_int_equal(1, aoti_torch_cpu_cat((AtenTensorHandle[]){b, c}, 2, 1, &out));
	assert_string_equal("Sizes of tensors must match except in dimension 1. Expected size 2 "
			    "but got size 3 for tensor "
			    "number 1 in the list.",
			    pb_rt_last_error());
	assert_int_equal(1, aoti_torch_cpu_cat(NULL, 0, 0, &out));
	pb_rt_delete(a);
	pb_rt_delete(b);
	pb_rt_delete(c);
}

/* Input position shown at @i, -1 for the constant. */
static int64_t shown(const char *mode, int64_t i, int64_t n)
{
	if (i >= 0 && i < n)
		return i;
	if (!strcmp(mode, "reflect"))
		return i < 0 ? -i : 2 * n - 2 - i;
	if (!strcmp(mode, "replicate"))
		return i < 0 ? 0 : n - 1;
	return strcmp(mode, "circular") ? -1 : (i + n) % n;
}

static void test_pad(void **state)
{
	static const char *const modes[] = {"constant", "reflect", "replicate", "circular"};

	(void)state;
	draw_state = 43;
	for (int round = 0; round < 400; round++) {
		const char *mode = modes[draw_int(0, 3)];
		const bool constant = mode == modes[0];
		int64_t sizes[3] = {draw_int(1, 4), draw_int(3, 6), draw_int(3, 6)}, pad[4], at[3];
		struct pb_rt_tensor *t = draw_tensor(dtypes[draw_int(0, 4)], 3, sizes, true);
		AtenTensorHandle out = NULL;

		for (int i = 0; i < 4; i++)
			pad[i] = draw_int(constant ? -1 : 0, 2);
		assert_int_equal(0, aoti_torch_cpu_pad(t, pad, 4, mode,
						       constant ? &(double){5} : NULL, &out));
		for (int d = 0; d < 2; d++)
			assert_int_equal(sizes[2 - d] + pad[2 * d] + pad[2 * d + 1],
					 out->sizes[2 - d]);
		for (int64_t i = 0; i < out->numel; i++) {
			double got;

			coordinates(out, i, at);
			got = get(out, at, 3);
			at[2] = shown(mode, at[2] - pad[0], sizes[2]);
			at[1] = shown(mode, at[1] - pad[2], sizes[1]);
			assert_true(got == (at[1] < 0 || at[2] < 0 ? 5 : get(t, at, 3)));
		}
		pb_rt_delete(t);
		pb_rt_delete(out);
	}
}

static void test_pad_refuses(void **state)
{
	struct pb_rt_tensor *t = draw_contiguous(PB_RT_F32, 2, (int64_t[]){2, 3});
	AtenTensorHandle out = NULL;

	(void)state;
	assert_int_equal(1, aoti_torch_cpu_pad(t, (int64_t[]){3, 0}, 2, "reflect", NULL, &out));
	assert_int_equal(1, aoti_torch_cpu_pad(t, (int64_t[]){4, 0}, 2, "circular", NULL, &out));
	assert_int_equal(1, aoti_torch_cpu_pad(t, (int64_t[]){1, 0, 1}, 3, "constant", NULL, &out));
	assert_int_equal(1, aoti_torch_cpu_pad(t, (int64_t[]){-2, -2}, 2, "constant", NULL, &out));
	assert_int_equal(1, aoti_torch_cpu_pad(t, (int64_t[]){INT64_MAX, INT64_MAX}, 2, "constant",
					       NULL, &out));
	assert_int_equal(
		1, aoti_torch_cpu_pad(t, (int64_t[]){INT64_MIN, 0}, 2, "replicate", NULL, &out));
	assert_int_equal(1, aoti_torch_cpu_pad(t, (int64_t[]){1, 0}, 2, "mirror", NULL, &out));
	assert_null(out);
	pb_rt_delete(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reshape),
		cmocka_unit_test(test_reshape_shares_memory),
		cmocka_unit_test(test_narrow_and_slice),
		cmocka_unit_test(test_resize_keeps_what_fits),
		cmocka_unit_test(test_cat),
		cmocka_unit_test(test_cat_promotes_and_refuses),
		cmocka_unit_test(test_pad),
		cmocka_unit_test(test_pad_refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
