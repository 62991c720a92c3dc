/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Singular values and eigenvalues, and the pseudo-inverse made from them, through LAPACK. As
 * aten/src/ATen/native/BatchLinearAlgebra.cpp and LinearAlgebra.cpp.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "runtime/ops/lapack.h"
#include "runtime/ops/lapack_mats.h"

static struct pb_rt_tensor *nothing(int32_t dtype)
{
	return pb_rt_empty(dtype, 1, &(int64_t){0}, NULL);
}

static void clear_info(struct pb_rt_tensor *info)
{
	for (int64_t i = 0; i < info->numel; i++)
		((int32_t *)pb_rt_data(info))[i] = 0;
}

/* ---- singular values ---- */

struct svd {
	struct pb_rt_tensor *u, *s, *vh; /* u, vh: empty without vectors */
};

struct gesdd {
	const struct pb_mats *a;
	char job;
	int ldu, ldvt, lwork;
	void *work, *rwork;
	int32_t *iwork;
};

static int gesdd(const struct gesdd *g, void *x, void *s, void *u, void *vt)
{
	const struct pb_mats *a = g->a;

	switch (a->dtype) {
	case PB_RT_F32:
		return LAPACKE_sgesdd_work(LAPACK_COL_MAJOR, g->job, a->m, a->n, x, a->ld, s, u, g->ldu, vt, g->ldvt,
					   g->work, g->lwork, g->iwork);
	case PB_RT_F64:
		return LAPACKE_dgesdd_work(LAPACK_COL_MAJOR, g->job, a->m, a->n, x, a->ld, s, u, g->ldu, vt, g->ldvt,
					   g->work, g->lwork, g->iwork);
	case PB_RT_C64:
		return LAPACKE_cgesdd_work(LAPACK_COL_MAJOR, g->job, a->m, a->n, x, a->ld, s, u, g->ldu, vt, g->ldvt,
					   g->work, g->lwork, g->rwork, g->iwork);
	default:
		return LAPACKE_zgesdd_work(LAPACK_COL_MAJOR, g->job, a->m, a->n, x, a->ld, s, u, g->ldu, vt, g->ldvt,
					   g->work, g->lwork, g->rwork, g->iwork);
	}
}

/* Elements of rwork, from the documentation of cgesdd. */
static size_t rwork_size(const struct pb_mats *a, char job)
{
	const size_t mn = (size_t)(a->m < a->n ? a->m : a->n), mx = (size_t)(a->m < a->n ? a->n : a->m);
	const size_t large = 5 * mn * mn + 5 * mn, other = 2 * mx * mn + 2 * mn * mn + mn;

	if (job == 'N')
		return 7 * mn;
	return large > other ? large : other;
}

static int run_gesdd(const struct pb_mats *a, char job, const struct svd *r)
{
	const size_t size = pb_rt_dtype_size(a->dtype), real = pb_rt_dtype_size(pb_la_real(a->dtype));
	const int k = a->m < a->n ? a->m : a->n;
	const struct pb_mats none = {.ld = 1, .dtype = a->dtype};
	const struct pb_mats u = job == 'N' ? none : pb_la_mats(r->u), vt = job == 'N' ? none : pb_la_mats(r->vh);
	double query[2] = {0};
	struct gesdd g = {.a = a, .job = job, .ldu = u.ld, .ldvt = vt.ld, .work = query, .lwork = -1};
	int info = 0;
	int64_t b;

	g.iwork = pb_rt_scratch((size_t)k * 8 * sizeof(*g.iwork));
	g.rwork = pb_rt_scratch(rwork_size(a, job) * real);
	if (g.iwork && g.rwork) {
		(void)gesdd(&g, a->data, pb_rt_data(r->s), u.data, vt.data);
		g.lwork = pb_la_work_size(query, a->dtype);
	}
	g.work = g.iwork && g.rwork ? pb_rt_scratch((size_t)g.lwork * size) : NULL;
	for (b = 0; g.work && b < a->batch && !info; b++)
		info = pb_la_info(gesdd(&g, pb_la_at(a, b), (char *)pb_rt_data(r->s) + (size_t)b * k * real, pb_la_at(&u, b),
					pb_la_at(&vt, b)));
	pb_rt_scratch_free(g.iwork);
	pb_rt_scratch_free(g.rwork);
	if (!g.work)
		return 1;
	pb_rt_scratch_free(g.work);
	if (info) {
		struct pb_rt_tensor *all = pb_rt_empty(PB_RT_I32, 1, &(int64_t){b}, NULL);
		int rc;

		if (!all)
			return 1;
		memset(pb_rt_data(all), 0, (size_t)b * sizeof(int32_t));
		((int32_t *)pb_rt_data(all))[b - 1] = info;
		rc = pb_la_check(all, "linalg.svd", a->batch == 1);
		pb_rt_delete(all);
		return rc;
	}
	return 0;
}

