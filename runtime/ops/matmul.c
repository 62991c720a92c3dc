/* SPDX-License-Identifier: Apache-2.0 */
/*
 * addmm, mm, bmm, baddbmm, addbmm, addmv, _int_mm: shape rules, broadcasting of the addend,
 * aliasing and dtypes as in PyTorch's aten/src/ATen/native/{LinearAlgebra,Blas}.cpp; the arithmetic
 * is in gemm.c. 16-bit types are computed in float and rounded once, integers wrap.
 */
#include "runtime/ops/matmul.h"

#include <string.h>

#include "runtime/ops/gemm.h"
#include "runtime/ops/shape.h"
#include "runtime/tensor.h"

/* A matrix inside a tensor. */
struct mat {
	char *p;
	int64_t rows, cols, rs, cs;
	int32_t dtype;
	const struct pb_rt_tensor *t;
};

static struct mat mat_of(const struct pb_rt_tensor *t, int first_dim)
{
	return (struct mat){pb_rt_data(t),
			    t->sizes[first_dim],
			    t->sizes[first_dim + 1],
			    t->strides[first_dim],
			    t->strides[first_dim + 1],
			    t->dtype,
			    t};
}

static struct mat mat_batch(struct mat x, int64_t i, int64_t stride)
{
	x.p += i * stride * (int64_t)pb_rt_dtype_size(x.dtype);
	return x;
}

/* @t as an [m, n] matrix by broadcasting, or false. */
static bool mat_expand(const struct pb_rt_tensor *t, int64_t m, int64_t n, struct mat *ret_mat)
{
	const int d = t->ndim;
	const int64_t rows = d >= 2 ? t->sizes[d - 2] : 1, cols = d >= 1 ? t->sizes[d - 1] : 1;

	if ((rows != m && rows != 1) || (cols != n && cols != 1))
		return false;
	*ret_mat = (struct mat){pb_rt_data(t),
				m,
				n,
				d >= 2 && rows != 1 ? t->strides[d - 2] : 0,
				d >= 1 && cols != 1 ? t->strides[d - 1] : 0,
				t->dtype,
				t};
	return true;
}

static bool is_16bit(int32_t dtype)
{
	return dtype == PB_RT_BF16 || dtype == PB_RT_F16;
}

static bool is_float(int32_t dtype)
{
	return dtype == PB_RT_F32 || dtype == PB_RT_F64 || is_16bit(dtype);
}

/* ---- integers: any strides, plain loops ---- */

static int64_t load_int(const char *p, int32_t dtype)
{
	switch (dtype) {
	case PB_RT_U8:
	case PB_RT_BOOL:
		return *(const uint8_t *)p;
	case PB_RT_I8:
		return *(const int8_t *)p;
	case PB_RT_I16:
		return *(const int16_t *)p;
	case PB_RT_I32:
		return *(const int32_t *)p;
	default:
		return *(const int64_t *)p;
	}
}

static void store_int(char *p, int32_t dtype, uint64_t v)
{
	const size_t size = pb_rt_dtype_size(dtype);

	memcpy(p, &v, size); /* little endian: the low bytes are the wrapped value */
}

static void int_matmul(struct mat c, const struct mat *self, struct mat a, struct mat b,
		       int64_t beta, int64_t alpha)
{
	const int64_t ea = pb_rt_dtype_size(a.dtype), eb = pb_rt_dtype_size(b.dtype),
		      ec = pb_rt_dtype_size(c.dtype);

	for (int64_t i = 0; i < c.rows; i++) {
		for (int64_t j = 0; j < c.cols; j++) {
			uint64_t acc = 0;

			for (int64_t k = 0; k < a.cols; k++)
				acc += (uint64_t)load_int(a.p + (i * a.rs + k * a.cs) * ea,
							  a.dtype) *
				       (uint64_t)load_int(b.p + (k * b.rs + j * b.cs) * eb,
							  b.dtype);
			acc *= (uint64_t)alpha;
			if (self && beta)
				acc += (uint64_t)beta *
				       (uint64_t)load_int(self->p + (i * self->rs + j * self->cs) *
									    ec,
							  self->dtype);
			store_int(c.p + (i * c.rs + j * c.cs) * ec, c.dtype, acc);
		}
	}
}

