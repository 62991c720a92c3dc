/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocking and packing for the matrix product. Follows the usual scheme (Goto, BLIS): a panel of B
 * stays in L1, a block of A in L2, the tile of C in registers. A is used in place when its rows are
 * contiguous, since a tile reads six rows at unit stride anyway; B is used in place for few rows.
 * Owns no memory between calls; the cache of packed constants is in pack_cache.c.
 */
#include "runtime/ops/gemm.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/ops/parallel.h"
#include "runtime/tensor.h"

#define KC 256
#define MC 192
#define NC 256
#define A_IN_L2 (512 << 10)

static const struct pb_gemm_isa *chosen_isa;

static const struct pb_gemm_isa *choose_isa(void)
{
	const char *want = getenv("PT2BOX_ISA");
	const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
	const bool v4 = v3 && __builtin_cpu_supports("avx512f") &&
			__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
			__builtin_cpu_supports("avx512vl");

	if (want && !strcmp(want, "sse"))
		return &pb_gemm_isa_sse;
	if (want && !strcmp(want, "avx2"))
		return v3 ? &pb_gemm_isa_avx2 : &pb_gemm_isa_sse;
	if (v4)
		return &pb_gemm_isa_avx512;
	return v3 ? &pb_gemm_isa_avx2 : &pb_gemm_isa_sse;
}

const struct pb_gemm_isa *pb_gemm_isa(void)
{
	if (!chosen_isa) {
		__builtin_cpu_init();
		chosen_isa = choose_isa();
	}
	return chosen_isa;
}

