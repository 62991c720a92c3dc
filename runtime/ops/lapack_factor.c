/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cholesky, QR, LDL, Householder products, and triangular systems, through LAPACK. As
 * aten/src/ATen/native/BatchLinearAlgebra.cpp.
 */
#include <math.h>
#include <string.h>

#include "runtime/ops/lapack.h"
#include "runtime/ops/lapack_mats.h"

/* ---- Cholesky ---- */

static int cholesky(const char *api, const struct pb_rt_tensor *a, bool upper, struct pb_rt_tensor **ret_l,
		    struct pb_rt_tensor **ret_info)
{
	struct pb_mats m;

	if (pb_la_ready(api, a->dtype) || pb_la_matrix(api, a, true))
		return 1;
	*ret_l = pb_la_clone(a, -1, NULL);
	*ret_info = pb_rt_empty(PB_RT_I32, a->ndim - 2, a->sizes, NULL);
	if (!*ret_l || !*ret_info)
		return 1;
	m = pb_la_mats(*ret_l);
	pb_la_keep_triangle(&m, upper);
	for (int64_t b = 0; b < m.batch; b++) {
		int32_t *info = (int32_t *)pb_rt_data(*ret_info) + b;

		*info = 0;
		if (m.n)
			*info = pb_la_info(PB_LA(m.dtype, potrf, LAPACK_COL_MAJOR, upper ? 'U' : 'L', m.n, pb_la_at(&m, b), m.ld));
	}
	return 0;
}

int pb_op_linalg_cholesky_ex(const struct pb_proxy_call *c)
{
	const struct pb_rt_tensor *a = pb_arg(c, 0);

	if (cholesky("linalg.cholesky", a, pb_arg_bool(c, 1), &c->ret[0], &c->ret[1]))
		return 1;
	return pb_arg_bool(c, 2) ? pb_la_check(c->ret[1], "linalg.cholesky_ex", a->ndim == 2) : 0;
}

int pb_op_cholesky(const struct pb_proxy_call *c)
{
	const struct pb_rt_tensor *a = pb_arg(c, 0);
	struct pb_rt_tensor *info = NULL;
	int rc = cholesky("cholesky", a, pb_arg_bool(c, 1), &c->ret[0], &info);

	if (!rc)
		rc = pb_la_check(info, "cholesky", a->ndim == 2);
	pb_rt_delete(info);
	return rc;
}

/* ---- QR ---- */

/* Factors in place; @tau has room for min(m, n) elements a matrix. */
static int geqrf(const struct pb_mats *a, char *tau)
{
	const int k = a->m < a->n ? a->m : a->n;
	const size_t size = pb_rt_dtype_size(a->dtype);
	double query[2] = {0};
	void *work;
	int lwork;

	if (!k)
		return 0;
	(void)PB_LA(a->dtype, geqrf, LAPACK_COL_MAJOR, a->m, a->n, (void *)a->data, a->ld, (void *)tau, (void *)query,
		    -1);
	lwork = pb_la_work_size(query, a->dtype);
	work = pb_rt_scratch((size_t)lwork * size);
	for (int64_t b = 0; work && b < a->batch; b++)
		(void)PB_LA(a->dtype, geqrf, LAPACK_COL_MAJOR, a->m, a->n, pb_la_at(a, b), a->ld,
			    (void *)(tau + (size_t)b * k * size), work, lwork);
	pb_rt_scratch_free(work);
	return !work;
}

/* The first n columns of the product of @k reflectors that lie in @q, in place. */
static int orgqr(const struct pb_mats *q, int k, const char *tau)
{
	const size_t size = pb_rt_dtype_size(q->dtype);
	double query[2] = {0};
	void *work;
	int lwork;

	if (!q->m || !q->n)
		return 0;
	(void)PB_LA2(q->dtype, orgqr, ungqr, LAPACK_COL_MAJOR, q->m, q->n, k, (void *)q->data, q->ld, (const void *)tau,
		     (void *)query, -1);
	lwork = pb_la_work_size(query, q->dtype);
	work = pb_rt_scratch((size_t)lwork * size);
	for (int64_t b = 0; work && b < q->batch; b++)
		(void)PB_LA2(q->dtype, orgqr, ungqr, LAPACK_COL_MAJOR, q->m, q->n, k, pb_la_at(q, b), q->ld,
			     (const void *)(tau + (size_t)b * k * size), work, lwork);
	pb_rt_scratch_free(work);
	return !work;
}

/* The leading columns and rows of each matrix of @from. */
static void copy_part(const struct pb_mats *to, const struct pb_mats *from)
{
	const size_t size = pb_rt_dtype_size(to->dtype);
	const int rows = to->m < from->m ? to->m : from->m, cols = to->n < from->n ? to->n : from->n;

	for (int64_t b = 0; rows && b < to->batch; b++)
		for (int j = 0; j < cols; j++)
			memcpy((char *)pb_la_at(to, b) + (size_t)j * to->ld * size,
			       (char *)pb_la_at(from, b) + (size_t)j * from->ld * size, (size_t)rows * size);
}

