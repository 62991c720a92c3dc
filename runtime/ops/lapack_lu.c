/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is computed from an LU factorization: lu_factor, lu, lu_solve, solve, inverse, determinants. As
 * aten/src/ATen/native/BatchLinearAlgebra.cpp and LinearAlgebra.cpp.
 */
#include <math.h>
#include <string.h>

#include "runtime/ops/lapack.h"
#include "runtime/ops/lapack_mats.h"

struct lu {
	struct pb_rt_tensor *lu, *pivots, *info;
};

static void lu_free(struct lu *f)
{
	pb_rt_delete(f->lu);
	pb_rt_delete(f->pivots);
	pb_rt_delete(f->info);
}

static int factor(const struct pb_rt_tensor *a, bool transposed, struct lu *f)
{
	struct pb_rt_tensor *t = transposed ? pb_la_transposed(a) : NULL;
	const struct pb_rt_tensor *in = transposed ? t : a;
	int64_t sizes[PB_RT_MAX_DIMS];
	struct pb_mats m;
	int k;

	*f = (struct lu){NULL, NULL, NULL};
	if (!in)
		return 1;
	f->lu = pb_la_clone(in, -1, NULL);
	pb_rt_delete(t);
	if (!f->lu)
		return 1;
	m = pb_la_mats(f->lu);
	k = m.m < m.n ? m.m : m.n;
	memcpy(sizes, a->sizes, sizeof(sizes));
	sizes[a->ndim - 2] = k;
	f->pivots = pb_rt_empty(PB_RT_I32, a->ndim - 1, sizes, NULL);
	f->info = pb_rt_empty(PB_RT_I32, a->ndim - 2, sizes, NULL);
	if (!f->pivots || !f->info) {
		lu_free(f);
		return 1;
	}
	for (int64_t b = 0; b < m.batch; b++) {
		int32_t *info = (int32_t *)pb_rt_data(f->info) + b;

		*info = 0;
		if (k)
			*info = pb_la_info(PB_LA(m.dtype, getrf, LAPACK_COL_MAJOR, m.m, m.n, pb_la_at(&m, b), m.ld,
				      (int32_t *)pb_rt_data(f->pivots) + b * k));
	}
	return 0;
}

static int may_factor(const char *api, const struct pb_rt_tensor *a, bool square)
{
	return pb_la_ready(api, a->dtype) || pb_la_matrix(api, a, square);
}

/* ---- factors ---- */

int pb_op_linalg_lu_factor_ex(const struct pb_proxy_call *c)
{
	const struct pb_rt_tensor *a = pb_arg(c, 0);
	struct lu f;

	if (may_factor("linalg.lu_factor", a, false))
		return 1;
	if (!pb_arg_bool(c, 1))
		return pb_rt_fail("linalg.lu_factor: LU without pivoting is not implemented on the CPU");
	if (factor(a, false, &f))
		return 1;
	c->ret[0] = f.lu;
	c->ret[1] = f.pivots;
	c->ret[2] = f.info;
	return pb_arg_bool(c, 2) ? pb_la_check(f.info, "torch.linalg.lu_factor_ex", a->ndim == 2) : 0;
}

/* Row order that the swaps of @pivots (from 1) make: row i of the product is row perm[i] of the factors. */
static void permutation(const int32_t *pivots, int k, int m, int32_t *perm)
{
	for (int i = 0; i < m; i++)
		perm[i] = i;
	for (int i = 0; i < k; i++) {
		const int p = pivots[i] - 1;

		if (p >= 0 && p < m) {
			const int32_t t = perm[i];

			perm[i] = perm[p];
			perm[p] = t;
		}
	}
}

static void clear(char *p, size_t bytes)
{
	if (bytes)
		memset(p, 0, bytes);
}

/* One matrix of factors into P, L, U, all row by row. */
static void unpack(const struct pb_mats *f, int64_t b, const int32_t *perm, char *p, char *l, char *u)
{
	const size_t size = pb_rt_dtype_size(f->dtype);
	const int k = f->m < f->n ? f->m : f->n;
	const char *x = pb_la_at(f, b);

	clear(p, (size_t)f->m * f->m * size);
	clear(l, (size_t)f->m * k * size);
	clear(u, (size_t)k * f->n * size);
	for (int i = 0; i < f->m; i++) {
		(void)pb_store_scalar(p + ((size_t)perm[i] * f->m + i) * size, f->dtype, 1);
		for (int j = 0; j < f->n; j++) {
			const char *e = x + ((size_t)j * f->ld + i) * size;

			if (j < i && j < k)
				memcpy(l + ((size_t)i * k + j) * size, e, size);
			else if (j >= i)
				memcpy(u + ((size_t)i * f->n + j) * size, e, size);
		}
		if (i < k)
			(void)pb_store_scalar(l + ((size_t)i * k + i) * size, f->dtype, 1);
	}
}

