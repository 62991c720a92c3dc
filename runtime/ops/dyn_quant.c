/* SPDX-License-Identifier: Apache-2.0 */
/*
 * _dyn_quant_pack_4bit_weight and _dyn_quant_matmul_4bit as PyTorch does them where it has no
 * KleidiAI (x86): weights, scales and bias one after the other as floats; rows of the input become
 * 8-bit integers, and the products are summed as integers. Source: torch 2.13.0's
 * aten/src/ATen/native/cpu/int4mm_kernel.cpp.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "runtime/ops/layout.h"
#include "runtime/ops/weight_only.h"
#include "runtime/tensor.h"

AOTI_EXPORT AOTITorchError aoti_torch_cpu__dyn_quant_pack_4bit_weight(
	AtenTensorHandle weights, AtenTensorHandle scales_zeros, AtenTensorHandle *bias,
	int64_t block_size, int64_t in_features, int64_t out_features, AtenTensorHandle *ret0)
{
	const struct pb_rt_tensor *parts[3] = {weights, scales_zeros, bias ? *bias : NULL};
	struct pb_rt_tensor *out;
	int64_t n = 0;
	float *to;

	(void)out_features;
	if (weights->dtype != PB_RT_U8)
		return pb_rt_fail("_dyn_quant_pack_4bit_weight : expect weight to be kByte.");
	if (block_size <= 0 ||
	    (block_size != in_features && (block_size % 32 || in_features % block_size)))
		return pb_rt_fail("_dyn_quant_pack_4bit_weight : block_size(%lld) must be "
				  "in_features(%lld) or divide it and be a multiple of 32",
				  (long long)block_size, (long long)in_features);
	for (int i = 0; i < 3 && parts[i]; i++)
		n += parts[i]->numel;
	out = pb_rt_empty(PB_RT_F32, 1, &n, NULL);
	if (!out)
		return 1;
	to = pb_rt_data(out);
	for (int i = 0; i < 3 && parts[i]; i++) {
		struct pb_rt_tensor *f = pb_clone_as(parts[i], PB_RT_F32);

		if (!f) {
			pb_rt_delete(out);
			return 1;
		}
		if (f->numel)
			memcpy(to, pb_rt_data(f), (size_t)f->numel * sizeof(float));
		to += f->numel;
		pb_rt_delete(f);
	}
	*ret0 = out;
	return 0;
}

struct dyn {
	int64_t m, n, k, block;
	const float *scales, *bias; /* bias NULL: none */
	int8_t *w;		    /* [n][k] */
	int16_t *row;		    /* k, with the zero point taken off */
	float row_scale;
};

static void quantise_row(struct dyn *d, const float *x)
{
	float lo = 0, hi = 0, scale, zero;
	int32_t nudged;

	for (int64_t i = 0; i < d->k; i++) {
		lo = x[i] < lo ? x[i] : lo;
		hi = x[i] > hi ? x[i] : hi;
	}
	scale = lo == hi ? 1.0f : 255.0f / (hi - lo);
	d->row_scale = scale != 0 ? 1.0f / scale : 0.0f;
	zero = -128 + lo * scale + (127 + hi * scale) > 0 ? -128 - lo * scale : 127 - hi * scale;
	zero = zero < -128 ? -128 : zero > 127 ? 127 : zero;
	nudged = (int32_t)lrintf(zero);
	for (int64_t i = 0; i < d->k; i++) {
		int32_t q = (int32_t)roundf(x[i] * scale) + nudged;

		q = q < -128 ? -128 : q > 127 ? 127 : q;
		d->row[i] = (int16_t)(q - nudged);
	}
}

static float dot(const struct dyn *d, int64_t j)
{
	const int8_t *w = d->w + j * d->k;
	const float *scales = d->scales + j * (d->k / d->block);
	float sum = 0;

	for (int64_t b = 0; b * d->block < d->k; b++) {
		int32_t acc = 0;

		for (int64_t i = b * d->block; i < (b + 1) * d->block; i++)
			acc += d->row[i] * w[i];
		sum += (float)acc * scales[b];
	}
	return sum * d->row_scale;
}

static float clamp(float x, float limit)
{
	return x > limit ? limit : x < -limit ? -limit : x;
}

/* The largest bfloat16 that PyTorch lets through. */
#define BF16_LIMIT 3.38953139e+38f

