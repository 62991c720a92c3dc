/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of matrices that have no C function: of complex ones, and the exponential, which is made of products. As
 * aten/src/ATen/native/LinearAlgebra.cpp.
 */
#include <math.h>
#include <string.h>

#include "runtime/ops/lapack.h"
#include "runtime/ops/lapack_mats.h"

/* z = x y + beta z, all column by column. */
static void gemm(int32_t dtype, int rows, int cols, int inner, const void *x, int ldx, const void *y, int ldy,
		 double beta, void *z, int ldz)
{
	const float one[2] = {1, 0}, beta_c[2] = {(float)beta, 0};
	const double one_z[2] = {1, 0}, beta_z[2] = {beta, 0};

	if (dtype == PB_RT_F32)
		cblas_sgemm(CblasColMajor, CblasNoTrans, CblasNoTrans, rows, cols, inner, 1, x, ldx, y, ldy, (float)beta, z,
			    ldz);
	else if (dtype == PB_RT_F64)
		cblas_dgemm(CblasColMajor, CblasNoTrans, CblasNoTrans, rows, cols, inner, 1, x, ldx, y, ldy, beta, z, ldz);
	else if (dtype == PB_RT_C64)
		cblas_cgemm(CblasColMajor, CblasNoTrans, CblasNoTrans, rows, cols, inner, one, x, ldx, y, ldy, beta_c, z,
			    ldz);
	else
		cblas_zgemm(CblasColMajor, CblasNoTrans, CblasNoTrans, rows, cols, inner, one_z, x, ldx, y, ldy, beta_z, z,
			    ldz);
}

/* A product that is called by name is one of complex numbers; others have a C function. */
int pb_op_mm_complex(const struct pb_proxy_call *c)
{
	const struct pb_rt_tensor *a = pb_arg(c, 0), *b = pb_arg(c, 1);
	struct pb_rt_tensor *x = NULL, *y = NULL;
	int64_t sizes[2];

	if (a->ndim != 2 || b->ndim != 2)
		return pb_rt_fail("mm: expected matrices, got %s and %s", PB_SHAPE(a), PB_SHAPE(b));
	if (pb_la_ready("mm", a->dtype) || pb_la_matrix("mm", a, false) || pb_la_matrix("mm", b, false))
		return 1;
	if (a->dtype != b->dtype)
		return pb_rt_fail("expected m1 and m2 to have the same dtype, but got: %s != %s", pb_scalar_name(a->dtype),
				  pb_scalar_name(b->dtype));
	if (a->sizes[1] != b->sizes[0])
		return pb_rt_fail("mat1 and mat2 shapes cannot be multiplied (%lldx%lld and %lldx%lld)",
				  (long long)a->sizes[0], (long long)a->sizes[1], (long long)b->sizes[0],
				  (long long)b->sizes[1]);
	sizes[0] = a->sizes[0];
	sizes[1] = b->sizes[1];
	c->ret[0] = pb_rt_empty(a->dtype, 2, sizes, NULL);
	x = c->ret[0] ? pb_rt_contiguous(a) : NULL;
	y = x ? pb_rt_contiguous(b) : NULL;
	if (y && c->ret[0]->numel) { /* row by row is column by column of the transpose: B^T A^T */
		const int n = (int)sizes[1], k = (int)a->sizes[1];

		gemm(a->dtype, n, (int)sizes[0], k, pb_rt_data(y), n, pb_rt_data(x), k > 1 ? k : 1, 0,
		     pb_rt_data(c->ret[0]), n);
	}
	pb_rt_delete(x);
	pb_rt_delete(y);
	return !y;
}

/* ---- exponential ---- */

/* One square matrix with room for what is made on the way. Elements are real numbers, two of them for a complex one. */
struct expm {
	const struct pb_mats *m;
	int n;
	size_t elements; /* real numbers of a matrix */
	void *a, *power[3], *term, *sum;
};

static void product(const struct expm *e, const void *x, const void *y, void *z)
{
	gemm(e->m->dtype, e->n, e->n, e->n, x, e->n, y, e->n, 0, z, e->n);
}

/* x += f y */
static void add(const struct expm *e, void *x, double f, const void *y)
{
	if (pb_la_real(e->m->dtype) == PB_RT_F32)
		for (size_t i = 0; i < e->elements; i++)
			((float *)x)[i] += (float)f * ((const float *)y)[i];
	else
		for (size_t i = 0; i < e->elements; i++)
			((double *)x)[i] += f * ((const double *)y)[i];
}

static void scale(const struct expm *e, void *x, double f)
{
	if (pb_la_real(e->m->dtype) == PB_RT_F32)
		for (size_t i = 0; i < e->elements; i++)
			((float *)x)[i] *= (float)f;
	else
		for (size_t i = 0; i < e->elements; i++)
			((double *)x)[i] *= f;
}

