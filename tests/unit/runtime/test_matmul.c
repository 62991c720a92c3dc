/* SPDX-License-Identifier: Apache-2.0 */
/* Matrix products against naive loops in double over drawn shapes, strides, dtypes and addends. */
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "runtime/alloc.h"
#include "runtime/hooks.h"
#include "runtime/ops/heavy.h"
#include "runtime/ops/matmul.h"
#include "tests/unit/runtime/draw.h"

static const int32_t dtypes[] = {PB_RT_F32,  PB_RT_F32, PB_RT_F32, PB_RT_F64,
				 PB_RT_BF16, PB_RT_F16, PB_RT_I64, PB_RT_I32};

/* beta * self + alpha * a b at batch i, row r, column c; the magnitudes summed into *scale. */
static double naive(const struct pb_rt_tensor *self, const struct pb_rt_tensor *a,
		    const struct pb_rt_tensor *b, int64_t i, int64_t r, int64_t c, double beta,
		    double alpha, double *scale)
{
	const int64_t at[3] = {i, r, c};
	double sum = 0, mag = 0;

	for (int64_t k = 0; k < a->sizes[a->ndim - 1]; k++) {
		const double x = get(a, (int64_t[]){i, r, k}, 3) * get(b, (int64_t[]){i, k, c}, 3);

		sum += x;
		mag += fabs(x);
	}
	*scale = fabs(alpha) * mag;
	sum *= alpha;
	if (self && beta != 0) {
		sum += beta * get(self, at, 3);
		*scale += fabs(beta * get(self, at, 3));
	}
	return sum;
}

/* @out against the product; @self and the operands are copies made before the call where they
 * alias. */
static void compare(const struct pb_rt_tensor *out, const struct pb_rt_tensor *self,
		    const struct pb_rt_tensor *a, const struct pb_rt_tensor *b, double beta,
		    double alpha)
{
	const int64_t batches = out->ndim == 3 ? out->sizes[0] : 1;
	const int64_t rows = out->sizes[out->ndim - 2], cols = out->sizes[out->ndim - 1];

	for (int64_t i = 0; i < batches; i++) {
		for (int64_t r = 0; r < rows; r++) {
			for (int64_t c = 0; c < cols; c++) {
				double scale;
				const double want = naive(self, a, b, i, r, c, beta, alpha, &scale);
				const double got = get(out, (int64_t[]){i, r, c}, 3);

				if (!close_to(out->dtype, got, want, scale))
					fail_msg("%s [%lld, %lld, %lld] of [%lld, %lld] k %lld: "
						 "got %g, want %g",
						 pb_rt_dtype_name(out->dtype), (long long)i,
						 (long long)r, (long long)c, (long long)rows,
						 (long long)cols, (long long)a->sizes[a->ndim - 1],
						 got, want);
			}
		}
	}
}

/* A shape that @self may have to broadcast to [m, n]. */
static struct pb_rt_tensor *draw_addend(int32_t dtype, int64_t m, int64_t n)
{
	switch (draw_int(0, 4)) {
	case 0:
		return draw_tensor(dtype, 1, (int64_t[]){n}, true);
	case 1:
		return draw_tensor(dtype, 2, (int64_t[]){1, n}, true);
	case 2:
		return draw_tensor(dtype, 2, (int64_t[]){m, 1}, true);
	case 3:
		return draw_tensor(dtype, 1, (int64_t[]){1}, true);
	default:
		return draw_tensor(dtype, 2, (int64_t[]){m, n}, true);
	}
}

static int64_t draw_size(void)
{
	switch (draw_int(0, 7)) {
	case 0:
		return draw_int(0, 2);
	case 1:
		return draw_int(30, 70);
	default:
		return draw_int(1, 24);
	}
}

