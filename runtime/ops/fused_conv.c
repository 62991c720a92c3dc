/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Convolutions with an epilogue. Semantics: torch 2.13.0's aten/src/ATen/native/mkldnn/Conv.cpp. A
 * weight that was in oneDNN's layout makes the result channels last; for a transposed convolution
 * it is [out, in / groups, ...] then, where a plain one is [in, out / groups, ...].
 */
#include "runtime/ops/fused.h"

#include <string.h>

#include "runtime/hooks.h"
#include "runtime/ops/conv.h"
#include "runtime/ops/epilogue.h"
#include "runtime/ops/gemm.h"
#include "runtime/ops/layout.h"
#include "runtime/tensor.h"

#define LAYOUT_MKLDNN 3

#define LISTS                                                                                    \
	{                                                                                        \
		.stride = stride, .padding = padding, .dilation = dilation,                      \
		.n_stride = stride_len_, .n_padding = padding_len_, .n_dilation = dilation_len_, \
		.groups = groups,                                                                \
	}

/* The same arguments, passed on. */
#define CONV_LISTS padding, padding_len_, stride, stride_len_, dilation, dilation_len_, groups
#define CONV_UNARY unary_attr, unary_scalars, unary_scalars_len_, unary_algorithm

AOTI_EXPORT AOTITorchError aoti_torch_cpu_mkldnn__convolution_pointwise(
	AtenTensorHandle X, AtenTensorHandle W, AtenTensorHandle *B, PB_CONV_LISTS,
	const char *attr, const double **scalars, int64_t scalars_len_, const char **algorithm,
	AtenTensorHandle *ret0)
{
	struct pb_epilogue post = {0};
	const struct pb_convolution a = {.op = "_convolution_pointwise",
					 .x = X,
					 .w = W,
					 .b = B ? *B : NULL,
					 .lists = LISTS,
					 .channels_last = W->layout == LAYOUT_MKLDNN,
					 .post = &post};

	return pb_epilogue_unary(&post, a.op, attr, scalars, scalars_len_,
				 algorithm ? *algorithm : NULL) ||
	       pb_convolution(&a, ret0);
}

