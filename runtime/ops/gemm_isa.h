/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one instruction set offers to the matrix product: a tile kernel and a few row kernels, for
 * float and double. The kernels are compiled once per instruction set (gemm_sse.c, gemm_avx2.c,
 * gemm_avx512.c include gemm_kernel.inc); runtime/ops/gemm.c chooses at run time and does all
 * blocking. Owns nothing.
 */
#ifndef PT2BOX_RUNTIME_OPS_GEMM_ISA_H
#define PT2BOX_RUNTIME_OPS_GEMM_ISA_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/ops/activation.h"

/*
 * One tile: C[mr x nr] = alpha * A B + what is there. A is row major with unit column stride; B is
 * a panel of NR columns, row p at b + p * ldb. "accumulate" adds to C; otherwise beta * self is
 * added, where self_cs is 0 or 1 and self NULL means nothing.
 */
struct pb_gemm_tile {
	int64_t k;
	const void *a;
	int64_t a_row; /* elements between rows of A */
	const void *b;
	int64_t b_row;	 /* elements between rows of a panel */
	int64_t b_panel; /* elements between panels */
	void *c;
	int64_t c_row;
	const void *self;
	int64_t self_row;
	int self_cs;
	bool accumulate;
	double alpha;
	double beta;
};

#define PB_TILE_MAX_ROWS 14
#define PB_TILE_ANY_ROWS 7

/*
 * One tile of a convolution: out[i][j] = init[i][j] + sum over p of x[tap[p] + row[i]] * w[p][j],
 * for a number of rows i (positions) and 1, 2 or 4 vectors of j (output channels). With more than
 * PB_TILE_ANY_ROWS, row[i] must be row[0] + i * x_step. w is a panel of two vectors a row, as of
 * pb_gemm_pack(); with 4 vectors the next panel is used too.
 */
struct pb_conv_tile {
	int64_t k;
	const float *x;
	const int64_t *row;
	int64_t x_step;
	const int64_t *tap;
	const float *w;
	int64_t w_panel; /* elements between panels */
	const float *init;
	int64_t init_row; /* 0: the same for all rows */
	float *out;
	int64_t out_row;
};

struct pb_gemm_isa {
	const char *name;
	/* Rows of the largest tile, columns of a panel: [0] float, [1] double. */
	int mr[2];
	int nr[2];
	/* Rows mr (1..MR) times n columns, n counted over as many panels as needed. */
	void (*rows[2])(const struct pb_gemm_tile *t, int mr, int64_t n);
	/*
	 * C[i][j] = alpha * dot(a_i, b_j) + ..., both with unit stride over k. For few rows of A
	 * and an unpacked, transposed B. c has strides (c_row, c_col), self (self_row, self_cs as
	 * an element stride).
	 */
	void (*dots[2])(const struct pb_gemm_tile *t, int64_t m, int64_t n, int64_t c_col);
	/* dst[i] = widened src[i] */
	void (*from_bf16)(float *dst, const uint16_t *src, int64_t n);
	void (*from_f16)(float *dst, const uint16_t *src, int64_t n);
	/* Rounds to nearest even, as PyTorch does. */
	void (*to_bf16)(uint16_t *dst, const float *src, int64_t n);
	void (*to_f16)(uint16_t *dst, const float *src, int64_t n);
	/* Row kernels of attention and RNN. */
	float (*max_scaled)(float *x, int64_t n, float scale, const float *bias);
	float (*exp_sub_sum)(float *x, int64_t n, float max);
	void (*scale_row)(float *x, int64_t n, float scale);
	void (*lstm_gates)(int64_t n, const float *gates, const float *c_in, float *c_out,
			   float *h_out);
	void (*activate)(float *x, int64_t n, const struct pb_activation *act);
	/* y[i] = bias + sum over t of w[t] * x[tap[t] + i] */
	void (*taps_row)(float *y, const float *x, const int64_t *tap, const float *w, int64_t taps,
			 float bias, int64_t n);
	/* y[c] = bias[c] + sum over t of w[t][c] * x[t][c]; bias may be NULL */
	void (*taps_channels)(float *y, const float *const *x, const float *const *w, int64_t taps,
			      const float *bias, int64_t n);
	/* dst[j * dst_row + i] = src[i * src_row + j] */
	void (*transpose)(float *dst, int64_t dst_row, const float *src, int64_t src_row,
			  int64_t rows, int64_t cols);
	/* rows * vecs <= tile_acc, rows <= PB_TILE_MAX_ROWS */
	void (*conv_tile)(const struct pb_conv_tile *t, int rows, int vecs);
	int tile_acc;
	/* Integer sums of one panel of gemm_s8.c, nr[0] columns: c is written whole. */
	void (*s8_rows)(const int16_t *a, int64_t a_row, const int16_t *b, int64_t pairs,
			int32_t *c, int64_t c_row, int64_t rows);
	/* dst[i] = (acc[i] - minus[i]) * scale[i] + bias[i] */
	void (*s8_dequant)(float *dst, const int32_t *acc, const int32_t *minus, const float *scale,
			   const float *bias, int64_t n);
	/* The low byte of round(src[i] * inv_scale + zero), kept in [lo, hi]. */
	void (*s8_quant)(uint8_t *dst, const float *src, float inv_scale, float zero, float lo,
			 float hi, int64_t n);
	/* nr[0] floats of 4-bit weights: dst[i] = ((src[i] >> shift & 15) - 8) * scale[i] + zero[i]
	 */
	void (*from_int4)(float *dst, const uint8_t *src, int shift, const float *scale,
			  const float *zero);
	/* acc[c] = sum over t of w[t][c] * x[t][c] */
	void (*s8_taps)(int32_t *acc, const uint8_t *const *x, const int8_t *const *w, int64_t taps,
			int64_t n);
	/* ret[r] = sum of a[r][i] * w[i]; rows <= 4 */
	void (*dot_s8)(float *ret, const float *a, int64_t a_row, int64_t rows, const int8_t *w,
		       int64_t k);
	/* c[r] += a[r] times a group of rows of 4-bit weights, as from_int4 widens them; rows <= 4
	 */
	void (*int4_group)(float *c, const float *a, int64_t a_row, int64_t rows,
			   const uint8_t *src, int64_t src_row, int shift, const float *scale,
			   const float *zero, int64_t group);
};

extern const struct pb_gemm_isa pb_gemm_isa_sse;
extern const struct pb_gemm_isa pb_gemm_isa_avx2;
extern const struct pb_gemm_isa pb_gemm_isa_avx512;

/* The best one this machine has (PT2BOX_ISA=sse|avx2|avx512 lowers it, for tests). */
const struct pb_gemm_isa *pb_gemm_isa(void);

#endif
