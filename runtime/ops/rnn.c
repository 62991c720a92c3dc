/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One LSTM layer in one direction, as aten/src/ATen/native/mkldnn/RNN.cpp of torch 2.13.0 calls it:
 * the input is [T, N, C] whatever batch_first says, "reverse" walks time backwards and leaves the
 * output in the input's order, hy and cy have the shape of hx. The input's share of the gates is
 * one product for all steps; each step then adds the share of the hidden state. Other modes fail in
 * libtorch too (oneDNN is only ever asked for an LSTM).
 */
#include "runtime/ops/rnn.h"

#include <string.h>

#include "runtime/ops/gemm.h"
#include "runtime/ops/shape.h"
#include "runtime/tensor.h"

#define MODE_LSTM 2

struct lstm {
	int64_t t, n, c, h;
	const struct pb_rt_tensor *x, *w_ih, *w_hh, *b_ih, *b_hh, *hx, *cx;
	bool biases, reverse;
};

/* [4H, k], or as oneDNN packs it: [1, 1, k, 4, H]. */
static bool weight_fits(const struct lstm *l, const struct pb_rt_tensor *w, int64_t k)
{
	if (w->ndim == 5)
		return w->sizes[0] == 1 && w->sizes[1] == 1 && w->sizes[2] == k &&
		       w->sizes[3] == 4 && w->sizes[4] == l->h && pb_rt_is_contiguous(w);
	return w->ndim == 2 && w->sizes[0] == 4 * l->h && w->sizes[1] == k;
}

static int check(const struct lstm *l, int64_t mode)
{
	const int64_t h4 = 4 * l->h;

	if (mode != MODE_LSTM)
		return pb_rt_fail(
			"mkldnn_rnn_layer: only LSTM (mode 2) is supported, got mode %lld",
			(long long)mode);
	if (l->x->ndim != 3)
		return pb_rt_fail("mkldnn_rnn_layer: expected a 3D input, got %s", PB_SHAPE(l->x));
	if (!weight_fits(l, l->w_ih, l->c) || !weight_fits(l, l->w_hh, l->h))
		return pb_rt_fail("mkldnn_rnn_layer: weights %s and %s do not fit input %s and "
				  "hidden size %lld",
				  PB_SHAPE(l->w_ih), PB_SHAPE(l->w_hh), PB_SHAPE(l->x),
				  (long long)l->h);
	if (l->biases && (l->b_ih->numel != h4 || l->b_hh->numel != h4))
		return pb_rt_fail("mkldnn_rnn_layer: biases %s and %s do not fit hidden size %lld",
				  PB_SHAPE(l->b_ih), PB_SHAPE(l->b_hh), (long long)l->h);
	if (l->hx->numel != l->n * l->h || l->cx->numel != l->n * l->h)
		return pb_rt_fail("mkldnn_rnn_layer: states %s and %s do not fit batch %lld and "
				  "hidden size %lld",
				  PB_SHAPE(l->hx), PB_SHAPE(l->cx), (long long)l->n,
				  (long long)l->h);
	if (l->x->dtype != PB_RT_F32 && l->x->dtype != PB_RT_BF16 && l->x->dtype != PB_RT_F16)
		return pb_rt_fail("mkldnn_rnn_layer: not implemented for %s",
				  pb_rt_dtype_name(l->x->dtype));
	if (l->w_ih->dtype != l->x->dtype || l->w_hh->dtype != l->x->dtype ||
	    l->hx->dtype != l->x->dtype || l->cx->dtype != l->x->dtype)
		return pb_rt_fail(
			"mkldnn_rnn_layer: input, weights and states must have the same dtype");
	return 0;
}

/* @t as contiguous floats. */
static struct pb_rt_tensor *floats_of(const struct pb_rt_tensor *t)
{
	struct pb_rt_tensor *c;

	if (t->dtype == PB_RT_F32)
		return pb_rt_contiguous(t);
	c = pb_rt_empty(PB_RT_F32, t->ndim, t->sizes, NULL);
	if (c && pb_rt_copy(c, t)) {
		pb_rt_delete(c);
		return NULL;
	}
	return c;
}

