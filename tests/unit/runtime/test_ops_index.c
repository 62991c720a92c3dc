/* SPDX-License-Identifier: Apache-2.0 */
/* Indexing, scatter and masks against naive loops, and what must be refused instead of crashing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "runtime/hooks.h"
#include "runtime/ops/index.h"
#include "runtime/ops/nonzero.h"
#include "runtime/ops/scatter.h"
#include "tests/unit/runtime/draw.h"

static const int32_t dtypes[] = {PB_RT_F32, PB_RT_F64, PB_RT_BF16, PB_RT_I64, PB_RT_I32, PB_RT_U8};

static void coordinates(const struct pb_rt_tensor *t, int64_t i, int64_t *at)
{
	for (int d = t->ndim - 1; d >= 0; d--) {
		at[d] = i % t->sizes[d];
		i /= t->sizes[d];
	}
}

static void set(struct pb_rt_tensor *t, const int64_t *at, double v)
{
	set_at(t, index_of(t, at, t->ndim), v);
}

/* Indices into a dimension of @size, from its end too where @wraps. */
static struct pb_rt_tensor *draw_index(int ndim, const int64_t *sizes, int64_t size, bool wraps)
{
	struct pb_rt_tensor *t =
		draw_tensor(draw_int(0, 3) ? PB_RT_I64 : PB_RT_I32, ndim, sizes, false);
	int64_t at[PB_RT_MAX_DIMS];

	for (int64_t i = 0; i < t->numel; i++) {
		coordinates(t, i, at);
		set(t, at, (double)draw_int(wraps ? -size : 0, size - 1));
	}
	return t;
}

/* Three dimensions, some of them indexed by tensors of one shape. */
struct indexed {
	struct pb_rt_tensor *self, *idx[3];
	const AtenTensorHandle *list[3];
	int n_index, first; /* index dimensions, and where they stand in the result */
};

static void draw_indexed(struct indexed *x, int32_t dtype)
{
	int64_t sizes[3] = {draw_int(1, 5), draw_int(1, 5), draw_int(1, 5)},
		shape[2] = {draw_int(0, 4), draw_int(1, 4)};
	const int which = (int)draw_int(1, 7);

	x->self = draw_tensor(dtype, 3, sizes, false);
	x->n_index = (int)draw_int(1, 2);
	for (int d = 0; d < 3; d++) {
		x->idx[d] = which >> d & 1 ? draw_index(x->n_index, shape, sizes[d], true) : NULL;
		x->list[d] = x->idx[d] ? &x->idx[d] : NULL;
	}
	x->first = which == 5 ? 0 : which & 1 ? 0 : which & 2 ? 1 : 2;
}

static void end_indexed(struct indexed *x)
{
	pb_rt_delete(x->self);
	for (int d = 0; d < 3; d++)
		pb_rt_delete(x->idx[d]);
}

/* Where in self the result's position @at comes from. */
static void self_position(const struct indexed *x, const int64_t *at, int64_t *ret)
{
	int k = 0;

	for (int d = 0; d < 3; d++) {
		if (x->idx[d]) {
			const int64_t i = (int64_t)get(x->idx[d], at + x->first, x->n_index);

			ret[d] = i < 0 ? i + x->self->sizes[d] : i;
			continue;
		}
		ret[d] = at[k < x->first ? k : k + x->n_index];
		k++;
	}
}

static void test_index_gathers(void **state)
{
	(void)state;
	draw_state = 31;
	for (int round = 0; round < 500; round++) {
		struct indexed x;
		AtenTensorHandle out = NULL;
		int64_t at[5], from[3];

		draw_indexed(&x, dtypes[draw_int(0, 5)]);
		assert_int_equal(0, aoti_torch_cpu_index_Tensor(x.self, x.list, 3, &out));
		for (int64_t i = 0; i < out->numel; i++) {
			coordinates(out, i, at);
			self_position(&x, at, from);
			assert_true(get(out, at, out->ndim) == get(x.self, from, 3));
		}
		pb_rt_delete(out);
		end_indexed(&x);
	}
}