/* ---- floating point ---- */

static int wide_matmul(struct mat c, const struct mat *self, struct mat a, struct mat b,
		       double beta, double alpha)
{
	struct pb_gemm g = {
		.m = c.rows,
		.n = c.cols,
		.k = a.cols,
		.f64 = c.dtype == PB_RT_F64,
		.a = {a.p, a.rs, a.cs, a.dtype},
		.b = {b.p, b.rs, b.cs, b.dtype},
		.c = c.p,
		.c_rs = c.rs,
		.c_cs = c.cs,
		.alpha = alpha,
		.beta = beta,
	};

	if (self && beta != 0) {
		g.self = self->p;
		g.self_rs = self->rs;
		g.self_cs = self->cs;
	}
	if (b.t)
		g.b_packed = pb_gemm_constant(b.t, &g.b, g.k, g.n);
	return pb_gemm_run(&g);
}

static void widen_matrix(float *dst, struct mat src)
{
	for (int64_t i = 0; i < src.rows; i++) {
		const uint16_t *row = (const uint16_t *)src.p + i * src.rs;

		if (src.cs == 1) {
			pb_gemm_widen(dst + i * src.cols, row, src.dtype, src.cols);
			continue;
		}
		for (int64_t j = 0; j < src.cols; j++)
			pb_gemm_widen(dst + i * src.cols + j, row + j * src.cs, src.dtype, 1);
	}
}

static void round_matrix(struct mat dst, const float *src)
{
	for (int64_t i = 0; i < dst.rows; i++) {
		uint16_t *row = (uint16_t *)dst.p + i * dst.rs;

		if (dst.cs == 1) {
			pb_gemm_round(row, dst.dtype, src + i * dst.cols, dst.cols);
			continue;
		}
		for (int64_t j = 0; j < dst.cols; j++)
			pb_gemm_round(row + j * dst.cs, dst.dtype, src + i * dst.cols + j, 1);
	}
}

/* 16-bit: the product goes to a float matrix that starts as the addend, and is rounded once at the
 * end. */
static int narrow_matmul(struct mat c, const struct mat *self, struct mat a, struct mat b,
			 double beta, double alpha)
{
	float *tmp = pb_rt_scratch((size_t)c.rows * c.cols * sizeof(float));
	struct mat wide = {(char *)tmp, c.rows, c.cols, c.cols, 1, PB_RT_F32, NULL};
	int rc;

	if (!tmp)
		return 1;
	if (self && beta != 0)
		widen_matrix(tmp, *self);
	rc = wide_matmul(wide, self ? &wide : NULL, a, b, beta, alpha);
	if (!rc)
		round_matrix(c, tmp);
	pb_rt_scratch_free(tmp);
	return rc;
}

static int matmul(struct mat c, const struct mat *self, struct mat a, struct mat b, double beta,
		  double alpha)
{
	if (c.rows == 0 || c.cols == 0)
		return 0;
	if (is_16bit(c.dtype))
		return narrow_matmul(c, self, a, b, beta, alpha);
	if (is_float(c.dtype))
		return wide_matmul(c, self, a, b, beta, alpha);
	int_matmul(c, self, a, b, (int64_t)beta, (int64_t)alpha);
	return 0;
}

/* ---- checks and aliasing ---- */

static int check_dtype(const char *op, const struct pb_rt_tensor *x, const struct pb_rt_tensor *y,
		       const struct pb_rt_tensor *out)
{
	if (x->dtype != y->dtype)
		return pb_rt_fail(
			"%s: expected both matrices to have the same dtype, but got %s and %s", op,
			pb_rt_dtype_name(x->dtype), pb_rt_dtype_name(y->dtype));
	if (out->dtype != x->dtype)
		return pb_rt_fail("%s: expected out of dtype %s, but got %s", op,
				  pb_rt_dtype_name(x->dtype), pb_rt_dtype_name(out->dtype));
	if (!is_float(x->dtype) && x->dtype > PB_RT_I64)
		return pb_rt_fail("%s: not implemented for %s", op, pb_rt_dtype_name(x->dtype));
	return 0;
}

static bool shares(const struct pb_rt_tensor *x, const struct pb_rt_tensor *out)
{
	return x->storage == out->storage && x->numel && out->numel;
}

