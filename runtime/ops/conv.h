/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Convolution: the operator of the C ABI (conv.c) and, for it, the geometry that the loops in
 * conv_tiles.c, conv_gemm.c and conv_direct.c work on. One to three spatial dimensions are always
 * seen as three (depth, height, width).
 */
#ifndef PT2BOX_RUNTIME_OPS_CONV_H
#define PT2BOX_RUNTIME_OPS_CONV_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

AOTI_EXPORT AOTITorchError
aoti_torch_cpu_convolution(AtenTensorHandle input, AtenTensorHandle weight, AtenTensorHandle *bias,
			   const int64_t *stride, int64_t stride_len_, const int64_t *padding,
			   int64_t padding_len_, const int64_t *dilation, int64_t dilation_len_,
			   int32_t transposed, const int64_t *output_padding,
			   int64_t output_padding_len_, int64_t groups, AtenTensorHandle *ret0);

/* Lists have an entry for each spatial dimension, or one for all. */
struct pb_conv_lists {
	const int64_t *stride, *padding, *dilation, *output_padding;
	int64_t n_stride, n_padding, n_dilation, n_output_padding;
	bool transposed;
	int64_t groups;
};

struct pb_epilogue;

struct pb_convolution {
	const char *op;				  /* named by errors */
	const struct AtenTensorOpaque *x, *w, *b; /* b may be NULL */
	struct pb_conv_lists lists;
	bool channels_last;		      /* of the result, whatever x and w have */
	const struct pb_epilogue *post;	      /* NULL: nothing; needs a type computed in float */
	const struct AtenTensorOpaque *other; /* of post's binary operation; the result's shape */
};

/* A new tensor; 0, or 1 with the error set. */
int pb_convolution(const struct pb_convolution *a, AtenTensorHandle *ret0);

/* Strides are in elements, order n, c, d, h, w. Weights are [groups * ocg][icg][kd][kh][kw], or
 * [groups * icg][ocg][kd][kh][kw] when transposed; contiguous, or dense in channels
 * last. */
struct pb_conv {
	int64_t batch, groups, icg, ocg;
	int64_t in[3], out[3], kernel[3], stride[3], pad[3], dilation[3];
	bool transposed;
	int32_t dtype; /* of x, w, bias and y: f32, or f64 for the reference loops */
	const void *x;
	int64_t xs[5];
	const void *w;
	int64_t ws[5];
	const struct AtenTensorOpaque
		*w_tensor; /* for the cache of packed constants; may be NULL */
	const void *bias;  /* contiguous, or NULL */
	void *y;
	int64_t ys[5];
};

/* Planes or channels last: x and y with unit stride over w or over channels, y dense. */
int pb_conv_tiles(const struct pb_conv *c);
/* Planes only, for few output channels. */
int pb_conv_planes(const struct pb_conv *c);
/* One tap over positions that are all used: planes or channels last. */
bool pb_conv_is_product(const struct pb_conv *c);
int pb_conv_product(const struct pb_conv *c);
/* One input channel per group, planes or channels last. */
int pb_conv_depthwise(const struct pb_conv *c);
/* y as pb_conv_planes; f32. */
int pb_conv_transposed(const struct pb_conv *c);
/* Any strides and either direction, f64 or f32, slowly. */
int pb_conv_reference(const struct pb_conv *c);

#ifdef __cplusplus
}
#endif
#endif