static void one_addmm(int32_t dtype, int64_t m, int64_t n, int64_t k)
{
	const double betas[] = {0, 1, -2}, alphas[] = {1, 1, 3};
	const double beta = betas[draw_int(0, 2)], alpha = alphas[draw_int(0, 2)];
	struct pb_rt_tensor *a = draw_tensor(dtype, 2, (int64_t[]){m, k}, true);
	struct pb_rt_tensor *b = draw_tensor(dtype, 2, (int64_t[]){k, n}, true);
	struct pb_rt_tensor *out = draw_tensor(dtype, 2, (int64_t[]){m, n}, false);
	struct pb_rt_tensor *self = draw_addend(dtype, m, n);

	/* Twice where the weight is a constant: made, then found. */
	b->storage->constant = draw_int(0, 1);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(0, aoti_torch_cpu_addmm_out(out, self, a, b, beta, alpha));
		compare(out, self, a, b, beta, alpha);
	}
	assert_int_equal(0, aoti_torch_cpu_mm_out(out, a, b));
	compare(out, NULL, a, b, 0, 1);
	pb_rt_delete(a);
	pb_rt_delete(b);
	pb_rt_delete(out);
	pb_rt_delete(self);
	pb_rt_cache_clear();
}

static void test_drawn_matrices(void **state)
{
	(void)state;
	draw_state = 3;
	for (int i = 0; i < 1500; i++)
		one_addmm(dtypes[draw_int(0, 7)], draw_size(), draw_size(), draw_size());
}

/* Past every block size: several blocks of k, of rows and of columns. */
static void test_large_matrices(void **state)
{
	(void)state;
	draw_state = 4;
	one_addmm(PB_RT_F32, 13, 700, 600);
	one_addmm(PB_RT_F32, 410, 37, 300);
	one_addmm(PB_RT_F32, 5, 300, 520);
	one_addmm(PB_RT_F64, 201, 290, 270);
	one_addmm(PB_RT_BF16, 30, 300, 530);
	one_addmm(PB_RT_F16, 200, 20, 300);
}

static void test_threads(void **state)
{
	(void)state;
	draw_state = 5;
	pb_rt_set_threads(3);
	one_addmm(PB_RT_F32, 7, 500, 300);
	one_addmm(PB_RT_F32, 300, 20, 300);
	one_addmm(PB_RT_BF16, 64, 200, 300);
	pb_rt_set_threads(1);
}

static void test_drawn_batches(void **state)
{
	(void)state;
	draw_state = 6;
	for (int i = 0; i < 400; i++) {
		const int32_t dtype = dtypes[draw_int(0, 7)];
		const int64_t bs = draw_int(0, 4), m = draw_size(), n = draw_size(),
			      k = draw_size();
		const double beta = (double)draw_int(0, 2), alpha = (double)draw_int(1, 2);
		struct pb_rt_tensor *a = draw_tensor(dtype, 3, (int64_t[]){bs, m, k}, true);
		struct pb_rt_tensor *b = draw_tensor(dtype, 3, (int64_t[]){bs, k, n}, true);
		struct pb_rt_tensor *out = draw_tensor(dtype, 3, (int64_t[]){bs, m, n}, false);
		struct pb_rt_tensor *self =
			draw_int(0, 1) ? draw_addend(dtype, m, n)
				       : draw_tensor(dtype, 3, (int64_t[]){bs, m, n}, true);

		assert_int_equal(0, aoti_torch_cpu_baddbmm_out(out, self, a, b, beta, alpha));
		compare(out, self, a, b, beta, alpha);
		assert_int_equal(0, aoti_torch_cpu_bmm_out(out, a, b));
		compare(out, NULL, a, b, 0, 1);
		pb_rt_delete(a);
		pb_rt_delete(b);
		pb_rt_delete(out);
		pb_rt_delete(self);
	}
}

