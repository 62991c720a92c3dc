/* SPDX-License-Identifier: Apache-2.0 */
/* Scans, sorting and selection against naive loops over drawn shapes, strides, dtypes, ties and
 * NaN. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "runtime/hooks.h"
#include "runtime/ops/scan.h"
#include "runtime/ops/sort.h"
#include "tests/unit/runtime/draw.h"

static const int32_t dtypes[] = {PB_RT_F32, PB_RT_F64, PB_RT_BF16, PB_RT_F16,
				 PB_RT_I64, PB_RT_I32, PB_RT_I8,   PB_RT_U8};

static int32_t any_dtype(void)
{
	return dtypes[draw_int(0, 7)];
}

/* Up to three dimensions; one of them may be long enough for the radix sort. */
static int draw_sizes(int64_t *sizes)
{
	const int ndim = (int)draw_int(1, 3);

	for (int d = 0; d < ndim; d++)
		sizes[d] = draw_int(0, 19) ? draw_int(1, 6) : 0;
	if (draw_int(0, 2) == 0)
		sizes[draw_int(0, ndim - 1)] = draw_int(40, 300);
	return ndim;
}

/* Coordinates of row-major position @i. */
static void coordinates(const struct pb_rt_tensor *t, int64_t i, int64_t *at)
{
	for (int d = t->ndim - 1; d >= 0; d--) {
		at[d] = i % t->sizes[d];
		i /= t->sizes[d];
	}
}

/* Several equal values, and NaN where there is one. */
static void make_ties(struct pb_rt_tensor *t)
{
	for (int64_t i = 0; i < t->numel; i++) {
		int64_t at[3];

		coordinates(t, i, at);
		set_at(t, index_of(t, at, t->ndim),
		       t->dtype <= PB_RT_I64 ? (double)draw_int(0, 5)
		       : draw_int(0, 9) == 0 ? NAN
		       : draw_int(0, 9) == 0 ? -0.0
					     : (double)draw_int(-3, 3));
	}
}

static void test_running_sums(void **state)
{
	(void)state;
	draw_state = 21;
	for (int round = 0; round < 400; round++) {
		int64_t sizes[3], at[3];
		const int ndim = draw_sizes(sizes), dim = (int)draw_int(0, ndim - 1);
		struct pb_rt_tensor *t = draw_tensor(any_dtype(), ndim, sizes, true);
		AtenTensorHandle out = NULL;

		assert_int_equal(
			0, aoti_torch_cpu_cumsum(t, draw_int(0, 1) ? dim : dim - ndim, NULL, &out));
		assert_int_equal(t->dtype <= PB_RT_I64 ? PB_RT_I64 : t->dtype, out->dtype);
		assert_true(pb_rt_is_contiguous(out));
		for (int64_t i = 0; i < t->numel; i++) {
			double sum = 0, scale = 0;

			coordinates(t, i, at);
			for (int64_t k = at[dim]; k >= 0; k--) {
				at[dim] = k;
				sum += get(t, at, ndim);
				scale += fabs(get(t, at, ndim));
			}
			assert_true(close_to(out->dtype, get_at(out, i), sum, scale));
		}
		pb_rt_delete(t);
		pb_rt_delete(out);
	}
}

/* int32 asked to stay int32 wraps; float sums in double, so a small number added often is not lost.
 */
static void test_accumulate_types(void **state)
{
	struct pb_rt_tensor *i = pb_rt_empty(PB_RT_I32, 1, (int64_t[]){2}, NULL);
	struct pb_rt_tensor *f = pb_rt_empty(PB_RT_F32, 1, (int64_t[]){1000001}, NULL);
	AtenTensorHandle out = NULL;
	int32_t dtype = PB_RT_I32;

	(void)state;
	set_at(i, 0, 2147483647);
	set_at(i, 1, 1);
	assert_int_equal(0, aoti_torch_cpu_cumsum(i, 0, &dtype, &out));
	assert_true(get_at(out, 1) == -2147483648.0);
	pb_rt_delete(out);
	assert_int_equal(0, aoti_torch_cpu_cumsum(i, 0, NULL, &out));
	assert_true(get_at(out, 1) == 2147483648.0);
	pb_rt_delete(out);
	set_at(f, 0, 1e8);
	for (int64_t k = 1; k < f->numel; k++)
		set_at(f, k, 0.25);
	assert_int_equal(0, aoti_torch_cpu_cumsum(f, 0, NULL, &out));
	assert_true(get_at(out, 1000000) == 100250000.0);
	pb_rt_delete(out);
	pb_rt_delete(i);
	pb_rt_delete(f);
}

