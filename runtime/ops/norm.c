/* SPDX-License-Identifier: Apache-2.0 */
/*
 * _fused_rms_norm: x / sqrt(mean(x^2) + eps) * weight over the last dimensions, 16-bit types in
 * float; and the reciprocal root. As torch 2.13.0's aten/src/ATen/native/layer_norm.cpp composes
 * it.
 */
#include "runtime/ops/norm.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "runtime/ops/layout.h"
#include "runtime/tensor.h"

static double epsilon(int32_t dtype)
{
	return dtype == PB_RT_F64 ? DBL_EPSILON : FLT_EPSILON;
}

#define RMS_ROWS(name, type, root)                                                           \
	static void name(type *x, type *rstd, const type *weight, int64_t rows, int64_t n,   \
			 double eps)                                                         \
	{                                                                                    \
		for (int64_t r = 0; r < rows; r++, x += n) {                                 \
			double sum = 0;                                                      \
			for (int64_t i = 0; i < n; i++)                                      \
				sum += (double)x[i] * x[i];                                  \
			rstd[r] = 1 / root((type)(sum / (double)n) + (type)eps);             \
			for (int64_t i = 0; i < n; i++)                                      \
				x[i] = weight ? x[i] * rstd[r] * weight[i] : x[i] * rstd[r]; \
		}                                                                            \
	}

RMS_ROWS(rms_rows_f32, float, sqrtf)
RMS_ROWS(rms_rows_f64, double, sqrt)

static int check(const struct pb_rt_tensor *x, const struct pb_rt_tensor *w, const int64_t *shape,
		 int64_t len)
{
	if (!pb_is_float(x->dtype))
		return pb_not_implemented("rms_norm", x->dtype);
	if (len < 1 || len > x->ndim)
		return pb_rt_fail("_fused_rms_norm: %lld normalised dimensions of an input %s",
				  (long long)len, PB_SHAPE(x));
	for (int64_t i = 0; i < len; i++)
		if (shape[i] != x->sizes[x->ndim - len + i])
			return pb_rt_fail("_fused_rms_norm: the last dimensions of input %s are "
					  "not the normalised shape ([..., %lld, ...])",
					  PB_SHAPE(x), (long long)shape[i]);
	if (w && (w->ndim != len || memcmp(w->sizes, shape, (size_t)len * sizeof(*shape)) != 0))
		return pb_rt_fail("_fused_rms_norm: weight %s does not have the normalised shape "
				  "of input %s",
				  PB_SHAPE(w), PB_SHAPE(x));
	return 0;
}

struct parts {
	struct pb_rt_tensor *x, *w, *rstd, *out;
};

static int compute(struct parts *p, const struct pb_rt_tensor *input,
		   const struct pb_rt_tensor *weight, int64_t len, double eps)
{
	const int32_t wide = input->dtype == PB_RT_F64 ? PB_RT_F64 : PB_RT_F32;
	int64_t sizes[PB_RT_MAX_DIMS], n = 1;

	memcpy(sizes, input->sizes, sizeof(sizes));
	for (int64_t i = input->ndim - len; i < input->ndim; i++) {
		n *= sizes[i];
		sizes[i] = 1;
	}
	p->x = pb_clone_as(input, wide);
	p->w = weight ? pb_clone_as(weight, wide) : NULL;
	p->rstd = pb_rt_empty(wide, input->ndim, sizes, NULL);
	p->out = pb_empty_format(input->dtype, input->ndim, input->sizes,
				 pb_suggested_format(input));
	if (!p->x || (weight && !p->w) || !p->rstd || !p->out)
		return 1;
	if (wide == PB_RT_F64)
		rms_rows_f64(pb_rt_data(p->x), pb_rt_data(p->rstd), p->w ? pb_rt_data(p->w) : NULL,
			     p->rstd->numel, n, eps);
	else
		rms_rows_f32(pb_rt_data(p->x), pb_rt_data(p->rstd), p->w ? pb_rt_data(p->w) : NULL,
			     p->rstd->numel, n, eps);
	return pb_rt_copy(p->out, p->x);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__fused_rms_norm(
	AtenTensorHandle input, const int64_t *normalized_shape, int64_t normalized_shape_len_,
	AtenTensorHandle *weight, double *eps, AtenTensorHandle *ret0, AtenTensorHandle *ret1)
{
	const struct pb_rt_tensor *w = weight ? *weight : NULL;
	struct parts p = {NULL};
	int rc;

	if (check(input, w, normalized_shape, normalized_shape_len_))
		return 1;
	rc = compute(&p, input, w, normalized_shape_len_, eps ? *eps : epsilon(input->dtype));
	pb_rt_delete(p.x);
	pb_rt_delete(p.w);
	if (rc) {
		pb_rt_delete(p.rstd);
		pb_rt_delete(p.out);
		return 1;
	}
	*ret0 = p.out;
	*ret1 = p.rstd;
	return 0;
}
