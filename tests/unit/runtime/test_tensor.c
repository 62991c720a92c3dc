/* SPDX-License-Identifier: Apache-2.0 */
/* Tensor headers: sizes and strides that are legal, odd, or wrong; shared storages; handles and
 * their contents. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "runtime/alloc.h"
#include "runtime/hooks.h"
#include "tests/unit/runtime/draw.h"

static void test_contiguous_strides(void **state)
{
	struct pb_rt_tensor *t = pb_rt_empty(PB_RT_F32, 3, (int64_t[]){2, 3, 4}, NULL);

	(void)state;
	assert_non_null(t);
	assert_int_equal(t->strides[0], 12);
	assert_int_equal(t->strides[1], 4);
	assert_int_equal(t->strides[2], 1);
	assert_int_equal(t->numel, 24);
	assert_int_equal(t->storage->bytes, 96);
	assert_int_equal((uintptr_t)pb_rt_data(t) % PB_RT_ALIGN, 0);
	for (int i = 3; i < PB_RT_MAX_DIMS; i++) {
		assert_int_equal(t->sizes[i], 1);
		assert_int_equal(t->strides[i], 1);
	}
	assert_true(pb_rt_is_contiguous(t));
	pb_rt_delete(t);
}

static void test_zero_dimensions(void **state)
{
	struct pb_rt_tensor *t = pb_rt_empty(PB_RT_F64, 0, NULL, NULL);

	(void)state;
	assert_non_null(t);
	assert_int_equal(t->ndim, 0);
	assert_int_equal(t->numel, 1);
	assert_int_equal(t->storage->bytes, 8);
	assert_true(pb_rt_is_contiguous(t));
	pb_rt_delete(t);
}

static void test_zero_size(void **state)
{
	struct pb_rt_tensor *t = pb_rt_empty(PB_RT_F32, 3, (int64_t[]){3, 0, 5}, NULL), *v;

	(void)state;
	assert_non_null(t);
	assert_int_equal(t->numel, 0);
	assert_int_equal(t->storage->bytes, 0);
	assert_null(pb_rt_data(t));
	assert_int_equal(t->strides[0], 5); /* a zero size counts as one, as in PyTorch */
	assert_int_equal(t->strides[1], 5);
	v = pb_rt_contiguous(t);
	assert_non_null(v);
	assert_int_equal(0, pb_rt_copy(v, t));
	pb_rt_delete(v);
	pb_rt_delete(t);
	/* Without any memory at all. */
	t = pb_rt_from_blob(NULL, PB_RT_F32, 1, (int64_t[]){0}, (int64_t[]){1}, 0);
	assert_non_null(t);
	assert_null(pb_rt_data(t));
	pb_rt_delete(t);
	assert_null(pb_rt_from_blob(NULL, PB_RT_F32, 1, (int64_t[]){1}, (int64_t[]){1}, 0));
}

static void test_storage_covers_strides(void **state)
{
	struct pb_rt_tensor *t = pb_rt_empty(PB_RT_F32, 2, (int64_t[]){3, 4}, (int64_t[]){100, 7});

	(void)state;
	assert_int_equal(t->storage->bytes, (2 * 100 + 3 * 7 + 1) * 4);
	assert_false(pb_rt_is_contiguous(t));
	pb_rt_delete(t);
	t = pb_rt_empty(PB_RT_F32, 2, (int64_t[]){3, 4}, (int64_t[]){0, 1}); /* expanded */
	assert_int_equal(t->storage->bytes, 16);
	pb_rt_delete(t);
	/* The stride of a dimension of one element means nothing. */
	t = pb_rt_empty(PB_RT_F32, 3, (int64_t[]){4, 1, 5}, (int64_t[]){5, 999, 1});
	assert_true(pb_rt_is_contiguous(t));
	assert_int_equal(t->storage->bytes, 80);
	pb_rt_delete(t);
}

static void refused(int32_t dtype, int64_t ndim, const int64_t *sizes, const int64_t *strides)
{
	pb_rt_clear_error();
	assert_null(pb_rt_empty(dtype, ndim, sizes, strides));
	assert_int_not_equal(pb_rt_last_error()[0], '\0');
}

