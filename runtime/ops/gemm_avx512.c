/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of gemm_kernel.inc for AVX-512 (x86-64-v4). Called only after runtime/ops/gemm.c has
 * asked the CPU. */
#include "runtime/ops/gemm_isa.h"

#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(                                                        \
	__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), \
	apply_to = function)
#else
#pragma GCC push_options
#pragma GCC optimize("O3")
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif

#define ISA avx512
#define STRING2(x) #x
#define STRING(x) STRING2(x)
#define FL 16
#define MAXR 12
#define HAVE_F16C 1
#define MADD(a, b) ((vi)_mm512_madd_epi16((__m512i)(a), (__m512i)(b)))
#define FROM_U8(p) _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(p)))
#define FROM_S8(p) _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(p)))
#include "runtime/ops/gemm_kernel.inc"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
