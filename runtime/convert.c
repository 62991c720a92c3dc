/* SPDX-License-Identifier: Apache-2.0 */
/* See convert.h. What C leaves undefined (floats too large for an integer) is what x86 does, as in
 * PyTorch there. */
#include "runtime/convert.h"

#include <complex.h>

#include "runtime/ops/gemm.h"
#include "runtime/tensor.h"

/* Wide types. I32 and U32 are stored from 64 bits, after a float has been brought into 32 as the
 * conversion of x86 does. */
enum kind { K_NONE, K_I64, K_U64, K_F, K_D, K_C, K_Z, K_I32, K_U32, K_BOOL };

union block {
	int64_t i[PB_CONVERT_BLOCK];
	uint64_t u[PB_CONVERT_BLOCK];
	float f[PB_CONVERT_BLOCK];
	double d[PB_CONVERT_BLOCK];
	float complex c[PB_CONVERT_BLOCK];
	double complex z[PB_CONVERT_BLOCK];
};

static enum kind load_kind(int32_t dtype)
{
	switch (dtype) {
	case PB_RT_U8:
	case PB_RT_I8:
	case PB_RT_I16:
	case PB_RT_I32:
	case PB_RT_I64:
	case PB_RT_BOOL:
	case PB_RT_U16:
	case PB_RT_U32:
		return K_I64;
	case PB_RT_U64:
		return K_U64;
	case PB_RT_F64:
		return K_D;
	case PB_RT_C32:
	case PB_RT_C64:
		return K_C;
	case PB_RT_C128:
		return K_Z;
	case PB_RT_F4X2:
		return K_NONE;
	default:
		return pb_rt_dtype_size(dtype) ? K_F : K_NONE;
	}
}

/* What a value becomes before it is stored. uint8 goes through int64 in PyTorch, the other small
 * ones through int32. */
static enum kind store_kind(int32_t dtype)
{
	switch (dtype) {
	case PB_RT_I8:
	case PB_RT_I16:
	case PB_RT_I32:
	case PB_RT_U16:
		return K_I32;
	case PB_RT_U32:
		return K_U32;
	case PB_RT_BOOL:
		return K_BOOL;
	default:
		return load_kind(dtype);
	}
}

/* ---- load and store ---- */

#define LOAD(member, type)              \
	for (int64_t k = 0; k < n; k++) \
	b->member[k] = ((const type *)src)[k * stride]

static void load_f8(float *dst, const uint8_t *src, int32_t dtype, int64_t stride, int64_t n)
{
	for (int64_t k = 0; k < n; k++)
		dst[k] = pb_rt_f8_to_float(src[k * stride], dtype);
}

static void load_16bit(float *dst, const uint16_t *src, int32_t dtype, int64_t stride, int64_t n)
{
	uint16_t dense[PB_CONVERT_BLOCK];

	for (int64_t k = 0; k < n && stride != 1; k++)
		dense[k] = src[k * stride];
	pb_gemm_widen(dst, stride == 1 ? src : dense, dtype, n);
}

static void load_c32(float complex *dst, const uint16_t *src, int64_t stride, int64_t n)
{
	for (int64_t k = 0; k < n; k++)
		pb_gemm_widen((float *)&dst[k], src + 2 * k * stride, PB_RT_F16, 2);
}

static void load(union block *b, const void *src, int32_t dtype, int64_t stride, int64_t n)
{
	switch (dtype) {
	case PB_RT_BOOL:
		for (int64_t k = 0; k < n; k++)
			b->i[k] = ((const uint8_t *)src)[k * stride] != 0;
		break;
	case PB_RT_U8:
		LOAD(i, uint8_t);
		break;
	case PB_RT_I8:
		LOAD(i, int8_t);
		break;
	case PB_RT_I16:
		LOAD(i, int16_t);
		break;
	case PB_RT_U16:
		LOAD(i, uint16_t);
		break;
	case PB_RT_I32:
		LOAD(i, int32_t);
		break;
	case PB_RT_U32:
		LOAD(i, uint32_t);
		break;
	case PB_RT_I64:
		LOAD(i, int64_t);
		break;
	case PB_RT_U64:
		LOAD(u, uint64_t);
		break;
	case PB_RT_F32:
		LOAD(f, float);
		break;
	case PB_RT_F64:
		LOAD(d, double);
		break;
	case PB_RT_C64:
		LOAD(c, float complex);
		break;
	case PB_RT_C128:
		LOAD(z, double complex);
		break;
	case PB_RT_C32:
		load_c32(b->c, src, stride, n);
		break;
	case PB_RT_F16:
	case PB_RT_BF16:
		load_16bit(b->f, src, dtype, stride, n);
		break;
	default:
		load_f8(b->f, src, dtype, stride, n);
	}
}