/* beta 0 means that self is not read: PyTorch promises that its NaN does not spread. */
static void test_beta_zero_ignores_nan(void **state)
{
	const int64_t mn[2] = {5, 19};
	struct pb_rt_tensor *a = draw_contiguous(PB_RT_F32, 2, (int64_t[]){5, 7});
	struct pb_rt_tensor *b = draw_contiguous(PB_RT_F32, 2, (int64_t[]){7, 19});
	struct pb_rt_tensor *self = draw_contiguous(PB_RT_F32, 2, mn),
			    *out = draw_contiguous(PB_RT_F32, 2, mn);

	(void)state;
	for (int64_t i = 0; i < self->numel; i++) {
		set_at(self, i, NAN);
		set_at(out, i, NAN);
	}
	assert_int_equal(0, aoti_torch_cpu_addmm_out(out, self, a, b, 0, 1));
	compare(out, NULL, a, b, 0, 1);
	assert_int_equal(0, aoti_torch_cpu_addmm_out(out, self, a, b, 1, 1));
	assert_true(isnan(get_at(out, 3)));
	pb_rt_delete(a);
	pb_rt_delete(b);
	pb_rt_delete(self);
	pb_rt_delete(out);
}

static void test_empty_sum_is_the_addend(void **state)
{
	struct pb_rt_tensor *a = pb_rt_empty(PB_RT_F32, 2, (int64_t[]){3, 0}, NULL);
	struct pb_rt_tensor *b = pb_rt_empty(PB_RT_F32, 2, (int64_t[]){0, 4}, NULL);
	struct pb_rt_tensor *self = draw_contiguous(PB_RT_F32, 1, (int64_t[]){4});
	struct pb_rt_tensor *out = draw_contiguous(PB_RT_F32, 2, (int64_t[]){3, 4});

	(void)state;
	assert_int_equal(0, aoti_torch_cpu_addmm_out(out, self, a, b, 2, 1));
	compare(out, self, a, b, 2, 1);
	assert_int_equal(0, aoti_torch_cpu_mm_out(out, a, b));
	compare(out, NULL, a, b, 0, 1);
	pb_rt_delete(a);
	pb_rt_delete(b);
	pb_rt_delete(self);
	pb_rt_delete(out);
}

/* self, mat1 and mat2 each share memory with out, element for element and transposed. */
static void test_output_aliases(void **state)
{
	const int64_t n = 21, sizes[2] = {n, n}, turned[2] = {1, n};

	(void)state;
	draw_state = 7;
	for (int which = 0; which < 3; which++) {
		for (int transposed = 0; transposed < 2; transposed++) {
			struct pb_rt_tensor *in[3], *copy[3],
				*out = draw_contiguous(PB_RT_F32, 2, sizes);

			for (int i = 0; i < 3; i++) {
				in[i] = i == which ? pb_rt_alias(out, 2, sizes,
								 transposed ? turned : NULL, 0)
						   : draw_contiguous(PB_RT_F32, 2, sizes);
				if (i == which && !transposed) {
					pb_rt_delete(in[i]);
					in[i] = pb_rt_alias(out, 2, sizes, (int64_t[]){n, 1}, 0);
				}
				copy[i] = pb_rt_empty(PB_RT_F32, 2, sizes, NULL);
				assert_int_equal(0, pb_rt_copy(copy[i], in[i]));
			}
			assert_int_equal(0,
					 aoti_torch_cpu_addmm_out(out, in[0], in[1], in[2], 1, 1));
			compare(out, copy[0], copy[1], copy[2], 1, 1);
			for (int i = 0; i < 3; i++) {
				pb_rt_delete(in[i]);
				pb_rt_delete(copy[i]);
			}
			pb_rt_delete(out);
		}
	}
}

/* A temporary that gets the address of another one must not meet its packed form; a constant must
 * be packed once. */
