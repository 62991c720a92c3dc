/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of narrow weights against plain loops: sizes around the blocks of the kernels, constant
 * weights (kept packed) and others, one thread and two, every instruction set that the machine has
 * (the test runs itself with PT2BOX_ISA set).
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/hooks.h"
#include "runtime/ops/fused.h"
#include "runtime/ops/gemm_isa.h"
#include "runtime/ops/quant.h"
#include "runtime/ops/weight_only.h"
#include "tests/unit/runtime/draw.h"

static struct pb_rt_tensor *drawn(int32_t dtype, int ndim, const int64_t *sizes, int lo, int hi)
{
	struct pb_rt_tensor *t = pb_rt_empty(dtype, ndim, sizes, NULL);

	assert_non_null(t);
	for (int64_t i = 0; i < t->numel; i++)
		set_at(t, i, (double)draw_int(lo, hi));
	return t;
}

static struct pb_rt_tensor *number(int32_t dtype, double v)
{
	struct pb_rt_tensor *t = pb_rt_empty(dtype, 0, NULL, NULL);

	assert_non_null(t);
	set_at(t, 0, v);
	return t;
}

static double rounded(double v, double lo, double hi)
{
	v = nearbyint(v);
	return v < lo ? lo : v > hi ? hi : v;
}

/* ---- qlinear ---- */

static void one_linear(int64_t m, int64_t k, int64_t n, bool constant)
{
	const int32_t u8 = PB_RT_U8;
	const double x_scale = 1.0 / 64, w_scale = 1.0 / 128, out_scale = 2;
	struct pb_rt_tensor *x = drawn(PB_RT_U8, 2, (int64_t[]){m, k}, 0, 255);
	struct pb_rt_tensor *w = drawn(PB_RT_I8, 2, (int64_t[]){k, n}, -128, 127);
	struct pb_rt_tensor *b = drawn(PB_RT_F32, 1, &n, -9, 9), *y;
	struct pb_rt_tensor *xs = number(PB_RT_F32, x_scale), *xz = number(PB_RT_I32, 7);
	struct pb_rt_tensor *ws = number(PB_RT_F32, w_scale), *wz = number(PB_RT_I32, 0);

	if (constant)
		assert_int_equal(0, pb_rt_add_constants(w->storage->base, w->storage->bytes));
	for (int again = 0; again < 2; again++) { /* the second time with the kept panels */
		assert_int_equal(0, aoti_torch_cpu__qlinear_pointwise_tensor(
					    x, xs, xz, w, ws, wz, &b, out_scale, 3, &u8, "none",
					    NULL, 0, "", &y));
		for (int64_t i = 0; i < m; i++)
			for (int64_t j = 0; j < n; j++) {
				int64_t sum = 0;
				double want;

				for (int64_t p = 0; p < k; p++)
					sum += (int64_t)(get_at(x, i * k + p) - 7) *
					       (int64_t)get_at(w, p * n + j);
				/* Powers of two: exact, but for halves that are rounded. */
				want = (double)sum * x_scale * w_scale + get_at(b, j);
				want = rounded(want / out_scale + 3, 0, 255);
				if (fabs(get_at(y, i * n + j) - want) > 0)
					fail_msg("%lldx%lldx%lld at %lld, %lld: %g, not %g",
						 (long long)m, (long long)k, (long long)n,
						 (long long)i, (long long)j, get_at(y, i * n + j),
						 want);
			}
		pb_rt_delete(y);
	}
	pb_rt_forget_constants();
	pb_rt_delete(x);
	pb_rt_delete(w);
	pb_rt_delete(b);
	pb_rt_delete(xs);
	pb_rt_delete(xz);
	pb_rt_delete(ws);
	pb_rt_delete(wz);
}

static void test_linear(void **state)
{
	static const int64_t ms[] = {1, 3, 4, 5, 65, 130}, ks[] = {1, 2, 31, 600},
			     ns[] = {1, 15, 16, 33, 70};

	(void)state;
	for (int threads = 1; threads <= 2; threads++) {
		pb_rt_set_threads(threads);
		for (int i = 0; i < 6; i++)
			for (int j = 0; j < 4; j++)
				for (int k = 0; k < 5; k++)
					one_linear(ms[i], ks[j], ns[k], (i + j + k) % 2);
		one_linear(300, 700, 130, true); /* several blocks of rows, and two threads */
	}
	pb_rt_set_threads(1);
}

/* 600 products of 255 and 127 do not fit 24 bits: sums must not go through float. */
static void test_exact(void **state)
{
	const int32_t f32 = PB_RT_F32;
	struct pb_rt_tensor *x = drawn(PB_RT_U8, 2, (int64_t[]){1, 601}, 255, 255);
	struct pb_rt_tensor *w = drawn(PB_RT_I8, 2, (int64_t[]){601, 1}, 127, 127), *y;
	struct pb_rt_tensor *one = number(PB_RT_F32, 1), *zero = number(PB_RT_I32, 0);

	(void)state;
	set_at(w, 600, -128);
	assert_int_equal(0, aoti_torch_cpu__qlinear_pointwise_tensor(x, one, zero, w, one, zero,
								     NULL, 1, 0, &f32, "none", NULL,
								     0, "", &y));
	assert_true(get_at(y, 0) == (double)(float)(600 * 255 * 127 - 255 * 128));
	pb_rt_delete(x);
	pb_rt_delete(w);
	pb_rt_delete(y);
	pb_rt_delete(one);
	pb_rt_delete(zero);
}