int pb_op_linalg_lu(const struct pb_proxy_call *c)
{
	const struct pb_rt_tensor *a = pb_arg(c, 0);
	int64_t sizes[PB_RT_MAX_DIMS];
	struct pb_mats m;
	int32_t *perm;
	struct lu f;
	int64_t k;

	if (may_factor("linalg.lu", a, false))
		return 1;
	if (!pb_arg_bool(c, 1))
		return pb_rt_fail("linalg.lu_factor: LU without pivoting is not implemented on the CPU");
	if (factor(a, false, &f))
		return 1;
	m = pb_la_mats(f.lu);
	k = m.m < m.n ? m.m : m.n;
	memcpy(sizes, a->sizes, sizeof(sizes));
	sizes[a->ndim - 1] = m.m;
	c->ret[0] = pb_rt_empty(a->dtype, a->ndim, sizes, NULL);
	sizes[a->ndim - 1] = k;
	c->ret[1] = pb_rt_empty(a->dtype, a->ndim, sizes, NULL);
	sizes[a->ndim - 2] = k;
	sizes[a->ndim - 1] = m.n;
	c->ret[2] = pb_rt_empty(a->dtype, a->ndim, sizes, NULL);
	perm = pb_rt_scratch((size_t)m.m * sizeof(*perm) + 1);
	if (c->ret[0] && c->ret[1] && c->ret[2] && perm) {
		const size_t size = pb_rt_dtype_size(a->dtype);

		for (int64_t b = 0; b < m.batch; b++) {
			permutation((int32_t *)pb_rt_data(f.pivots) + b * k, (int)k, m.m, perm);
			unpack(&m, b, perm, (char *)pb_rt_data(c->ret[0]) + (size_t)b * m.m * m.m * size,
			       (char *)pb_rt_data(c->ret[1]) + (size_t)b * m.m * k * size,
			       (char *)pb_rt_data(c->ret[2]) + (size_t)b * k * m.n * size);
		}
	}
	lu_free(&f);
	pb_rt_scratch_free(perm);
	return !c->ret[0] || !c->ret[1] || !c->ret[2] || !perm;
}

/* ---- solving ---- */

/*
 * Solves in place: @b holds right hand sides, column by column. The factors' batch is @b's, or smaller and repeats
 * (@lu_at tells which factors each one of @b's takes).
 */
static void solve_all(const struct pb_mats *lu, const int32_t *pivots, char trans, const struct pb_mats *b,
		      const int64_t *lu_at)
{
	for (int64_t i = 0; i < b->batch && lu->n && b->n; i++) {
		const int64_t at = lu_at ? lu_at[i] : i;

		(void)PB_LA(lu->dtype, getrs, LAPACK_COL_MAJOR, trans, lu->n, b->n, pb_la_at(lu, at), lu->ld,
			    pivots + at * lu->n, pb_la_at(b, i), b->ld);
	}
}

/* Which matrix of @t's batch belongs to each of a broadcast batch; scratch memory, NULL with the error set. */
static int64_t *batch_map(const struct pb_rt_tensor *t, int n_batch, const int64_t *batch, int64_t n)
{
	int64_t *map = pb_rt_scratch((size_t)n * sizeof(*map) + 1);
	int64_t at[PB_RT_MAX_DIMS] = {0};
	const int own = t->ndim - 2, skip = n_batch - own;

	for (int64_t i = 0; map && i < n; i++) {
		int64_t k = 0;

		for (int d = 0; d < own; d++)
			k = k * t->sizes[d] + (t->sizes[d] == 1 ? 0 : at[d + skip]);
		map[i] = k;
		for (int d = n_batch - 1; d >= 0 && ++at[d] == batch[d]; d--)
			at[d] = 0;
	}
	return map;
}

/*
 * X of A X = B (@left) or X A = B, given the factors of A, or of its transpose, and the batch of both. The result is
 * column by column if @left, else row by row: then it is the transpose that is solved for.
 */