static void test_index_put_adds(void **state)
{
	(void)state;
	draw_state = 32;
	for (int round = 0; round < 300; round++) {
		struct indexed x;
		AtenTensorHandle shape = NULL, out = NULL;
		struct pb_rt_tensor *values, *want;
		int64_t at[5], to[3];

		draw_indexed(&x, draw_int(0, 1) ? PB_RT_I64 : PB_RT_F64);
		assert_int_equal(0, aoti_torch_cpu_index_Tensor(x.self, x.list, 3, &shape));
		values = draw_tensor(x.self->dtype, shape->ndim, shape->sizes, true);
		want = draw_contiguous(x.self->dtype, 3, x.self->sizes);
		assert_int_equal(0, pb_rt_copy(want, x.self));
		for (int64_t i = 0; i < values->numel; i++) {
			coordinates(values, i, at);
			self_position(&x, at, to);
			set(want, to, get(want, to, 3) + get(values, at, values->ndim));
		}
		assert_int_equal(0, aoti_torch_cpu_index_put(x.self, x.list, 3, values, 1, &out));
		for (int64_t i = 0; i < want->numel; i++) {
			coordinates(want, i, at);
			assert_true(close_to(want->dtype, get(out, at, 3), get(want, at, 3), 9));
		}
		pb_rt_delete(shape);
		pb_rt_delete(out);
		pb_rt_delete(values);
		pb_rt_delete(want);
		end_indexed(&x);
	}
}

/* Indexed dimensions that are apart come first in the result: x[:, i, :, j]. */
static void test_indices_apart(void **state)
{
	struct pb_rt_tensor *t = draw_contiguous(PB_RT_I64, 4, (int64_t[]){2, 3, 4, 5});
	struct pb_rt_tensor *i = pb_rt_empty(PB_RT_I64, 1, (int64_t[]){3}, NULL);
	AtenTensorHandle out = NULL;
	int64_t at[3];

	(void)state;
	for (int k = 0; k < 3; k++)
		set_at(i, k, k - 1);
	assert_int_equal(0, aoti_torch_cpu_index_Tensor(
				    t, (const AtenTensorHandle *[]){NULL, &i, NULL, &i}, 4, &out));
	assert_int_equal(3, out->ndim);
	assert_int_equal(3, out->sizes[0]);
	assert_int_equal(2, out->sizes[1]);
	for (int64_t k = 0; k < out->numel; k++) {
		coordinates(out, k, at);
		assert_true(get(out, at, 3) ==
			    get(t, (int64_t[]){at[1], (at[0] + 2) % 3, at[2], (at[0] + 4) % 5}, 4));
	}
	pb_rt_delete(t);
	pb_rt_delete(i);
	pb_rt_delete(out);
}

/* True and true is true, not 2. */
static void test_index_put_adds_truth(void **state)
{
	struct pb_rt_tensor *t = pb_rt_empty(PB_RT_BOOL, 1, (int64_t[]){1}, NULL);
	struct pb_rt_tensor *i = pb_rt_empty(PB_RT_I64, 1, (int64_t[]){1}, NULL);
	AtenTensorHandle out = NULL;

	(void)state;
	*(uint8_t *)pb_rt_data(t) = 1;
	set_at(i, 0, 0);
	assert_int_equal(
		0, aoti_torch_cpu_index_put(t, (const AtenTensorHandle *[]){&i}, 1, t, 1, &out));
	assert_int_equal(1, *(uint8_t *)pb_rt_data(out));
	pb_rt_delete(t);
	pb_rt_delete(i);
	pb_rt_delete(out);
}

/* Inductor's index_put_out writes into self; the values may be a view of it. */
static void test_index_put_of_itself(void **state)
{
	struct pb_rt_tensor *t = pb_rt_empty(PB_RT_F32, 1, (int64_t[]){4}, NULL);
	struct pb_rt_tensor *i = pb_rt_empty(PB_RT_I64, 1, (int64_t[]){4}, NULL);

	(void)state;
	for (int k = 0; k < 4; k++) {
		set_at(t, k, k);
		set_at(i, k, (k + 1) % 4);
	}
	assert_int_equal(0, aoti_torch_index_put_out(t, t, &i, 1, t, false));
	for (int k = 0; k < 4; k++)
		assert_true(get_at(t, (k + 1) % 4) == k);
	pb_rt_delete(t);
	pb_rt_delete(i);
}

static void test_out_of_range_is_an_error(void **state)
{
	struct pb_rt_tensor *t = draw_contiguous(PB_RT_F32, 2, (int64_t[]){5, 2}), *out;
	struct pb_rt_tensor *i = pb_rt_empty(PB_RT_I64, 1, (int64_t[]){1}, NULL);
	struct pb_rt_tensor *i2 = pb_rt_empty(PB_RT_I64, 2, (int64_t[]){1, 2}, NULL);
	AtenTensorHandle ret = NULL;

	(void)state;
	out = draw_contiguous(PB_RT_F32, 2, (int64_t[]){5, 2});
	set_at(i, 0, 5);
	assert_int_equal(1,
			 aoti_torch_cpu_index_Tensor(t, (const AtenTensorHandle *[]){&i}, 1, &ret));
	assert_string_equal("index 5 is out of bounds for dimension 0 with size 5",
			    pb_rt_last_error());
	set_at(i, 0, -6);
	assert_int_equal(
		1, aoti_torch_cpu_index_put(t, (const AtenTensorHandle *[]){&i}, 1, t, 0, &ret));
	/* scatter does not count from the end */
	set_at(i2, 0, 0);
	set_at(i2, 1, -1);
	assert_int_equal(1, aoti_torch_cpu_scatter_src_out(out, t, 0, i2, t));
	assert_string_equal("index -1 is out of bounds for dimension 0 with size 5",
			    pb_rt_last_error());
	assert_int_equal(1, aoti_torch_cpu_scatter_reduce_two_out(out, t, 0, i2, t, "sum", 1));
	assert_int_equal(1, aoti_torch_cpu_scatter_value_out(out, t, 0, i2, 1));
	assert_null(ret);
	pb_rt_delete(t);
	pb_rt_delete(out);
	pb_rt_delete(i);
	pb_rt_delete(i2);
}

