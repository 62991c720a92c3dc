/* SPDX-License-Identifier: Apache-2.0 */
/* Attention against plain softmax(q k^T * scale + mask) v in double. */
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

#include "runtime/hooks.h"
#include "runtime/ops/attention.h"
#include "tests/unit/runtime/draw.h"

struct problem {
	struct pb_rt_tensor *q, *k, *v, *mask, *out, *lse;
	bool causal;
	double scale;
};

static void free_problem(struct problem *p)
{
	pb_rt_delete(p->q);
	pb_rt_delete(p->k);
	pb_rt_delete(p->v);
	pb_rt_delete(p->mask);
	pb_rt_delete(p->out);
	pb_rt_delete(p->lse);
}

static int attend(struct problem *p)
{
	return aoti_torch_cpu__scaled_dot_product_flash_attention_for_cpu(
		p->q, p->k, p->v, 0, p->causal, p->mask ? &p->mask : NULL, &p->scale, &p->out,
		&p->lse);
}

static double score(const struct problem *p, int64_t b, int64_t h, int64_t i, int64_t j)
{
	const int64_t kvh = h / (p->q->sizes[1] / p->k->sizes[1]);
	double s = 0;

	for (int64_t c = 0; c < p->q->sizes[3]; c++)
		s += get(p->q, (int64_t[]){b, h, i, c}, 4) *
		     get(p->k, (int64_t[]){b, kvh, j, c}, 4);
	s *= p->scale;
	if (p->mask)
		s += get(p->mask, (int64_t[]){b, h, i, j}, 4);
	return p->causal && j > i ? -INFINITY : s;
}

static void compare_row(const struct problem *p, int64_t b, int64_t h, int64_t i)
{
	const int64_t lk = p->k->sizes[2], kvh = h / (p->q->sizes[1] / p->k->sizes[1]);
	const double unit = p->q->dtype == PB_RT_F64	? 1e-12
			    : p->q->dtype == PB_RT_F32	? 4e-6
			    : p->q->dtype == PB_RT_BF16 ? 8e-3
							: 2e-3;
	/* The error of a score is the relative error of its weight. */
	const double eps = unit * (1 + p->scale);
	double s[2000], max = -INFINITY, sum = 0;

	for (int64_t j = 0; j < lk; j++) {
		s[j] = score(p, b, h, i, j);
		max = fmax(max, s[j]);
	}
	for (int64_t j = 0; j < lk; j++)
		sum += s[j] = max == -INFINITY ? 0 : exp(s[j] - max);
	for (int64_t c = 0; c < p->q->sizes[3]; c++) {
		const int64_t at[4] = {b, h, i, c};
		double want = 0;

		for (int64_t j = 0; j < lk; j++)
			want += s[j] * get(p->v, (int64_t[]){b, kvh, j, c}, 4);
		want = sum == 0 ? 0 : want / sum;
		if (!(fabs(get(p->out, at, 4) - want) <= eps))
			fail_msg("%s lq %lld lk %lld d %lld causal %d mask %d [%lld %lld %lld "
				 "%lld]: got %g, want %g",
				 pb_rt_dtype_name(p->q->dtype), (long long)p->q->sizes[2],
				 (long long)lk, (long long)p->q->sizes[3], p->causal,
				 p->mask != NULL, (long long)b, (long long)h, (long long)i,
				 (long long)c, get(p->out, at, 4), want);
	}
	if (fabs(get(p->lse, (int64_t[]){b, h, i}, 3) - (sum == 0 ? 0 : max + log(sum))) > eps * 10)
		fail_msg("logsumexp [%lld %lld %lld]: got %g, want %g", (long long)b, (long long)h,
			 (long long)i, get(p->lse, (int64_t[]){b, h, i}, 3), max + log(sum));
}

static void check(struct problem *p)
{
	if (attend(p))
		fail_msg("refused: %s", pb_rt_last_error());
	for (int64_t b = 0; b < p->q->sizes[0]; b++)
		for (int64_t h = 0; h < p->q->sizes[1]; h++)
			for (int64_t i = 0; i < p->q->sizes[2]; i++)
				compare_row(p, b, h, i);
	free_problem(p);
}

