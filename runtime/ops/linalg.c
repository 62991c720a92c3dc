/* SPDX-License-Identifier: Apache-2.0 */
/* See linalg.h. Shapes, strides and messages are those of torch 2.13.0's
 * aten/src/ATen/native/BatchLinearAlgebra.cpp: results are column major. */
#include "runtime/ops/linalg.h"

#include <string.h>

#include "runtime/ops/layout.h"

#define ROWS(t) ((t)->sizes[(t)->ndim - 2])
#define COLS(t) ((t)->sizes[(t)->ndim - 1])

/* Batch dimensions of @batch (ndim of them with the matrix), then m x n. */
static struct pb_rt_tensor *new_matrices(int32_t dtype, int ndim, const int64_t *batch, int64_t m,
					 int64_t n)
{
	int64_t sizes[PB_RT_MAX_DIMS], strides[PB_RT_MAX_DIMS];
	int64_t step = (m > 1 ? m : 1) * (n > 1 ? n : 1);

	for (int d = ndim - 3; d >= 0; d--) {
		sizes[d] = batch[d];
		strides[d] = step;
		step *= batch[d] > 1 ? batch[d] : 1;
	}
	sizes[ndim - 2] = m;
	sizes[ndim - 1] = n;
	strides[ndim - 2] = 1;
	strides[ndim - 1] = m > 1 ? m : 1;
	return pb_rt_empty(dtype, ndim, sizes, strides);
}

/* Column-major copies, one for each batch of @batch. */
static struct pb_rt_tensor *copy_matrices(const struct pb_rt_tensor *t, int ndim,
					  const int64_t *batch)
{
	struct pb_rt_tensor *c = new_matrices(t->dtype, ndim, batch, ROWS(t), COLS(t));

	if (c && c->numel && pb_rt_copy(c, t)) {
		pb_rt_delete(c);
		return NULL;
	}
	return c;
}

/* The @i-th matrix of such a tensor. */
static char *matrix(const struct pb_rt_tensor *t, int64_t i)
{
	return (char *)pb_rt_data(t) + (size_t)(i * ROWS(t) * COLS(t)) * pb_rt_dtype_size(t->dtype);
}

static int64_t batches(const struct pb_rt_tensor *t)
{
	int64_t n = 1;

	for (int d = 0; d < t->ndim - 2; d++)
		n *= t->sizes[d];
	return n;
}

static int check_matrices(const char *op, const char *name, const struct pb_rt_tensor *t)
{
	if (t->ndim < 2)
		return pb_rt_fail("%s: The input tensor %s must have at least 2 dimensions, but "
				  "is %s.",
				  op, name, PB_SHAPE(t));
	if (!pb_linalg_kernels(t->dtype))
		return pb_rt_fail("%s: Expected a floating point or complex tensor %s as input. "
				  "Got %s",
				  op, name, pb_scalar_name(t->dtype));
	return 0;
}

static int check_square(const char *op, const struct pb_rt_tensor *a)
{
	return ROWS(a) == COLS(a)
		       ? 0
		       : pb_rt_fail("%s: A must be batches of square matrices, but they are %lld "
				    "by %lld matrices",
				    op, (long long)ROWS(a), (long long)COLS(a));
}

static int check_pair(const char *op, const struct pb_rt_tensor *b, const struct pb_rt_tensor *a)
{
	if (check_matrices(op, "B", b) || check_matrices(op, "A", a) || check_square(op, a))
		return 1;
	if (b->dtype != a->dtype)
		return pb_rt_fail("Expected b and A to have the same dtype, but found b of type "
				  "%s and A of type %s instead.",
				  pb_scalar_name(b->dtype), pb_scalar_name(a->dtype));
	return ROWS(a) == ROWS(b)
		       ? 0
		       : pb_rt_fail("Incompatible matrix sizes for %s: each A matrix is %lld by "
				    "%lld but each b matrix is %lld by %lld",
				    op, (long long)ROWS(a), (long long)ROWS(a), (long long)ROWS(b),
				    (long long)COLS(b));
}