static void store(const struct dyn *d, struct pb_rt_tensor *out, int64_t i, int64_t j)
{
	float v = d->bias ? dot(d, j) + d->bias[j] : dot(d, j);
	uint32_t bits;

	if (out->dtype == PB_RT_F32) {
		((float *)pb_rt_data(out))[i * d->n + j] = clamp(v, FLT_MAX);
		return;
	}
	v = clamp(v, BF16_LIMIT);
	memcpy(&bits, &v, sizeof(bits));
	((uint16_t *)pb_rt_data(out))[i * d->n + j] = (uint16_t)(bits >> 16); /* cut, not rounded */
}

static int compute(struct dyn *d, const struct pb_rt_tensor *x, const float *packed,
		   struct pb_rt_tensor *out)
{
	const int64_t row_bytes = d->k * (int64_t)sizeof(int16_t);
	char *scratch = pb_rt_scratch((size_t)(row_bytes + d->n * d->k + 1));

	if (!scratch)
		return 1;
	d->row = (int16_t *)scratch;
	d->w = (int8_t *)(scratch + row_bytes);
	for (int64_t i = 0; i < d->n * d->k; i++) {
		const uint8_t pair = (uint8_t)packed[i / 2];

		d->w[i] = (int8_t)((i % 2 ? pair >> 4 : pair & 15) - 8);
	}
	for (int64_t i = 0; i < d->m; i++) {
		quantise_row(d, (const float *)pb_rt_data(x) + i * d->k);
		for (int64_t j = 0; j < d->n; j++)
			store(d, out, i, j);
	}
	pb_rt_scratch_free(scratch);
	return 0;
}

static int check(const struct dyn *d, const struct pb_rt_tensor *x, const struct pb_rt_tensor *w)
{
	const int64_t need = d->n * d->k / 2 + d->n * (d->block > 0 ? d->k / d->block : 0);

	if (x->dtype != PB_RT_F32 && x->dtype != PB_RT_BF16)
		return pb_rt_fail("_dyn_quant_matmul_4bit_cpu : expect input to be float32 or "
				  "bfloat16 tensor.");
	if (d->k <= 0 || d->n <= 0 || d->k % 2 || x->ndim < 1 || x->sizes[x->ndim - 1] != d->k)
		return pb_rt_fail("_dyn_quant_matmul_4bit_cpu: input %s does not fit %lld inputs "
				  "and %lld outputs",
				  PB_SHAPE(x), (long long)d->k, (long long)d->n);
	if (d->block != d->k &&
	    (x->dtype != PB_RT_F32 || d->block <= 0 || d->block % 32 || d->k % d->block))
		return pb_rt_fail("Unsupported block size for %s fallback",
				  x->dtype == PB_RT_F32 ? "FP32" : "BF16");
	if (w->dtype != PB_RT_F32 || w->ndim != 1 || !pb_rt_is_contiguous(w) ||
	    (w->sizes[0] != need && w->sizes[0] != need + d->n))
		return pb_rt_fail("_dyn_quant_matmul_4bit_cpu: packed weights %s of %s; expected "
				  "are %lld floats, or %lld with a bias",
				  PB_SHAPE(w), pb_rt_dtype_name(w->dtype), (long long)need,
				  (long long)(need + d->n));
	return 0;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__dyn_quant_matmul_4bit(
	AtenTensorHandle inp, AtenTensorHandle packed_weights, int64_t block_size,
	int64_t in_features, int64_t out_features, AtenTensorHandle *ret0)
{
	struct dyn d = {.n = out_features, .k = in_features, .block = block_size};
	int64_t sizes[2];
	struct pb_rt_tensor *x, *out;
	const float *packed;
	int rc;

	if (check(&d, inp, packed_weights))
		return 1;
	packed = pb_rt_data(packed_weights);
	d.m = inp->numel / d.k;
	d.scales = packed + d.n * d.k / 2;
	if (packed_weights->sizes[0] > d.n * d.k / 2 + d.n * (d.k / d.block))
		d.bias = d.scales + d.n * (d.k / d.block);
	sizes[0] = d.m;
	sizes[1] = d.n;
	x = pb_clone_as(inp, PB_RT_F32);
	out = pb_rt_empty(inp->dtype, 2, sizes, NULL);
	rc = !x || !out || compute(&d, x, packed, out);
	pb_rt_delete(x);
	if (rc)
		pb_rt_delete(out);
	else
		*ret0 = out;
	return rc;
}
