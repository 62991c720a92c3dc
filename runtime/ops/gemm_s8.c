/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See gemm_s8.h. A panel of B has pairs of rows: column j of rows 2p and 2p + 1 side by side, as
 * the multiply-and-add instruction for 16-bit numbers wants them. Sums are kept in registers over
 * all of k, so nothing is added to memory.
 */
#include "runtime/ops/gemm_s8.h"

#include <string.h>

#include "runtime/ops/gemm_isa.h"
#include "runtime/ops/parallel.h"
#include "runtime/ops/s8_vnni.h"
#include "runtime/tensor.h"

/* Rows of A in one go: 16-bit copies of them should stay in the second cache. */
#define BLOCK_BYTES (128 * 1024)
#define BLOCK_ROWS 96

static int64_t width(void)
{
	return pb_gemm_isa()->nr[0];
}

static bool quads(void)
{
	return pb_s8_vnni_rows() != NULL;
}

/* k, filled up to whole groups. */
static int64_t depth(int64_t k)
{
	return quads() ? (k + 3) / 4 * 4 : (k + 1) / 2 * 2;
}

static int64_t round_up(int64_t x, int64_t to)
{
	return (x + to - 1) / to * to;
}

static size_t panels_bytes(int64_t k, int64_t n)
{
	return (size_t)(depth(k) * round_up(n, width())) * (quads() ? 1 : sizeof(int16_t));
}

size_t pb_gemm_s8_packed_bytes(int64_t k, int64_t n)
{
	return panels_bytes(k, n) + (size_t)n * sizeof(int32_t);
}

const int32_t *pb_gemm_s8_sums(const void *packed, int64_t k, int64_t n)
{
	return (const int32_t *)((const char *)packed + panels_bytes(k, n));
}

void pb_gemm_s8_pack(const int8_t *b, const int64_t *rows, int64_t cs, int64_t k, int64_t n,
		     void *dst)
{
	const int64_t nr = width(), group = quads() ? 4 : 2;
	int32_t *sums = (int32_t *)((char *)dst + panels_bytes(k, n));

	memset(dst, 0, pb_gemm_s8_packed_bytes(k, n));
	for (int64_t j = 0; j < n; j++)
		for (int64_t p = 0; p < k; p++) {
			const int64_t at = j / nr * nr * depth(k) + p / group * nr * group +
					   j % nr * group + p % group;
			const int8_t v = b[rows[p] + j * cs];

			if (group == 4)
				((int8_t *)dst)[at] = v;
			else
				((int16_t *)dst)[at] = v;
			sums[j] += v;
		}
}

struct job {
	const struct pb_gemm_s8 *g;
	int64_t depth, rows;	    /* rows: in one go */
	int64_t row_part, col_part; /* of one thread */
	int row_parts;
	char *scratch;
	size_t scratch_bytes; /* of one thread */
};

/* Rows of A as bytes, and without VNNI once more as 16-bit numbers. */
static size_t a_bytes(const struct job *j)
{
	return (size_t)round_up(j->rows * j->depth, 64) * (quads() ? 1 : 3);
}

static size_t acc_bytes(const struct job *j)
{
	return (size_t)(j->rows * round_up(j->col_part, width())) * sizeof(int32_t);
}

/* Products of all rows with a panel. */
static void run_panel(const struct job *j, const uint8_t *a, const int16_t *wide, int64_t col,
		      int32_t *c, int64_t stride, int64_t rows)
{
	const char *panel =
		(const char *)j->g->b + (size_t)(col * j->depth) * (wide ? sizeof(int16_t) : 1);

	if (wide)
		pb_gemm_isa()->s8_rows(wide, j->depth, (const int16_t *)panel, j->depth / 2, c,
				       stride, rows);
	else
		pb_s8_vnni_rows()(a, j->depth, (const int8_t *)panel, j->depth / 4, c, stride,
				  rows);
}

static void run_block(const struct job *j, int64_t row, int64_t rows, int64_t col, int64_t cols,
		      char *scratch)
{
	const struct pb_gemm_s8 *g = j->g;
	const int64_t nr = width(), stride = round_up(j->col_part, nr);
	uint8_t *a = (uint8_t *)scratch;
	int16_t *wide = quads() ? NULL : (int16_t *)(scratch + round_up(j->rows * j->depth, 64));
	int32_t *acc = (int32_t *)(scratch + a_bytes(j));

	for (int64_t i = 0; i < rows && j->depth > g->k; i++)
		memset(a + i * j->depth + g->k, 0, (size_t)(j->depth - g->k));
	g->fill(g->ctx, row, rows, a, j->depth);
	for (int64_t i = 0; i < rows * j->depth && wide; i++)
		wide[i] = a[i];
	for (int64_t c = 0; c < cols; c += nr)
		run_panel(j, a, wide, col + c, acc + c, stride, rows);
	g->finish(g->ctx, row, rows, col, cols, acc, stride,
		  (float *)(scratch + a_bytes(j) + acc_bytes(j)));
}

static void run_part(void *arg, int part)
{
	const struct job *j = arg;
	const int64_t row = part % j->row_parts * j->row_part,
		      col = part / j->row_parts * j->col_part;
	const int64_t row_end = row + j->row_part < j->g->m ? row + j->row_part : j->g->m;
	const int64_t cols = j->g->n - col < j->col_part ? j->g->n - col : j->col_part;

	for (int64_t i = row; i < row_end && cols > 0; i += j->rows)
		run_block(j, i, row_end - i < j->rows ? row_end - i : j->rows, col, cols,
			  j->scratch + (size_t)part * j->scratch_bytes);
}

int pb_gemm_s8_run(const struct pb_gemm_s8 *g)
{
	const int threads = pb_parallel_threads(2.0 * (double)g->m * (double)g->n * (double)g->k);
	const bool by_rows = g->m >= 8 * (int64_t)threads;
	struct job j = {.g = g, .depth = depth(g->k)};

	if (g->m == 0 || g->n == 0)
		return 0;
	j.row_parts = by_rows ? threads : 1;
	j.row_part = (g->m + j.row_parts - 1) / j.row_parts;
	j.col_part = by_rows ? g->n : round_up((g->n + threads - 1) / threads, width());
	j.rows = j.depth ? BLOCK_BYTES / (j.depth * 2) : BLOCK_ROWS;
	j.rows = j.rows < 8 ? 8 : j.rows > BLOCK_ROWS ? BLOCK_ROWS : j.rows;
	j.rows = j.rows < j.row_part ? j.rows : j.row_part;
	j.scratch_bytes = (a_bytes(&j) + acc_bytes(&j) + (size_t)j.col_part * sizeof(float) + 127) &
			  ~(size_t)63;
	j.scratch = pb_rt_scratch(j.scratch_bytes * (size_t)threads);
	if (!j.scratch)
		return 1;
	pb_parallel(threads, run_part, &j);
	pb_rt_scratch_free(j.scratch);
	return 0;
}