static void test_wrong_layouts_are_refused(void **state)
{
	const int64_t big = INT64_C(1) << 40, many[PB_RT_MAX_DIMS + 1] = {0};

	(void)state;
	refused(PB_RT_F32, 3, (int64_t[]){big, big, 1}, NULL);
	refused(PB_RT_F32, 2, (int64_t[]){2, 2}, (int64_t[]){INT64_MAX, INT64_MAX});
	refused(PB_RT_F32, 1, (int64_t[]){INT64_MAX}, NULL);
	refused(PB_RT_C128, 1, (int64_t[]){INT64_MAX / 8}, NULL);
	refused(PB_RT_F32, 1, (int64_t[]){-1}, NULL);
	refused(PB_RT_F32, 1, (int64_t[]){2}, (int64_t[]){-1});
	refused(12, 1, (int64_t[]){2}, NULL);
	refused(-1, 1, (int64_t[]){2}, NULL);
	refused(1000, 1, (int64_t[]){2}, NULL);
	refused(PB_RT_F32, PB_RT_MAX_DIMS + 1, many, NULL);
	refused(PB_RT_F32, -1, many, NULL);
	/* With an empty dimension nothing overflows: there is no element. */
	pb_rt_delete(
		pb_rt_empty(PB_RT_F32, 2, (int64_t[]){0, 7}, (int64_t[]){INT64_MAX, INT64_MAX}));
}

static void test_views_share(void **state)
{
	struct pb_rt_tensor *t = pb_rt_empty(PB_RT_I32, 1, (int64_t[]){6}, NULL);
	struct pb_rt_tensor *v = pb_rt_alias(t, 2, (int64_t[]){2, 2}, (int64_t[]){1, 2}, 1);

	(void)state;
	for (int i = 0; i < 6; i++)
		((int32_t *)pb_rt_data(t))[i] = i;
	assert_int_equal(t->storage->refs, 2);
	pb_rt_delete(t); /* the view keeps the storage */
	assert_int_equal(v->storage->refs, 1);
	assert_int_equal(*(int32_t *)pb_rt_data(v), 1);
	assert_int_equal(get(v, (int64_t[]){1, 1}, 2), 4);
	pb_rt_delete(v);
}

static void test_assign_keeps_identity(void **state)
{
	struct pb_rt_tensor *a = pb_rt_empty(PB_RT_F32, 1, (int64_t[]){3}, NULL);
	struct pb_rt_tensor *b = pb_rt_uninitialized();

	(void)state;
	assert_null(b->storage);
	assert_null(pb_rt_data(b));
	pb_rt_assign(b, a);
	assert_ptr_equal(b->storage, a->storage);
	assert_int_equal(a->storage->refs, 2);
	pb_rt_assign(a, a);
	assert_int_equal(a->storage->refs, 2);
	pb_rt_delete(a);
	assert_int_equal(b->numel, 3);
	a = pb_rt_uninitialized();
	pb_rt_assign(b, a); /* and back to nothing */
	assert_null(b->storage);
	pb_rt_delete(a);
	pb_rt_delete(b);
	pb_rt_delete(NULL);
}

static void test_contiguous_of_drawn_layouts(void **state)
{
	(void)state;
	for (int round = 0; round < 300; round++) {
		const int64_t sizes[3] = {draw_int(1, 4), draw_int(1, 5), draw_int(1, 6)};
		struct pb_rt_tensor *t = draw_tensor(PB_RT_F32, 3, sizes, true),
				    *c = pb_rt_contiguous(t);
		int64_t at[3], k = 0;

		assert_ptr_not_equal(c, t);
		assert_true((c->storage == t->storage) == pb_rt_is_contiguous(t));
		assert_int_equal(c->strides[2], 1);
		for (at[0] = 0; at[0] < sizes[0]; at[0]++)
			for (at[1] = 0; at[1] < sizes[1]; at[1]++)
				for (at[2] = 0; at[2] < sizes[2]; at[2]++)
					assert_true(get_at(c, k++) == get(t, at, 3));
		pb_rt_delete(c);
		pb_rt_delete(t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_contiguous_strides),
		cmocka_unit_test(test_zero_dimensions),
		cmocka_unit_test(test_zero_size),
		cmocka_unit_test(test_storage_covers_strides),
		cmocka_unit_test(test_wrong_layouts_are_refused),
		cmocka_unit_test(test_views_share),
		cmocka_unit_test(test_assign_keeps_identity),
		cmocka_unit_test(test_contiguous_of_drawn_layouts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