/* Batch dimensions common to both, followed by room for a matrix. */
static int common_batch(const struct pb_rt_tensor *a, const struct pb_rt_tensor *b, int *ret_ndim,
			int64_t *ret)
{
	const struct pb_rt_tensor *t[2] = {a, b};

	*ret_ndim = a->ndim > b->ndim ? a->ndim : b->ndim;
	for (int d = 0; d < *ret_ndim - 2; d++) {
		ret[d] = 1;
		for (int i = 0; i < 2; i++) {
			const int at = d - (*ret_ndim - t[i]->ndim);
			const int64_t size = at < 0 ? 1 : t[i]->sizes[at];

			if (size != 1 && ret[d] != 1 && size != ret[d])
				return pb_rt_fail("The size of tensor a (%lld) must match the size "
						  "of tensor b (%lld) at non-singleton dimension "
						  "%d",
						  (long long)ret[d], (long long)size, d);
			ret[d] = size != 1 ? size : ret[d];
		}
	}
	return 0;
}

/* ---- solving ---- */

AOTI_EXPORT AOTITorchError aoti_torch_cpu_triangular_solve(AtenTensorHandle self,
							   AtenTensorHandle A, int32_t upper,
							   int32_t transpose, int32_t unitriangular,
							   AtenTensorHandle *ret0,
							   AtenTensorHandle *ret1)
{
	const struct pb_triangle t = {upper != 0, unitriangular != 0, transpose != 0, false};
	int64_t batch[PB_RT_MAX_DIMS];
	struct pb_rt_tensor *x, *a;
	int ndim;

	if (check_pair("triangular_solve", self, A) || common_batch(self, A, &ndim, batch))
		return 1;
	x = copy_matrices(self, ndim, batch);
	a = copy_matrices(A, ndim, batch);
	if (!x || !a) {
		pb_rt_delete(x);
		pb_rt_delete(a);
		return 1;
	}
	for (int64_t i = 0; i < batches(x) && x->numel; i++)
		pb_linalg_kernels(x->dtype)->solve(matrix(a, i), t, ROWS(x), matrix(x, i), COLS(x));
	*ret0 = x;
	*ret1 = a;
	return 0;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_cholesky_solve(AtenTensorHandle self,
							 AtenTensorHandle input2, int32_t upper,
							 AtenTensorHandle *ret0)
{
	const struct pb_triangle plain = {upper != 0, false, false, false},
				 adjoint = {upper != 0, false, true, true};
	int64_t batch[PB_RT_MAX_DIMS];
	struct pb_rt_tensor *x, *a;
	int ndim;

	if (check_pair("cholesky_solve", self, input2) || common_batch(self, input2, &ndim, batch))
		return 1;
	x = copy_matrices(self, ndim, batch);
	a = copy_matrices(input2, ndim, batch);
	for (int64_t i = 0; x && a && i < batches(x) && x->numel; i++) {
		const struct pb_linalg_kernels *k = pb_linalg_kernels(x->dtype);

		k->solve(matrix(a, i), upper ? adjoint : plain, ROWS(x), matrix(x, i), COLS(x));
		k->solve(matrix(a, i), upper ? plain : adjoint, ROWS(x), matrix(x, i), COLS(x));
	}
	pb_rt_delete(a);
	if (!x || !a) {
		pb_rt_delete(x);
		return 1;
	}
	*ret0 = x;
	return 0;
}

static int invert_all(const struct pb_rt_tensor *f, bool upper, struct pb_rt_tensor *inverse)
{
	const int64_t n = ROWS(f);
	void *work = pb_rt_scratch((size_t)(n * n) * pb_rt_dtype_size(f->dtype) + 1);
	int rc = !work;

	for (int64_t i = 0; i < batches(f) && !rc; i++) {
		const int64_t zero = pb_linalg_kernels(f->dtype)->cholesky_inverse(
			matrix(f, i), upper, n, matrix(inverse, i), work);
		char where[48] = "";

		if (zero && f->ndim > 2)
			snprintf(where, sizeof(where), "(Batch element %lld): ", (long long)i);
		if (zero)
			rc = pb_rt_fail("cholesky_inverse: %sThe diagonal element %lld is zero, "
					"the inversion could not be completed because the input "
					"matrix is singular.",
					where, (long long)zero);
	}
	if (work)
		pb_rt_scratch_free(work);
	return rc;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_cholesky_inverse(AtenTensorHandle self, int32_t upper,
							   AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *f, *inverse;
	int rc;

	if (check_matrices("cholesky_inverse", "A", self) || check_square("cholesky_inverse", self))
		return 1;
	f = copy_matrices(self, self->ndim, self->sizes);
	inverse = new_matrices(self->dtype, self->ndim, self->sizes, ROWS(self), COLS(self));
	rc = !f || !inverse || (f->numel && invert_all(f, upper != 0, inverse));
	pb_rt_delete(f);
	if (rc)
		pb_rt_delete(inverse);
	else
		*ret0 = inverse;
	return rc;
}

/* ---- QR ---- */

AOTI_EXPORT AOTITorchError aoti_torch_cpu_geqrf(AtenTensorHandle self, AtenTensorHandle *ret0,
						AtenTensorHandle *ret1)
{
	struct pb_rt_tensor *a, *tau;
	int64_t sizes[PB_RT_MAX_DIMS], k;

	if (check_matrices("torch.geqrf", "input", self))
		return 1;
	k = ROWS(self) < COLS(self) ? ROWS(self) : COLS(self);
	memcpy(sizes, self->sizes, sizeof(sizes));
	sizes[self->ndim - 2] = k;
	a = copy_matrices(self, self->ndim, self->sizes);
	tau = pb_rt_empty(self->dtype, self->ndim - 1, sizes, NULL);
	if (!a || !tau) {
		pb_rt_delete(a);
		pb_rt_delete(tau);
		return 1;
	}
	for (int64_t i = 0; i < batches(a) && a->numel; i++)
		pb_linalg_kernels(a->dtype)->qr(
			matrix(a, i), ROWS(a), COLS(a),
			(char *)pb_rt_data(tau) + (size_t)(i * k) * pb_rt_dtype_size(a->dtype));
	*ret0 = a;
	*ret1 = tau;
	return 0;
}

static int check_ormqr(const struct pb_rt_tensor *a, const struct pb_rt_tensor *tau,
		       const struct pb_rt_tensor *c, bool left)
{
	if (check_matrices("torch.ormqr", "input", a) || check_matrices("torch.ormqr", "other", c))
		return 1;
	if (tau->dtype != a->dtype || c->dtype != a->dtype)
		return pb_rt_fail("torch.ormqr: Expected input, tau and other to have the same "
				  "dtype, but got %s, %s and %s",
				  pb_scalar_name(a->dtype), pb_scalar_name(tau->dtype),
				  pb_scalar_name(c->dtype));
	if (tau->ndim != a->ndim - 1 || c->ndim != a->ndim)
		return pb_rt_fail("torch.ormqr: Expected tau to have one dimension less than "
				  "input, and other as many, but got %s, %s and %s",
				  PB_SHAPE(a), PB_SHAPE(tau), PB_SHAPE(c));
	for (int d = 0; d < a->ndim - 2; d++)
		if (tau->sizes[d] != a->sizes[d] || c->sizes[d] != a->sizes[d])
			return pb_rt_fail("torch.ormqr: Expected batch dimensions of input, tau "
					  "and other to be equal, but got %s, %s and %s",
					  PB_SHAPE(a), PB_SHAPE(tau), PB_SHAPE(c));
	if ((left ? ROWS(c) : COLS(c)) != ROWS(a))
		return pb_rt_fail("torch.ormqr: other.shape[%d] must be equal to input.shape[-2]: "
				  "input %s, other %s",
				  left ? -2 : -1, PB_SHAPE(a), PB_SHAPE(c));
	if (tau->sizes[tau->ndim - 1] > COLS(a) || tau->sizes[tau->ndim - 1] > ROWS(a))
		return pb_rt_fail("torch.ormqr: other.shape[%d] must be greater than or equal to "
				  "tau.shape[-1]: input %s, tau %s",
				  left ? -2 : -1, PB_SHAPE(a), PB_SHAPE(tau));
	return 0;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_ormqr(AtenTensorHandle self, AtenTensorHandle input2,
						AtenTensorHandle input3, int32_t left,
						int32_t transpose, AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *a, *tau, *c;
	int64_t k;

	if (check_ormqr(self, input2, input3, left != 0))
		return 1;
	k = input2->sizes[input2->ndim - 1];
	a = copy_matrices(self, self->ndim, self->sizes);
	tau = pb_rt_contiguous(input2);
	c = copy_matrices(input3, input3->ndim, input3->sizes);
	for (int64_t i = 0; a && tau && c && i < batches(c) && c->numel; i++)
		pb_linalg_kernels(a->dtype)->apply_q(
			matrix(a, i),
			(char *)pb_rt_data(tau) + (size_t)(i * k) * pb_rt_dtype_size(a->dtype), k,
			left != 0, transpose != 0, matrix(c, i), ROWS(c), COLS(c));
	pb_rt_delete(a);
	pb_rt_delete(tau);
	if (!a || !tau || !c) {
		pb_rt_delete(c);
		return 1;
	}
	*ret0 = c;
	return 0;
}

/* ---- LU ---- */

/* The lower triangle (m x n) of @lu with ones on its diagonal, or the upper one. */
static struct pb_rt_tensor *triangle(const struct pb_rt_tensor *lu, int64_t m, int64_t n,
				     bool lower)
{
	const size_t size = pb_rt_dtype_size(lu->dtype);
	struct pb_rt_tensor *view, *out = NULL;
	int64_t sizes[PB_RT_MAX_DIMS];
	char one[16] = {0};

	memcpy(sizes, lu->sizes, sizeof(sizes));
	sizes[lu->ndim - 2] = m;
	sizes[lu->ndim - 1] = n;
	view = pb_rt_alias(lu, lu->ndim, sizes, lu->strides, lu->offset);
	if (view)
		out = pb_rt_empty(lu->dtype, lu->ndim, sizes, NULL);
	if (out && (pb_store_scalar(one, lu->dtype, 1) || (out->numel && pb_rt_copy(out, view)))) {
		pb_rt_delete(out);
		out = NULL;
	}
	for (int64_t b = 0; out && out->numel && b < batches(out); b++)
		for (int64_t i = 0; i < m; i++)
			for (int64_t j = 0; j < n; j++) {
				char *p = matrix(out, b) + (size_t)(i * n + j) * size;

				if (lower && i == j)
					memcpy(p, one, size);
				else if (lower ? j > i : i > j)
					memset(p, 0, size);
			}
	pb_rt_delete(view);
	return out;
}

/* The permutation that swapping row i with row pivots[i] - 1, one after the other, undoes. */
static int permutation(const int32_t *pivots, int64_t k, int64_t m, int64_t *order, char *p,
		       const char *one, size_t size)
{
	for (int64_t i = 0; i < m; i++)
		order[i] = i;
	for (int64_t i = 0; i < k; i++) {
		const int64_t with = (int64_t)pivots[i] - 1, row = order[i];

		if (with < 0 || with >= m)
			return pb_rt_fail("pivots passed to lu_unpack must be between 1 and "
					  "LU.size(-2) inclusive.Did you properly pass the result "
					  "of lu_factor?");
		order[i] = order[with];
		order[with] = row;
	}
	for (int64_t i = 0; i < m; i++)
		memcpy(p + (size_t)(order[i] * m + i) * size, one, size);
	return 0;
}

static struct pb_rt_tensor *permutations(const struct pb_rt_tensor *lu,
					 const struct pb_rt_tensor *pivots)
{
	const int64_t m = ROWS(lu), k = pivots->sizes[pivots->ndim - 1];
	const size_t size = pb_rt_dtype_size(lu->dtype);
	struct pb_rt_tensor *dense = pb_rt_contiguous(pivots), *out = NULL;
	int64_t *order = pb_rt_scratch((size_t)(m + 1) * sizeof(*order)), sizes[PB_RT_MAX_DIMS];
	char one[16] = {0};
	int rc = !dense || !order || pb_store_scalar(one, lu->dtype, 1);

	memcpy(sizes, lu->sizes, sizeof(sizes));
	sizes[lu->ndim - 1] = m;
	if (!rc)
		out = pb_rt_empty(lu->dtype, lu->ndim, sizes, NULL);
	rc = !out;
	if (!rc && out->numel)
		memset(pb_rt_data(out), 0, (size_t)out->numel * size);
	for (int64_t b = 0; !rc && out->numel && b < batches(out); b++)
		rc = permutation((int32_t *)pb_rt_data(dense) + b * k, k, m, order, matrix(out, b),
				 one, size);
	if (order)
		pb_rt_scratch_free(order);
	pb_rt_delete(dense);
	if (rc) {
		pb_rt_delete(out);
		return NULL;
	}
	return out;
}

static int check_lu(const struct pb_rt_tensor *lu, const struct pb_rt_tensor *pivots)
{
	if (check_matrices("torch.lu_unpack", "LU_data", lu))
		return 1;
	if (pivots->dtype != PB_RT_I32)
		return pb_rt_fail("torch.lu_unpack: LU_pivots is expected to be a contiguous "
				  "tensor of torch.int32 dtype. Note: this function is intended "
				  "to be used with the output produced by torch.linalg.lu_factor");
	if (pivots->ndim != lu->ndim - 1 ||
	    pivots->sizes[pivots->ndim - 1] > (ROWS(lu) < COLS(lu) ? ROWS(lu) : COLS(lu)))
		return pb_rt_fail("torch.lu_unpack: pivots %s do not fit matrices %s",
				  PB_SHAPE(pivots), PB_SHAPE(lu));
	for (int d = 0; d < lu->ndim - 2; d++)
		if (pivots->sizes[d] != lu->sizes[d])
			return pb_rt_fail("torch.lu_unpack: pivots %s do not fit matrices %s",
					  PB_SHAPE(pivots), PB_SHAPE(lu));
	return 0;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_lu_unpack(AtenTensorHandle LU_data,
						    AtenTensorHandle LU_pivots, int32_t unpack_data,
						    int32_t unpack_pivots, AtenTensorHandle *ret0,
						    AtenTensorHandle *ret1, AtenTensorHandle *ret2)
{
	struct pb_rt_tensor *p, *l, *u;
	int64_t k;

	if (check_lu(LU_data, LU_pivots))
		return 1;
	k = ROWS(LU_data) < COLS(LU_data) ? ROWS(LU_data) : COLS(LU_data);
	p = unpack_pivots ? permutations(LU_data, LU_pivots)
			  : pb_rt_empty(LU_data->dtype, 1, (int64_t[]){0}, NULL);
	l = unpack_data ? triangle(LU_data, ROWS(LU_data), k, true)
			: pb_rt_empty(LU_data->dtype, 1, (int64_t[]){0}, NULL);
	u = unpack_data ? triangle(LU_data, k, COLS(LU_data), false)
			: pb_rt_empty(LU_data->dtype, 1, (int64_t[]){0}, NULL);
	if (!p || !l || !u) {
		pb_rt_delete(p);
		pb_rt_delete(l);
		pb_rt_delete(u);
		return 1;
	}
	*ret0 = p;
	*ret1 = l;
	*ret2 = u;
	return 0;
}
