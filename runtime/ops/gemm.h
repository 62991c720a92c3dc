/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocked matrix product of the runtime: float and double, 16-bit inputs widened while they are
 * packed. Used by matmul.c, conv.c, attention.c and rnn.c. Needs no JIT and makes no thread unless
 * pb_rt_threads() > 1.
 */
#ifndef PT2BOX_RUNTIME_OPS_GEMM_H
#define PT2BOX_RUNTIME_OPS_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/ops/gemm_isa.h"

struct AtenTensorOpaque;

struct pb_gemm_in {
	const void *p;
	int64_t rs, cs; /* elements */
	int32_t dtype;
};

/* Fills panels of B for rows [k0, k0 + kc) and columns [j0, j0 + nc): dst[panel][p][NR], zero past
 * column n. */
typedef void (*pb_gemm_pack_fn)(const void *ctx, int64_t k0, int64_t kc, int64_t j0, int64_t nc,
				void *dst);

/*
 * C = alpha * A B + beta * self. C and self have the compute type (float, or double with f64); self
 * NULL adds nothing. self may be C itself with the same strides; A and B must not overlap C.
 */
struct pb_gemm {
	int64_t m, n, k;
	bool f64;
	bool accumulate; /* C += alpha * A B; self is ignored */
	bool serial;	 /* this is already one part of several: make no team */
	struct pb_gemm_in a, b;
	const void *
		b_packed; /* all of B in panels, from pb_gemm_pack(); b then gives only the dtype */
	int64_t b_packed_k;	/* rows that b_packed was made with, if more than k; 0: k */
	pb_gemm_pack_fn pack_b; /* instead of b */
	const void *pack_ctx;
	void *c;
	int64_t c_rs, c_cs;
	const void *self;
	int64_t self_rs, self_cs;
	double alpha, beta;
};

/* 0, or 1 with the error set (memory refused). */
int pb_gemm_run(const struct pb_gemm *g);

/* Panels of B: bytes needed, and the filling. The dtype of B is kept (16-bit panels are widened
 * when used). */
size_t pb_gemm_packed_bytes(int64_t k, int64_t n, int32_t dtype);
void pb_gemm_pack(const struct pb_gemm_in *b, int64_t k, int64_t n, void *dst);

/*
 * The packed form of a constant matrix k x n, made on first use and kept; NULL if it cannot be (not
 * constant, table or budget full, memory refused): then use it unpacked.
 */
const void *pb_gemm_constant(const struct AtenTensorOpaque *t, const struct pb_gemm_in *b,
			     int64_t k, int64_t n);

/*
 * The same for any other form derived from constant storage: @key tells forms of one address apart,
 * @fill makes it. NULL as above.
 */
struct pb_pack_key {
	const void *p;
	int64_t v[6];
};
const void *pb_pack_constant(const struct AtenTensorOpaque *t, const struct pb_pack_key *key,
			     size_t bytes, void (*fill)(const void *ctx, void *dst),
			     const void *ctx);

/* Widen to float / round from float, any of f32, bf16, f16; contiguous. */
void pb_gemm_widen(float *dst, const void *src, int32_t dtype, int64_t n);
void pb_gemm_round(void *dst, int32_t dtype, const float *src, int64_t n);

/* One number rounded to a 16-bit type, as float. */
static inline float pb_gemm_rounded(float v, int32_t dtype)
{
	uint16_t narrow;

	pb_gemm_round(&narrow, dtype, &v, 1);
	pb_gemm_widen(&v, &narrow, dtype, 1);
	return v;
}

struct pb_rt_cache_stats {
	uint64_t entries;
	uint64_t bytes;
	uint64_t hits;
	uint64_t misses;
	uint64_t refused;
};

#endif
