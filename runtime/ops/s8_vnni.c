/* SPDX-License-Identifier: Apache-2.0 */
/* See s8_vnni.h. Eight rows by two vectors: 16 sums that do not wait for each other. */
#include "runtime/ops/s8_vnni.h"

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "runtime/ops/gemm_isa.h"

#define ROWS 8
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))

#define TILE(R)                                                                             \
	TARGET static void tile_##R(const uint8_t *a, int64_t a_row, const int8_t *b,       \
				    int64_t quads, int32_t *c, int64_t c_row)               \
	{                                                                                   \
		__m512i acc[R][2];                                                          \
		_Pragma("GCC unroll 8") for (int i = 0; i < R; i++) acc[i][0] = acc[i][1] = \
			_mm512_setzero_si512();                                             \
		for (int64_t q = 0; q < quads; q++) {                                       \
			const __m512i b0 = _mm512_loadu_si512(b + q * 128);                 \
			const __m512i b1 = _mm512_loadu_si512(b + q * 128 + 64);            \
			_Pragma("GCC unroll 8") for (int i = 0; i < R; i++)                 \
			{                                                                   \
				int32_t four;                                               \
				__m512i x;                                                  \
				memcpy(&four, a + i * a_row + 4 * q, sizeof(four));         \
				x = _mm512_set1_epi32(four);                                \
				acc[i][0] = _mm512_dpbusd_epi32(acc[i][0], x, b0);          \
				acc[i][1] = _mm512_dpbusd_epi32(acc[i][1], x, b1);          \
			}                                                                   \
		}                                                                           \
		_Pragma("GCC unroll 8") for (int i = 0; i < R; i++)                         \
		{                                                                           \
			_mm512_storeu_si512(c + i * c_row, acc[i][0]);                      \
			_mm512_storeu_si512(c + i * c_row + 16, acc[i][1]);                 \
		}                                                                           \
	}

TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)
TILE(7)
TILE(8)

static void rows_avx512(const uint8_t *a, int64_t a_row, const int8_t *b, int64_t quads, int32_t *c,
			int64_t c_row, int64_t rows)
{
	static void (*const tiles[])(const uint8_t *, int64_t, const int8_t *, int64_t, int32_t *,
				     int64_t) = {NULL,	 tile_1, tile_2, tile_3, tile_4,
						 tile_5, tile_6, tile_7, tile_8};

	for (int64_t i = 0; i < rows; i += ROWS)
		tiles[rows - i < ROWS ? rows - i : ROWS](a + i * a_row, a_row, b, quads,
							 c + i * c_row, c_row);
}

pb_s8_vnni_fn *pb_s8_vnni_rows(void)
{
	static int has = -1;

	if (has < 0)
		has = pb_gemm_isa() == &pb_gemm_isa_avx512 && __builtin_cpu_supports("avx512vnni");
	return has ? rows_avx512 : NULL;
}
