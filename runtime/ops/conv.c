/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aoti_torch_cpu_convolution: checks, output size and memory format as PyTorch's
 * aten/src/ATen/native/Convolution.cpp decides them, and conversion of 16-bit types. The loops are
 * in conv_tiles.c, conv_gemm.c and conv_direct.c.
 */
#include "runtime/ops/conv.h"

#include <string.h>

#include "runtime/ops/epilogue.h"
#include "runtime/ops/gemm.h"
#include "runtime/ops/layout.h"
#include "runtime/ops/shape.h"
#include "runtime/tensor.h"

enum format { PLANES, CHANNELS_LAST };

/* Entry i of a list that may also be one number for all dimensions. */
static int64_t param(const int64_t *list, int64_t len, int i, int64_t none)
{
	if (len <= 0)
		return none;
	return list[len == 1 ? 0 : i];
}

static bool channels_last_strides(const struct pb_rt_tensor *t)
{
	return pb_suggested_format(t) != PB_FORMAT_CONTIGUOUS;
}

/* 1-d goes through PyTorch as 2-d of height 1. */
static bool channels_last_1d(const struct pb_rt_tensor *t)
{
	const struct pb_rt_tensor as_2d = {
		.ndim = 4,
		.sizes = {t->sizes[0], t->sizes[1], 1, t->sizes[2]},
		.strides = {t->strides[0], t->strides[1], t->sizes[2] * t->strides[2],
			    t->strides[2]},
	};

	return channels_last_strides(&as_2d);
}

static enum format output_format(const struct pb_rt_tensor *x, const struct pb_rt_tensor *w)
{
	/* The input is made contiguous before, which changes nothing where it counts as that. */
	if (w->ndim == 3)
		return channels_last_1d(w) || (pb_rt_is_contiguous(x) && channels_last_1d(x))
			       ? CHANNELS_LAST
			       : PLANES;
	if (x->dtype == PB_RT_F64 && x->ndim == 5)
		return PLANES;
	return channels_last_strides(x) || channels_last_strides(w) ? CHANNELS_LAST : PLANES;
}

static int check(const struct pb_convolution *a)
{
	const struct pb_rt_tensor *x = a->x, *w = a->w, *b = a->b;
	const struct pb_conv_lists *p = &a->lists;
	const char *op = a->op;
	const int nd = w->ndim - 2;
	const int64_t oc = p->transposed ? w->sizes[1] * p->groups : w->sizes[0];
	const int64_t ic = p->transposed ? w->sizes[0] : w->sizes[1] * p->groups;

	if (nd < 1 || nd > 3 || x->ndim != w->ndim)
		return pb_rt_fail("%s: expected 3D to 5D input and weight of the same "
				  "rank, but got input %s "
				  "and weight %s",
				  op, PB_SHAPE(x), PB_SHAPE(w));
	if (p->groups <= 0)
		return pb_rt_fail("%s: non-positive groups is not supported", op);
	if (x->dtype != w->dtype)
		return pb_rt_fail("%s: input type (%s) and weight type (%s) should be the same", op,
				  pb_rt_dtype_name(x->dtype), pb_rt_dtype_name(w->dtype));
	if (b && b->dtype != x->dtype)
		return pb_rt_fail("%s: input type (%s) and bias type (%s) should be the same", op,
				  pb_rt_dtype_name(x->dtype), pb_rt_dtype_name(b->dtype));
	if (x->dtype != PB_RT_F32 && x->dtype != PB_RT_F64 && x->dtype != PB_RT_BF16 &&
	    x->dtype != PB_RT_F16)
		return pb_rt_fail("%s: not implemented for %s", op, pb_rt_dtype_name(x->dtype));
	if (x->sizes[1] != ic || w->sizes[0] % p->groups)
		return pb_rt_fail("%s: given groups=%lld, weight of size %s, expected "
				  "input%s to have %lld "
				  "channels, but got %lld channels instead",
				  op, (long long)p->groups, PB_SHAPE(w), PB_SHAPE(x), (long long)ic,
				  (long long)x->sizes[1]);
	if (b && (b->ndim != 1 || b->sizes[0] != oc))
		return pb_rt_fail("%s: given weight of size %s, expected bias to be "
				  "1-dimensional with %lld "
				  "elements, but got bias of size %s instead",
				  op, PB_SHAPE(w), (long long)oc, PB_SHAPE(b));
	return 0;
}

