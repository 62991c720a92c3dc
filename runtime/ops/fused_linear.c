/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linear layers with an epilogue. Semantics: torch 2.13.0's aten/src/ATen/native/mkldnn/Linear.cpp;
 * 16-bit results are rounded once, after the epilogue.
 */
#include "runtime/ops/fused.h"

#include <string.h>

#include "runtime/ops/epilogue.h"
#include "runtime/ops/gemm.h"
#include "runtime/ops/layout.h"
#include "runtime/ops/matmul.h"
#include "runtime/tensor.h"

struct linear {
	const char *op;
	const struct pb_rt_tensor *x, *w, *b, *other; /* b and other may be NULL */
	struct pb_epilogue post;
	int64_t m, n, k;
};

static int check(struct linear *l)
{
	const struct pb_rt_tensor *x = l->x, *w = l->w;

	if (x->ndim < 1 || w->ndim != 2 || x->sizes[x->ndim - 1] != w->sizes[1])
		return pb_rt_fail("%s: input %s and weight %s do not fit each other", l->op,
				  PB_SHAPE(x), PB_SHAPE(w));
	if (x->dtype != PB_RT_F32 && !pb_is_16bit(x->dtype))
		return pb_rt_fail("%s: not implemented for %s", l->op, pb_rt_dtype_name(x->dtype));
	if (w->dtype != x->dtype || (l->other && l->other->dtype != x->dtype))
		return pb_rt_fail("%s: input is %s, weight %s%s%s", l->op,
				  pb_rt_dtype_name(x->dtype), pb_rt_dtype_name(w->dtype),
				  l->other ? ", other " : "",
				  l->other ? pb_rt_dtype_name(l->other->dtype) : "");
	l->k = w->sizes[1];
	l->n = w->sizes[0];
	l->m = l->k ? x->numel / l->k : 0;
	for (int d = 0; d < x->ndim - 1 && !l->k; d++)
		l->m = (d ? l->m : 1) * x->sizes[d];
	if (l->b && l->b->numel != l->n)
		return pb_rt_fail("%s: weight %s needs a bias of %lld elements, not %s", l->op,
				  PB_SHAPE(w), (long long)l->n, PB_SHAPE(l->b));
	if (l->other && l->other->numel != l->m * l->n)
		return pb_rt_fail("%s: other %s does not have the %lld elements of the result",
				  l->op, PB_SHAPE(l->other), (long long)(l->m * l->n));
	return 0;
}

/* y, of floats: x w^T + b. */
static int product(const struct linear *l, const struct pb_rt_tensor *x,
		   const struct pb_rt_tensor *bias, float *y)
{
	struct pb_gemm g = {
		.m = l->m,
		.n = l->n,
		.k = l->k,
		.a = {pb_rt_data(x), l->k, 1, x->dtype},
		.b = {pb_rt_data(l->w), l->w->strides[1], l->w->strides[0], l->w->dtype},
		.c = y,
		.c_rs = l->n,
		.c_cs = 1,
		.self = bias ? pb_rt_data(bias) : NULL,
		.self_cs = 1,
		.alpha = 1,
		.beta = 1,
	};

	g.b_packed = pb_gemm_constant(l->w, &g.b, g.k, g.n);
	return pb_gemm_run(&g);
}

struct parts {
	struct pb_rt_tensor *x, *bias, *other, *wide;
};

static int compute(const struct linear *l, struct parts *p, struct pb_rt_tensor *out)
{
	const bool narrow = out->dtype != PB_RT_F32;
	float *y;

	p->x = pb_rt_contiguous(l->x);
	if (l->b)
		p->bias = pb_clone_as(l->b, PB_RT_F32);
	if (l->other)
		p->other = l->other->dtype == PB_RT_F32 ? pb_rt_contiguous(l->other)
							: pb_clone_as(l->other, PB_RT_F32);
	if (narrow)
		p->wide = pb_rt_empty(PB_RT_F32, out->ndim, out->sizes, NULL);
	if (!p->x || (l->b && !p->bias) || (l->other && !p->other) || (narrow && !p->wide))
		return 1;
	y = pb_rt_data(narrow ? p->wide : out);
	if (product(l, p->x, p->bias, y))
		return 1;
	pb_epilogue_apply(&l->post, y, p->other ? pb_rt_data(p->other) : NULL, l->m * l->n);
	if (narrow)
		pb_gemm_round(pb_rt_data(out), out->dtype, y, l->m * l->n);
	return 0;
}

