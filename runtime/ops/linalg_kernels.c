/* SPDX-License-Identifier: Apache-2.0 */
/* The loops of linalg.h for the four element types. */
#include <complex.h>
#include <math.h>
#include <string.h>

#include "runtime/ops/linalg.h"

#define T float
#define R float
#define N(x) f32_##x
#define CONJ(x) (x)
#define REAL(x) (x)
#define IMAG(x) 0.0f
#define SQRT sqrtf
#define FABS fabsf
#define MAKE(re, im) ((void)(im), (re))
#include "runtime/ops/linalg_kernel.inc"

#define T double
#define R double
#define N(x) f64_##x
#define CONJ(x) (x)
#define REAL(x) (x)
#define IMAG(x) 0.0
#define SQRT sqrt
#define FABS fabs
#define MAKE(re, im) ((void)(im), (re))
#include "runtime/ops/linalg_kernel.inc"

#define T float complex
#define R float
#define N(x) c64_##x
#define CONJ conjf
#define REAL crealf
#define IMAG cimagf
#define SQRT sqrtf
#define FABS fabsf
#define MAKE CMPLXF
#include "runtime/ops/linalg_kernel.inc"

#define T double complex
#define R double
#define N(x) c128_##x
#define CONJ conj
#define REAL creal
#define IMAG cimag
#define SQRT sqrt
#define FABS fabs
#define MAKE CMPLX
#include "runtime/ops/linalg_kernel.inc"

const struct pb_linalg_kernels *pb_linalg_kernels(int32_t dtype)
{
	switch (dtype) {
	case PB_RT_F32:
		return &f32_kernels;
	case PB_RT_F64:
		return &f64_kernels;
	case PB_RT_C64:
		return &c64_kernels;
	case PB_RT_C128:
		return &c128_kernels;
	default:
		return NULL;
	}
}