static int fill_geometry(struct pb_conv *c, const struct pb_convolution *a)
{
	const struct pb_rt_tensor *x = a->x, *w = a->w;
	const struct pb_conv_lists *p = &a->lists;
	const int nd = w->ndim - 2;

	c->batch = x->sizes[0];
	c->groups = p->groups;
	c->transposed = p->transposed;
	c->dtype = x->dtype;
	c->icg = p->transposed ? w->sizes[0] / p->groups : w->sizes[1];
	c->ocg = p->transposed ? w->sizes[1] : w->sizes[0] / p->groups;
	for (int i = 0; i < 3; i++) {
		const int d =
			i -
			(3 -
			 nd); /* spatial dimension of the tensors, negative where there is none */
		const bool real = d >= 0;
		const int64_t op = real ? param(p->output_padding, p->n_output_padding, d, 0) : 0;
		int64_t span;

		c->in[i] = real ? x->sizes[2 + d] : 1;
		c->kernel[i] = real ? w->sizes[2 + d] : 1;
		c->stride[i] = real ? param(p->stride, p->n_stride, d, 1) : 1;
		c->pad[i] = real ? param(p->padding, p->n_padding, d, 0) : 0;
		c->dilation[i] = real ? param(p->dilation, p->n_dilation, d, 1) : 1;
		if (c->stride[i] <= 0 || c->dilation[i] <= 0 || c->pad[i] < 0 || c->kernel[i] <= 0)
			return pb_rt_fail("%s: stride, dilation and kernel size must be positive and padding not negative, "
					  "but got stride %lld, dilation %lld, kernel size %lld, padding %lld",
					  a->op, (long long)c->stride[i], (long long)c->dilation[i], (long long)c->kernel[i],
					  (long long)c->pad[i]);
		span = c->dilation[i] * (c->kernel[i] - 1) + 1;
		if (p->transposed)
			c->out[i] = (c->in[i] - 1) * c->stride[i] - 2 * c->pad[i] + span + op;
		else if (c->in[i] + 2 * c->pad[i] < span)
			return pb_rt_fail("%s: padded input size %lld is smaller than the "
					  "kernel size %lld. "
					  "Kernel size can't be greater than actual input size",
					  a->op, (long long)(c->in[i] + 2 * c->pad[i]),
					  (long long)span);
		else
			c->out[i] = (c->in[i] + 2 * c->pad[i] - span) / c->stride[i] + 1;
		if (c->out[i] < 0 || (p->transposed && c->out[i] == 0))
			return pb_rt_fail("%s: output size is too small (%lld) for input "
					  "%s and weight %s",
					  a->op, (long long)c->out[i], PB_SHAPE(x), PB_SHAPE(w));
	}
	return 0;
}

static void spatial_strides(int64_t s[5], const struct pb_rt_tensor *t)
{
	const int nd = t->ndim - 2;

	s[0] = t->strides[0];
	s[1] = t->strides[1];
	for (int i = 0; i < 3; i++) {
		const int d = i - (3 - nd);

		s[2 + i] = d >= 0 ? t->strides[2 + d] : 0;
	}
}

static struct pb_rt_tensor *new_output(const struct pb_conv *c, int ndim, int32_t dtype,
				       enum format format)
{
	const int64_t oc = c->groups * c->ocg;
	int64_t sizes[5] = {c->batch, oc}, strides[5], step;

	for (int i = 2; i < ndim; i++)
		sizes[i] = c->out[i + 1 - (ndim - 2)];
	if (format == PLANES)
		return pb_rt_empty(dtype, ndim, sizes, NULL);
	strides[1] = 1;
	step = oc > 1 ? oc : 1;
	for (int i = ndim - 1; i >= 2; i--) {
		strides[i] = step;
		step *= sizes[i] > 1 ? sizes[i] : 1;
	}
	strides[0] = step;
	return pb_rt_empty(dtype, ndim, sizes, strides);
}

/* @t contiguous in @format and of @dtype: itself with another reference, or a copy. */
static struct pb_rt_tensor *as_format(const struct pb_rt_tensor *t, int32_t dtype,
				      enum format format)
{
	int64_t strides[PB_RT_MAX_DIMS], step = 1;
	struct pb_rt_tensor *c;
	bool same = t->dtype == dtype;

	for (int i = t->ndim - 1; i >= 0; i--) {
		/* planes: n c d h w; channels last: n d h w c */
		const int d = format == PLANES || i == 0 ? i : i == t->ndim - 1 ? 1 : i + 1;

		strides[d] = step;
		same = same && (t->sizes[d] == 1 || t->strides[d] == step);
		step *= t->sizes[d] > 1 ? t->sizes[d] : 1;
	}
	if (same)
		return pb_rt_alias(t, t->ndim, t->sizes, strides, t->offset);
	c = pb_rt_empty(dtype, t->ndim, t->sizes, strides);
	if (c && pb_rt_copy(c, t)) {
		pb_rt_delete(c);
		return NULL;
	}
	return c;
}

/* Vectors of positions lose little in many positions, and all of the tile's with few channels. */
#define MANY_POSITIONS 512
#define FEW_CHANNELS 8

static int run(struct pb_conv *c, enum format format)
{
	const bool few = format == PLANES && c->ocg < FEW_CHANNELS;

	if (c->dtype == PB_RT_F64)
		return pb_conv_reference(c);
	if (c->transposed)
		return pb_conv_transposed(c);
	if (c->icg == 1 && c->groups > 1 && c->ocg <= (format == PLANES ? 4 : 1))
		return pb_conv_depthwise(c);
	if (pb_conv_is_product(c) && (few || c->out[0] * c->out[1] * c->out[2] >= MANY_POSITIONS))
		return pb_conv_product(c);
	return few ? pb_conv_planes(c) : pb_conv_tiles(c);
}