static double reduced(const char *how, double a, double b)
{
	if (!strcmp(how, "prod"))
		return a * b;
	if (!strcmp(how, "amax"))
		return a < b ? b : a;
	if (!strcmp(how, "amin"))
		return b < a ? b : a;
	return a + b;
}

static void naive_reduce(struct pb_rt_tensor *want, const struct pb_rt_tensor *self, int dim,
			 const struct pb_rt_tensor *index, const struct pb_rt_tensor *src,
			 const char *how, bool with_self)
{
	int64_t at[2], from[2];

	for (int64_t i = 0; i < want->numel; i++) {
		double v, n = with_self;

		coordinates(want, i, at);
		v = get(self, at, 2);
		for (int64_t k = 0; k < index->numel; k++) {
			coordinates(index, k, from);
			if (from[1 - dim] != at[1 - dim] || (int64_t)get(index, from, 2) != at[dim])
				continue;
			v = n == 0 ? get(src, from, 2) : reduced(how, v, get(src, from, 2));
			n++;
		}
		if (!strcmp(how, "mean") && n > 1)
			v = want->dtype <= PB_RT_I64 ? floor(v / n) : v / n;
		set(want, at, v);
	}
}

static void test_scatter_reduces(void **state)
{
	static const char *const hows[] = {"sum", "prod", "mean", "amax", "amin"};
	static const int32_t types[] = {PB_RT_F32, PB_RT_F64, PB_RT_I64, PB_RT_I32};

	(void)state;
	draw_state = 33;
	for (int round = 0; round < 600; round++) {
		const int dim = (int)draw_int(0, 1), with_self = (int)draw_int(0, 1);
		const char *how = hows[draw_int(0, 4)];
		const int32_t dtype = types[draw_int(0, 3)];
		int64_t sizes[2] = {draw_int(1, 5), draw_int(1, 5)}, taken[2], given[2], at[2];
		struct pb_rt_tensor *self, *src, *index, *out, *want;

		for (int d = 0; d < 2; d++) {
			taken[d] = d == dim ? draw_int(0, 6) : draw_int(1, sizes[d]);
			given[d] = taken[d] + draw_int(0, 1);
		}
		self = draw_tensor(dtype, 2, sizes, false);
		src = draw_tensor(dtype, 2, given, true);
		index = draw_index(2, taken, sizes[dim], false);
		out = draw_int(0, 1) ? self : draw_tensor(dtype, 2, sizes, false);
		want = draw_contiguous(dtype, 2, sizes);
		naive_reduce(want, self, dim, index, src, how, with_self != 0);
		assert_int_equal(0, aoti_torch_cpu_scatter_reduce_two_out(
					    out, self, dim - (with_self ? 2 : 0), index, src, how,
					    with_self));
		for (int64_t i = 0; i < want->numel; i++) {
			coordinates(want, i, at);
			assert_true(close_to(dtype, get(out, at, 2), get(want, at, 2), 9));
		}
		if (out != self)
			pb_rt_delete(out);
		pb_rt_delete(self);
		pb_rt_delete(src);
		pb_rt_delete(index);
		pb_rt_delete(want);
	}
}