/* NaN last, -0 the same as 0. */
static bool before(double a, double b)
{
	return isnan(b) ? !isnan(a) : a < b;
}

static void check_sorted_line(const struct pb_rt_tensor *in, const struct pb_rt_tensor *values,
			      const struct pb_rt_tensor *index, const int64_t *at, int dim,
			      bool descending)
{
	const int64_t n = in->sizes[dim];
	bool *seen = calloc((size_t)n + 1, sizeof(*seen));
	int64_t pos[3] = {at[0], at[1], at[2]};
	double last = 0;
	int64_t last_from = -1;

	for (int64_t i = 0; i < n; i++) {
		int64_t from;
		double v, w;

		pos[dim] = i;
		v = get(values, pos, in->ndim);
		from = (int64_t)get(index, pos, in->ndim);
		assert_in_range(from, 0, n - 1);
		assert_false(seen[from]);
		seen[from] = true;
		pos[dim] = from;
		w = get(in, pos, in->ndim);
		assert_true(v == w || (isnan(v) && isnan(w)));
		if (i) {
			assert_false(descending ? before(last, v) : before(v, last));
			if (!before(last, v) && !before(v, last))
				assert_true(from > last_from);
		}
		last = v;
		last_from = from;
	}
	free(seen);
}

static void test_sorted_and_stable(void **state)
{
	(void)state;
	draw_state = 22;
	for (int round = 0; round < 400; round++) {
		int64_t sizes[3], at[3] = {0};
		const int ndim = draw_sizes(sizes), dim = (int)draw_int(0, ndim - 1),
			  descending = (int)draw_int(0, 1);
		struct pb_rt_tensor *t = draw_tensor(any_dtype(), ndim, sizes, false);
		AtenTensorHandle values = NULL, index = NULL;

		if (draw_int(0, 2))
			make_ties(t);
		assert_int_equal(0, aoti_torch_cpu_sort_stable(t, &(int32_t){1}, dim, descending,
							       &values, &index));
		for (int64_t i = 0; i < t->numel; i++) {
			coordinates(t, i, at);
			if (at[dim] == 0)
				check_sorted_line(t, values, index, at, dim, descending != 0);
		}
		pb_rt_delete(t);
		pb_rt_delete(values);
		pb_rt_delete(index);
	}
}

/* The result has the strides of a dense input, and their order without the gaps of another. */
static void test_layout_of_sorted(void **state)
{
	struct pb_rt_tensor *base = draw_contiguous(PB_RT_F32, 1, (int64_t[]){48});
	struct pb_rt_tensor *turned = pb_rt_alias(base, 2, (int64_t[]){4, 6}, (int64_t[]){1, 4}, 0);
	struct pb_rt_tensor *gaps = pb_rt_alias(base, 2, (int64_t[]){4, 6}, (int64_t[]){2, 8}, 0);
	AtenTensorHandle values = NULL, index = NULL;

	(void)state;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(0, aoti_torch_cpu_sort(i ? gaps : turned, -1, 0, &values, &index));
		assert_int_equal(1, values->strides[0]);
		assert_int_equal(4, values->strides[1]);
		assert_int_equal(4, index->strides[1]);
		pb_rt_delete(values);
		pb_rt_delete(index);
	}
	pb_rt_delete(base);
	pb_rt_delete(turned);
	pb_rt_delete(gaps);
}

static int compare_up(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return before(x, y) ? -1 : before(y, x) ? 1 : 0;
}