static struct pb_rt_tensor *solve_factored(const struct pb_rt_tensor *lu, const struct pb_rt_tensor *pivots,
					   const struct pb_rt_tensor *b, bool left, bool adjoint)
{
	const bool conj = !left && adjoint && pb_is_complex(lu->dtype);
	struct pb_rt_tensor *t = NULL, *x = NULL, *back;
	int64_t batch[PB_RT_MAX_DIMS], *map = NULL;
	struct pb_mats f = pb_la_mats(lu), m;
	int n_batch;

	if (pb_la_batch(lu, b, &n_batch, batch))
		return NULL;
	t = left ? pb_rt_alias(b, b->ndim, b->sizes, b->strides, b->offset) : pb_la_transposed(b);
	x = t ? pb_la_clone(t, n_batch, batch) : NULL;
	pb_rt_delete(t);
	if (!x)
		return NULL;
	m = pb_la_mats(x);
	map = batch_map(lu, n_batch, batch, m.batch);
	if (!map) {
		pb_rt_delete(x);
		return NULL;
	}
	if (conj)
		pb_la_conjugate(&m);
	solve_all(&f, pb_rt_data(pivots), left ? (adjoint ? 'C' : 'N') : (adjoint ? 'N' : 'T'), &m, map);
	if (conj)
		pb_la_conjugate(&m);
	pb_rt_scratch_free(map);
	if (left)
		return x;
	back = pb_la_transposed(x);
	pb_rt_delete(x);
	return back;
}

static int same_dtype(const char *api, const struct pb_rt_tensor *a, const struct pb_rt_tensor *b, const char *name)
{
	if (a->dtype == b->dtype)
		return 0;
	return pb_rt_fail("%s: Expected %s and B to have the same dtype, but found %s of type %s and B of type %s instead",
			  api, name, name, pb_scalar_name(a->dtype), pb_scalar_name(b->dtype));
}

static int shapes_fit(const char *api, const struct pb_rt_tensor *a, const struct pb_rt_tensor *b, bool left)
{
	const int64_t *bs = b->sizes + b->ndim - 2, *as = a->sizes + a->ndim - 2;

	if (b->sizes[b->ndim - 1] > INT32_MAX || b->sizes[b->ndim - 2] > INT32_MAX)
		return pb_rt_fail("%s: a matrix of %s is too large", api, PB_SHAPE(b));
	if (left ? as[0] == bs[0] : as[0] == bs[1])
		return 0;
	return pb_rt_fail("%s: Incompatible shapes of A and B for the equation %s (%lldx%lld and %lldx%lld)", api,
			  left ? "AX = B" : "XA = B", (long long)as[0], (long long)as[1], (long long)bs[0],
			  (long long)bs[1]);
}

int pb_op_linalg_lu_solve(const struct pb_proxy_call *c)
{
	static const char api[] = "linalg.lu_solve";
	const struct pb_rt_tensor *lu = pb_arg(c, 0), *pivots = pb_arg(c, 1), *b = pb_arg(c, 2);
	struct pb_rt_tensor *f = NULL, *p = NULL;
	const bool left = pb_arg_bool(c, 3);

	if (may_factor(api, lu, true) || pb_la_matrix(api, b, false))
		return 1;
	if (pivots->dtype != PB_RT_I32)
		return pb_rt_fail("%s: pivots should be a Tensor of scalar type torch.int32", api);
	if (pivots->ndim != lu->ndim - 1 || pivots->sizes[pivots->ndim - 1] != lu->sizes[lu->ndim - 1])
		return pb_rt_fail("%s: Number of pivots per batch should be same as the dimension of the matrix", api);
	for (int d = 0; d < lu->ndim - 2; d++)
		if (pivots->sizes[d] != lu->sizes[d])
			return pb_rt_fail("%s: Expected LU.shape[:-1] and pivots.shape to be the same, but got pivots "
					  "with shape %s instead", api, PB_SHAPE(pivots));
	if (same_dtype(api, lu, b, "LU") || shapes_fit(api, lu, b, left))
		return 1;
	f = pb_la_clone(lu, -1, NULL);
	p = f ? pb_rt_contiguous(pivots) : NULL;
	for (int64_t i = 0; p && i < p->numel; i++) {
		const int32_t v = ((int32_t *)pb_rt_data(p))[i];

		if (v < 1 || v > lu->sizes[lu->ndim - 1]) { /* LAPACK would swap rows outside the matrix */
			pb_rt_fail("Pivots given to lu_solve must all be greater or equal to 1. Did you properly pass "
				   "the result of lu_factor?");
			pb_rt_delete(p);
			p = NULL;
		}
	}
	if (p)
		c->ret[0] = solve_factored(f, p, b, left, pb_arg_bool(c, 4));
	pb_rt_delete(f);
	pb_rt_delete(p);
	return !c->ret[0];
}

