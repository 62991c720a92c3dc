/* SPDX-License-Identifier: Apache-2.0 */
/*
 * _scaled_mm on float8: (a scale_a)(b scale_b) + bias in float, scales for the whole tensor or for
 * each row of a and column of b. Checks as in torch 2.13.0's aten/src/ATen/native/Blas.cpp.
 */
#include "runtime/ops/scaled_mm.h"

#include "runtime/convert.h"
#include "runtime/ops/gemm.h"
#include "runtime/ops/layout.h"
#include "runtime/tensor.h"

struct scaled {
	const struct pb_rt_tensor *a, *b, *scale_a, *scale_b, *bias, *scale_result;
};

static bool is_f8(int32_t dtype)
{
	return dtype == PB_RT_F8_E4M3FN || dtype == PB_RT_F8_E5M2;
}

static bool by_rows(const struct scaled *s)
{
	return s->scale_a->ndim == 2 && s->scale_b->ndim == 2 &&
	       s->scale_a->sizes[0] == s->a->sizes[0] && s->scale_a->sizes[1] == 1 &&
	       s->scale_b->sizes[0] == 1 && s->scale_b->sizes[1] == s->b->sizes[1] &&
	       pb_rt_is_contiguous(s->scale_a) && pb_rt_is_contiguous(s->scale_b);
}

static int check(const struct scaled *s, int32_t out_dtype)
{
	if (s->a->ndim != 2 || s->b->ndim != 2 || s->a->sizes[1] != s->b->sizes[0])
		return pb_rt_fail("_scaled_mm: mat1 %s and mat2 %s cannot be multiplied",
				  PB_SHAPE(s->a), PB_SHAPE(s->b));
	if (!is_f8(s->a->dtype) || !is_f8(s->b->dtype))
		return pb_rt_fail("_scaled_mm: Expected both matrices to be Float8, got %s and %s",
				  pb_rt_dtype_name(s->a->dtype), pb_rt_dtype_name(s->b->dtype));
	if (s->scale_a->dtype != PB_RT_F32 || s->scale_b->dtype != PB_RT_F32 ||
	    ((s->scale_a->numel != 1 || s->scale_b->numel != 1) && !by_rows(s)))
		return pb_rt_fail("_scaled_mm: Invalid scaling configuration: float scales of one "
				  "element, or [%lld, 1] and [1, %lld], contiguous; got %s and %s",
				  (long long)s->a->sizes[0], (long long)s->b->sizes[1],
				  PB_SHAPE(s->scale_a), PB_SHAPE(s->scale_b));
	if (s->bias && s->bias->numel != s->b->sizes[1])
		return pb_rt_fail("_scaled_mm: Bias must be size %lld but got %s",
				  (long long)s->b->sizes[1], PB_SHAPE(s->bias));
	if (s->scale_result && (s->scale_result->dtype != PB_RT_F32 || s->scale_result->numel != 1))
		return pb_rt_fail("_scaled_mm: scale_result must be a float scalar, not %s",
				  PB_SHAPE(s->scale_result));
	if (out_dtype != PB_RT_F32 && !pb_is_16bit(out_dtype) && !is_f8(out_dtype))
		return pb_rt_fail("_scaled_mm: results of %s are not supported",
				  pb_rt_dtype_name(out_dtype));
	return 0;
}

struct packing {
	const struct pb_rt_tensor *b;
	float value[256]; /* of each 8-bit float */
};

static void pack(const void *ctx, int64_t k0, int64_t kc, int64_t j0, int64_t nc, void *dst)
{
	const struct packing *p = ctx;
	const int64_t nr = pb_gemm_isa()->nr[0], rs = p->b->strides[0], cs = p->b->strides[1];
	const uint8_t *src = (const uint8_t *)pb_rt_data(p->b) + k0 * rs + j0 * cs;
	float *to = dst;

	for (int64_t j = 0; j < nc; j += nr)
		for (int64_t i = 0; i < kc; i++, to += nr)
			for (int64_t k = 0; k < nr; k++)
				to[k] = j + k < nc ? p->value[src[i * rs + (j + k) * cs]] : 0;
}

