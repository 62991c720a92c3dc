/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of 8-bit integers, unsigned ones by signed ones, summed exactly in 32 bits: quantised
 * linear layers and convolutions. Rows of A are made by the caller, a few at a time; what becomes
 * of the sums is the caller's too.
 */
#ifndef PT2BOX_RUNTIME_OPS_GEMM_S8_H
#define PT2BOX_RUNTIME_OPS_GEMM_S8_H

#include <stddef.h>
#include <stdint.h>

struct pb_gemm_s8 {
	int64_t m, n, k;
	const void *b; /* from pb_gemm_s8_pack() */
	/* Writes rows [row, row + rows) of A; row i at dst + i * stride. */
	void (*fill)(const void *ctx, int64_t row, int64_t rows, uint8_t *dst, int64_t stride);
	/* Takes the sums of these rows and columns; @tmp has room for @cols floats. */
	void (*finish)(const void *ctx, int64_t row, int64_t rows, int64_t col, int64_t cols,
		       const int32_t *acc, int64_t stride, float *tmp);
	const void *ctx;
};

/* 0, or 1 with the error set (memory refused). fill and finish are called on several threads, for
 * different rows or columns. */
int pb_gemm_s8_run(const struct pb_gemm_s8 *g);

/* B (k x n) in panels, and the sums of its columns; row p of B begins at b + rows[p]. @dst: 64-byte
 * aligned. */
size_t pb_gemm_s8_packed_bytes(int64_t k, int64_t n);
void pb_gemm_s8_pack(const int8_t *b, const int64_t *rows, int64_t cs, int64_t k, int64_t n,
		     void *dst);
const int32_t *pb_gemm_s8_sums(const void *packed, int64_t k, int64_t n);

#endif