static void test_scatter_refuses_and_resizes(void **state)
{
	struct pb_rt_tensor *self = draw_contiguous(PB_RT_F32, 2, (int64_t[]){3, 2});
	struct pb_rt_tensor *index = pb_rt_empty(PB_RT_I64, 2, (int64_t[]){2, 2}, NULL);
	struct pb_rt_tensor *spread = pb_rt_alias(self, 2, self->sizes, (int64_t[]){0, 1}, 0);
	struct pb_rt_tensor *out = draw_contiguous(PB_RT_F32, 1, (int64_t[]){1});
	struct pb_rt_tensor *large = draw_contiguous(PB_RT_I64, 2, (int64_t[]){4, 3});

	(void)state;
	for (int i = 0; i < 4; i++)
		set_at(index, i, i % 3);
	assert_int_equal(1, aoti_torch_cpu_scatter_value_out(spread, self, 0, index, 1));
	assert_non_null(
		strstr(pb_rt_last_error(), "more than one element of the written-to tensor"));
	assert_int_equal(1, aoti_torch_cpu_scatter_src_out(self, self, 0, index, self));
	assert_non_null(strstr(pb_rt_last_error(), "Please clone()"));
	assert_int_equal(1, aoti_torch_cpu_scatter_value_out(self, self, 0, large, 1));
	assert_string_equal(
		"Expected index [4, 3] to be no larger than self [3, 2] apart from dimension 0",
		pb_rt_last_error());
	assert_int_equal(
		1, aoti_torch_cpu_scatter_reduce_two_out(out, self, 0, index, self, "median", 1));
	assert_int_equal(0, aoti_torch_cpu_scatter_value_out(out, self, 0, index, 7));
	assert_int_equal(2, out->ndim);
	assert_int_equal(3, out->sizes[0]);
	assert_true(get_at(out, 0) == 7);
	pb_rt_delete(self);
	pb_rt_delete(index);
	pb_rt_delete(spread);
	pb_rt_delete(out);
	pb_rt_delete(large);
}

static void test_nonzero_and_masks(void **state)
{
	(void)state;
	draw_state = 34;
	for (int round = 0; round < 300; round++) {
		int64_t sizes[3] = {draw_int(0, 4), draw_int(1, 4), draw_int(1, 4)}, at[3], n = 0;
		const int ndim = (int)draw_int(0, 3);
		struct pb_rt_tensor *t = draw_tensor(dtypes[draw_int(0, 5)], ndim, sizes, true);
		struct pb_rt_tensor *mask = pb_rt_empty(PB_RT_BOOL, ndim, sizes, NULL);
		AtenTensorHandle rows = NULL, chosen = NULL, back = NULL;

		assert_int_equal(0, pb_rt_copy(mask, t));
		assert_int_equal(0, aoti_torch_cpu_nonzero(t, &rows));
		assert_int_equal(0, aoti_torch_cpu_masked_select(t, mask, &chosen));
		assert_int_equal(ndim, rows->sizes[1]);
		for (int64_t i = 0; i < t->numel; i++) {
			coordinates(t, i, at);
			if (get(t, at, ndim) == 0)
				continue;
			for (int d = 0; d < ndim; d++)
				assert_int_equal(at[d], (int64_t)get(rows, (int64_t[]){n, d}, 2));
			assert_true(get_at(chosen, n) == get(t, at, ndim));
			n++;
		}
		assert_int_equal(n, rows->sizes[0]);
		assert_int_equal(n, chosen->numel);
		/* What was selected goes back to where it was. */
		assert_int_equal(0, aoti_torch_cpu_masked_scatter(t, mask, chosen, &back));
		for (int64_t i = 0; i < t->numel; i++) {
			coordinates(t, i, at);
			assert_true(get(back, at, ndim) == get(t, at, ndim));
		}
		pb_rt_delete(t);
		pb_rt_delete(mask);
		pb_rt_delete(rows);
		pb_rt_delete(chosen);
		pb_rt_delete(back);
	}
}

static void test_repeats(void **state)
{
	struct pb_rt_tensor *t = pb_rt_empty(PB_RT_I64, 1, (int64_t[]){4}, NULL);
	static const int want[] = {0, 0, 2, 3, 3, 3};
	AtenTensorHandle out = NULL;

	(void)state;
	set_at(t, 0, 2);
	set_at(t, 1, 0);
	set_at(t, 2, 1);
	set_at(t, 3, 3);
	assert_int_equal(0, aoti_torch_cpu_repeat_interleave_Tensor(t, &(int64_t){6}, &out));
	assert_int_equal(6, out->numel);
	for (int i = 0; i < 6; i++)
		assert_true(get_at(out, i) == want[i]);
	pb_rt_delete(out);
	assert_int_equal(1, aoti_torch_cpu_repeat_interleave_Tensor(t, &(int64_t){5}, &out));
	set_at(t, 1, -1);
	assert_int_equal(1, aoti_torch_cpu_repeat_interleave_Tensor(t, NULL, &out));
	assert_string_equal("repeats can not be negative", pb_rt_last_error());
	pb_rt_delete(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_index_gathers),
		cmocka_unit_test(test_index_put_adds),
		cmocka_unit_test(test_indices_apart),
		cmocka_unit_test(test_index_put_adds_truth),
		cmocka_unit_test(test_index_put_of_itself),
		cmocka_unit_test(test_out_of_range_is_an_error),
		cmocka_unit_test(test_scatter_reduces),
		cmocka_unit_test(test_scatter_refuses_and_resizes),
		cmocka_unit_test(test_nonzero_and_masks),
		cmocka_unit_test(test_repeats),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
