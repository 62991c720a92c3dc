/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linear algebra of the C ABI (c_shim_cpu.h of torch 2.13.0): float, double and their complex
 * types, batches of matrices. Own loops, not LAPACK: see docs/ARCHITECTURE.md, "Decisions that were
 * measured". linalg.c has the operators, linalg_kernel.inc the loops for one matrix.
 */
#ifndef PT2BOX_RUNTIME_OPS_LINALG_H
#define PT2BOX_RUNTIME_OPS_LINALG_H

#include <stdbool.h>

#include "runtime/aoti.h"
#include "runtime/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError aoti_torch_cpu_cholesky_inverse(AtenTensorHandle self, int32_t upper,
							   AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_cholesky_solve(AtenTensorHandle self,
							 AtenTensorHandle input2, int32_t upper,
							 AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_geqrf(AtenTensorHandle self, AtenTensorHandle *ret0,
						AtenTensorHandle *ret1);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_ormqr(AtenTensorHandle self, AtenTensorHandle input2,
						AtenTensorHandle input3, int32_t left,
						int32_t transpose, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_lu_unpack(AtenTensorHandle LU_data,
						    AtenTensorHandle LU_pivots, int32_t unpack_data,
						    int32_t unpack_pivots, AtenTensorHandle *ret0,
						    AtenTensorHandle *ret1, AtenTensorHandle *ret2);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_triangular_solve(AtenTensorHandle self,
							   AtenTensorHandle A, int32_t upper,
							   int32_t transpose, int32_t unitriangular,
							   AtenTensorHandle *ret0,
							   AtenTensorHandle *ret1);

/* A triangle of a square matrix, as a linear map. */
struct pb_triangle {
	bool upper, unit, transposed, conjugated;
};

/* The loops of one element type. Matrices are column major and dense: element (i, j) of m rows is
 * at i + j * m. */
struct pb_linalg_kernels {
	/* b (n x nrhs) becomes op(a)^-1 b */
	void (*solve)(const void *a, struct pb_triangle t, int64_t n, void *b, int64_t nrhs);
	/* a (m x n) becomes R and the reflectors below it, whose factors go to tau (min(m, n)) */
	void (*qr)(void *a, int64_t m, int64_t n, void *tau);
	/*
	 * c (m x n) becomes Q c, or with !left c Q; with @adjoint the adjoint of Q. Q is the
	 * product of the first k reflectors in @a, whose columns have as many rows as Q.
	 */
	void (*apply_q)(const void *a, const void *tau, int64_t k, bool left, bool adjoint, void *c,
			int64_t m, int64_t n);
	/* The inverse of f f^H (of f^H f for an upper one); returns the first zero on the diagonal,
	 * counted from 1, or 0. @work: n * n elements. */
	int64_t (*cholesky_inverse)(const void *f, bool upper, int64_t n, void *inverse,
				    void *work);
};

/* NULL: no kernels for this type. */
const struct pb_linalg_kernels *pb_linalg_kernels(int32_t dtype);

#ifdef __cplusplus
}
#endif
#endif
