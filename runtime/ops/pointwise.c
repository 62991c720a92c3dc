/* SPDX-License-Identifier: Apache-2.0 */
/*
 * add, subtract, mul, abs, angle, polar, gcd, as aten/src/ATen/native/{BinaryOps,UnaryOps}.cpp.
 * Integers are computed in int64 and wrap when stored, 16-bit floats in float. A number argument is
 * a C++ double, so integers meeting it become floats, as in PyTorch's shim.
 */
#include "runtime/ops/pointwise.h"

#include <complex.h>
#include <math.h>

#include "runtime/ops/map_fn.h"

static double complex times(double complex x, double complex y)
{
	const double a = creal(x), b = cimag(x), c = creal(y), d = cimag(y);

	return CMPLX(a * c - b * d, a * d + b * c);
}

static float complex timesf(float complex x, float complex y)
{
	const float a = crealf(x), b = cimagf(x), c = crealf(y), d = cimagf(y);

	return CMPLXF(a * c - b * d, a * d + b * c);
}

MAP_FN2(add_i64, int64_t, uint64_t, x + c * y)
MAP_FN2(add_f32, float, float, fmaf(y, c, x))
MAP_FN2(add_f64, double, double, fma(y, c, x))
MAP_FN2(add_c64, float complex, float complex, x + timesf(c, y))
MAP_FN2(add_c128, double complex, double complex, x + times(c, y))
/* The common case apart: a fused multiply is a call where the processor has none. */
MAP_FN2(plus_f32, float, float, x + y)
MAP_FN2(plus_f64, double, double, x + y)
MAP_FN2(mul_i64, int64_t, uint64_t, x *y)
MAP_FN2(mul_f32, float, float, x *y)
MAP_FN2(mul_f64, double, double, x *y)
MAP_FN2(mul_c64, float complex, float complex, timesf(x, y))
MAP_FN2(mul_c128, double complex, double complex, times(x, y))

union number {
	int64_t i;
	float f;
	double d;
	float complex c;
	double complex z;
};

static pb_map_fn *add_fn(int32_t compute, bool plain)
{
	switch (compute) {
	case PB_RT_F32:
		return plain ? plus_f32 : add_f32;
	case PB_RT_F64:
		return plain ? plus_f64 : add_f64;
	case PB_RT_C64:
		return add_c64;
	case PB_RT_C128:
		return add_c128;
	default:
		return add_i64;
	}
}

static pb_map_fn *mul_fn(int32_t compute)
{
	switch (compute) {
	case PB_RT_F32:
		return mul_f32;
	case PB_RT_F64:
		return mul_f64;
	case PB_RT_C64:
		return mul_c64;
	case PB_RT_C128:
		return mul_c128;
	default:
		return mul_i64;
	}
}