/* The k best values of each line, in order, each from where its index says, no index twice. */
static void check_top_line(const struct pb_rt_tensor *in, const struct pb_rt_tensor *values,
			   const struct pb_rt_tensor *index, const int64_t *at, int dim, int64_t k,
			   bool largest)
{
	const int64_t n = in->sizes[dim];
	double *line = calloc((size_t)n, sizeof(*line));
	bool *seen = calloc((size_t)n, sizeof(*seen));
	int64_t pos[3] = {at[0], at[1], at[2]};

	for (int64_t i = 0; i < n; i++) {
		pos[dim] = i;
		line[i] = get(in, pos, in->ndim);
	}
	for (int64_t i = 0; i < k; i++) {
		double v;
		int64_t from;

		pos[dim] = i;
		v = get(values, pos, in->ndim);
		from = (int64_t)get(index, pos, in->ndim);
		assert_in_range(from, 0, n - 1);
		assert_false(seen[from]);
		seen[from] = true;
		assert_true(v == line[from] || (isnan(v) && isnan(line[from])));
	}
	qsort(line, (size_t)n, sizeof(*line), compare_up);
	for (int64_t i = 0; i < k; i++) {
		const double want = largest ? line[n - 1 - i] : line[i];

		pos[dim] = i;
		assert_true(get(values, pos, in->ndim) == want || isnan(want));
	}
	free(line);
	free(seen);
}

static void test_top(void **state)
{
	(void)state;
	draw_state = 23;
	for (int round = 0; round < 400; round++) {
		int64_t sizes[3], at[3] = {0};
		const int ndim = draw_sizes(sizes), dim = (int)draw_int(0, ndim - 1),
			  largest = (int)draw_int(0, 1);
		struct pb_rt_tensor *t = draw_tensor(any_dtype(), ndim, sizes, false);
		const int64_t k =
			draw_int(0, 2) ? draw_int(0, sizes[dim]) : draw_int(0, sizes[dim] / 64);
		AtenTensorHandle values = NULL, index = NULL;

		make_ties(t);
		assert_int_equal(0, aoti_torch_cpu_topk(t, k, dim, largest, 1, &values, &index));
		assert_int_equal(k, values->sizes[dim]);
		for (int64_t i = 0; i < t->numel; i++) {
			coordinates(t, i, at);
			if (at[dim] == 0)
				check_top_line(t, values, index, at, dim, k, largest != 0);
		}
		pb_rt_delete(t);
		pb_rt_delete(values);
		pb_rt_delete(index);
	}
}

/* Which of equal elements topk takes is libstdc++'s choice; these are torch 2.13.0's answers for i
 * % modulus. */
static void test_ties_of_top(void **state)
{
	static const struct {
		int64_t n, modulus, k;
		int largest;
		int64_t want[6];
	} cases[] = {
		{200, 1, 3, 1, {0, 1, 2}}, /* a heap */
		{130, 5, 2, 1, {9, 4}},
		{20, 1, 5, 1, {12, 14, 13, 15, 11}}, /* a partition, then sorted */
		{40, 3, 6, 0, {15, 9, 30, 12, 27, 18}},
	};

	(void)state;
	for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
		struct pb_rt_tensor *t = pb_rt_empty(PB_RT_F32, 1, &cases[c].n, NULL);
		AtenTensorHandle values = NULL, index = NULL;

		for (int64_t i = 0; i < cases[c].n; i++)
			set_at(t, i, (double)(i % cases[c].modulus));
		assert_int_equal(0, aoti_torch_cpu_topk(t, cases[c].k, 0, cases[c].largest, 1,
							&values, &index));
		for (int64_t i = 0; i < cases[c].k; i++)
			assert_int_equal(cases[c].want[i], (int64_t)get_at(index, i));
		pb_rt_delete(t);
		pb_rt_delete(values);
		pb_rt_delete(index);
	}
}

static void test_refusals(void **state)
{
	struct pb_rt_tensor *t = draw_contiguous(PB_RT_F32, 2, (int64_t[]){3, 4});
	AtenTensorHandle values = NULL, index = NULL;

	(void)state;
	assert_int_equal(1, aoti_torch_cpu_topk(t, 5, 1, 1, 1, &values, &index));
	assert_string_equal("selected index k out of range", pb_rt_last_error());
	assert_int_equal(1, aoti_torch_cpu_sort(t, 2, 0, &values, &index));
	assert_string_equal(
		"Dimension out of range (expected to be in range of [-2, 1], but got 2)",
		pb_rt_last_error());
	assert_null(values);
	pb_rt_delete(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_running_sums),
		cmocka_unit_test(test_accumulate_types),
		cmocka_unit_test(test_sorted_and_stable),
		cmocka_unit_test(test_layout_of_sorted),
		cmocka_unit_test(test_top),
		cmocka_unit_test(test_ties_of_top),
		cmocka_unit_test(test_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
