/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LAPACK and BLAS, as far as operators use them. The runtime is not linked with them: 2 MB and 1 ms that most models have
 * no use for. Symbols are weak; the worker loads the libraries before this one for packages that need them.
 */
#ifndef PT2BOX_RUNTIME_OPS_LAPACK_H
#define PT2BOX_RUNTIME_OPS_LAPACK_H

#include <complex.h>

#define lapack_complex_float float _Complex
#define lapack_complex_double double _Complex
#include <lapacke.h>

#include <cblas.h>

#define PB_WEAK(name) _Pragma(PB_WEAK_TEXT(weak name))
#define PB_WEAK_TEXT(text) #text
#define PB_WEAK_REAL(name) PB_WEAK(LAPACKE_s##name##_work) PB_WEAK(LAPACKE_d##name##_work)
#define PB_WEAK_COMPLEX(name) PB_WEAK(LAPACKE_c##name##_work) PB_WEAK(LAPACKE_z##name##_work)
#define PB_WEAK_ALL(name) PB_WEAK_REAL(name) PB_WEAK_COMPLEX(name)

PB_WEAK_ALL(getrf)
PB_WEAK_ALL(getrs)
PB_WEAK_ALL(potrf)
PB_WEAK_ALL(geqrf)
PB_WEAK_ALL(gesdd)
PB_WEAK_ALL(geev)
PB_WEAK_ALL(sytrf)
PB_WEAK_REAL(orgqr)
PB_WEAK_COMPLEX(ungqr)
PB_WEAK_REAL(syevd)
PB_WEAK_COMPLEX(heevd)
PB_WEAK_COMPLEX(hetrf)
PB_WEAK(cblas_strsm)
PB_WEAK(cblas_dtrsm)
PB_WEAK(cblas_ctrsm)
PB_WEAK(cblas_ztrsm)
PB_WEAK(cblas_sgemm)
PB_WEAK(cblas_dgemm)
PB_WEAK(cblas_cgemm)
PB_WEAK(cblas_zgemm)

/* LAPACKE has an argument more, and counts it where it says which one is wrong. */
static inline int pb_la_info(int info)
{
	return info < 0 ? info + 1 : info;
}

/* A function of LAPACK for the dtype: matrices are void pointers. */
#define PB_LA(dtype, name, ...)                                                \
	((dtype) == PB_RT_F32	? LAPACKE_s##name##_work(__VA_ARGS__)          \
	 : (dtype) == PB_RT_F64 ? LAPACKE_d##name##_work(__VA_ARGS__)          \
	 : (dtype) == PB_RT_C64 ? LAPACKE_c##name##_work(__VA_ARGS__)          \
				: LAPACKE_z##name##_work(__VA_ARGS__))
/* The same where real and complex ones have different names. */
#define PB_LA2(dtype, real, cplx, ...)                                         \
	((dtype) == PB_RT_F32	? LAPACKE_s##real##_work(__VA_ARGS__)          \
	 : (dtype) == PB_RT_F64 ? LAPACKE_d##real##_work(__VA_ARGS__)          \
	 : (dtype) == PB_RT_C64 ? LAPACKE_c##cplx##_work(__VA_ARGS__)          \
				: LAPACKE_z##cplx##_work(__VA_ARGS__))

#endif