/* The addend may be the output itself, element for element, but no other view of its memory. */
static bool same_elements(const struct pb_rt_tensor *x, const struct pb_rt_tensor *out)
{
	if (x->offset != out->offset || x->ndim != out->ndim || x->dtype != out->dtype)
		return false;
	for (int i = 0; i < x->ndim; i++)
		if (x->sizes[i] != out->sizes[i] ||
		    (x->sizes[i] > 1 && x->strides[i] != out->strides[i]))
			return false;
	return true;
}

/* A private copy, to be deleted. */
static struct pb_rt_tensor *copy_of(const struct pb_rt_tensor *x)
{
	struct pb_rt_tensor *c = pb_rt_empty(x->dtype, x->ndim, x->sizes, NULL);

	if (c && pb_rt_copy(c, x)) {
		pb_rt_delete(c);
		return NULL;
	}
	return c;
}

struct operands {
	struct pb_rt_tensor *self, *a, *b;
	struct pb_rt_tensor *copies[3];
};

static void operands_free(struct operands *o)
{
	for (int i = 0; i < 3; i++)
		pb_rt_delete(o->copies[i]);
}

/* Replaces what overlaps @out by copies. */
static int operands_init(struct operands *o, const struct pb_rt_tensor *out)
{
	struct pb_rt_tensor **slots[3] = {&o->self, &o->a, &o->b};

	for (int i = 0; i < 3; i++) {
		struct pb_rt_tensor *x = *slots[i];

		o->copies[i] = NULL;
		if (!x || !shares(x, out) || (i == 0 && same_elements(x, out)))
			continue;
		*slots[i] = o->copies[i] = copy_of(x);
		if (!o->copies[i]) {
			operands_free(o);
			return 1;
		}
	}
	return 0;
}

static int addmm(const char *op, struct pb_rt_tensor *out, struct pb_rt_tensor *self,
		 struct pb_rt_tensor *mat1, struct pb_rt_tensor *mat2, double beta, double alpha)
{
	struct operands o = {self, mat1, mat2, {NULL}};
	struct mat add = {0};
	int rc;

