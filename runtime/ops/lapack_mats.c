/* SPDX-License-Identifier: Apache-2.0 */
/* What the operators of linear algebra share; see lapack_mats.h. As aten/src/ATen/native/LinearAlgebraUtils.h. */
#include "runtime/ops/lapack_mats.h"

#include <string.h>

#include "runtime/ops/lapack.h"

int pb_la_ready(const char *api, int32_t dtype)
{
	if (dtype == PB_RT_F16 || dtype == PB_RT_BF16)
		return pb_rt_fail("%s: Low precision dtypes not supported. Got %s", api, pb_scalar_name(dtype));
	if (dtype != PB_RT_F32 && dtype != PB_RT_F64 && dtype != PB_RT_C64 && dtype != PB_RT_C128)
		return pb_rt_fail("%s: Expected a floating point or complex tensor as input. Got %s", api,
				  pb_scalar_name(dtype));
	if (!LAPACKE_sgetrf_work || !cblas_strsm)
		return pb_rt_fail("%s: LAPACK is not loaded", api);
	return 0;
}

int pb_la_matrix(const char *api, const struct pb_rt_tensor *t, bool square)
{
	if (t->ndim < 2)
		return pb_rt_fail("%s: The input tensor A must have at least 2 dimensions.", api);
	if (t->sizes[t->ndim - 1] > INT32_MAX || t->sizes[t->ndim - 2] > INT32_MAX)
		return pb_rt_fail("%s: a matrix of %s is too large", api, PB_SHAPE(t));
	if (square && t->sizes[t->ndim - 1] != t->sizes[t->ndim - 2])
		return pb_rt_fail("%s: A must be batches of square matrices, but they are %lld by %lld matrices", api,
				  (long long)t->sizes[t->ndim - 2], (long long)t->sizes[t->ndim - 1]);
	return 0;
}

int32_t pb_la_real(int32_t dtype)
{
	return dtype == PB_RT_C64 ? PB_RT_F32 : dtype == PB_RT_C128 ? PB_RT_F64 : dtype;
}

struct pb_rt_tensor *pb_la_empty(int32_t dtype, int n_batch, const int64_t *batch, int64_t m, int64_t n)
{
	int64_t sizes[PB_RT_MAX_DIMS], strides[PB_RT_MAX_DIMS], stride;

	if (n_batch + 2 > PB_RT_MAX_DIMS) {
		pb_rt_fail("more than %d dimensions", PB_RT_MAX_DIMS);
		return NULL;
	}
	memcpy(sizes, batch, (size_t)n_batch * sizeof(*sizes));
	sizes[n_batch] = m;
	sizes[n_batch + 1] = n;
	strides[n_batch] = 1;
	strides[n_batch + 1] = m > 1 ? m : 1;
	stride = (m > 1 ? m : 1) * (n > 1 ? n : 1);
	for (int d = n_batch - 1; d >= 0; d--) {
		strides[d] = stride;
		stride *= sizes[d] > 1 ? sizes[d] : 1;
	}
	return pb_rt_empty(dtype, n_batch + 2, sizes, strides);
}

struct pb_rt_tensor *pb_la_clone(const struct pb_rt_tensor *t, int n_batch, const int64_t *batch)
{
	struct pb_rt_tensor *c;

	if (n_batch < 0) {
		n_batch = t->ndim - 2;
		batch = t->sizes;
	}
	c = pb_la_empty(t->dtype, n_batch, batch, t->sizes[t->ndim - 2], t->sizes[t->ndim - 1]);
	if (c && pb_rt_copy(c, t)) {
		pb_rt_delete(c);
		return NULL;
	}
	return c;
}

struct pb_rt_tensor *pb_la_transposed(const struct pb_rt_tensor *t)
{
	int64_t sizes[PB_RT_MAX_DIMS], strides[PB_RT_MAX_DIMS];
	const int n = t->ndim;

	memcpy(sizes, t->sizes, sizeof(sizes));
	memcpy(strides, t->strides, sizeof(strides));
	sizes[n - 2] = t->sizes[n - 1];
	sizes[n - 1] = t->sizes[n - 2];
	strides[n - 2] = t->strides[n - 1];
	strides[n - 1] = t->strides[n - 2];
	return pb_rt_alias(t, n, sizes, strides, t->offset);
}

struct pb_mats pb_la_mats(const struct pb_rt_tensor *t)
{
	struct pb_mats a = {.data = pb_rt_data(t), .batch = 1, .dtype = t->dtype};

	for (int d = 0; d < t->ndim - 2; d++)
		a.batch *= t->sizes[d];
	a.m = (int)t->sizes[t->ndim - 2];
	a.n = (int)t->sizes[t->ndim - 1];
	a.ld = a.m > 1 ? a.m : 1;
	if (t->numel) /* else there is no memory at all */
		a.step = (size_t)a.ld * (size_t)a.n * pb_rt_dtype_size(t->dtype);
	return a;
}