/* W^T as the right side of a product. */
static struct pb_gemm_in weight_in(const struct pb_rt_tensor *w)
{
	if (w->ndim == 5)
		return (struct pb_gemm_in){pb_rt_data(w), w->strides[2], 1, w->dtype};
	return (struct pb_gemm_in){pb_rt_data(w), w->strides[1], w->strides[0], w->dtype};
}

/* The panels of W_hh^T, cached or made into @own for this call: they are used once a step. */
static const void *hidden_panels(const struct lstm *l, void **own)
{
	const struct pb_gemm_in in = weight_in(l->w_hh);
	const void *packed = pb_gemm_constant(l->w_hh, &in, l->h, 4 * l->h);

	if (packed)
		return packed;
	*own = pb_rt_scratch(pb_gemm_packed_bytes(l->h, 4 * l->h, in.dtype) + 64);
	if (*own)
		pb_gemm_pack(&in, l->h, 4 * l->h, *own);
	return *own;
}

/* gates[T * N][4H] = x W_ih^T + b_ih + b_hh */
static int input_gates(const struct lstm *l, const struct pb_rt_tensor *x, float *gates)
{
	const int64_t h4 = 4 * l->h;
	float *bias = gates + l->t * l->n * h4;
	struct pb_gemm g = {
		.m = l->t * l->n,
		.n = h4,
		.k = l->c,
		.a = {pb_rt_data(x), l->c, 1, PB_RT_F32},
		.b = weight_in(l->w_ih),
		.c = gates,
		.c_rs = h4,
		.c_cs = 1,
		.alpha = 1,
	};

	g.b_packed = pb_gemm_constant(l->w_ih, &g.b, l->c, h4);
	if (l->biases) {
		struct pb_rt_tensor *b_ih = floats_of(l->b_ih), *b_hh = floats_of(l->b_hh);

		if (b_ih && b_hh)
			for (int64_t i = 0; i < h4; i++)
				bias[i] = ((float *)pb_rt_data(b_ih))[i] +
					  ((float *)pb_rt_data(b_hh))[i];
		else
			g.m = -1;
		pb_rt_delete(b_ih);
		pb_rt_delete(b_hh);
		if (g.m < 0)
			return 1;
		g.self = bias;
		g.self_cs = 1;
		g.beta = 1;
	}
	return pb_gemm_run(&g);
}

static int step(const struct lstm *l, const void *panels, float *gates, const float *h_in,
		const float *c_in, float *h_out, float *c_out)
{
	const int64_t h4 = 4 * l->h;
	const struct pb_gemm g = {
		.m = l->n,
		.n = h4,
		.k = l->h,
		.accumulate = true,
		.a = {h_in, l->h, 1, PB_RT_F32},
		.b = {NULL, 0, 0, l->w_hh->dtype},
		.b_packed = panels,
		.c = gates,
		.c_rs = h4,
		.c_cs = 1,
		.alpha = 1,
	};

	if (pb_gemm_run(&g))
		return 1;
	for (int64_t i = 0; i < l->n; i++)
		pb_gemm_isa()->lstm_gates(l->h, gates + i * h4, c_in + i * l->h, c_out + i * l->h,
					  h_out + i * l->h);
	return 0;
}

/* All of float and contiguous: x [T, N, C], y [T, N, H]; h and c hold the state, before and after.
 */
static int run(const struct lstm *l, const struct pb_rt_tensor *x, float *y, float *h, float *c)
{
	const int64_t state = l->n * l->h, h4 = 4 * l->h;
	float *gates = pb_rt_scratch(((size_t)l->t * l->n + 1) * h4 * sizeof(float));
	void *own = NULL;
	const void *panels = NULL;
	const float *h_in = h;
	int rc = !gates;

	if (!rc)
		rc = input_gates(l, x, gates);
	if (!rc) {
		panels = hidden_panels(l, &own);
		rc = !panels;
	}
	for (int64_t i = 0; i < l->t && !rc; i++) {
		const int64_t t = l->reverse ? l->t - 1 - i : i;

		rc = step(l, panels, gates + t * l->n * h4, h_in, c, y + t * state, c);
		h_in = y + t * state;
	}
	if (!rc && h_in != h)
		memcpy(h, h_in, state * sizeof(float));
	if (own)
		pb_rt_scratch_free(own);
	if (gates)
		pb_rt_scratch_free(gates);
	return rc;
}