struct temps {
	struct pb_rt_tensor *x, *w, *b, *y, *other;
};

/* Inputs as the kernels want them; a transposed convolution works on planes and is copied into
 * place. */
static int prepare(struct temps *t, struct pb_conv *c, const struct pb_convolution *a,
		   struct pb_rt_tensor *out, enum format format)
{
	const int32_t dtype = a->x->dtype == PB_RT_F64 ? PB_RT_F64 : PB_RT_F32;
	const bool planes = format == PLANES || c->transposed;

	c->dtype = dtype;
	t->x = as_format(a->x, dtype, planes ? PLANES : CHANNELS_LAST);
	t->w = as_format(a->w, dtype,
			 !planes && channels_last_strides(a->w) ? CHANNELS_LAST : PLANES);
	t->b = a->b ? as_format(a->b, dtype, PLANES) : NULL;
	t->other = a->other ? as_format(a->other, dtype, planes ? PLANES : CHANNELS_LAST) : NULL;
	if (!t->x || !t->w || (a->b && !t->b) || (a->other && !t->other))
		return 1;
	if (out->dtype != dtype || (planes && format == CHANNELS_LAST)) {
		t->y = new_output(c, out->ndim, dtype, planes ? PLANES : format);
		if (!t->y)
			return 1;
	}
	c->x = pb_rt_data(t->x);
	c->w = pb_rt_data(t->w);
	c->w_tensor = t->w;
	c->bias = a->b ? pb_rt_data(t->b) : NULL;
	spatial_strides(c->xs, t->x);
	spatial_strides(c->ws, t->w);
	spatial_strides(c->ys, t->y ? t->y : out);
	c->y = pb_rt_data(t->y ? t->y : out);
	return 0;
}

static int convolve(struct pb_conv *c, const struct pb_convolution *a, struct pb_rt_tensor *out,
		    enum format format)
{
	struct temps t = {NULL};
	int rc = prepare(&t, c, a, out, format);

	if (!rc)
		rc = run(c, t.y && c->transposed ? PLANES : format);
	if (!rc && a->post)
		pb_epilogue_apply(a->post, c->y, t.other ? pb_rt_data(t.other) : NULL, out->numel);
	if (!rc && t.y)
		rc = pb_rt_copy(out, t.y);
	pb_rt_delete(t.x);
	pb_rt_delete(t.w);
	pb_rt_delete(t.b);
	pb_rt_delete(t.y);
	pb_rt_delete(t.other);
	return rc;
}

static int check_epilogue(const struct pb_convolution *a, const struct pb_rt_tensor *out)
{
	if (a->post && out->dtype == PB_RT_F64)
		return pb_rt_fail("%s: not implemented for %s", a->op,
				  pb_rt_dtype_name(out->dtype));
	if (!a->other)
		return 0;
	if (a->other->dtype != out->dtype)
		return pb_rt_fail("%s: input is %s, but other is %s", a->op,
				  pb_rt_dtype_name(out->dtype), pb_rt_dtype_name(a->other->dtype));
	return pb_same_shape(a->other, out)
		       ? 0
		       : pb_rt_fail("%s: Expect sizes of the result and other be same, but got %s "
				    "and %s",
				    a->op, PB_SHAPE(out), PB_SHAPE(a->other));
}

int pb_convolution(const struct pb_convolution *a, AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *out;
	struct pb_conv c = {0};
	enum format format;

	if (check(a) || fill_geometry(&c, a))
		return 1;
	format = a->channels_last ? CHANNELS_LAST : output_format(a->x, a->w);
	out = new_output(&c, a->x->ndim, a->x->dtype, format);
	if (!out)
		return 1;
	if (check_epilogue(a, out) || (out->numel && convolve(&c, a, out, format))) {
		pb_rt_delete(out);
		return 1;
	}
	*ret0 = out;
	return 0;
}

AOTI_EXPORT AOTITorchError
aoti_torch_cpu_convolution(AtenTensorHandle input, AtenTensorHandle weight, AtenTensorHandle *bias,
			   const int64_t *stride, int64_t stride_len_, const int64_t *padding,
			   int64_t padding_len_, const int64_t *dilation, int64_t dilation_len_,
			   int32_t transposed, const int64_t *output_padding,
			   int64_t output_padding_len_, int64_t groups, AtenTensorHandle *ret0)
{
	const struct pb_convolution a = {
		.op = "convolution",
		.x = input,
		.w = weight,
		.b = bias ? *bias : NULL,
		.lists = {stride, padding, dilation, output_padding, stride_len_, padding_len_,
			  dilation_len_, output_padding_len_, transposed != 0, groups},
	};

	return pb_convolution(&a, ret0);
}