/* On failure, what was made stays in @r. */
static int svd(const struct pb_rt_tensor *a, bool full, bool vectors, struct svd *r)
{
	const int nb = a->ndim - 2;
	const int64_t m = a->sizes[nb], n = a->sizes[nb + 1], k = m < n ? m : n;
	struct pb_rt_tensor *x;
	int64_t sizes[PB_RT_MAX_DIMS];
	struct pb_mats xm, um, vm;
	int rc;

	if (pb_la_ready("linalg.svd", a->dtype) || pb_la_matrix("linalg.svd", a, false))
		return 1;
	memcpy(sizes, a->sizes, sizeof(sizes));
	sizes[nb] = k;
	r->s = pb_rt_empty(pb_la_real(a->dtype), nb + 1, sizes, NULL);
	r->u = vectors ? pb_la_empty(a->dtype, nb, a->sizes, m, full ? m : k) : nothing(a->dtype);
	r->vh = vectors ? pb_la_empty(a->dtype, nb, a->sizes, full ? n : k, n) : nothing(a->dtype);
	x = pb_la_clone(a, -1, NULL);
	rc = !r->s || !r->u || !r->vh || !x;
	if (!rc) {
		xm = pb_la_mats(x);
		if (k && xm.batch) {
			rc = run_gesdd(&xm, !vectors ? 'N' : full ? 'A' : 'S', r);
		} else if (vectors) {
			um = pb_la_mats(r->u);
			vm = pb_la_mats(r->vh);
			pb_la_identity(&um);
			pb_la_identity(&vm);
		}
	}
	pb_rt_delete(x);
	return rc;
}

int pb_op_linalg_svd(const struct pb_proxy_call *c)
{
	struct svd r = {NULL, NULL, NULL};
	int rc;

	if (pb_arg_given(c, 3))
		return pb_rt_fail("torch.linalg.svd: keyword argument `driver=` is only supported on CUDA inputs with "
				  "cuSOLVER backend.");
	rc = svd(pb_arg(c, 0), pb_arg_bool(c, 1), pb_arg_bool(c, 2), &r);
	c->ret[0] = r.u;
	c->ret[1] = r.s;
	c->ret[2] = r.vh;
	return rc;
}

/* ---- eigenvalues ---- */

struct syevd {
	const struct pb_mats *a;
	char job, uplo;
	int lwork, lrwork, liwork;
	void *work, *rwork;
	int32_t *iwork;
};

static int syevd(const struct syevd *g, void *x, void *w)
{
	const struct pb_mats *a = g->a;

	switch (a->dtype) {
	case PB_RT_F32:
		return LAPACKE_ssyevd_work(LAPACK_COL_MAJOR, g->job, g->uplo, a->n, x, a->ld, w, g->work, g->lwork,
					   g->iwork, g->liwork);
	case PB_RT_F64:
		return LAPACKE_dsyevd_work(LAPACK_COL_MAJOR, g->job, g->uplo, a->n, x, a->ld, w, g->work, g->lwork,
					   g->iwork, g->liwork);
	case PB_RT_C64:
		return LAPACKE_cheevd_work(LAPACK_COL_MAJOR, g->job, g->uplo, a->n, x, a->ld, w, g->work, g->lwork,
					   g->rwork, g->lrwork, g->iwork, g->liwork);
	default:
		return LAPACKE_zheevd_work(LAPACK_COL_MAJOR, g->job, g->uplo, a->n, x, a->ld, w, g->work, g->lwork,
					   g->rwork, g->lrwork, g->iwork, g->liwork);
	}
}