static void test_only_constants_are_cached(void **state)
{
	struct pb_rt_tensor *a = draw_contiguous(PB_RT_F32, 2, (int64_t[]){8, 32});
	struct pb_rt_tensor *b = draw_contiguous(PB_RT_F32, 2, (int64_t[]){32, 48});
	struct pb_rt_tensor *out = draw_contiguous(PB_RT_F32, 2, (int64_t[]){8, 48});
	struct pb_rt_cache_stats stats;

	(void)state;
	pb_rt_cache_clear();
	assert_int_equal(0, aoti_torch_cpu_mm_out(out, a, b));
	fill_storage(b);
	assert_int_equal(0, aoti_torch_cpu_mm_out(out, a, b));
	compare(out, NULL, a, b, 0, 1);
	pb_rt_cache_stats(&stats);
	assert_int_equal(0, stats.entries);

	b->storage->constant = true;
	assert_int_equal(0, aoti_torch_cpu_mm_out(out, a, b));
	assert_int_equal(0, aoti_torch_cpu_mm_out(out, a, b));
	pb_rt_cache_stats(&stats);
	assert_int_equal(1, stats.entries);
	assert_true(stats.bytes >= 32 * 48 * sizeof(float));

	/* New contents are seen only after the promise was taken back. */
	pb_rt_cache_clear();
	fill_storage(b);
	assert_int_equal(0, aoti_torch_cpu_mm_out(out, a, b));
	compare(out, NULL, a, b, 0, 1);

	/* With no room for packed copies the result is the same. */
	pb_rt_cache_clear();
	pb_rt_cache_set_limit(100);
	assert_int_equal(0, aoti_torch_cpu_mm_out(out, a, b));
	compare(out, NULL, a, b, 0, 1);
	pb_rt_cache_stats(&stats);
	assert_int_equal(0, stats.entries);
	pb_rt_cache_set_limit(UINT64_MAX);
	pb_rt_delete(a);
	pb_rt_delete(b);
	pb_rt_delete(out);
}

static void fill_with_key(const void *ctx, void *dst)
{
	const struct pb_pack_key *key = ctx;

	memcpy(dst, &key->p, sizeof(key->p));
}

static void must_be_there(const void *ctx, void *dst)
{
	(void)ctx;
	(void)dst;
	fail_msg("a packed copy is lost");
}

#define CONSTANTS ((char *)UINT64_C(0x210000000000))
#define CONSTANTS_BYTES (1u << 20)

