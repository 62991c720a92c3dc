/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of gemm_kernel.inc for x86-64-v2, the least the runtime needs. Called only after
 * runtime/ops/gemm.c has asked the CPU. */
#include "runtime/ops/gemm_isa.h"

#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("sse4.2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC optimize("O3")
#pragma GCC target("sse4.2")
#endif

#define ISA sse
#define STRING2(x) #x
#define STRING(x) STRING2(x)
#define FL 4
#define MAXR 4

#define MADD(a, b) ((vi)_mm_madd_epi16((__m128i)(a), (__m128i)(b)))
#define FROM_U8(p) _mm_cvtepu8_epi32(_mm_loadu_si32(p))
#define FROM_S8(p) _mm_cvtepi8_epi32(_mm_loadu_si32(p))
#include "runtime/ops/gemm_kernel.inc"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