/* In place: @a becomes the vectors. @infos: one a matrix. */
static int run_syevd(const struct pb_mats *a, bool vectors, char uplo, char *w, int32_t *infos)
{
	const size_t size = pb_rt_dtype_size(a->dtype), real = pb_rt_dtype_size(pb_la_real(a->dtype));
	double work1[2] = {0}, rwork1[2] = {0};
	int32_t iwork1 = 0;
	struct syevd g = {.a = a, .job = vectors ? 'V' : 'N', .uplo = uplo, .lwork = -1, .lrwork = -1, .liwork = -1,
			  .work = work1, .rwork = rwork1, .iwork = &iwork1};
	bool ok;

	(void)syevd(&g, a->data, w);
	g.lwork = pb_la_work_size(work1, a->dtype);
	g.lrwork = pb_la_work_size(rwork1, a->dtype);
	g.liwork = iwork1 > 1 ? iwork1 : 1;
	g.work = pb_rt_scratch((size_t)g.lwork * size);
	g.rwork = pb_rt_scratch((size_t)g.lrwork * real);
	g.iwork = pb_rt_scratch((size_t)g.liwork * sizeof(int32_t));
	ok = g.work && g.rwork && g.iwork;
	for (int64_t b = 0; ok && b < a->batch; b++) {
		infos[b] = pb_la_info(syevd(&g, pb_la_at(a, b), w + (size_t)b * a->n * real));
		if (infos[b])
			break;
	}
	pb_rt_scratch_free(g.work);
	pb_rt_scratch_free(g.rwork);
	pb_rt_scratch_free(g.iwork);
	return !ok;
}

static int eigh(const struct pb_rt_tensor *a, bool vectors, char uplo, struct pb_rt_tensor **ret_w,
		struct pb_rt_tensor **ret_v)
{
	struct pb_rt_tensor *x, *info;
	struct pb_mats m;
	int rc;

	if (pb_la_ready("linalg.eigh", a->dtype) || pb_la_matrix("linalg.eigh", a, true))
		return 1;
	*ret_w = pb_rt_empty(pb_la_real(a->dtype), a->ndim - 1, a->sizes, NULL);
	info = pb_rt_empty(PB_RT_I32, a->ndim - 2, a->sizes, NULL);
	x = *ret_w && info ? pb_la_clone(a, -1, NULL) : NULL;
	rc = !x;
	if (!rc) {
		m = pb_la_mats(x);
		clear_info(info);
		if (m.n && m.batch)
			rc = run_syevd(&m, vectors, uplo, pb_rt_data(*ret_w), pb_rt_data(info));
		if (!rc)
			rc = pb_la_check(info, "linalg.eigh", a->ndim == 2);
	}
	pb_rt_delete(info);
	*ret_v = vectors ? x : nothing(a->dtype);
	if (!vectors)
		pb_rt_delete(x);
	return rc || !*ret_v;
}

int pb_op_linalg_eigh(const struct pb_proxy_call *c)
{
	const char *uplo = c->args[1].v.s;
	const char u = uplo[0] >= 'a' ? (char)(uplo[0] - 32) : uplo[0];

	if ((u != 'L' && u != 'U') || uplo[1])
		return pb_rt_fail("Expected UPLO argument to be 'L' or 'U', but got %.20s", uplo);
	return eigh(pb_arg(c, 0), pb_arg_bool(c, 2), u, &c->ret[0], &c->ret[1]);
}

struct geev {
	const struct pb_mats *a;
	bool vectors;
	int lwork;
	void *work, *rwork;
};

/* Real: @w has n real parts, then n imaginary ones. Complex: @w is the result. @v: n x n. */
static int geev(const struct geev *g, void *x, void *w, void *v)
{
	const struct pb_mats *a = g->a;
	const char job = g->vectors ? 'V' : 'N';

	switch (a->dtype) {
	case PB_RT_F32:
		return LAPACKE_sgeev_work(LAPACK_COL_MAJOR, 'N', job, a->n, x, a->ld, w, (float *)w + a->n, NULL, 1, v,
					  a->ld, g->work, g->lwork);
	case PB_RT_F64:
		return LAPACKE_dgeev_work(LAPACK_COL_MAJOR, 'N', job, a->n, x, a->ld, w, (double *)w + a->n, NULL, 1, v,
					  a->ld, g->work, g->lwork);
	case PB_RT_C64:
		return LAPACKE_cgeev_work(LAPACK_COL_MAJOR, 'N', job, a->n, x, a->ld, w, NULL, 1, v, a->ld, g->work,
					  g->lwork, g->rwork);
	default:
		return LAPACKE_zgeev_work(LAPACK_COL_MAJOR, 'N', job, a->n, x, a->ld, w, NULL, 1, v, a->ld, g->work,
					  g->lwork, g->rwork);
	}
}