static bool is_vector(const struct pb_rt_tensor *a, const struct pb_rt_tensor *b)
{
	if (b->ndim == 1)
		return true;
	if (b->ndim != a->ndim - 1)
		return false;
	return memcmp(a->sizes, b->sizes, (size_t)b->ndim * sizeof(*a->sizes)) == 0;
}

/* The vectors @x, a column each, as a tensor without the last dimension, with the strides that PyTorch gives it. */
static struct pb_rt_tensor *vectors(const struct pb_rt_tensor *x)
{
	struct pb_rt_tensor *v = pb_rt_alias(x, x->ndim - 1, x->sizes, x->strides, x->offset), *r = NULL;

	if (!v || v->ndim < 2)
		return v;
	r = pb_la_clone(v, -1, NULL);
	pb_rt_delete(v);
	return r;
}

static int solve(const char *api, const struct pb_rt_tensor *a, const struct pb_rt_tensor *b, bool left, struct lu *f,
		 struct pb_rt_tensor **ret)
{
	const bool vector = is_vector(a, b);
	struct pb_rt_tensor *column = NULL, *x = NULL;
	int64_t sizes[PB_RT_MAX_DIMS], strides[PB_RT_MAX_DIMS];

	if (vector && !left)
		return pb_rt_fail("%s: Vector broadcasting of the left hand side is not supported for left=False. In "
				  "this case linalg.solve is equivalent to B / A.squeeze(-1)", api);
	if (vector) {
		if (b->ndim >= PB_RT_MAX_DIMS)
			return pb_rt_fail("%s: more than %d dimensions", api, PB_RT_MAX_DIMS);
		memcpy(sizes, b->sizes, sizeof(sizes));
		memcpy(strides, b->strides, sizeof(strides));
		sizes[b->ndim] = strides[b->ndim] = 1;
		column = pb_rt_alias(b, b->ndim + 1, sizes, strides, b->offset);
		if (!column)
			return 1;
		b = column;
	}
	if (!pb_la_matrix(api, b, false) && !shapes_fit(api, a, b, left) && !factor(a, false, f))
		x = solve_factored(f->lu, f->pivots, b, left, false);
	pb_rt_delete(column);
	*ret = x && vector ? vectors(x) : x;
	if (vector)
		pb_rt_delete(x);
	if (!*ret)
		lu_free(f);
	return !*ret;
}

int pb_op_linalg_solve_ex(const struct pb_proxy_call *c)
{
	static const char api[] = "linalg.solve";
	const struct pb_rt_tensor *a = pb_arg(c, 0), *b = pb_arg(c, 1);
	struct lu f = {NULL, NULL, NULL};

	if (may_factor(api, a, true) || same_dtype(api, a, b, "A"))
		return 1;
	if (b->ndim < 1)
		return pb_rt_fail("%s: B must have at least 1 dimension", api);
	if (solve(api, a, b, pb_arg_bool(c, 2), &f, &c->ret[0]))
		return 1;
	c->ret[1] = f.lu;
	c->ret[2] = f.pivots;
	c->ret[3] = f.info;
	return pb_arg_bool(c, 3) ? pb_la_check(f.info, "torch.linalg.solve_ex", a->ndim == 2) : 0;
}

int pb_op_linalg_inv_ex(const struct pb_proxy_call *c)
{
	const struct pb_rt_tensor *a = pb_arg(c, 0);
	struct lu f = {NULL, NULL, NULL};
	struct pb_rt_tensor *one;
	struct pb_mats m;

	if (may_factor("linalg.inv", a, true))
		return 1;
	one = pb_la_empty(a->dtype, a->ndim - 2, a->sizes, a->sizes[a->ndim - 1], a->sizes[a->ndim - 1]);
	if (!one)
		return 1;
	m = pb_la_mats(one);
	pb_la_identity(&m);
	if (!factor(a, false, &f))
		c->ret[0] = solve_factored(f.lu, f.pivots, one, true, false);
	c->ret[1] = f.info;
	f.info = NULL;
	lu_free(&f);
	pb_rt_delete(one);
	if (!c->ret[0])
		return 1;
	return pb_arg_bool(c, 1) ? pb_la_check(c->ret[1], "linalg.inv_ex", a->ndim == 2) : 0;
}

