/* SPDX-License-Identifier: Apache-2.0 */
/* Dtypes of results: c10/core/ScalarType.cpp and aten/src/ATen/native/TypeProperties.cpp. Part of
 * layout.h. */
#include "runtime/ops/layout.h"

static const char *const names[] = {
	[PB_RT_U8] = "Byte",
	[PB_RT_I8] = "Char",
	[PB_RT_I16] = "Short",
	[PB_RT_I32] = "Int",
	[PB_RT_I64] = "Long",
	[PB_RT_F16] = "Half",
	[PB_RT_F32] = "Float",
	[PB_RT_F64] = "Double",
	[PB_RT_C32] = "ComplexHalf",
	[PB_RT_C64] = "ComplexFloat",
	[PB_RT_C128] = "ComplexDouble",
	[PB_RT_BOOL] = "Bool",
	[PB_RT_BF16] = "BFloat16",
	[PB_RT_F8_E5M2] = "Float8_e5m2",
	[PB_RT_F8_E4M3FN] = "Float8_e4m3fn",
	[PB_RT_F8_E5M2FNUZ] = "Float8_e5m2fnuz",
	[PB_RT_F8_E4M3FNUZ] = "Float8_e4m3fnuz",
	[PB_RT_U16] = "UInt16",
	[PB_RT_U32] = "UInt32",
	[PB_RT_U64] = "UInt64",
	[PB_RT_F8_E8M0FNU] = "Float8_e8m0fnu",
	[PB_RT_F4X2] = "Float4_e2m1fn_x2",
};

const char *pb_scalar_name(int32_t dtype)
{
	const int n = sizeof(names) / sizeof(names[0]);

	return dtype >= 0 && dtype < n && names[dtype] ? names[dtype] : "Undefined";
}

bool pb_is_integral(int32_t dtype)
{
	return (dtype >= PB_RT_U8 && dtype <= PB_RT_I64) ||
	       (dtype >= PB_RT_U16 && dtype <= PB_RT_U64);
}

bool pb_is_16bit(int32_t dtype)
{
	return dtype == PB_RT_F16 || dtype == PB_RT_BF16;
}

bool pb_is_float(int32_t dtype)
{
	return dtype == PB_RT_F32 || dtype == PB_RT_F64 || pb_is_16bit(dtype);
}

bool pb_is_complex(int32_t dtype)
{
	return dtype == PB_RT_C32 || dtype == PB_RT_C64 || dtype == PB_RT_C128;
}

int pb_not_implemented(const char *op, int32_t dtype)
{
	return pb_rt_fail("\"%s\" not implemented for '%s'", op, pb_scalar_name(dtype));
}

/* bool 0, integers 1, floats 2, complex 3 */
static int category(int32_t dtype)
{
	if (dtype == PB_RT_BOOL)
		return 0;
	if (pb_is_integral(dtype))
		return 1;
	return pb_is_complex(dtype) ? 3 : 2;
}

static int32_t promote_int(int32_t a, int32_t b)
{
	if (a == PB_RT_U8 || b == PB_RT_U8) {
		const int32_t other = a == PB_RT_U8 ? b : a;

		return other == PB_RT_I8 ? PB_RT_I16 : other;
	}
	/* Signed ones are numbered by size. Unsigned ones of 16 bits and more promote with nothing
	 * but uint8 (above). */
	return a > b ? a : b;
}

static int32_t complex_of(int32_t dtype)
{
	return dtype == PB_RT_F64 ? PB_RT_C128 : dtype == PB_RT_F16 ? PB_RT_C32 : PB_RT_C64;
}

int32_t pb_promote(int32_t a, int32_t b)
{
	const int ca = category(a), cb = category(b);

	if (a == b)
		return a;
	if (ca < cb)
		return ca == 2 ? pb_promote(complex_of(a), b) : b;
	if (ca > cb)
		return pb_promote(b, a);
	if (ca == 1)
		return promote_int(a, b);
	if (ca == 2 && (a == PB_RT_F64 || b == PB_RT_F64))
		return PB_RT_F64;
	return ca == 2 ? PB_RT_F32 /* also float16 with bfloat16 */ : a > b ? a : b;
}

static int32_t add_type(int32_t so_far, int32_t dtype)
{
	return so_far < 0 ? dtype : pb_promote(so_far, dtype);
}

int32_t pb_result_type(const struct pb_rt_tensor *const *t, int64_t n)
{
	int32_t with_dims = -1, without = -1;

	for (int64_t i = 0; i < n; i++) {
		if (!t[i])
			continue;
		if (t[i]->ndim)
			with_dims = add_type(with_dims, t[i]->dtype);
		else
			without = add_type(without, t[i]->dtype);
	}
	if (with_dims < 0)
		return without;
	/* Of a kind that the other has already, what has dimensions decides alone. */
	if (without < 0 || category(without) <= category(with_dims))
		return with_dims;
	if (category(with_dims) == 2)
		return complex_of(with_dims);
	return pb_promote(with_dims, without);
}

int32_t pb_result_type_scalar(const struct pb_rt_tensor *t)
{
	return category(t->dtype) < 2 ? PB_RT_F32 : t->dtype;
}