static struct pb_rt_tensor *draw_mask(int32_t dtype, int64_t b, int64_t h, int64_t lq, int64_t lk)
{
	const int64_t full[4] = {b, h, lq, lk};
	int64_t sizes[4];
	const int nd = (int)draw_int(2, 4);
	struct pb_rt_tensor *m;

	for (int i = 0; i < nd; i++)
		sizes[i] = draw_int(0, 2) ? full[4 - nd + i] : 1;
	m = draw_tensor(dtype, nd, sizes, true);
	/* Some keys are masked out, some rows altogether. */
	if (draw_int(0, 1))
		for (uint64_t i = 0; i < m->storage->bytes / pb_rt_dtype_size(dtype); i++)
			if (draw_int(0, 2) == 0)
				set_at(m, (int64_t)i - m->offset, -INFINITY);
	return m;
}

static void one_drawn(int32_t dtype, int64_t most)
{
	const int64_t b = draw_int(1, 3), kvh = draw_int(1, 3), h = kvh * draw_int(1, 3);
	const int64_t lq = draw_int(1, most), lk = draw_int(1, most), d = draw_int(1, 40);
	const int32_t mask_dtype = dtype == PB_RT_F64 || draw_int(0, 1) ? dtype : PB_RT_F32;
	struct problem p = {.causal = draw_int(0, 2) == 0, .scale = 1 / sqrt((double)d)};

	p.q = draw_tensor(dtype, 4, (int64_t[]){b, h, lq, d}, true);
	p.k = draw_tensor(dtype, 4, (int64_t[]){b, kvh, lk, d}, true);
	p.v = draw_tensor(dtype, 4, (int64_t[]){b, kvh, lk, d}, true);
	if (draw_int(0, 1))
		p.mask = draw_mask(mask_dtype, b, h, lq, lk);
	check(&p);
}

static void test_drawn(void **state)
{
	const int32_t dtypes[] = {PB_RT_F32, PB_RT_F32,	 PB_RT_F32,
				  PB_RT_F64, PB_RT_BF16, PB_RT_F16};

	(void)state;
	draw_state = 41;
	for (int i = 0; i < 500; i++)
		one_drawn(dtypes[draw_int(0, 5)], 20);
	for (int i = 0; i < 20; i++)
		one_drawn(dtypes[draw_int(0, 5)], 120);
}

/* Several blocks of keys and queries: the running maximum moves between them. */
static void test_long(void **state)
{
	(void)state;
	draw_state = 42;
	for (int causal = 0; causal < 2; causal++) {
		for (int64_t lq = 5; lq < 800; lq += 620) {
			struct problem p = {.causal = causal, .scale = 3};

			p.q = draw_contiguous(PB_RT_F32, 4, (int64_t[]){1, 2, lq, 16});
			p.k = draw_contiguous(PB_RT_F32, 4, (int64_t[]){1, 1, 1100, 16});
			p.v = draw_contiguous(PB_RT_F32, 4, (int64_t[]){1, 1, 1100, 16});
			/* The largest scores come last. */
			for (int64_t i = 0; i < 1100 * 16; i++)
				set_at(p.k, i, get_at(p.k, i) * (double)i / 3000);
			check(&p);
		}
	}
}

static void test_threads(void **state)
{
	(void)state;
	draw_state = 43;
	pb_rt_set_threads(3);
	for (int i = 0; i < 5; i++)
		one_drawn(PB_RT_F32, 100);
	pb_rt_set_threads(1);
}