static int qr(const struct pb_proxy_call *c, const struct pb_rt_tensor *a, bool complete, bool with_q)
{
	const int nb = a->ndim - 2;
	const int64_t m = a->sizes[nb], n = a->sizes[nb + 1], k = m < n ? m : n, rows = complete ? m : k;
	struct pb_rt_tensor *f = pb_la_clone(a, -1, NULL);
	struct pb_mats fm, q, r;
	char *tau;
	int rc;

	if (!f)
		return 1;
	fm = pb_la_mats(f);
	tau = pb_rt_scratch((size_t)fm.batch * (size_t)k * pb_rt_dtype_size(a->dtype) + 1);
	c->ret[1] = pb_la_empty(a->dtype, nb, a->sizes, rows, n);
	c->ret[0] = with_q ? pb_la_empty(a->dtype, nb, a->sizes, m, rows) : pb_rt_empty(a->dtype, 1, &(int64_t){0}, NULL);
	rc = !tau || !c->ret[0] || !c->ret[1] || geqrf(&fm, tau);
	if (!rc) {
		r = pb_la_mats(c->ret[1]);
		copy_part(&r, &fm);
		pb_la_keep_triangle(&r, true);
	}
	if (!rc && with_q) {
		q = pb_la_mats(c->ret[0]);
		if (k == 0)
			pb_la_identity(&q);
		else
			copy_part(&q, &fm);
		rc = k && orgqr(&q, (int)k, tau);
	}
	pb_rt_scratch_free(tau);
	pb_rt_delete(f);
	return rc;
}

int pb_op_linalg_qr(const struct pb_proxy_call *c)
{
	const struct pb_rt_tensor *a = pb_arg(c, 0);
	const char *mode = c->args[1].v.s;
	const bool complete = strcmp(mode, "complete") == 0, only_r = strcmp(mode, "r") == 0;

	if (!complete && !only_r && strcmp(mode, "reduced") != 0)
		return pb_rt_fail("qr received unrecognized mode '%.40s' but expected one of 'reduced' (default), 'r', or "
				  "'complete'", mode);
	if (pb_la_ready("linalg.qr", a->dtype) || pb_la_matrix("linalg.qr", a, false))
		return 1;
	return qr(c, a, complete, !only_r);
}

int pb_op_linalg_householder_product(const struct pb_proxy_call *c)
{
	static const char api[] = "torch.linalg.householder_product";
	const struct pb_rt_tensor *a = pb_arg(c, 0), *tau = pb_arg(c, 1);
	struct pb_rt_tensor *flat;
	struct pb_mats q;
	int64_t k;
	int rc;

	if (pb_la_ready(api, a->dtype) || pb_la_matrix(api, a, false))
		return 1;
	k = tau->ndim ? tau->sizes[tau->ndim - 1] : 0;
	if (a->sizes[a->ndim - 2] < a->sizes[a->ndim - 1])
		return pb_rt_fail("%s: input.shape[-2] must be greater than or equal to input.shape[-1]", api);
	if (tau->ndim != a->ndim - 1 || k > a->sizes[a->ndim - 1])
		return pb_rt_fail("%s: input.shape[-1] must be greater than or equal to tau.shape[-1]", api);
	if (tau->dtype != a->dtype)
		return pb_rt_fail("%s: tau dtype %s does not match input dtype %s", api, pb_scalar_name(tau->dtype),
				  pb_scalar_name(a->dtype));
	for (int d = 0; d < a->ndim - 2; d++)
		if (tau->sizes[d] != a->sizes[d])
			return pb_rt_fail("%s: Expected batch dimensions of tau to be equal to input.shape[:-2], but got %s",
					  api, PB_SHAPE(tau));
	c->ret[0] = pb_la_clone(a, -1, NULL);
	flat = pb_rt_contiguous(tau);
	rc = !c->ret[0] || !flat;
	if (!rc) {
		q = pb_la_mats(c->ret[0]);
		if (k == 0)
			pb_la_identity(&q);
		else
			rc = orgqr(&q, (int)k, pb_rt_data(flat));
	}
	pb_rt_delete(flat);
	return rc;
}

/* ---- LDL ---- */