/* LAPACK's real form: pairs of columns are real and imaginary part of a pair of conjugate vectors. */
#define TO_COMPLEX(type)                                                                     \
	static void to_complex_##type(int n, const type *w, const type *v, type *rw, type *rv) \
	{                                                                                    \
		for (int j = 0; j < n; j++) {                                                \
			rw[2 * j] = w[j];                                                    \
			rw[2 * j + 1] = w[n + j];                                            \
		}                                                                            \
		for (int j = 0; rv && j < n; j++) {                                          \
			const bool pair = w[n + j] != 0 && j + 1 < n;                        \
											     \
			for (int i = 0; i < n; i++) {                                        \
				const type re = v[(size_t)j * n + i];                        \
				const type im = pair ? v[(size_t)(j + 1) * n + i] : 0;       \
				type *to = rv + 2 * ((size_t)j * n + i);                     \
											     \
				to[0] = re;                                                  \
				to[1] = im;                                                  \
				if (pair) {                                                  \
					to[2 * (size_t)n] = re;                              \
					to[2 * (size_t)n + 1] = -im;                         \
				}                                                            \
			}                                                                    \
			j += pair;                                                           \
		}                                                                            \
	}
TO_COMPLEX(float)
TO_COMPLEX(double)

/* @w, @v: complex results; @v has no data without vectors. */
static int run_geev(const struct pb_mats *a, bool vectors, struct pb_rt_tensor *w, struct pb_rt_tensor *v, int32_t *infos)
{
	const bool cplx = pb_is_complex(a->dtype);
	const size_t size = pb_rt_dtype_size(a->dtype), csize = pb_rt_dtype_size(w->dtype), n = (size_t)a->n;
	char *wb = pb_rt_scratch(2 * n * size), *vb = pb_rt_scratch(n * n * size + 1);
	struct geev g = {.a = a, .vectors = vectors, .lwork = -1, .rwork = pb_rt_scratch(2 * n * csize)};
	double query[2] = {0};

	g.work = query;
	if (wb && vb && g.rwork) {
		(void)geev(&g, a->data, wb, vb);
		g.lwork = pb_la_work_size(query, a->dtype);
	}
	g.work = wb && vb && g.rwork ? pb_rt_scratch((size_t)g.lwork * size) : NULL;
	for (int64_t b = 0; g.work && b < a->batch; b++) {
		char *wr = (char *)pb_rt_data(w) + (size_t)b * n * csize;
		char *vr = vectors ? (char *)pb_rt_data(v) + (size_t)b * n * n * csize : NULL;

		infos[b] = pb_la_info(geev(&g, pb_la_at(a, b), cplx ? wr : wb, cplx ? vr : vb));
		if (infos[b])
			break;
		if (a->dtype == PB_RT_F32)
			to_complex_float(a->n, (float *)wb, (float *)vb, (float *)wr, (float *)vr);
		else if (a->dtype == PB_RT_F64)
			to_complex_double(a->n, (double *)wb, (double *)vb, (double *)wr, (double *)vr);
	}
	pb_rt_scratch_free(wb);
	pb_rt_scratch_free(vb);
	pb_rt_scratch_free(g.rwork);
	if (!g.work)
		return 1;
	pb_rt_scratch_free(g.work);
	return 0;
}

static bool all_finite(const struct pb_mats *a)
{
	const size_t n = a->step / pb_rt_dtype_size(pb_la_real(a->dtype)) * (size_t)a->batch;

	for (size_t i = 0; i < n; i++)
		if (!isfinite(pb_la_real(a->dtype) == PB_RT_F32 ? ((float *)a->data)[i] : ((double *)a->data)[i]))
			return false;
	return true;
}