#define STORE(member, type)             \
	for (int64_t k = 0; k < n; k++) \
	((type *)dst)[k * stride] = (type)b->member[k]

static void store_16bit(uint16_t *dst, const float *src, int32_t dtype, int64_t stride, int64_t n)
{
	uint16_t dense[PB_CONVERT_BLOCK];

	pb_gemm_round(stride == 1 ? dst : dense, dtype, src, n);
	for (int64_t k = 0; k < n && stride != 1; k++)
		dst[k * stride] = dense[k];
}

static void store_f8(uint8_t *dst, const float *src, int32_t dtype, int64_t stride, int64_t n)
{
	for (int64_t k = 0; k < n; k++)
		dst[k * stride] = pb_rt_f8_from_float(src[k], dtype);
}

static void store_c32(uint16_t *dst, const float complex *src, int64_t stride, int64_t n)
{
	for (int64_t k = 0; k < n; k++)
		pb_gemm_round(dst + 2 * k * stride, PB_RT_F16, (const float *)&src[k], 2);
}

static void store(void *dst, int32_t dtype, int64_t stride, const union block *b, int64_t n)
{
	switch (dtype) {
	case PB_RT_BOOL:
	case PB_RT_U8:
	case PB_RT_I8:
		STORE(i, uint8_t);
		break;
	case PB_RT_I16:
	case PB_RT_U16:
		STORE(i, uint16_t);
		break;
	case PB_RT_I32:
	case PB_RT_U32:
		STORE(i, uint32_t);
		break;
	case PB_RT_I64:
	case PB_RT_U64:
		STORE(u, uint64_t);
		break;
	case PB_RT_F32:
		STORE(f, float);
		break;
	case PB_RT_F64:
		STORE(d, double);
		break;
	case PB_RT_C64:
		STORE(c, float complex);
		break;
	case PB_RT_C128:
		STORE(z, double complex);
		break;
	case PB_RT_C32:
		store_c32(dst, b->c, stride, n);
		break;
	case PB_RT_F16:
	case PB_RT_BF16:
		store_16bit(dst, b->f, dtype, stride, n);
		break;
	default:
		store_f8(dst, b->f, dtype, stride, n);
	}
}

/* ---- between the wide types ---- */

static int64_t to_i64(double v)
{
	return v >= -0x1p63 && v < 0x1p63 ? (int64_t)v : INT64_MIN;
}

static int64_t to_i32(double v)
{
	return v > -0x1p31 - 1 && v < 0x1p31 ? (int64_t)v : INT32_MIN;
}

/* There is no unsigned conversion below AVX-512: compilers use the signed one, for large values
 * with an offset. */
static uint64_t to_u64(double v)
{
	return v >= 0x1p63 ? (uint64_t)to_i64(v - 0x1p63) ^ UINT64_C(1) << 63 : (uint64_t)to_i64(v);
}

static uint64_t to_u32(double v)
{
	return v >= 0x1p31 ? (uint64_t)to_i32(v - 0x1p31) ^ UINT64_C(1) << 31 : (uint64_t)to_i32(v);
}

#define EACH(expr)                      \
	for (int64_t k = 0; k < n; k++) \
	expr

/* Every float type to every wide type; V is the real part. */
#define FROM_FLOAT(V, NONZERO)                         \
	switch (to) {                                  \
	case K_I32:                                    \
		EACH(out->i[k] = to_i32((double)(V))); \
		break;                                 \
	case K_U32:                                    \
		EACH(out->u[k] = to_u32((double)(V))); \
		break;                                 \
	case K_I64:                                    \
		EACH(out->i[k] = to_i64((double)(V))); \
		break;                                 \
	case K_U64:                                    \
		EACH(out->u[k] = to_u64((double)(V))); \
		break;                                 \
	case K_F:                                      \
		EACH(out->f[k] = (float)(V));          \
		break;                                 \
	case K_D:                                      \
		EACH(out->d[k] = (double)(V));         \
		break;                                 \
	case K_BOOL:                                   \
		EACH(out->i[k] = (NONZERO));           \
		break;                                 \
	default:                                       \
		break;                                 \
	}