static int linear(struct linear *l, AtenTensorHandle *ret0)
{
	int64_t sizes[PB_RT_MAX_DIMS];
	struct parts p = {NULL};
	struct pb_rt_tensor *out;
	int rc;

	if (check(l))
		return 1;
	memcpy(sizes, l->x->sizes, sizeof(sizes));
	sizes[l->x->ndim - 1] = l->n;
	out = pb_rt_empty(l->x->dtype, l->x->ndim, sizes, NULL);
	if (!out)
		return 1;
	rc = out->numel && compute(l, &p, out);
	pb_rt_delete(p.x);
	pb_rt_delete(p.bias);
	pb_rt_delete(p.other);
	pb_rt_delete(p.wide);
	if (rc)
		pb_rt_delete(out);
	else
		*ret0 = out;
	return rc;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__linear_pointwise(AtenTensorHandle X, AtenTensorHandle W,
							    AtenTensorHandle *B, const char *attr,
							    const double **scalars,
							    int64_t scalars_len_,
							    const char **algorithm,
							    AtenTensorHandle *ret0)
{
	struct linear l = {.op = "_linear_pointwise", .x = X, .w = W, .b = B ? *B : NULL};

	return pb_epilogue_unary(&l.post, l.op, attr, scalars, scalars_len_,
				 algorithm ? *algorithm : NULL) ||
	       linear(&l, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__linear_pointwise_binary(
	AtenTensorHandle X, AtenTensorHandle other, AtenTensorHandle W, AtenTensorHandle *B,
	const char *attr, AtenTensorHandle *ret0)
{
	struct linear l = {
		.op = "_linear_pointwise", .x = X, .w = W, .b = B ? *B : NULL, .other = other};

	return pb_epilogue_binary(&l.post, l.op, attr) || linear(&l, ret0);
}

/* W is MKL's private packing of origin_W, for one batch size. */
AOTI_EXPORT AOTITorchError aoti_torch_cpu__mkl_linear(AtenTensorHandle X, AtenTensorHandle W,
						      AtenTensorHandle origin_W,
						      AtenTensorHandle *B,
						      int64_t prepack_batch_size,
						      AtenTensorHandle *ret0)
{
	struct linear l = {.op = "_mkl_linear", .x = X, .w = origin_W, .b = B ? *B : NULL};

	(void)W, (void)prepack_batch_size;
	return linear(&l, ret0);
}

/* ---- _addmm_activation: addmm, rounded, then the activation in place ---- */

static int activate(struct pb_rt_tensor *t, const struct pb_epilogue *e)
{
	struct pb_rt_tensor *wide;
	int rc;

	if (t->dtype == PB_RT_F32) {
		pb_epilogue_apply(e, pb_rt_data(t), NULL, t->numel);
		return 0;
	}
	wide = pb_clone_as(t, PB_RT_F32);
	if (!wide)
		return 1;
	pb_epilogue_apply(e, pb_rt_data(wide), NULL, t->numel);
	rc = pb_rt_copy(t, wide);
	pb_rt_delete(wide);
	return rc;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__addmm_activation(AtenTensorHandle self,
							    AtenTensorHandle mat1,
							    AtenTensorHandle mat2, double beta,
							    double alpha, int32_t use_gelu,
							    AtenTensorHandle *ret0)
{
	const struct pb_epilogue e = {.act = {use_gelu ? PB_ACT_GELU : PB_ACT_RELU, 0, 0}};
	struct pb_rt_tensor *out;

	if (mat1->ndim != 2 || mat2->ndim != 2)
		return pb_rt_fail("_addmm_activation: expected two matrices, but got %s and %s",
				  PB_SHAPE(mat1), PB_SHAPE(mat2));
	if (mat1->dtype != PB_RT_F32 && !pb_is_16bit(mat1->dtype))
		return pb_rt_fail("_addmm_activation: not implemented for %s",
				  pb_rt_dtype_name(mat1->dtype));
	out = pb_rt_empty(mat1->dtype, 2, (int64_t[]){mat1->sizes[0], mat2->sizes[1]}, NULL);
	if (!out)
		return 1;
	if (aoti_torch_cpu_addmm_out(out, self, mat1, mat2, beta, alpha) || activate(out, &e)) {
		pb_rt_delete(out);
		return 1;
	}
	*ret0 = out;
	return 0;
}