/* ---- determinants ---- */

/* For determinants, PyTorch factors the transpose where that is the matrix as LAPACK would read it. */
static bool use_transpose(const struct pb_rt_tensor *a)
{
	return pb_rt_is_contiguous(a) && !pb_is_complex(a->dtype);
}

static bool odd(const int32_t *pivots, int n)
{
	bool is_odd = false;

	for (int i = 0; i < n; i++)
		is_odd ^= pivots[i] != i + 1;
	return is_odd;
}

#define DETERMINANT(type)                                                \
	static type determinant_##type(const type *x, int n, int ld, bool neg) \
	{                                                                \
		type p = 1;                                              \
									 \
		for (int i = 0; i < n; i++)                              \
			p *= x[(size_t)i * ld + i];                      \
		return neg ? -p : p;                                     \
	}
typedef float _Complex cfloat;
typedef double _Complex cdouble;
DETERMINANT(float)
DETERMINANT(double)
DETERMINANT(cfloat)
DETERMINANT(cdouble)

/* Sign (a number of absolute value 1, or 0) and logarithm of the absolute value. */
#define SIGN_LOG(type, real, ABS, LOG)                                                                  \
	static void sign_log_##type(const type *x, int n, int ld, bool neg, type *ret_sign, real *ret_log) \
	{                                                                                               \
		type s = neg ? -1 : 1;                                                                  \
		real l = 0;                                                                             \
													\
		for (int i = 0; i < n; i++) {                                                           \
			const type v = x[(size_t)i * ld + i];                                           \
			const real a = ABS(v);                                                          \
													\
			s *= a == 0 ? 0 : v / a;                                                        \
			l += LOG(a);                                                                    \
		}                                                                                       \
		*ret_sign = s;                                                                          \
		*ret_log = l;                                                                           \
	}
SIGN_LOG(float, float, fabsf, logf)
SIGN_LOG(double, double, fabs, log)
SIGN_LOG(cfloat, float, cabsf, logf)
SIGN_LOG(cdouble, double, cabs, log)

#define EACH(type)                                                                                      \
	do {                                                                                            \
		if (logs)                                                                               \
			sign_log_##type(pb_la_at(&m, b), m.n, m.ld, neg, (type *)pb_rt_data(out) + b,   \
					(void *)((char *)pb_rt_data(logs) + (size_t)b * log_size));     \
		else                                                                                    \
			((type *)pb_rt_data(out))[b] = determinant_##type(pb_la_at(&m, b), m.n, m.ld, neg); \
	} while (0)

static void determinants(const struct lu *f, struct pb_rt_tensor *out, struct pb_rt_tensor *logs)
{
	const struct pb_mats m = pb_la_mats(f->lu);
	const size_t log_size = logs ? pb_rt_dtype_size(logs->dtype) : 0;

	for (int64_t b = 0; b < m.batch; b++) {
		const bool neg = odd((int32_t *)pb_rt_data(f->pivots) + b * m.n, m.n);

		if (m.dtype == PB_RT_F32)
			EACH(float);
		else if (m.dtype == PB_RT_F64)
			EACH(double);
		else if (m.dtype == PB_RT_C64)
			EACH(cfloat);
		else
			EACH(cdouble);
	}
}

/* Results: determinant, or sign and logarithm, then factors and pivots. */
static int determinant(const struct pb_proxy_call *c, const char *api, bool with_log)
{
	const struct pb_rt_tensor *a = pb_arg(c, 0);
	struct lu f;

	if (may_factor(api, a, true) || factor(a, use_transpose(a), &f))
		return 1;
	c->ret[0] = pb_rt_empty(a->dtype, a->ndim - 2, a->sizes, NULL);
	if (with_log)
		c->ret[1] = pb_rt_empty(pb_la_real(a->dtype), a->ndim - 2, a->sizes, NULL);
	c->ret[1 + with_log] = f.lu;
	c->ret[2 + with_log] = f.pivots;
	pb_rt_delete(f.info);
	if (!c->ret[0] || !c->ret[1])
		return 1;
	determinants(&f, c->ret[0], with_log ? c->ret[1] : NULL);
	return 0;
}

int pb_op_linalg_det(const struct pb_proxy_call *c)
{
	return determinant(c, "linalg.det", false);
}

int pb_op_linalg_slogdet(const struct pb_proxy_call *c)
{
	return determinant(c, "linalg.slogdet", true);
}