	if (mat1->ndim != 2 || mat2->ndim != 2)
		return pb_rt_fail("%s: expected two matrices, but got %s and %s", op,
				  PB_SHAPE(mat1), PB_SHAPE(mat2));
	if (mat1->sizes[1] != mat2->sizes[0])
		return pb_rt_fail(
			"%s: mat1 and mat2 shapes cannot be multiplied (%lldx%lld and %lldx%lld)",
			op, (long long)mat1->sizes[0], (long long)mat1->sizes[1],
			(long long)mat2->sizes[0], (long long)mat2->sizes[1]);
	if (out->ndim != 2 || out->sizes[0] != mat1->sizes[0] || out->sizes[1] != mat2->sizes[1])
		return pb_rt_fail("%s: out has shape %s, but the product has shape [%lld, %lld]",
				  op, PB_SHAPE(out), (long long)mat1->sizes[0],
				  (long long)mat2->sizes[1]);
	if (check_dtype(op, mat1, mat2, out))
		return 1;
	if (self && self->dtype != out->dtype)
		return pb_rt_fail("%s: self is %s, but the matrices are %s", op,
				  pb_rt_dtype_name(self->dtype), pb_rt_dtype_name(out->dtype));
	if (self && (self->ndim > 2 || !mat_expand(self, out->sizes[0], out->sizes[1], &add)))
		return pb_rt_fail("%s: self of shape %s cannot be expanded to %s", op,
				  PB_SHAPE(self), PB_SHAPE(out));
	if (operands_init(&o, out))
		return 1;
	if (o.self != self)
		mat_expand(o.self, out->sizes[0], out->sizes[1], &add);
	rc = matmul(mat_of(out, 0), self ? &add : NULL, mat_of(o.a, 0), mat_of(o.b, 0), beta,
		    alpha);
	operands_free(&o);
	return rc;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_addmm_out(AtenTensorHandle out, AtenTensorHandle self,
						    AtenTensorHandle mat1, AtenTensorHandle mat2,
						    double beta, double alpha)
{
	return addmm("addmm", out, self, mat1, mat2, beta, alpha);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_mm_out(AtenTensorHandle out, AtenTensorHandle self,
						 AtenTensorHandle mat2)
{
	return addmm("mm", out, NULL, self, mat2, 0, 1);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__int_mm_out(AtenTensorHandle out, AtenTensorHandle self,
						      AtenTensorHandle mat2)
{
	if (self->ndim != 2 || mat2->ndim != 2 || self->sizes[1] != mat2->sizes[0])
		return pb_rt_fail("_int_mm: shapes %s and %s cannot be multiplied", PB_SHAPE(self),
				  PB_SHAPE(mat2));
	if (self->dtype != PB_RT_I8 || mat2->dtype != PB_RT_I8 || out->dtype != PB_RT_I32)
		return pb_rt_fail("_int_mm: expected int8 matrices and an int32 result");
	if (out->ndim != 2 || out->sizes[0] != self->sizes[0] || out->sizes[1] != mat2->sizes[1])
		return pb_rt_fail("_int_mm: out has shape %s", PB_SHAPE(out));
	int_matmul(mat_of(out, 0), NULL, mat_of(self, 0), mat_of(mat2, 0), 0, 1);
	return 0;
}

/* ---- batches ---- */

static int check_batches(const char *op, const struct pb_rt_tensor *b1,
			 const struct pb_rt_tensor *b2)
{
	if (b1->ndim != 3 || b2->ndim != 3)
		return pb_rt_fail("%s: expected 3D tensors, but got %s and %s", op, PB_SHAPE(b1),
				  PB_SHAPE(b2));
	if (b1->sizes[0] != b2->sizes[0] || b1->sizes[2] != b2->sizes[1])
		return pb_rt_fail("%s: expected size for first two dimensions of batch2 tensor to "
				  "be: [%lld, %lld] but "
				  "got: [%lld, %lld].",
				  op, (long long)b1->sizes[0], (long long)b1->sizes[2],
				  (long long)b2->sizes[0], (long long)b2->sizes[1]);
	return 0;
}

static int baddbmm(const char *op, struct pb_rt_tensor *out, struct pb_rt_tensor *self,
		   struct pb_rt_tensor *b1, struct pb_rt_tensor *b2, double beta, double alpha)
{
	struct operands o = {self, b1, b2, {NULL}};
	struct mat add = {0};
	int64_t self_batch = 0;
	int rc = 0;

	if (check_batches(op, b1, b2) || check_dtype(op, b1, b2, out))
		return 1;
	if (out->ndim != 3 || out->sizes[0] != b1->sizes[0] || out->sizes[1] != b1->sizes[1] ||
	    out->sizes[2] != b2->sizes[2])
		return pb_rt_fail("%s: out has shape %s, but the product of %s and %s has another",
				  op, PB_SHAPE(out), PB_SHAPE(b1), PB_SHAPE(b2));
	if (self && self->dtype != out->dtype)
		return pb_rt_fail("%s: self is %s, but the matrices are %s", op,
				  pb_rt_dtype_name(self->dtype), pb_rt_dtype_name(out->dtype));
	if (self && (self->ndim > 3 || !mat_expand(self, out->sizes[1], out->sizes[2], &add) ||
		     (self->ndim == 3 && self->sizes[0] != 1 && self->sizes[0] != out->sizes[0])))
		return pb_rt_fail("%s: self of shape %s cannot be expanded to %s", op,
				  PB_SHAPE(self), PB_SHAPE(out));
	if (operands_init(&o, out))
		return 1;
	if (self)
		mat_expand(o.self, out->sizes[1], out->sizes[2], &add);
	if (o.self && o.self->ndim == 3 && o.self->sizes[0] != 1)
		self_batch = o.self->strides[0];
	for (int64_t i = 0; i < out->sizes[0] && !rc; i++) {
		const struct mat s = self ? mat_batch(add, i, self_batch) : add;

		rc = matmul(mat_batch(mat_of(out, 1), i, out->strides[0]), self ? &s : NULL,
			    mat_batch(mat_of(o.a, 1), i, o.a->strides[0]),
			    mat_batch(mat_of(o.b, 1), i, o.b->strides[0]), beta, alpha);
	}
	operands_free(&o);
	return rc;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_bmm_out(AtenTensorHandle out, AtenTensorHandle self,
						  AtenTensorHandle mat2)
{
	return baddbmm("bmm", out, NULL, self, mat2, 0, 1);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_baddbmm_out(AtenTensorHandle out, AtenTensorHandle self,
						      AtenTensorHandle batch1,
						      AtenTensorHandle batch2, double beta,
						      double alpha)
{
	return baddbmm("baddbmm", out, self, batch1, batch2, beta, alpha);
}

/* One product over the batch and k together would need contiguous batches; sums in the output are
 * as good. */
AOTI_EXPORT AOTITorchError aoti_torch_cpu_addbmm(AtenTensorHandle self, AtenTensorHandle batch1,
						 AtenTensorHandle batch2, double beta, double alpha,
						 AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *out;
	struct mat add, c;
	int rc = 0;

	if (check_batches("addbmm", batch1, batch2))
		return 1;
	out = pb_rt_empty(batch1->dtype, 2, (int64_t[]){batch1->sizes[1], batch2->sizes[2]}, NULL);
	if (!out)
		return 1;
	rc = check_dtype("addbmm", batch1, batch2, out);
	if (!rc && (self->ndim > 2 || self->dtype != out->dtype ||
		    !mat_expand(self, out->sizes[0], out->sizes[1], &add)))
		rc = pb_rt_fail("addbmm: self of shape %s cannot be expanded to %s", PB_SHAPE(self),
				PB_SHAPE(out));
	if (rc) {
		pb_rt_delete(out);
		return rc;
	}
	c = mat_of(out, 0);
	if (batch1->sizes[0] == 0) {
		const struct mat none = {NULL, c.rows, 0, 0, 1, c.dtype, NULL};
		const struct mat none_b = {NULL, 0, c.cols, 0, 1, c.dtype, NULL};

		rc = matmul(c, &add, none, none_b, beta, alpha);
	}
	for (int64_t i = 0; i < batch1->sizes[0] && !rc; i++)
		rc = matmul(c, i ? &c : &add, mat_batch(mat_of(batch1, 1), i, batch1->strides[0]),
			    mat_batch(mat_of(batch2, 1), i, batch2->strides[0]), i ? 1 : beta,
			    alpha);
	if (rc) {
		pb_rt_delete(out);
		return rc;
	}
	*ret0 = out;
	return 0;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_addmv(AtenTensorHandle self, AtenTensorHandle mat,
						AtenTensorHandle vec, double beta, double alpha,
						AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *out;
	struct mat add, c, x;
	int rc;

	if (mat->ndim != 2 || vec->ndim != 1 || mat->sizes[1] != vec->sizes[0])
		return pb_rt_fail("addmv: size mismatch, got input %s, mat %s, vec %s",
				  PB_SHAPE(self), PB_SHAPE(mat), PB_SHAPE(vec));
	if (self->ndim > 1 ||
	    (self->ndim == 1 && self->sizes[0] != 1 && self->sizes[0] != mat->sizes[0]))
		return pb_rt_fail("addmv: input of shape %s cannot be expanded to [%lld]",
				  PB_SHAPE(self), (long long)mat->sizes[0]);
	out = pb_rt_empty(mat->dtype, 1, mat->sizes, NULL);
	if (!out)
		return 1;
	rc = check_dtype("addmv", mat, vec, out);
	if (!rc && self->dtype != out->dtype)
		rc = pb_rt_fail("addmv: input is %s, mat is %s", pb_rt_dtype_name(self->dtype),
				pb_rt_dtype_name(mat->dtype));
	if (rc) {
		pb_rt_delete(out);
		return rc;
	}
	add = (struct mat){
		pb_rt_data(self), out->sizes[0], 1, self->numel != 1 ? self->strides[0] : 0, 0,
		self->dtype,	  self};
	c = (struct mat){pb_rt_data(out), out->sizes[0], 1, 1, 1, out->dtype, out};
	x = (struct mat){pb_rt_data(vec), vec->sizes[0], 1, vec->strides[0], 1, vec->dtype, vec};
	rc = matmul(c, &add, mat_of(mat, 0), x, beta, alpha);
	if (rc) {
		pb_rt_delete(out);
		return rc;
	}
	*ret0 = out;
	return 0;
}