static int64_t min64(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static int64_t div_up(int64_t a, int64_t b)
{
	return (a + b - 1) / b;
}

void pb_gemm_widen(float *dst, const void *src, int32_t dtype, int64_t n)
{
	if (dtype == PB_RT_BF16)
		pb_gemm_isa()->from_bf16(dst, src, n);
	else if (dtype == PB_RT_F16)
		pb_gemm_isa()->from_f16(dst, src, n);
	else
		memcpy(dst, src, n * sizeof(float));
}

void pb_gemm_round(void *dst, int32_t dtype, const float *src, int64_t n)
{
	if (dtype == PB_RT_BF16)
		pb_gemm_isa()->to_bf16(dst, src, n);
	else if (dtype == PB_RT_F16)
		pb_gemm_isa()->to_f16(dst, src, n);
	else
		memcpy(dst, src, n * sizeof(float));
}

static size_t elem_size(int32_t dtype)
{
	return dtype == PB_RT_F64 ? 8 : dtype == PB_RT_F32 ? 4 : 2;
}

static const void *at(const struct pb_gemm_in *x, int64_t row, int64_t col)
{
	return (const char *)x->p + (row * x->rs + col * x->cs) * (int64_t)elem_size(x->dtype);
}

/* ---- panels of B, in the dtype of B ---- */

#define PACK(NAME, T)                                                                    \
	static void NAME(const struct pb_gemm_in *b, int64_t k0, int64_t kc, int64_t j0, \
			 int64_t nv, int nr, T *dst)                                     \
	{                                                                                \
		const T *src = (const T *)b->p + k0 * b->rs + j0 * b->cs;                \
                                                                                         \
		if (b->cs == 1 && nv == nr) {                                            \
			for (int64_t p = 0; p < kc; p++)                                 \
				memcpy(dst + p * nr, src + p * b->rs, nr * sizeof(T));   \
			return;                                                          \
		}                                                                        \
		for (int64_t p = 0; p < kc; p++) {                                       \
			for (int64_t j = 0; j < nv; j++)                                 \
				dst[p * nr + j] = src[p * b->rs + j * b->cs];            \
			for (int64_t j = nv; j < nr; j++)                                \
				dst[p * nr + j] = 0;                                     \
		}                                                                        \
	}

PACK(pack_panel16, uint16_t)
PACK(pack_panel32, float)
PACK(pack_panel64, double)

static void pack_panel(const struct pb_gemm_in *b, int64_t k0, int64_t kc, int64_t j0, int64_t nv,
		       void *dst)
{
	const struct pb_gemm_isa *isa = pb_gemm_isa();

	if (b->dtype == PB_RT_F64)
		pack_panel64(b, k0, kc, j0, nv, isa->nr[1], dst);
	else if (b->dtype != PB_RT_F32)
		pack_panel16(b, k0, kc, j0, nv, isa->nr[0], dst);
	else if (b->rs == 1 && nv == isa->nr[0])
		isa->transpose(dst, nv, at(b, k0, j0), b->cs, nv, kc);
	else
		pack_panel32(b, k0, kc, j0, nv, isa->nr[0], dst);
}

size_t pb_gemm_packed_bytes(int64_t k, int64_t n, int32_t dtype)
{
	const int nr = pb_gemm_isa()->nr[dtype == PB_RT_F64];

	return (size_t)div_up(n, nr) * nr * k * elem_size(dtype);
}

void pb_gemm_pack(const struct pb_gemm_in *b, int64_t k, int64_t n, void *dst)
{
	const int nr = pb_gemm_isa()->nr[b->dtype == PB_RT_F64];

	for (int64_t j = 0; j < n; j += nr)
		pack_panel(b, 0, k, j, min64(nr, n - j),
			   (char *)dst + (size_t)j * k * elem_size(b->dtype));
}

/* ---- blocks of A as contiguous rows of the compute type ---- */

static void widen_strided(float *dst, const uint16_t *src, int64_t stride, int32_t dtype, int64_t n)
{
	uint16_t tmp[64];

	for (int64_t i = 0; i < n; i += 64) {
		const int64_t c = min64(64, n - i);

		for (int64_t j = 0; j < c; j++)
			tmp[j] = src[(i + j) * stride];
		pb_gemm_widen(dst + i, tmp, dtype, c);
	}
}

static void copy_a(const struct pb_gemm *g, int64_t i0, int64_t mc, int64_t k0, int64_t kc,
		   void *dst)
{
	const struct pb_gemm_in *a = &g->a;

	for (int64_t i = 0; i < mc; i++) {
		const void *src = at(a, i0 + i, k0);

		if (a->dtype == PB_RT_F64) {
			double *d = (double *)dst + i * kc;

			for (int64_t p = 0; p < kc; p++)
				d[p] = ((const double *)src)[p * a->cs];
		} else if (a->dtype == PB_RT_F32) {
			float *d = (float *)dst + i * kc;

			for (int64_t p = 0; p < kc; p++)
				d[p] = ((const float *)src)[p * a->cs];
		} else if (a->cs == 1) {
			pb_gemm_widen((float *)dst + i * kc, src, a->dtype, kc);
		} else {
			widen_strided((float *)dst + i * kc, src, a->cs, a->dtype, kc);
		}
	}
}

/* ---- one thread's part ---- */

struct span {
	int64_t i0, m, j0, n;
};

/* Scratch of one thread: a block of A, a block of B panels, one widened panel. */
struct need {
	size_t a, b, wide;
};

static bool wide_dtype(const struct pb_gemm *g)
{
	return g->a.dtype == (g->f64 ? PB_RT_F64 : PB_RT_F32);
}

static bool a_in_place(const struct pb_gemm *g)
{
	return g->a.cs == 1 && wide_dtype(g);
}

static bool b_narrow(const struct pb_gemm *g)
{
	return !g->pack_b && (g->b.dtype == PB_RT_BF16 || g->b.dtype == PB_RT_F16);
}

static int64_t k_block(const struct pb_gemm *g, int mr)
{
	int64_t blocks;

	if (g->m <= mr && g->b_packed && !b_narrow(g))
		return g->k; /* each panel is used once: nothing to keep in L1 */
	blocks = div_up(g->k, KC);
	return min64(g->k, div_up(div_up(g->k, blocks), 8) * 8);
}

static struct need scratch_need(const struct pb_gemm *g)
{
	const struct pb_gemm_isa *isa = pb_gemm_isa();
	const int64_t kc = k_block(g, isa->mr[g->f64]);
	const size_t esz = g->f64 ? 8 : 4;
	const int nr = isa->nr[g->f64];
	struct need need = {0};

	if (!a_in_place(g))
		need.a = (size_t)min64(MC, g->m) * kc * esz;
	if (!g->b_packed)
		need.b = (size_t)div_up(min64(NC, g->n), nr) * nr * kc * esz;
	if (g->pack_b)
		need.b += 64 * esz; /* packers may write up to a row too much */
	if (b_narrow(g))
		need.wide = (size_t)nr * kc * esz;
	need.a = (need.a + 63) & ~(size_t)63;
	need.b = (need.b + 63) & ~(size_t)63;
	need.wide = (need.wide + 63) & ~(size_t)63;
	return need;
}

/* Tiles of as equal height as possible: a lone last row would run at the latency of the FMA, not at
 * its rate. */
static void tile_rows(const struct pb_gemm_isa *isa, const struct pb_gemm *g,
		      struct pb_gemm_tile *t, int64_t mc, int64_t n)
{
	const int mr = isa->mr[g->f64];
	const int64_t tiles = div_up(mc, mr);
	const size_t esz = g->f64 ? 8 : 4;
	int64_t left = mc;

	for (int64_t i = 0; i < tiles; i++) {
		const int rows = (int)div_up(left, tiles - i);

		isa->rows[g->f64](t, rows, n);
		left -= rows;
		t->a = (const char *)t->a + rows * t->a_row * esz;
		t->c = (char *)t->c + rows * t->c_row * esz;
		if (t->self)
			t->self = (const char *)t->self + rows * t->self_row * esz;
	}
}

/* Panels [j0, j0 + nc) of one k block against rows [i0, i0 + mc). b points to panel j0 at row k0.
 */
static void block_rows(const struct pb_gemm *g, const struct pb_gemm_tile *proto, int64_t mc,
		       int64_t nc, float *wide)
{
	const struct pb_gemm_isa *isa = pb_gemm_isa();
	const int nr = isa->nr[g->f64];
	const size_t esz = g->f64 ? 8 : 4;
	const size_t bsz = elem_size(g->b.dtype);

	if (mc <= isa->mr[g->f64] && !wide) {
		struct pb_gemm_tile t = *proto;

		isa->rows[g->f64](&t, (int)mc, nc);
		return;
	}
	for (int64_t j = 0; j < nc; j += nr) {
		struct pb_gemm_tile t = *proto;

		if (wide) {
			pb_gemm_widen(wide, (const char *)t.b + (j / nr) * t.b_panel * bsz,
				      g->b.dtype, t.k * nr);
			t.b = wide;
		} else {
			t.b = (const char *)t.b + (j / nr) * t.b_panel * esz;
		}
		t.c = (char *)t.c + j * esz;
		if (t.self && t.self_cs)
			t.self = (const char *)t.self + j * esz;
		tile_rows(isa, g, &t, mc, min64(nr, nc - j));
	}
}

static void fill_b(const struct pb_gemm *g, int64_t k0, int64_t kc, int64_t j0, int64_t nc,
		   char *dst, float *wide)
{
	const struct pb_gemm_isa *isa = pb_gemm_isa();
	const int nr = isa->nr[g->f64];
	const size_t esz = g->f64 ? 8 : 4;

	if (g->pack_b) {
		g->pack_b(g->pack_ctx, k0, kc, j0, nc, dst);
		return;
	}
	for (int64_t j = 0; j < nc; j += nr, dst += kc * nr * esz) {
		if (wide) {
			pack_panel(&g->b, k0, kc, j0 + j, min64(nr, nc - j), wide);
			pb_gemm_widen((float *)dst, wide, g->b.dtype, kc * nr);
		} else {
			pack_panel(&g->b, k0, kc, j0 + j, min64(nr, nc - j), dst);
		}
	}
}

/*
 * Columns that all k blocks are done for before the next columns: not all of them even if B is
 * packed, or a wide C goes through memory for each k block. One panel, so that constants are read
 * in one stream, if then A, read again for each panel, stays in L2.
 */
static int64_t n_block(const struct pb_gemm *g, struct span s, int64_t kb)
{
	const size_t esz = g->f64 ? 8 : 4;

	if (!g->b_packed || s.m * g->k * esz > A_IN_L2)
		return NC;
	return kb < g->k ? pb_gemm_isa()->nr[g->f64] : s.n;
}

static void run_span(const struct pb_gemm *g, struct span s, char *scratch, struct need need)
{
	const struct pb_gemm_isa *isa = pb_gemm_isa();
	const int nr = isa->nr[g->f64];
	const size_t esz = g->f64 ? 8 : 4;
	const int64_t kb = k_block(g, isa->mr[g->f64]);
	const int64_t nb = n_block(g, s, kb);
	char *a_buf = scratch, *b_buf = scratch + need.a;
	float *wide = need.wide ? (float *)(scratch + need.a + need.b) : NULL;
	struct pb_gemm_tile t = {.b_row = nr, .c_row = g->c_rs, .alpha = g->alpha, .beta = g->beta};

	t.self_row = g->self_rs;
	t.self_cs = (int)g->self_cs;
	for (int64_t j = 0; j < s.n; j += nb) {
		const int64_t nc = min64(nb, s.n - j);

		for (int64_t k0 = 0; k0 < g->k; k0 += kb) {
			const int64_t kc = min64(kb, g->k - k0);

			t.k = kc;
			t.accumulate = g->accumulate || k0 > 0;
			if (g->b_packed) {
				const int64_t rows = g->b_packed_k ? g->b_packed_k : g->k;

				t.b_panel = rows * nr;
				t.b = (const char *)g->b_packed +
				      ((s.j0 + j) * rows + k0 * nr) * elem_size(g->b.dtype);
			} else {
				t.b_panel = kc * nr;
				t.b = b_buf;
				fill_b(g, k0, kc, s.j0 + j, nc, b_buf, wide);
			}
			for (int64_t i = 0; i < s.m; i += MC) {
				const int64_t mc = min64(MC, s.m - i);

				if (need.a) {
					copy_a(g, s.i0 + i, mc, k0, kc, a_buf);
					t.a = a_buf;
					t.a_row = kc;
				} else {
					t.a = at(&g->a, s.i0 + i, k0);
					t.a_row = g->a.rs;
				}
				t.c = (char *)g->c + ((s.i0 + i) * g->c_rs + s.j0 + j) * esz;
				t.self = NULL;
				if (g->self)
					t.self = (const char *)g->self + ((s.i0 + i) * g->self_rs +
									  (s.j0 + j) * g->self_cs) *
										 esz;
				block_rows(g, &t, mc, nc, g->b_packed ? wide : NULL);
			}
		}
	}
}

/* ---- unpacked B for few rows ---- */

/* C = beta * self where there is nothing to multiply. */
static void only_self(const struct pb_gemm *g)
{
	for (int64_t i = 0; i < g->m && !g->accumulate; i++) {
		for (int64_t j = 0; j < g->n; j++) {
			const int64_t ci = i * g->c_rs + j * g->c_cs,
				      si = i * g->self_rs + j * g->self_cs;

			if (g->f64)
				((double *)g->c)[ci] =
					g->self ? g->beta * ((const double *)g->self)[si] : 0;
			else
				((float *)g->c)[ci] =
					g->self ? (float)g->beta * ((const float *)g->self)[si] : 0;
		}
	}
}

static struct pb_gemm transposed(const struct pb_gemm *g)
{
	struct pb_gemm r = *g;

	r.m = g->n;
	r.n = g->m;
	r.a = (struct pb_gemm_in){g->b.p, g->b.cs, g->b.rs, g->b.dtype};
	r.b = (struct pb_gemm_in){g->a.p, g->a.cs, g->a.rs, g->a.dtype};
	r.c_rs = g->c_cs;
	r.c_cs = g->c_rs;
	r.self_rs = g->self_cs;
	r.self_cs = g->self_rs;
	return r;
}

static bool all_wide(const struct pb_gemm *g)
{
	const int32_t dtype = g->f64 ? PB_RT_F64 : PB_RT_F32;

	return g->a.dtype == dtype && g->b.dtype == dtype;
}

static bool try_dots(const struct pb_gemm *g)
{
	struct pb_gemm_tile t;

	if (g->m > 4 || g->a.cs != 1 || g->b.rs != 1 || !all_wide(g))
		return false;
	t = (struct pb_gemm_tile){
		.k = g->k,
		.a = g->a.p,
		.a_row = g->a.rs,
		.b = g->b.p,
		.b_row = g->b.cs,
		.c = g->c,
		.c_row = g->c_rs,
		.self = g->self,
		.self_row = g->self_rs,
		.self_cs = (int)g->self_cs,
		.accumulate = g->accumulate,
		.alpha = g->alpha,
		.beta = g->beta,
	};
	pb_gemm_isa()->dots[g->f64](&t, g->m, g->n, g->c_cs);
	return true;
}

/* Rows of B in place as panels; the ragged last panel is copied. */
static bool try_direct_b(const struct pb_gemm *g)
{
	const struct pb_gemm_isa *isa = pb_gemm_isa();
	const int nr = isa->nr[g->f64];
	const size_t esz = g->f64 ? 8 : 4;
	const int64_t whole = g->n / nr * nr, rest = g->n - whole;
	struct pb_gemm_tile t = {.k = g->k};
	char *tail = NULL;

	if (g->m > 2 * isa->mr[g->f64] || g->b.cs != 1 || g->a.cs != 1 || !all_wide(g))
		return false;
	t.a_row = g->a.rs;
	t.c_row = g->c_rs;
	t.self_row = g->self_rs;
	t.self_cs = (int)g->self_cs;
	t.accumulate = g->accumulate;
	t.alpha = g->alpha;
	t.beta = g->beta;
	if (whole) {
		t.a = g->a.p;
		t.b = g->b.p;
		t.b_row = g->b.rs;
		t.b_panel = nr;
		t.c = g->c;
		t.self = g->self;
		tile_rows(isa, g, &t, g->m, whole);
	}
	if (rest) {
		tail = pb_rt_scratch((size_t)g->k * nr * esz);
		if (!tail)
			return false; /* the packed path reports it */
		pack_panel(&g->b, 0, g->k, whole, rest, tail);
		t.a = g->a.p;
		t.b = tail;
		t.b_row = nr;
		t.b_panel = 0;
		t.c = (char *)g->c + whole * esz;
		t.self = g->self;
		if (t.self && t.self_cs)
			t.self = (const char *)t.self + whole * esz;
		tile_rows(isa, g, &t, g->m, rest);
		pb_rt_scratch_free(tail);
	}
	return true;
}

/* ---- entry ---- */

static void spans_of(const struct pb_gemm *g, int threads, struct span *spans)
{
	const int nr = pb_gemm_isa()->nr[g->f64];
	const int64_t panels = div_up(g->n, nr);
	const bool by_columns = panels >= 2 * threads || g->m < 2 * threads;

	for (int i = 0; i < threads; i++) {
		if (by_columns) {
			const int64_t lo = min64(panels * i / threads * nr, g->n);
			const int64_t hi = min64(panels * (i + 1) / threads * nr, g->n);

			spans[i] = (struct span){0, g->m, lo, hi - lo};
		} else {
			const int64_t lo = g->m * i / threads, hi = g->m * (i + 1) / threads;

			spans[i] = (struct span){lo, hi - lo, 0, g->n};
		}
	}
}

struct team {
	const struct pb_gemm *g;
	const struct span *spans;
	char *scratch;
	size_t each;
	struct need need;
};

static void team_part(void *arg, int part)
{
	const struct team *t = arg;

	run_span(t->g, t->spans[part], t->scratch + part * t->each, t->need);
}

static int run_blocked(const struct pb_gemm *g)
{
	const struct need need = scratch_need(g);
	const size_t each = need.a + need.b + need.wide;
	const int threads =
		g->serial ? 1
			  : pb_parallel_threads(2.0 * (double)g->m * (double)g->n * (double)g->k);
	struct span spans[PB_MAX_THREADS];
	char *scratch = NULL;

	if (each) {
		scratch = pb_rt_scratch(each * threads);
		if (!scratch)
			return 1;
	}
	if (threads == 1) {
		run_span(g, (struct span){0, g->m, 0, g->n}, scratch, need);
	} else {
		struct team team = {g, spans, scratch, each, need};

		spans_of(g, threads, spans);
		pb_parallel(threads, team_part, &team);
	}
	if (scratch)
		pb_rt_scratch_free(scratch);
	return 0;
}

static void copy_out(const struct pb_gemm *g, const void *tmp)
{
	for (int64_t i = 0; i < g->m; i++)
		for (int64_t j = 0; j < g->n; j++) {
			if (g->f64)
				((double *)g->c)[i * g->c_rs + j * g->c_cs] =
					((const double *)tmp)[i * g->n + j];
			else
				((float *)g->c)[i * g->c_rs + j * g->c_cs] =
					((const float *)tmp)[i * g->n + j];
		}
}

/* A self whose columns are neither contiguous nor all the same cannot be read by vectors: add it
 * beforehand. */
static int run_odd_self(const struct pb_gemm *g)
{
	struct pb_gemm inner = *g;

	only_self(g);
	inner.self = NULL;
	inner.accumulate = true;
	return pb_gemm_run(&inner);
}

static int run_odd_c(const struct pb_gemm *g)
{
	struct pb_gemm inner = *g;
	void *tmp = pb_rt_scratch((size_t)g->m * g->n * (g->f64 ? 8 : 4));
	int rc;

	if (!tmp)
		return 1;
	if (g->accumulate) {
		inner.self = g->c;
		inner.self_rs = g->c_rs;
		inner.self_cs = g->c_cs;
		inner.beta = 1;
		inner.accumulate = false;
	}
	inner.c = tmp;
	inner.c_rs = g->n;
	inner.c_cs = 1;
	rc = pb_gemm_run(&inner);
	if (!rc)
		copy_out(g, tmp);
	pb_rt_scratch_free(tmp);
	return rc;
}

int pb_gemm_run(const struct pb_gemm *g)
{
	struct pb_gemm r = *g;

	if (r.m <= 0 || r.n <= 0)
		return 0;
	if (r.k <= 0) {
		only_self(&r);
		return 0;
	}
	if (!r.self || r.accumulate) {
		r.self = NULL;
		r.self_rs = r.self_cs = 0;
	}
	if (r.n == 1) {
		r.c_cs = 1;
		r.self_cs = 0;
		if (r.b.rs == 1)
			r.b.cs = r.k;
	}
	if (r.k == 1) {
		r.a.cs = 1;
		if (r.n > 1 && r.b.cs != 1)
			r.b.rs = 1;
	}
	if (r.b_packed || r.pack_b)
		return r.c_cs == 1 && (r.self_cs == 0 || r.self_cs == 1) ? run_blocked(&r)
		       : r.c_cs == 1					 ? run_odd_self(&r)
									 : run_odd_c(&r);
	if (r.n <= 4 && r.n < r.m) {
		const struct pb_gemm s = transposed(&r);

		if (try_dots(&s))
			return 0;
	}
	if (try_dots(&r))
		return 0;
	if (r.c_cs != 1 && r.c_rs == 1)
		r = transposed(&r);
	if (r.c_cs != 1)
		return run_odd_c(&r);
	if (r.self_cs != 0 && r.self_cs != 1)
		return run_odd_self(&r);
	if (try_direct_b(&r))
		return 0;
	return run_blocked(&r);
}