#define FROM_INT(V)                              \
	switch (to) {                            \
	case K_I32:                              \
	case K_U32:                              \
	case K_I64:                              \
	case K_U64:                              \
		EACH(out->u[k] = (uint64_t)(V)); \
		break;                           \
	case K_F:                                \
		EACH(out->f[k] = (float)(V));    \
		break;                           \
	case K_D:                                \
		EACH(out->d[k] = (double)(V));   \
		break;                           \
	case K_C:                                \
		EACH(out->c[k] = (float)(V));    \
		break;                           \
	case K_Z:                                \
		EACH(out->z[k] = (double)(V));   \
		break;                           \
	case K_BOOL:                             \
		EACH(out->i[k] = (V) != 0);      \
		break;                           \
	default:                                 \
		break;                           \
	}

static void from_float(union block *out, enum kind to, const float *v, int64_t n)
{
	FROM_FLOAT(v[k], v[k] != 0)
	if (to == K_C)
		EACH(out->c[k] = v[k]);
	if (to == K_Z)
		EACH(out->z[k] = (double)v[k]);
}

static void from_double(union block *out, enum kind to, const double *v, int64_t n)
{
	FROM_FLOAT(v[k], v[k] != 0)
	if (to == K_C)
		EACH(out->c[k] = (float)v[k]);
	if (to == K_Z)
		EACH(out->z[k] = v[k]);
}

static void from_complex_float(union block *out, enum kind to, const float complex *v, int64_t n)
{
	FROM_FLOAT(crealf(v[k]), crealf(v[k]) != 0 || cimagf(v[k]) != 0)
	if (to == K_C)
		EACH(out->c[k] = v[k]);
	if (to == K_Z)
		EACH(out->z[k] = (double complex)v[k]);
}

static void from_complex_double(union block *out, enum kind to, const double complex *v, int64_t n)
{
	FROM_FLOAT(creal(v[k]), creal(v[k]) != 0 || cimag(v[k]) != 0)
	if (to == K_C)
		EACH(out->c[k] = (float complex)v[k]);
	if (to == K_Z)
		EACH(out->z[k] = v[k]);
}

static void from_int(union block *out, enum kind to, const int64_t *v, int64_t n)
{
	FROM_INT(v[k])
}

static void from_uint(union block *out, enum kind to, const uint64_t *v, int64_t n)
{
	FROM_INT(v[k])
}

static void change(union block *out, enum kind to, const union block *in, enum kind from, int64_t n)
{
	switch (from) {
	case K_F:
		from_float(out, to, in->f, n);
		break;
	case K_D:
		from_double(out, to, in->d, n);
		break;
	case K_C:
		from_complex_float(out, to, in->c, n);
		break;
	case K_Z:
		from_complex_double(out, to, in->z, n);
		break;
	case K_U64:
		from_uint(out, to, in->u, n);
		break;
	default:
		from_int(out, to, in->i, n);
	}
}

int pb_rt_convert(void *dst, int32_t dst_dtype, int64_t dst_stride, const void *src,
		  int32_t src_dtype, int64_t src_stride, int64_t n)
{
	const enum kind from = load_kind(src_dtype), to = store_kind(dst_dtype);
	const int64_t dst_step = dst_stride * (int64_t)pb_rt_dtype_size(dst_dtype),
		      src_step = src_stride * (int64_t)pb_rt_dtype_size(src_dtype);
	union block in, out;

	if (from == K_NONE || to == K_NONE)
		return pb_rt_fail("no conversion from %s to %s", pb_rt_dtype_name(src_dtype),
				  pb_rt_dtype_name(dst_dtype));
	for (int64_t i = 0; i < n; i += PB_CONVERT_BLOCK) {
		const int64_t m = n - i < PB_CONVERT_BLOCK ? n - i : PB_CONVERT_BLOCK;

		load(&in, (const char *)src + i * src_step, src_dtype, src_stride, m);
		if (from != to)
			change(&out, to, &in, from, m);
		store((char *)dst + i * dst_step, dst_dtype, dst_stride, from == to ? &in : &out,
		      m);
	}
	return 0;
}