struct results {
	struct pb_rt_tensor *y, *h, *c, *x, *workspace;
};

static void results_free(struct results *r)
{
	pb_rt_delete(r->y);
	pb_rt_delete(r->h);
	pb_rt_delete(r->c);
	pb_rt_delete(r->x);
	pb_rt_delete(r->workspace);
}

static int results_new(const struct lstm *l, struct results *r)
{
	r->y = pb_rt_empty(PB_RT_F32, 3, (int64_t[]){l->t, l->n, l->h}, NULL);
	r->h = pb_rt_empty(PB_RT_F32, l->hx->ndim, l->hx->sizes, NULL);
	r->c = pb_rt_empty(PB_RT_F32, l->cx->ndim, l->cx->sizes, NULL);
	r->x = floats_of(l->x);
	/* Only a backward pass would read it. */
	r->workspace = pb_rt_empty(PB_RT_U8, 1, (int64_t[]){0}, NULL);
	if (!r->y || !r->h || !r->c || !r->x || !r->workspace)
		return 1;
	return pb_rt_copy(r->h, l->hx) || pb_rt_copy(r->c, l->cx);
}

/* Gives up the float tensor for one of @dtype. */
static int narrow_take(struct pb_rt_tensor **t, int32_t dtype)
{
	struct pb_rt_tensor *n;

	if (dtype == PB_RT_F32)
		return 0;
	n = pb_rt_empty(dtype, (*t)->ndim, (*t)->sizes, NULL);
	if (!n || pb_rt_copy(n, *t)) {
		pb_rt_delete(n);
		return 1;
	}
	pb_rt_delete(*t);
	*t = n;
	return 0;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_mkldnn_rnn_layer(
	AtenTensorHandle input, AtenTensorHandle weight0, AtenTensorHandle weight1,
	AtenTensorHandle weight2, AtenTensorHandle weight3, AtenTensorHandle hx_,
	AtenTensorHandle cx_, int32_t reverse, const int64_t *batch_sizes, int64_t batch_sizes_len_,
	int64_t mode, int64_t hidden_size, int64_t num_layers, int32_t has_biases,
	int32_t bidirectional, int32_t batch_first, int32_t train, AtenTensorHandle *ret0,
	AtenTensorHandle *ret1, AtenTensorHandle *ret2, AtenTensorHandle *ret3)
{
	const struct lstm l = {
		.t = input->sizes[0],
		.n = input->sizes[1],
		.c = input->sizes[2],
		.h = hidden_size,
		.x = input,
		.w_ih = weight0,
		.w_hh = weight1,
		.b_ih = weight2,
		.b_hh = weight3,
		.hx = hx_,
		.cx = cx_,
		.biases = has_biases != 0,
		.reverse = reverse != 0,
	};
	struct results r = {NULL};
	int rc;

	(void)batch_sizes, (void)num_layers, (void)bidirectional, (void)batch_first, (void)train;
	if (batch_sizes_len_ > 0)
		return pb_rt_fail("mkldnn_rnn_layer: packed sequences are not supported");
	if (check(&l, mode))
		return 1;
	rc = results_new(&l, &r);
	if (!rc && l.n && l.h)
		rc = run(&l, r.x, pb_rt_data(r.y), pb_rt_data(r.h), pb_rt_data(r.c));
	if (!rc)
		rc = narrow_take(&r.y, input->dtype) || narrow_take(&r.h, input->dtype) ||
		     narrow_take(&r.c, input->dtype);
	if (rc) {
		results_free(&r);
		return 1;
	}
	pb_rt_delete(r.x);
	*ret0 = r.y;
	*ret1 = r.h;
	*ret2 = r.c;
	*ret3 = r.workspace;
	return 0;
}