/* @dtype: of the result, if not what the operands make. */
static int add(const struct pb_rt_tensor *a, const struct pb_rt_tensor *b, double alpha,
	       int32_t dtype, AtenTensorHandle *ret0)
{
	const int32_t compute = pb_compute_dtype(dtype);
	union number c;
	struct pb_map m = {.arg = &c,
			   .n_in = 2,
			   .in = {a, b},
			   .promotes = true,
			   .in_dtype = compute,
			   .out_dtype = compute};

	if (pb_store_scalar(&c, compute, alpha))
		return 1;
	m.fn = add_fn(compute, alpha == 1);
	return pb_map_finish(&m, dtype, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_add_Tensor(AtenTensorHandle self, AtenTensorHandle other,
						     double alpha, AtenTensorHandle *ret0)
{
	return add(self, other, alpha, pb_map_common_type(self, other), ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_aten_subtract_Tensor(AtenTensorHandle self,
							   AtenTensorHandle other, double alpha,
							   AtenTensorHandle *ret0)
{
	if (self->dtype == PB_RT_BOOL || other->dtype == PB_RT_BOOL)
		return pb_rt_fail(self->dtype == other->dtype
					  ? "Subtraction, the `-` operator, with two bool tensors "
					    "is not supported. Use the `^` or "
					    "`logical_xor()` operator instead."
					  : "Subtraction, the `-` operator, with a bool tensor is "
					    "not supported. If you are trying to "
					    "invert a mask, use the `~` or `logical_not()` "
					    "operator instead.");
	return add(self, other, -alpha, pb_map_common_type(self, other), ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_add_Scalar(AtenTensorHandle self, double other,
						     double alpha, AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *number = pb_map_number(other);
	int rc;

	if (!number)
		return 1;
	rc = add(self, number, alpha, pb_result_type_scalar(self), ret0);
	pb_rt_delete(number);
	return rc;
}

static int mul(const struct pb_rt_tensor *a, const struct pb_rt_tensor *b, int32_t dtype,
	       AtenTensorHandle *ret0)
{
	const int32_t compute = pb_compute_dtype(dtype);
	struct pb_map m = {.fn = mul_fn(compute),
			   .n_in = 2,
			   .in = {a, b},
			   .promotes = true,
			   .in_dtype = compute,
			   .out_dtype = compute};

	return pb_map_finish(&m, dtype, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_mul_Tensor(AtenTensorHandle self, AtenTensorHandle other,
						     AtenTensorHandle *ret0)
{
	return mul(self, other, pb_map_common_type(self, other), ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_mul_Scalar(AtenTensorHandle self, double other,
						     AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *number = pb_map_number(other);
	int rc;

	if (!number)
		return 1;
	rc = mul(self, number, pb_result_type_scalar(self), ret0);
	pb_rt_delete(number);
	return rc;
}

/* ---- one operand ---- */

MAP_FN(abs_i64, int64_t, int64_t, x < 0 ? (int64_t)(0 - (uint64_t)x) : x)
MAP_FN(abs_f32, float, float, fabsf(x))
MAP_FN(abs_f64, double, double, fabs(x))
MAP_FN(abs_c64, float, float complex, hypotf(crealf(x), cimagf(x)))
MAP_FN(abs_c128, double, double complex, hypot(creal(x), cimag(x)))
MAP_FN(angle_f32, float, float, isnan(x) ? x : x < 0 ? (float)M_PI : 0)
MAP_FN(angle_f64, double, double, isnan(x) ? x : x < 0 ? M_PI : 0)
MAP_FN(angle_c64, float, float complex, atan2f(cimagf(x), crealf(x)))
MAP_FN(angle_c128, double, double complex, atan2(cimag(x), creal(x)))

static int32_t real_of(int32_t dtype)
{
	switch (dtype) {
	case PB_RT_C32:
		return PB_RT_F16;
	case PB_RT_C64:
		return PB_RT_F32;
	case PB_RT_C128:
		return PB_RT_F64;
	default:
		return dtype;
	}
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_abs(AtenTensorHandle self, AtenTensorHandle *ret0)
{
	const int32_t compute = pb_compute_dtype(self->dtype);
	struct pb_map m = {
		.n_in = 1, .in = {self}, .in_dtype = compute, .out_dtype = real_of(compute)};

	if (self->dtype == PB_RT_BOOL)
		return pb_not_implemented("abs_cpu", self->dtype);
	m.fn = compute == PB_RT_F32    ? abs_f32
	       : compute == PB_RT_F64  ? abs_f64
	       : compute == PB_RT_C64  ? abs_c64
	       : compute == PB_RT_C128 ? abs_c128
				       : abs_i64;
	return pb_map_finish(&m, real_of(self->dtype), ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_angle(AtenTensorHandle self, AtenTensorHandle *ret0)
{
	const bool whole = pb_is_integral(self->dtype) || self->dtype == PB_RT_BOOL;
	const int32_t compute = whole ? PB_RT_F32 : pb_compute_dtype(self->dtype);
	struct pb_map m = {
		.n_in = 1, .in = {self}, .in_dtype = compute, .out_dtype = real_of(compute)};

	if (pb_is_complex(self->dtype)) {
		m.fn = compute == PB_RT_C64 ? angle_c64 : angle_c128;
		return pb_map_finish_contiguous(&m, self, real_of(self->dtype), ret0);
	}
	m.fn = compute == PB_RT_F32 ? angle_f32 : angle_f64;
	return pb_map_finish(&m, whole ? PB_RT_F32 : self->dtype, ret0);
}

/* ---- two operands of one dtype ---- */

static int64_t gcd(int64_t a, int64_t b)
{
	uint64_t x = a < 0 ? 0 - (uint64_t)a : (uint64_t)a,
		 y = b < 0 ? 0 - (uint64_t)b : (uint64_t)b;

	while (x) {
		const uint64_t r = y % x;

		y = x;
		x = r;
	}
	return (int64_t)y;
}

MAP_FN2(gcd_i64, int64_t, int64_t, gcd(x, y))
MAP_FN2(polar_f32, float complex, float, CMPLXF(x *cosf(y), x *sinf(y)))
MAP_FN2(polar_f64, double complex, double, CMPLX(x *cos(y), x *sin(y)))

AOTI_EXPORT AOTITorchError aoti_torch_cpu_gcd(AtenTensorHandle self, AtenTensorHandle other,
					      AtenTensorHandle *ret0)
{
	const int32_t dtype = pb_map_common_type(self, other);
	struct pb_map m = {.fn = gcd_i64,
			   .n_in = 2,
			   .in = {self, other},
			   .promotes = true,
			   .in_dtype = PB_RT_I64,
			   .out_dtype = PB_RT_I64};

	if (!pb_is_integral(dtype))
		return pb_not_implemented("gcd_cpu", dtype);
	return pb_map_finish(&m, dtype, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_polar(AtenTensorHandle abs, AtenTensorHandle angle,
						AtenTensorHandle *ret0)
{
	struct pb_map m = {.n_in = 2, .in = {abs, angle}, .in_dtype = abs->dtype};

	if (abs->dtype != PB_RT_F32 && abs->dtype != PB_RT_F64)
		return pb_rt_fail("Expected both inputs to be Half, Float or Double tensors but "
				  "got %s and %s",
				  pb_scalar_name(abs->dtype), pb_scalar_name(angle->dtype));
	if (abs->dtype != angle->dtype)
		return pb_rt_fail("Expected object of scalar type %s but got scalar type %s for "
				  "second argument",
				  pb_scalar_name(abs->dtype), pb_scalar_name(angle->dtype));
	m.fn = abs->dtype == PB_RT_F32 ? polar_f32 : polar_f64;
	m.out_dtype = abs->dtype == PB_RT_F32 ? PB_RT_C64 : PB_RT_C128;
	return pb_map_finish(&m, m.out_dtype, ret0);
}