static int eig(const struct pb_proxy_call *c, bool vectors)
{
	const struct pb_rt_tensor *a = pb_arg(c, 0);
	struct pb_rt_tensor *x, *info, *v = NULL;
	int32_t cplx;
	struct pb_mats m;
	int rc;

	if (pb_la_ready("linalg.eig", a->dtype) || pb_la_matrix("linalg.eig", a, true))
		return 1;
	cplx = pb_la_real(a->dtype) == PB_RT_F32 ? PB_RT_C64 : PB_RT_C128;
	c->ret[0] = pb_rt_empty(cplx, a->ndim - 1, a->sizes, NULL);
	if (vectors)
		v = c->ret[1] = pb_la_empty(cplx, a->ndim - 2, a->sizes, a->sizes[a->ndim - 1], a->sizes[a->ndim - 1]);
	info = pb_rt_empty(PB_RT_I32, a->ndim - 2, a->sizes, NULL);
	x = c->ret[0] && info && (v || !vectors) ? pb_la_clone(a, -1, NULL) : NULL;
	rc = !x;
	if (!rc) {
		m = pb_la_mats(x);
		clear_info(info);
		if (!all_finite(&m))
			rc = pb_rt_fail("torch.linalg.eig: input tensor should not contain infs or NaNs.");
		else if (m.n && m.batch)
			rc = run_geev(&m, vectors, c->ret[0], v, pb_rt_data(info));
		if (!rc)
			rc = pb_la_check(info, "torch.linalg.eig", a->ndim == 2);
	}
	pb_rt_delete(info);
	pb_rt_delete(x);
	return rc;
}

int pb_op_linalg_eig(const struct pb_proxy_call *c)
{
	return eig(c, true);
}

int pb_op_linalg_eigvals(const struct pb_proxy_call *c)
{
	return eig(c, false);
}

/* ---- pseudo-inverse ---- */

/* @out row by row is V diag(f) U^H, that is, column by column its transpose conj(U) diag(f) V^T. */
static void product(const struct pb_mats *u, int64_t b, const struct pb_mats *vh, const double *f, char *out)
{
	const int k = u->n, m = u->m, n = vh->n;
	const size_t ld = (size_t)u->ld, ldv = (size_t)vh->ld;

	if (!m || !n)
		return;

#define PRODUCT(type, CONJ)                                                                      \
	do {                                                                                     \
		const type *x = pb_la_at(u, b), *y = pb_la_at(vh, b);                            \
		type *to = (type *)(void *)out;                                                  \
												 \
		memset(to, 0, (size_t)m * n * sizeof(type));                                     \
		for (int i = 0; i < n; i++)                                                      \
			for (int j = 0; j < k; j++) {                                            \
				const type s = (type)f[j] * CONJ(y[(size_t)i * ldv + j]);        \
												 \
				for (int r = 0; r < m; r++)                                      \
					to[(size_t)i * m + r] += s * CONJ(x[(size_t)j * ld + r]); \
			}                                                                        \
	} while (0)
#define SAME(x) (x)
	switch (u->dtype) {
	case PB_RT_F32:
		PRODUCT(float, SAME);
		break;
	case PB_RT_F64:
		PRODUCT(double, SAME);
		break;
	case PB_RT_C64:
		PRODUCT(float _Complex, conjf);
		break;
	default:
		PRODUCT(double _Complex, conj);
	}
}

static double real_at(const void *p, int32_t dtype, int64_t i)
{
	return dtype == PB_RT_F32 ? ((const float *)p)[i] : ((const double *)p)[i];
}

/* The tolerance of batch element @b; @t: a 0-d tensor, or one value a matrix, contiguous float64. */
static double tolerance(const struct pb_rt_tensor *t, int64_t b, double missing)
{
	return t ? ((const double *)pb_rt_data(t))[t->numel == 1 ? 0 : b] : missing;
}

struct pinv {
	const struct pb_rt_tensor *in;
	struct pb_rt_tensor *u, *s, *vh, *atol, *rtol;
	bool hermitian;
};