/* Memory at an address that is given out again and again, as the kernel does with mappings that follow each other. */
static void map_constants_at_the_same_place(float first)
{
	float *p = mmap(CONSTANTS, CONSTANTS_BYTES, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	assert_ptr_equal(CONSTANTS, p);
	for (size_t i = 0; i < CONSTANTS_BYTES / sizeof(*p); i++)
		p[i] = first + (float)(i % 7);
}

static void multiply_by_constant(struct pb_rt_tensor *a, size_t offset, uint32_t entries_after)
{
	struct pb_rt_tensor *b = pb_rt_from_blob(CONSTANTS + offset, PB_RT_F32, 2,
						 (int64_t[]){32, 48}, NULL, 0);
	struct pb_rt_tensor *out = draw_contiguous(PB_RT_F32, 2, (int64_t[]){8, 48});
	struct pb_rt_cache_stats stats;

	assert_int_equal(0, aoti_torch_cpu_mm_out(out, a, b));
	compare(out, NULL, a, b, 0, 1);
	pb_rt_cache_stats(&stats);
	assert_int_equal(entries_after, stats.entries);
	pb_rt_delete(out);
	pb_rt_delete(b);
}

/* New constants may lie where the old ones lay: a packed copy of those would be a wrong result. */
static void test_address_that_is_used_again(void **state)
{
	struct pb_rt_tensor *a = draw_contiguous(PB_RT_F32, 2, (int64_t[]){8, 32});
	const size_t second = 32 * 48 * sizeof(float), third = CONSTANTS_BYTES / 2;
	const uint64_t held = pb_rt_memory_held();
	struct pb_rt_cache_stats stats;

	(void)state;
	pb_rt_cache_clear();
	for (int round = 0; round < 3; round++) {
		map_constants_at_the_same_place((float)round);
		assert_int_equal(0, pb_rt_add_constants(CONSTANTS, CONSTANTS_BYTES));
		multiply_by_constant(a, 0, 1);
		multiply_by_constant(a, second, 2);
		multiply_by_constant(a, third, 3);
		multiply_by_constant(a, 0, 3);
		assert_true(pb_rt_memory_held() > held);

		/* The first half is replaced and not promised: what is kept of the second one stays. */
		pb_rt_remove_constants(CONSTANTS, CONSTANTS_BYTES / 2);
		for (size_t i = 0; i < CONSTANTS_BYTES / 2; i += sizeof(float))
			*(float *)(void *)(CONSTANTS + i) += 100;
		multiply_by_constant(a, 0, 1);
		multiply_by_constant(a, second, 1);
		multiply_by_constant(a, third, 1);

		pb_rt_remove_constants(CONSTANTS, CONSTANTS_BYTES);
		pb_rt_cache_stats(&stats);
		assert_int_equal(0, stats.entries);
		assert_int_equal(0, stats.bytes);
		munmap(CONSTANTS, CONSTANTS_BYTES);
	}
	pb_rt_delete(a);
}

/* Every order of removal leaves the others to be found, also round the end of the table. */
static void test_removal_from_a_crowded_table(void **state)
{
	enum { N = 900, BYTES = 64 };
	struct pb_rt_tensor *t = draw_contiguous(PB_RT_F32, 1, (int64_t[]){4});
	struct pb_rt_cache_stats stats;
	static bool gone[N];
	int left = N;

	(void)state;
	pb_rt_cache_clear();
	t->storage->constant = true;
	for (int i = 0; i < N; i++) {
		const struct pb_pack_key key = {CONSTANTS + (size_t)i * BYTES, {i % 3}};

		assert_non_null(pb_pack_constant(t, &key, 8, fill_with_key, &key));
	}
	while (left > 0) {
		const int i = draw_int(0, N - 1);

		if (gone[i])
			continue;
		pb_rt_cache_remove((uintptr_t)CONSTANTS + (size_t)i * BYTES, (uintptr_t)CONSTANTS + (size_t)i * BYTES + 1);
		gone[i] = true;
		left--;
		for (int k = left % 50 ? N : 0; k < N; k++) {
			const struct pb_pack_key key = {CONSTANTS + (size_t)k * BYTES, {k % 3}};

			if (!gone[k])
				assert_ptr_equal(key.p, *(void *const *)pb_pack_constant(t, &key, 8, must_be_there, NULL));
		}
		pb_rt_cache_stats(&stats);
		assert_int_equal(left, stats.entries);
	}
	pb_rt_delete(t);
}

static void test_integers_wrap(void **state)
{
	struct pb_rt_tensor *a = pb_rt_empty(PB_RT_U8, 2, (int64_t[]){1, 2}, NULL);
	struct pb_rt_tensor *b = pb_rt_empty(PB_RT_U8, 2, (int64_t[]){2, 1}, NULL);
	struct pb_rt_tensor *out = pb_rt_empty(PB_RT_U8, 2, (int64_t[]){1, 1}, NULL);

	(void)state;
	set_at(a, 0, 200);
	set_at(a, 1, 100);
	set_at(b, 0, 2);
	set_at(b, 1, 3);
	assert_int_equal(0, aoti_torch_cpu_mm_out(out, a, b));
	assert_int_equal((200 * 2 + 100 * 3) & 255, (int)get_at(out, 0));
	pb_rt_delete(a);
	pb_rt_delete(b);
	pb_rt_delete(out);
}

static void test_small_relatives(void **state)
{
	struct pb_rt_tensor *b1, *b2, *self, *out = NULL;

	(void)state;
	draw_state = 8;
	for (int i = 0; i < 100; i++) {
		const int64_t bs = draw_int(0, 3), m = draw_int(1, 9), n = draw_int(1, 20),
			      k = draw_int(0, 9);

		b1 = draw_tensor(PB_RT_F32, 3, (int64_t[]){bs, m, k}, true);
		b2 = draw_tensor(PB_RT_F32, 3, (int64_t[]){bs, k, n}, true);
		self = draw_addend(PB_RT_F32, m, n);
		assert_int_equal(0, aoti_torch_cpu_addbmm(self, b1, b2, 2, 3, &out));
		for (int64_t j = 0; j < m * n; j++) {
			double want = 2 * get(self, (int64_t[]){j / n, j % n}, 2),
			       scale = fabs(want);

			for (int64_t b = 0; b < bs; b++) {
				double s;

				want += naive(NULL, b1, b2, b, j / n, j % n, 0, 3, &s);
				scale += s;
			}
			assert_true(close_to(PB_RT_F32, get_at(out, j), want, scale));
		}
		pb_rt_delete(b1);
		pb_rt_delete(b2);
		pb_rt_delete(self);
		pb_rt_delete(out);
	}
	for (int i = 0; i < 100; i++) {
		const int64_t m = draw_int(1, 40), k = draw_int(0, 40);

		b1 = draw_tensor(PB_RT_F32, 2, (int64_t[]){m, k}, true);
		b2 = draw_tensor(PB_RT_F32, 1, (int64_t[]){k}, true);
		self = draw_tensor(PB_RT_F32, 1, (int64_t[]){draw_int(0, 1) ? m : 1}, true);
		assert_int_equal(0, aoti_torch_cpu_addmv(self, b1, b2, 2, 3, &out));
		for (int64_t j = 0; j < m; j++) {
			double want = 0, scale = 0;

			for (int64_t q = 0; q < k; q++) {
				const double x = get(b1, (int64_t[]){j, q}, 2) * get(b2, &q, 1);

				want += 3 * x;
				scale += 3 * fabs(x);
			}
			want += 2 * get(self, &j, 1);
			assert_true(close_to(PB_RT_F32, get_at(out, j), want, scale + 2));
		}
		pb_rt_delete(b1);
		pb_rt_delete(b2);
		pb_rt_delete(self);
		pb_rt_delete(out);
	}
}

static void test_errors_name_the_shapes(void **state)
{
	struct pb_rt_tensor *a = draw_contiguous(PB_RT_F32, 2, (int64_t[]){8, 15});
	struct pb_rt_tensor *b = draw_contiguous(PB_RT_F32, 2, (int64_t[]){16, 32});
	struct pb_rt_tensor *d = draw_contiguous(PB_RT_F64, 2, (int64_t[]){15, 32});
	struct pb_rt_tensor *out = draw_contiguous(PB_RT_F32, 2, (int64_t[]){8, 32});

	(void)state;
	assert_int_equal(1, aoti_torch_cpu_mm_out(out, a, b));
	assert_non_null(strstr(pb_rt_last_error(),
			       "mat1 and mat2 shapes cannot be multiplied (8x15 and 16x32)"));
	assert_int_equal(1, aoti_torch_cpu_mm_out(out, a, d));
	assert_non_null(strstr(pb_rt_last_error(), "same dtype"));
	assert_int_equal(1, aoti_torch_cpu_bmm_out(out, a, b));
	assert_non_null(strstr(pb_rt_last_error(), "[8, 15]"));
	pb_rt_delete(a);
	pb_rt_delete(b);
	pb_rt_delete(d);
	pb_rt_delete(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_drawn_matrices),
		cmocka_unit_test(test_large_matrices),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_drawn_batches),
		cmocka_unit_test(test_beta_zero_ignores_nan),
		cmocka_unit_test(test_empty_sum_is_the_addend),
		cmocka_unit_test(test_output_aliases),
		cmocka_unit_test(test_only_constants_are_cached),
		cmocka_unit_test(test_address_that_is_used_again),
		cmocka_unit_test(test_removal_from_a_crowded_table),
		cmocka_unit_test(test_integers_wrap),
		cmocka_unit_test(test_small_relatives),
		cmocka_unit_test(test_errors_name_the_shapes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