void pb_la_keep_triangle(const struct pb_mats *a, bool upper)
{
	const size_t size = pb_rt_dtype_size(a->dtype);

	for (int64_t b = 0; b < a->batch; b++) {
		char *x = pb_la_at(a, b);

		for (int j = 0; j < a->n; j++) {
			const int from = upper ? j + 1 : 0, to = upper ? a->m : (j < a->m ? j : a->m);

			if (from < to)
				memset(x + ((size_t)j * a->ld + from) * size, 0, (size_t)(to - from) * size);
		}
	}
}

void pb_la_identity(const struct pb_mats *a)
{
	for (int64_t b = 0; a->step && b < a->batch; b++) {
		char *x = pb_la_at(a, b);

		memset(x, 0, a->step);
		for (int j = 0; j < a->n && j < a->m; j++)
			(void)pb_store_scalar(x + ((size_t)j * a->ld + j) * pb_rt_dtype_size(a->dtype), a->dtype, 1);
	}
}

void pb_la_conjugate(const struct pb_mats *a)
{
	const size_t n = a->step / pb_rt_dtype_size(a->dtype) * (size_t)a->batch;

	if (a->dtype == PB_RT_C64)
		for (size_t i = 0; i < n; i++)
			((float *)a->data)[2 * i + 1] *= -1;
	else if (a->dtype == PB_RT_C128)
		for (size_t i = 0; i < n; i++)
			((double *)a->data)[2 * i + 1] *= -1;
}

int pb_la_batch(const struct pb_rt_tensor *a, const struct pb_rt_tensor *b, int *ret_n, int64_t *ret)
{
	struct AtenTensorOpaque pair[2] = {*a, *b};
	const struct pb_rt_tensor *t[2] = {&pair[0], &pair[1]};

	pair[0].ndim -= 2;
	pair[1].ndim -= 2;
	return pb_broadcast(t, 2, ret_n, ret);
}

int pb_la_work_size(const void *first, int32_t dtype)
{
	const double v = pb_la_real(dtype) == PB_RT_F64 ? *(const double *)first : *(const float *)first;

	return v < 1 ? 1 : v > 1 << 28 ? 1 << 28 : (int)v;
}

/* ---- errors ---- */

static int failed(int32_t info, const char *api, const char *batch)
{
	if (info < 0 && info == -4 && strstr(api, "svd"))
		return pb_rt_fail("%s%s: The algorithm failed to converge because the input matrix contained "
				  "non-finite values.", api, batch);
	if (info < 0)
		return pb_rt_fail("%s%s: Argument %d has illegal value. Most certainly there is a bug in the "
				  "implementation calling the backend library.", api, batch, -info);
	if (strstr(api, "inv"))
		return pb_rt_fail("%s%s: The diagonal element %d is zero, the inversion could not be completed because "
				  "the input matrix is singular.", api, batch, info);
	if (strstr(api, "solve"))
		return pb_rt_fail("%s%s: The solver failed because the input matrix is singular.", api, batch);
	if (strstr(api, "cholesky"))
		return pb_rt_fail("%s%s: The factorization could not be completed because the input is not "
				  "positive-definite (the leading minor of order %d is not positive-definite).",
				  api, batch, info);
	if (strstr(api, "svd"))
		return pb_rt_fail("%s%s: The algorithm failed to converge because the input matrix is ill-conditioned "
				  "or has too many repeated singular values (error code: %d).", api, batch, info);
	if (strstr(api, "eig") || strstr(api, "syevd"))
		return pb_rt_fail("%s%s: The algorithm failed to converge because the input matrix is ill-conditioned "
				  "or has too many repeated eigenvalues (error code: %d).", api, batch, info);
	if (strstr(api, "lstsq"))
		return pb_rt_fail("%s%s: The least squares solution could not be computed because the input matrix "
				  "does not have full rank (error code: %d).", api, batch, info);
	if (strstr(api, "lu_factor"))
		return pb_rt_fail("%s%s: U[%d,%d] is zero and using it on lu_solve would result in a division by zero. "
				  "If you still want to perform the factorization, consider calling linalg.lu(A, pivot) "
				  "or linalg.lu_factor_ex(A, pivot)", api, batch, info, info);
	return pb_rt_fail("%s%s: Unknown error code: %d.", api, batch, info);
}

int pb_la_check(const struct pb_rt_tensor *info, const char *api, bool is_matrix)
{
	const int32_t *v = pb_rt_data(info);
	char batch[64] = "";

	for (int64_t i = 0; i < info->numel; i++) {
		if (!v[i])
			continue;
		if (!is_matrix)
			snprintf(batch, sizeof(batch), ": (Batch element %lld)", (long long)i);
		return failed(v[i], api, batch);
	}
	return 0;
}

int pb_op_linalg_check_errors(const struct pb_proxy_call *c)
{
	const struct pb_rt_tensor *info = pb_arg(c, 0);
	struct pb_rt_tensor *flat;
	int rc;

	if (info->dtype != PB_RT_I32)
		return pb_rt_fail("_linalg_check_errors: Expected info to be Int, got %s", pb_scalar_name(info->dtype));
	flat = pb_rt_contiguous(info);
	rc = !flat || pb_la_check(flat, c->args[1].v.s, pb_arg_bool(c, 2));
	pb_rt_delete(flat);
	return rc;
}