static void test_refusals(void **state)
{
	const int32_t u8 = PB_RT_U8;
	struct pb_rt_tensor *x = drawn(PB_RT_U8, 2, (int64_t[]){2, 3}, 0, 9);
	struct pb_rt_tensor *w = drawn(PB_RT_I8, 2, (int64_t[]){4, 5}, 0, 9), *y;
	struct pb_rt_tensor *fits = drawn(PB_RT_I8, 2, (int64_t[]){3, 5}, 0, 9);
	struct pb_rt_tensor *one = number(PB_RT_F32, 1), *zero = number(PB_RT_I32, 0);
	struct pb_rt_tensor *two = number(PB_RT_I32, 2), *far = number(PB_RT_I32, 300);

	(void)state;
#define REFUSED(x_zero, weight, w_zero, post, text)                                               \
	assert_int_equal(1, aoti_torch_cpu__qlinear_pointwise_tensor(x, one, x_zero, weight, one, \
								     w_zero, NULL, 1, 0, &u8,     \
								     post, NULL, 0, "", &y));     \
	if (!strstr(pb_rt_last_error(), text))                                                    \
	fail_msg("the error is: %s", pb_rt_last_error())
	REFUSED(zero, w, zero, "none", "input [2, 3] and weight [4, 5]");
	REFUSED(zero, fits, two, "none", "zero points should be 0");
	REFUSED(far, fits, zero, "none", "zero point 300");
	REFUSED(zero, fits, zero, "frelu", "\"frelu\"");
	REFUSED(zero, fits, zero, "leaky_relu", "needs 1 number");
#undef REFUSED
	pb_rt_delete(x);
	pb_rt_delete(w);
	pb_rt_delete(fits);
	pb_rt_delete(one);
	pb_rt_delete(zero);
	pb_rt_delete(two);
	pb_rt_delete(far);
}

/* ---- 4-bit weights: packed here as PyTorch packs them on this machine ---- */

static void pack_int4(const uint8_t *w, int64_t n, int64_t k, uint8_t *packed)
{
	const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
	const int64_t block = __builtin_cpu_supports("avx512vl") &&
					      __builtin_cpu_supports("avx512bw") &&
					      __builtin_cpu_supports("avx512dq")
				      ? 64
				      : 32;

	for (int64_t j0 = 0; j0 < n; j0 += block) {
		const int64_t size = n - j0 < block ? n - j0 : block;
		const bool halves = avx2 && size == block;

		for (int64_t p = 0; p < k; p++)
			for (int64_t i = 0; i < size / 2; i++) {
				const int64_t lo = halves ? i : 2 * i,
					      hi = halves ? i + size / 2 : 2 * i + 1;

				packed[j0 * k / 2 + p * (size / 2) + i] =
					(uint8_t)(w[(j0 + lo) * k + p] | w[(j0 + hi) * k + p] << 4);
			}
	}
}

static void one_int4(int64_t m, int64_t n, int64_t k, int64_t group)
{
	struct pb_rt_tensor *x = drawn(PB_RT_F32, 2, (int64_t[]){m, k}, -4, 4);
	struct pb_rt_tensor *w = drawn(PB_RT_U8, 2, (int64_t[]){n, k}, 0, 15), *y;
	struct pb_rt_tensor *packed = drawn(PB_RT_U8, 2, (int64_t[]){n, k / 2}, 0, 0);
	struct pb_rt_tensor *sz = drawn(PB_RT_F32, 3, (int64_t[]){k / group, n, 2}, -3, 3);
	struct pb_rt_tensor *size = number(PB_RT_I64, (double)group);

	pack_int4(pb_rt_data(w), n, k, pb_rt_data(packed));
	assert_int_equal(0, aoti_torch_cpu__weight_int4pack_mm_cpu_tensor(x, packed, size, sz, &y));
	for (int64_t i = 0; i < m; i++)
		for (int64_t j = 0; j < n; j++) {
			double want = 0;

			for (int64_t p = 0; p < k; p++) {
				const int64_t at = (p / group * n + j) * 2;

				want += get_at(x, i * k + p) *
					((get_at(w, j * k + p) - 8) * get_at(sz, at) +
					 get_at(sz, at + 1));
			}
			assert_true(get_at(y, i * n + j) == want); /* small integers */
		}
	pb_rt_delete(x);
	pb_rt_delete(w);
	pb_rt_delete(y);
	pb_rt_delete(packed);
	pb_rt_delete(sz);
	pb_rt_delete(size);
}

static void test_int4(void **state)
{
	(void)state;
	one_int4(1, 16, 32, 32);
	one_int4(3, 64, 64, 32);
	one_int4(9, 112, 256, 128);
	one_int4(40, 160, 576, 64);
}

/* ---- every instruction set ---- */

static const char *self;

static void test_instruction_sets(void **state)
{
	static const char *const names[] = {"sse", "avx2"};

	(void)state;
	if (getenv("PT2BOX_ISA"))
		return;
	for (int i = 0; i < 2; i++) {
		int status;
		pid_t pid;

		fflush(NULL);
		pid = fork();
		if (pid == 0) {
			setenv("PT2BOX_ISA", names[i], 1);
			execl(self, self, (char *)NULL);
			_exit(127);
		}
		assert_int_equal(pid, waitpid(pid, &status, 0));
		if (status)
			fail_msg("with PT2BOX_ISA=%s: status %d", names[i], status);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_linear),		 cmocka_unit_test(test_exact),
		cmocka_unit_test(test_refusals),	 cmocka_unit_test(test_int4),
		cmocka_unit_test(test_instruction_sets),
	};

	(void)argc;
	self = argv[0];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