/* After the product: columns' scales, bias, then the result's own scale. */
static void finish(const struct scaled *s, float *y, const float *bias)
{
	const int64_t m = s->a->sizes[0], n = s->b->sizes[1];
	const float *sa = pb_rt_data(s->scale_a), *sb = pb_rt_data(s->scale_b);
	const float result = s->scale_result ? *(float *)pb_rt_data(s->scale_result) : 1;

	for (int64_t i = 0; i < m; i++) {
		const float row = sa[s->scale_a->numel == 1 ? 0 : i];

		for (int64_t j = 0; j < n; j++) {
			float v = y[i * n + j] * (row * sb[s->scale_b->numel == 1 ? 0 : j]);

			v = bias ? v + bias[j] : v;
			y[i * n + j] = s->scale_result ? v / result : v;
		}
	}
}

static int compute(const struct scaled *s, struct pb_rt_tensor *wide)
{
	struct packing p = {.b = s->b};
	struct pb_rt_tensor *a = pb_clone_as(s->a, PB_RT_F32);
	struct pb_rt_tensor *bias = s->bias ? pb_clone_as(s->bias, PB_RT_F32) : NULL;
	int rc = !a || (s->bias && !bias);

	for (int i = 0; i < 256; i++)
		p.value[i] = pb_rt_f8_to_float((uint8_t)i, s->b->dtype);
	if (!rc) {
		const struct pb_gemm g = {
			.m = s->a->sizes[0],
			.n = s->b->sizes[1],
			.k = s->a->sizes[1],
			.a = {pb_rt_data(a), s->a->sizes[1], 1, PB_RT_F32},
			.b = {NULL, 0, 0, PB_RT_F32},
			.pack_b = pack,
			.pack_ctx = &p,
			.c = pb_rt_data(wide),
			.c_rs = s->b->sizes[1],
			.c_cs = 1,
			.alpha = 1,
		};

		rc = pb_gemm_run(&g);
	}
	if (!rc)
		finish(s, pb_rt_data(wide), bias ? pb_rt_data(bias) : NULL);
	pb_rt_delete(a);
	pb_rt_delete(bias);
	return rc;
}

/* Into @out, which has the right shape and type. */
static int scaled_mm(const struct scaled *s, struct pb_rt_tensor *out)
{
	struct pb_rt_tensor *wide;
	int rc;

	if (out->numel == 0)
		return 0;
	wide = pb_rt_empty(PB_RT_F32, 2, out->sizes, NULL);
	rc = !wide || compute(s, wide) || pb_rt_copy(out, wide);
	pb_rt_delete(wide);
	return rc;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__scaled_mm(
	AtenTensorHandle self, AtenTensorHandle mat2, AtenTensorHandle scale_a,
	AtenTensorHandle scale_b, AtenTensorHandle *bias, AtenTensorHandle *scale_result,
	int32_t *out_dtype, int32_t use_fast_accum, AtenTensorHandle *ret0)
{
	const struct scaled s = {self,
				 mat2,
				 scale_a,
				 scale_b,
				 bias ? *bias : NULL,
				 scale_result ? *scale_result : NULL};
	const int32_t dtype = out_dtype ? *out_dtype : self->dtype;
	struct pb_rt_tensor *out;

	(void)use_fast_accum;
	if (check(&s, dtype))
		return 1;
	out = pb_rt_empty(dtype, 2, (int64_t[]){self->sizes[0], mat2->sizes[1]}, NULL);
	if (!out || scaled_mm(&s, out)) {
		pb_rt_delete(out);
		return 1;
	}
	*ret0 = out;
	return 0;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__scaled_mm_out(
	AtenTensorHandle out, AtenTensorHandle self, AtenTensorHandle mat2,
	AtenTensorHandle scale_a, AtenTensorHandle scale_b, AtenTensorHandle *bias,
	AtenTensorHandle *scale_result, int32_t *out_dtype, int32_t use_fast_accum)
{
	const struct scaled s = {self,
				 mat2,
				 scale_a,
				 scale_b,
				 bias ? *bias : NULL,
				 scale_result ? *scale_result : NULL};

	(void)use_fast_accum;
	if (check(&s, out->dtype))
		return 1;
	if (out_dtype && *out_dtype != out->dtype)
		return pb_rt_fail("_scaled_mm: out_dtype must match output matrix type (%s, not "
				  "%s)",
				  pb_rt_dtype_name(out->dtype), pb_rt_dtype_name(*out_dtype));
	return pb_resize_output(out, 2, (int64_t[]){self->sizes[0], mat2->sizes[1]}) ||
	       scaled_mm(&s, out);
}