/* As torch 2.13.0 answers: out like empty_like(query), logsumexp [B, H, Lq] over [B, Lq, H]. */
static void test_layout(void **state)
{
	const int64_t sizes[4] = {2, 3, 5, 8};
	const struct {
		int64_t q[4], out[4];
	} rows[] = {
		{{120, 40, 8, 1}, {120, 40, 8, 1}},   {{120, 8, 24, 1}, {120, 8, 24, 1}},
		{{120, 40, 1, 5}, {120, 40, 1, 5}},   {{24, 8, 0, 1}, {120, 40, 8, 1}},
		{{360, 120, 24, 1}, {120, 40, 8, 1}}, {{360, 24, 72, 1}, {120, 8, 24, 1}},
		{{24, 8, 48, 1}, {24, 8, 48, 1}},
	};

	(void)state;
	for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
		struct problem p = {.scale = 1};

		p.q = pb_rt_empty(PB_RT_F32, 4, sizes, rows[r].q);
		fill_storage(p.q);
		p.k = draw_contiguous(PB_RT_F32, 4, sizes);
		p.v = draw_contiguous(PB_RT_F32, 4, sizes);
		assert_int_equal(0, attend(&p));
		for (int i = 0; i < 4; i++)
			assert_int_equal(rows[r].out[i], p.out->strides[i]);
		assert_int_equal(15, p.lse->strides[0]);
		assert_int_equal(1, p.lse->strides[1]);
		assert_int_equal(3, p.lse->strides[2]);
		free_problem(&p);
	}
}

static void test_default_scale_and_empty(void **state)
{
	const int64_t sizes[4] = {1, 1, 3, 16};
	struct problem p = {.scale = 0.25};
	struct pb_rt_tensor *out = NULL, *lse = NULL, *none;

	(void)state;
	p.q = draw_contiguous(PB_RT_F32, 4, sizes);
	p.k = draw_contiguous(PB_RT_F32, 4, sizes);
	p.v = draw_contiguous(PB_RT_F32, 4, sizes);
	assert_int_equal(0, attend(&p));
	assert_int_equal(0, aoti_torch_cpu__scaled_dot_product_flash_attention_for_cpu(
				    p.q, p.k, p.v, 0, 0, NULL, NULL, &out, &lse));
	for (int64_t i = 0; i < 48; i++)
		assert_true(get_at(out, i) == get_at(p.out, i));
	pb_rt_delete(out);
	pb_rt_delete(lse);
	/* No keys: zeros. No queries: nothing. */
	none = pb_rt_empty(PB_RT_F32, 4, (int64_t[]){1, 1, 0, 16}, NULL);
	assert_int_equal(0, aoti_torch_cpu__scaled_dot_product_flash_attention_for_cpu(
				    p.q, none, none, 0, 0, NULL, NULL, &out, &lse));
	for (int64_t i = 0; i < 48; i++)
		assert_true(get_at(out, i) == 0);
	pb_rt_delete(out);
	pb_rt_delete(lse);
	assert_int_equal(0, aoti_torch_cpu__scaled_dot_product_flash_attention_for_cpu(
				    none, p.k, p.v, 0, 0, NULL, NULL, &out, &lse));
	assert_int_equal(0, out->numel);
	pb_rt_delete(out);
	pb_rt_delete(lse);
	pb_rt_delete(none);
	free_problem(&p);
}

static void test_errors(void **state)
{
	struct problem p = {.scale = 1};
	struct pb_rt_tensor *out, *lse;

	(void)state;
	p.q = draw_contiguous(PB_RT_F32, 4, (int64_t[]){1, 3, 2, 8});
	p.k = draw_contiguous(PB_RT_F32, 4, (int64_t[]){1, 2, 2, 8});
	p.v = draw_contiguous(PB_RT_F32, 4, (int64_t[]){1, 2, 2, 8});
	assert_int_equal(1, attend(&p));
	assert_non_null(strstr(pb_rt_last_error(), "[1, 3, 2, 8]"));
	assert_int_equal(1, aoti_torch_cpu__scaled_dot_product_flash_attention_for_cpu(
				    p.k, p.k, p.v, 0.5, 0, NULL, NULL, &out, &lse));
	assert_non_null(strstr(pb_rt_last_error(), "dropout"));
	p.mask = draw_contiguous(PB_RT_F32, 2, (int64_t[]){2, 3});
	assert_int_equal(1, aoti_torch_cpu__scaled_dot_product_flash_attention_for_cpu(
				    p.k, p.k, p.v, 0, 0, &p.mask, NULL, &out, &lse));
	assert_non_null(strstr(pb_rt_last_error(), "[2, 3]"));
	free_problem(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_drawn),
		cmocka_unit_test(test_long),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_default_scale_and_empty),
		cmocka_unit_test(test_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
