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

/* pow(-inf, 0.5) is inf and pow(-0, -0.5) too; PyTorch's roots differ, so they are roots here too.
 */
static int root(const struct pb_rt_tensor *self, bool reciprocal, int32_t dtype,
		AtenTensorHandle *ret0)
{
	const int32_t compute = pb_compute_dtype(dtype);
	const bool wide = compute == PB_RT_F64;
	struct pb_map m = {.n_in = 1,
			   .in = {self},
			   .in_dtype = compute,
			   .out_dtype = compute,
			   .promotes = true};

	m.fn = reciprocal ? (wide ? rsqrt_f64 : rsqrt_f32) : (wide ? sqrt_f64 : sqrt_f32);
	return pb_map_finish(&m, dtype, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_pow_Tensor_Scalar(AtenTensorHandle self, double exponent,
							    AtenTensorHandle *ret0)
{
	const int32_t dtype = pb_result_type_scalar(self);
	struct pb_rt_tensor *number;
	int rc;

	if ((exponent == 0.5 || exponent == -0.5) && dtype != PB_RT_F16)
		return root(self, exponent < 0, dtype, ret0);
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