int pb_op_linalg_ldl_factor_ex(const struct pb_proxy_call *c)
{
	static const char api[] = "torch.linalg.ldl_factor_ex";
	const struct pb_rt_tensor *a = pb_arg(c, 0);
	const bool hermitian = pb_arg_bool(c, 1) && pb_is_complex(a->dtype);
	double query[2] = {0};
	struct pb_mats m;
	void *work = NULL;
	int lwork;

	if (pb_la_ready(api, a->dtype) || pb_la_matrix(api, a, true))
		return 1;
	c->ret[0] = pb_la_clone(a, -1, NULL);
	c->ret[1] = pb_rt_empty(PB_RT_I32, a->ndim - 1, a->sizes, NULL);
	c->ret[2] = pb_rt_empty(PB_RT_I32, a->ndim - 2, a->sizes, NULL);
	if (!c->ret[0] || !c->ret[1] || !c->ret[2])
		return 1;
	m = pb_la_mats(c->ret[0]);
	pb_la_keep_triangle(&m, false);
	if (m.n)
		(void)PB_LA(m.dtype, sytrf, LAPACK_COL_MAJOR, 'L', m.n, (void *)m.data, m.ld, pb_rt_data(c->ret[1]),
			    (void *)query, -1);
	lwork = pb_la_work_size(query, m.dtype);
	work = pb_rt_scratch((size_t)lwork * pb_rt_dtype_size(m.dtype));
	for (int64_t b = 0; work && b < m.batch; b++) {
		int32_t *info = (int32_t *)pb_rt_data(c->ret[2]) + b, *pivots = (int32_t *)pb_rt_data(c->ret[1]) + b * m.n;

		*info = 0;
		if (m.n && hermitian)
			*info = m.dtype == PB_RT_C64 ? LAPACKE_chetrf_work(LAPACK_COL_MAJOR, 'L', m.n, pb_la_at(&m, b),
									   m.ld, pivots, work, lwork) :
						       LAPACKE_zhetrf_work(LAPACK_COL_MAJOR, 'L', m.n, pb_la_at(&m, b),
									   m.ld, pivots, work, lwork);
		else if (m.n)
			*info = pb_la_info(PB_LA(m.dtype, sytrf, LAPACK_COL_MAJOR, 'L', m.n, pb_la_at(&m, b), m.ld, pivots, work,
				      lwork));
	}
	pb_rt_scratch_free(work);
	if (!work)
		return 1;
	return pb_arg_bool(c, 2) ? pb_la_check(c->ret[2], api, a->ndim == 2) : 0;
}

/* ---- triangular systems ---- */

static void trsm(const struct pb_mats *a, const void *ax, const struct pb_mats *x, void *bx, bool left, bool upper,
		 bool unit)
{
	const CBLAS_SIDE side = left ? CblasLeft : CblasRight;
	const CBLAS_UPLO uplo = upper ? CblasUpper : CblasLower;
	const CBLAS_DIAG diag = unit ? CblasUnit : CblasNonUnit;
	static const float one[2] = {1, 0};
	static const double one_d[2] = {1, 0};

	if (a->dtype == PB_RT_F32)
		cblas_strsm(CblasColMajor, side, uplo, CblasNoTrans, diag, x->m, x->n, 1, ax, a->ld, bx, x->ld);
	else if (a->dtype == PB_RT_F64)
		cblas_dtrsm(CblasColMajor, side, uplo, CblasNoTrans, diag, x->m, x->n, 1, ax, a->ld, bx, x->ld);
	else if (a->dtype == PB_RT_C64)
		cblas_ctrsm(CblasColMajor, side, uplo, CblasNoTrans, diag, x->m, x->n, one, ax, a->ld, bx, x->ld);
	else
		cblas_ztrsm(CblasColMajor, side, uplo, CblasNoTrans, diag, x->m, x->n, one_d, ax, a->ld, bx, x->ld);
}

int pb_op_linalg_solve_triangular(const struct pb_proxy_call *c)
{
	static const char api[] = "linalg.solve_triangular";
	const struct pb_rt_tensor *a = pb_arg(c, 0), *b = pb_arg(c, 1);
	const bool upper = pb_arg_bool(c, 2), left = pb_arg_bool(c, 3), unit = pb_arg_bool(c, 4);
	int64_t batch[PB_RT_MAX_DIMS];
	struct pb_rt_tensor *f;
	struct pb_mats am, x;
	int n_batch;

	if (pb_la_ready(api, a->dtype) || pb_la_matrix(api, a, true) || pb_la_matrix(api, b, false))
		return 1;
	if (a->dtype != b->dtype)
		return pb_rt_fail("%s: Expected A and B to have the same dtype, but found A of type %s and B of type %s "
				  "instead", api, pb_scalar_name(a->dtype), pb_scalar_name(b->dtype));
	if (a->sizes[a->ndim - 1] != b->sizes[left ? b->ndim - 2 : b->ndim - 1])
		return pb_rt_fail("%s: Incompatible shapes of A and B for the equation %s (%lldx%lld and %lldx%lld)", api,
				  left ? "AX = B" : "XA = B", (long long)a->sizes[a->ndim - 2],
				  (long long)a->sizes[a->ndim - 1], (long long)b->sizes[b->ndim - 2],
				  (long long)b->sizes[b->ndim - 1]);
	if (pb_la_batch(a, b, &n_batch, batch))
		return 1;
	f = pb_la_clone(a, n_batch, batch);
	c->ret[0] = f ? pb_la_clone(b, n_batch, batch) : NULL;
	if (c->ret[0]) {
		am = pb_la_mats(f);
		x = pb_la_mats(c->ret[0]);
		for (int64_t i = 0; i < x.batch && x.m && x.n; i++)
			trsm(&am, pb_la_at(&am, i), &x, pb_la_at(&x, i), left, upper, unit);
	}
	pb_rt_delete(f);
	return !c->ret[0];
}