static int pinv_all(const struct pinv *p, struct pb_rt_tensor *out)
{
	const struct pb_mats u = pb_la_mats(p->u), vh = pb_la_mats(p->hermitian ? p->u : p->vh);
	const int32_t real = p->s->dtype;
	const double eps = real == PB_RT_F32 ? FLT_EPSILON : DBL_EPSILON;
	const int nb = p->in->ndim - 2;
	const int64_t m = p->in->sizes[nb], n = p->in->sizes[nb + 1], k = m < n ? m : n;
	double *f = pb_rt_scratch((size_t)k * sizeof(*f) + 1);

	for (int64_t b = 0; f && b < u.batch; b++) {
		double max = 0, atol = tolerance(p->atol, b, 0), tol;
		double rtol = tolerance(p->rtol, b, p->atol && atol > 0 ? 0 : eps * (double)(m > n ? m : n));

		for (int64_t i = 0; i < k; i++) {
			f[i] = real_at(pb_rt_data(p->s), real, b * k + i);
			max = fabs(f[i]) > max ? fabs(f[i]) : max;
		}
		tol = atol > rtol * max ? atol : rtol * max;
		for (int64_t i = 0; i < k; i++)
			f[i] = fabs(f[i]) > tol ? 1 / f[i] : 0;
		product(&u, b, &vh, f, (char *)pb_rt_data(out) + (size_t)b * (size_t)(m * n) * pb_rt_dtype_size(out->dtype));
	}
	pb_rt_scratch_free(f);
	return !f;
}

/* The adjoint of each square matrix, in place. */
static void adjoin(struct pb_rt_tensor *v)
{
	const struct pb_mats m = pb_la_mats(v);
	const size_t size = pb_rt_dtype_size(v->dtype);
	char t[16];

	for (int64_t b = 0; b < m.batch; b++)
		for (int j = 0; j < m.n; j++)
			for (int i = 0; i < j; i++) {
				char *x = (char *)pb_la_at(&m, b) + ((size_t)j * m.ld + i) * size;
				char *y = (char *)pb_la_at(&m, b) + ((size_t)i * m.ld + j) * size;

				memcpy(t, x, size);
				memcpy(x, y, size);
				memcpy(y, t, size);
			}
	pb_la_conjugate(&m);
}

static int decompose(struct pinv *p)
{
	struct svd r = {NULL, NULL, NULL};
	int rc;

	if (!p->hermitian) {
		rc = svd(p->in, false, true, &r);
		p->u = r.u;
		p->s = r.s;
		p->vh = r.vh;
		return rc;
	}
	rc = eigh(p->in, true, 'L', &p->s, &p->u);
	if (!rc) {
		p->vh = pb_la_clone(p->u, -1, NULL);
		if (p->vh)
			adjoin(p->vh);
	}
	return rc || !p->vh;
}

static int tolerance_of(const struct pb_proxy_call *c, int i, int64_t batch, struct pb_rt_tensor **ret)
{
	const struct pb_rt_tensor *t = pb_arg(c, i);

	*ret = NULL;
	if (!t)
		return 0;
	if (t->numel != 1 && t->numel != batch)
		return pb_rt_fail("linalg.pinv: a tolerance of shape %s does not fit the batch", PB_SHAPE(t));
	*ret = pb_clone_as(t, PB_RT_F64);
	return !*ret;
}

int pb_op_linalg_pinv(const struct pb_proxy_call *c)
{
	struct pinv p = {.in = pb_arg(c, 0), .hermitian = pb_arg_bool(c, 3)};
	int64_t sizes[PB_RT_MAX_DIMS], batch = 1;
	const int nb = p.in->ndim - 2;
	int rc;

	if (pb_la_matrix("linalg.pinv", p.in, p.hermitian))
		return 1;
	for (int d = 0; d < nb; d++)
		batch *= p.in->sizes[d];
	memcpy(sizes, p.in->sizes, sizeof(sizes));
	sizes[nb] = p.in->sizes[nb + 1];
	sizes[nb + 1] = p.in->sizes[nb];
	rc = tolerance_of(c, 1, batch, &p.atol) || tolerance_of(c, 2, batch, &p.rtol) || decompose(&p);
	if (!rc)
		c->ret[0] = pb_rt_empty(p.in->dtype, p.in->ndim, sizes, NULL);
	rc = rc || !c->ret[0];
	if (!rc) {
		p.hermitian = false;
		rc = pinv_all(&p, c->ret[0]);
	}
	pb_rt_delete(p.u);
	pb_rt_delete(p.s);
	pb_rt_delete(p.vh);
	pb_rt_delete(p.atol);
	pb_rt_delete(p.rtol);
	return rc;
}