/* What both binary forms compute: the convolution of X joined with @other. */
static int binary(const char *op, AtenTensorHandle X, AtenTensorHandle other, AtenTensorHandle W,
		  AtenTensorHandle *B, PB_CONV_LISTS, const char *binary_attr, const double *alpha,
		  PB_CONV_UNARY, AtenTensorHandle *ret)
{
	struct pb_epilogue post = {0};
	const struct pb_convolution a = {.op = op,
					 .x = X,
					 .w = W,
					 .b = B ? *B : NULL,
					 .lists = LISTS,
					 .channels_last = W->layout == LAYOUT_MKLDNN,
					 .post = &post,
					 .other = other};

	if (alpha && *alpha != 1)
		return pb_rt_fail("%s: the alpha of a binary operation should be none or 1.0, "
				  "not %g",
				  op, *alpha);
	return pb_epilogue_binary(&post, op, binary_attr) ||
	       pb_epilogue_unary(&post, op, unary_attr ? *unary_attr : NULL, unary_scalars,
				 unary_scalars_len_, unary_algorithm ? *unary_algorithm : NULL) ||
	       pb_convolution(&a, ret);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_mkldnn__convolution_pointwise_binary(
	AtenTensorHandle X, AtenTensorHandle other, AtenTensorHandle W, AtenTensorHandle *B,
	PB_CONV_LISTS, const char *binary_attr, double *alpha, PB_CONV_UNARY,
	AtenTensorHandle *ret0)
{
	return binary("_convolution_pointwise.binary", X, other, W, B, CONV_LISTS, binary_attr,
		      alpha, CONV_UNARY, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_mkldnn__convolution_pointwise_binary_(
	AtenTensorHandle other, AtenTensorHandle X, AtenTensorHandle W, AtenTensorHandle *B,
	PB_CONV_LISTS, const char *binary_attr, double *alpha, PB_CONV_UNARY,
	AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *sum, *result;
	int rc = binary("_convolution_pointwise_.binary", X, other, W, B, CONV_LISTS, binary_attr,
			alpha, CONV_UNARY, &sum);

	if (rc)
		return 1;
	rc = pb_rt_copy(other, sum);
	pb_rt_delete(sum);
	result = rc ? NULL : pb_new_handle(other);
	if (!result)
		return 1;
	*ret0 = result;
	return 0;
}

/* ---- transposed ---- */

struct swap {
	const struct pb_rt_tensor *w;
	int64_t groups;
};

/* [g * o][i][...] to [g * i][o][...]; contiguous. */
static void swap_channels(const void *ctx, void *dst)
{
	const struct swap *s = ctx;
	const struct pb_rt_tensor *w = s->w;
	const int64_t o = w->sizes[0] / s->groups, i = w->sizes[1];
	const size_t bytes = (size_t)(w->numel / (w->sizes[0] * i)) * pb_rt_dtype_size(w->dtype);
	char *to = dst;

	for (int64_t g = 0; g < s->groups; g++)
		for (int64_t a = 0; a < i; a++)
			for (int64_t b = 0; b < o; b++, to += bytes)
				memcpy(to,
				       (const char *)pb_rt_data(w) +
					       (size_t)((g * o + b) * i + a) * bytes,
				       bytes);
}

/* The weight as aten::convolution wants it: kept with the packed constants, or for this call. */
static struct pb_rt_tensor *plain_weight(const struct pb_rt_tensor *w, int64_t groups)
{
	const struct swap s = {w, groups};
	const struct pb_pack_key key = {pb_rt_data(w),
					{w->numel, w->sizes[0], w->sizes[1], groups, w->dtype, 3}};
	const size_t bytes = (size_t)w->numel * pb_rt_dtype_size(w->dtype);
	int64_t sizes[PB_RT_MAX_DIMS];
	struct pb_rt_tensor *t;
	void *kept;

	memcpy(sizes, w->sizes, sizeof(sizes));
	sizes[0] = w->sizes[1] * groups;
	sizes[1] = w->sizes[0] / groups;
	kept = (void *)pb_pack_constant(w, &key, bytes, swap_channels, &s);
	if (kept) {
		if (!pb_rt_is_constant(kept, bytes) && pb_rt_add_constants(kept, bytes))
			pb_rt_clear_error();
		return pb_rt_from_blob(kept, w->dtype, w->ndim, sizes, NULL, 0);
	}
	t = pb_rt_empty(w->dtype, w->ndim, sizes, NULL);
	if (t)
		swap_channels(&s, pb_rt_data(t));
	return t;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_mkldnn__convolution_transpose_pointwise(
	AtenTensorHandle X, AtenTensorHandle W, AtenTensorHandle *B, const int64_t *padding,
	int64_t padding_len_, const int64_t *output_padding, int64_t output_padding_len_,
	const int64_t *stride, int64_t stride_len_, const int64_t *dilation, int64_t dilation_len_,
	int64_t groups, const char *attr, const double **scalars, int64_t scalars_len_,
	const char **algorithm, AtenTensorHandle *ret0)
{
	struct pb_epilogue post = {0};
	struct pb_convolution a = {.op = "_convolution_transpose_pointwise",
				   .x = X,
				   .w = W,
				   .b = B ? *B : NULL,
				   .lists = LISTS,
				   .channels_last = W->layout == LAYOUT_MKLDNN,
				   .post = &post};
	struct pb_rt_tensor *plain = NULL;
	int rc;

	a.lists.transposed = true;
	a.lists.output_padding = output_padding;
	a.lists.n_output_padding = output_padding_len_;
	if (pb_epilogue_unary(&post, a.op, attr, scalars, scalars_len_,
			      algorithm ? *algorithm : NULL))
		return 1;
	if (W->layout == LAYOUT_MKLDNN) {
		if (groups <= 0 || W->ndim < 3 || W->sizes[0] % groups)
			return pb_rt_fail("%s: weight %s cannot be split into %lld groups", a.op,
					  PB_SHAPE(W), (long long)groups);
		a.w = plain = plain_weight(W, groups);
		if (!plain)
			return 1;
	}
	rc = pb_convolution(&a, ret0);
	pb_rt_delete(plain);
	return rc;
}
