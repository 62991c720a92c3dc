/* SPDX-License-Identifier: Apache-2.0 */
/* pow, as aten/src/ATen/native/Pow.cpp and cpu/PowKernel.cpp. */
#include <math.h>

#include "runtime/ops/map_fn.h"
#include "runtime/ops/pointwise.h"

/* Negative exponents leave only 1 and -1. */
static int64_t powi(int64_t a, int64_t b)
{
	uint64_t r = 1, x = (uint64_t)a;

	if (b < 0)
		return a == 1 ? 1 : a == -1 ? (b % 2 ? -1 : 1) : 0;
	for (; b; b >>= 1) {
		if (b & 1)
			r *= x;
		x *= x;
	}
	return (int64_t)r;
}

MAP_FN2(pow_i64, int64_t, int64_t, powi(x, y))
MAP_FN2(pow_f32, float, float, powf(x, y))
MAP_FN2(pow_f64, double, double, pow(x, y))
MAP_FN(sqrt_f32, float, float, sqrtf(x))
MAP_FN(sqrt_f64, double, double, sqrt(x))
MAP_FN(rsqrt_f32, float, float, 1 / sqrtf(x))
MAP_FN(rsqrt_f64, double, double, 1 / sqrt(x))
MAP_FN(square_f32, float, float, x *x)
MAP_FN(square_f64, double, double, x *x)
MAP_FN(cube_f32, float, float, x *x *x)
MAP_FN(cube_f64, double, double, x *x *x)
MAP_FN(inverse_f32, float, float, 1 / x)
MAP_FN(inverse_f64, double, double, 1 / x)
MAP_FN(inverse_square_f32, float, float, 1 / (x * x))
MAP_FN(inverse_square_f64, double, double, 1 / (x * x))

/* @like: a contiguous result of its shape, else NULL. */
static int power(const struct pb_rt_tensor *a, const struct pb_rt_tensor *b, int32_t dtype,
		 const struct pb_rt_tensor *like, AtenTensorHandle *ret0)
{
	const int32_t compute = pb_compute_dtype(dtype);
	struct pb_map m = {.n_in = 2,
			   .in = {a, b},
			   .promotes = true,
			   .in_dtype = compute,
			   .out_dtype = compute};

	if (dtype == PB_RT_BOOL || pb_is_complex(dtype))
		return pb_not_implemented("pow", dtype);
	m.fn = compute == PB_RT_F32 ? pow_f32 : compute == PB_RT_F64 ? pow_f64 : pow_i64;
	return like ? pb_map_finish_contiguous(&m, like, dtype, ret0)
		    : pb_map_finish(&m, dtype, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_pow_Tensor_Tensor(AtenTensorHandle self,
							    AtenTensorHandle exponent,
							    AtenTensorHandle *ret0)
{
	return power(self, exponent, pb_map_common_type(self, exponent), NULL, ret0);
}

/*
 * Exponents that PyTorch computes by other means than pow. The roots differ from it, too: pow(-inf,
 * 0.5) and pow(-0, -0.5) are inf. Of float16 the roots are by pow.
 */
static pb_map_fn *special(double exponent, int32_t dtype)
{
	static const struct {
		double exponent;
		pb_map_fn *f32, *f64;
	} all[] = {
		{0.5, sqrt_f32, sqrt_f64},	{-0.5, rsqrt_f32, rsqrt_f64},
		{2, square_f32, square_f64},	{3, cube_f32, cube_f64},
		{-1, inverse_f32, inverse_f64}, {-2, inverse_square_f32, inverse_square_f64},
	};

	if (dtype == PB_RT_F16 && fabs(exponent) == 0.5)
		return NULL;
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (exponent == all[i].exponent)
			return dtype == PB_RT_F64 ? all[i].f64 : all[i].f32;
	return NULL;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_pow_Tensor_Scalar(AtenTensorHandle self, double exponent,
							    AtenTensorHandle *ret0)
{
	const int32_t dtype = pb_result_type_scalar(self);
	struct pb_rt_tensor *number;
	int rc;

	if (pb_is_float(dtype) && special(exponent, dtype)) {
		const int32_t compute = pb_compute_dtype(dtype);
		struct pb_map m = {.fn = special(exponent, dtype),
				   .n_in = 1,
				   .in = {self},
				   .in_dtype = compute,
				   .out_dtype = compute,
				   .promotes = true};

		return pb_map_finish(&m, dtype, ret0);
	}
	number = pb_map_number(exponent);
	if (!number)
		return 1;
	rc = power(self, number, dtype, NULL, ret0);
	pb_rt_delete(number);
	return rc;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_pow_Scalar(double self, AtenTensorHandle exponent,
						     AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *number = pb_map_number(self);
	int rc;

	if (!number)
		return 1;
	rc = power(number, exponent, pb_result_type_scalar(exponent), exponent, ret0);
	pb_rt_delete(number);
	return rc;
}