static void add_identity(const struct expm *e, void *x, double f)
{
	const size_t step = ((size_t)e->n + 1) * (pb_is_complex(e->m->dtype) ? 2 : 1);

	for (int i = 0; i < e->n; i++) {
		if (pb_la_real(e->m->dtype) == PB_RT_F32)
			((float *)x)[(size_t)i * step] += (float)f;
		else
			((double *)x)[(size_t)i * step] += f;
	}
}

/* Largest sum of absolute values of a column. */
static double norm1(const struct expm *e, const void *x)
{
	const int parts = pb_is_complex(e->m->dtype) ? 2 : 1;
	double max = 0;

	for (int j = 0; j < e->n; j++) {
		double sum = 0;

		for (int i = 0; i < e->n; i++) {
			const size_t at = ((size_t)j * (size_t)e->n + (size_t)i) * (size_t)parts;
			const bool f32 = pb_la_real(e->m->dtype) == PB_RT_F32;
			const double re = f32 ? ((const float *)x)[at] : ((const double *)x)[at];
			const double im = parts == 1 ? 0 : f32 ? ((const float *)x)[at + 1] : ((const double *)x)[at + 1];

			sum += hypot(re, im);
		}
		max = sum > max || isnan(sum) ? sum : max;
	}
	return max;
}

/*
 * Taylor polynomial of degree 18, four powers at a time (Paterson and Stockmeyer), of a matrix whose norm is small
 * enough for it, then squared back. In place of e->a.
 */
static void expm(const struct expm *e)
{
	/* Norm up to which degree 18 is exact to rounding (Bader, Blanes, Casas 2019, table 1). */
	const double theta = pb_la_real(e->m->dtype) == PB_RT_F32 ? 3.010066362817634 : 1.090863719290036;
	const double norm = norm1(e, e->a);
	const size_t bytes = e->elements * pb_rt_dtype_size(pb_la_real(e->m->dtype));
	double factorial[19] = {1};
	int squarings = 0;

	if (isfinite(norm) && norm > theta)
		squarings = (int)ceil(log2(norm / theta));
	for (int i = 1; i <= 18; i++)
		factorial[i] = factorial[i - 1] * i;
	scale(e, e->a, ldexp(1, -squarings));
	product(e, e->a, e->a, e->power[0]);
	product(e, e->power[0], e->a, e->power[1]);
	product(e, e->power[1], e->a, e->power[2]);
	memset(e->sum, 0, bytes);
	for (int k = 4; k >= 0; k--) { /* sum = sum a^4 + terms 4k .. 4k + 3 */
		const int top = k == 4 ? 2 : 3;

		product(e, e->sum, e->power[2], e->term);
		memcpy(e->sum, e->term, bytes);
		add_identity(e, e->sum, 1 / factorial[4 * k]);
		add(e, e->sum, 1 / factorial[4 * k + 1], e->a);
		add(e, e->sum, 1 / factorial[4 * k + 2], e->power[0]);
		if (top == 3)
			add(e, e->sum, 1 / factorial[4 * k + 3], e->power[1]);
	}
	for (; squarings > 0; squarings--) {
		product(e, e->sum, e->sum, e->term);
		memcpy(e->sum, e->term, bytes);
	}
	memcpy(e->a, e->sum, bytes);
}

/* @t with the strides that an elementwise function of @like gives its result. */
static struct pb_rt_tensor *clone_like(const struct pb_rt_tensor *t, const struct pb_rt_tensor *like)
{
	struct pb_rt_tensor *r = pb_empty_like(like, t->dtype);

	if (r && pb_rt_copy(r, t)) {
		pb_rt_delete(r);
		return NULL;
	}
	return r;
}

int pb_op_linalg_matrix_exp(const struct pb_proxy_call *c)
{
	const struct pb_rt_tensor *a = pb_arg(c, 0);
	struct pb_rt_tensor *t;
	struct pb_mats m;
	char *room;

	if (pb_la_ready("linalg.matrix_exp", a->dtype) || pb_la_matrix("linalg.matrix_exp", a, true))
		return 1;
	t = pb_rt_empty(a->dtype, a->ndim, a->sizes, NULL);
	if (!t || pb_rt_copy(t, a)) {
		pb_rt_delete(t);
		return 1;
	}
	m = pb_la_mats(t); /* row by row: the exponential of the transpose is the transpose of the exponential */
	room = pb_rt_scratch(m.step * 5 + 1);
	for (int64_t b = 0; room && b < m.batch && m.n; b++) {
		const struct expm e = {.m = &m, .n = m.n, .a = pb_la_at(&m, b),
				       .elements = (size_t)m.n * (size_t)m.n * (pb_is_complex(m.dtype) ? 2 : 1),
				       .power = {room, room + m.step, room + 2 * m.step},
				       .term = room + 3 * m.step, .sum = room + 4 * m.step};

		expm(&e);
	}
	pb_rt_scratch_free(room);
	c->ret[0] = t;
	if (room && m.n == 1) { /* in PyTorch an elementwise function, with the strides of one */
		c->ret[0] = clone_like(t, a);
		pb_rt_delete(t);
	}
	return !room || !c->ret[0];
}
