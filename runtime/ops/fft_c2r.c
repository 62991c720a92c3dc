/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inverse of a real transform: from half a spectrum to real numbers. As _fft_c2r of
 * aten/src/ATen/native/mkl/SpectralOps.cpp: all dimensions but the last one are transformed as complex numbers, then each
 * line of the last one, whose other half is the conjugate of this one.
 */
#include <math.h>
#include <string.h>

#include "runtime/ops/fft.h"
#include "runtime/ops/layout.h"
#include "runtime/ops/walk.h"
#include "runtime/proxy.h"

/* The dimensions in the order of their strides, largest first, and @last at the end: so PyTorch lays the result out. */
static void order_dims(const struct pb_rt_tensor *t, int last, int *order)
{
	int n = 0;

	for (int d = 0; d < t->ndim; d++) {
		int at = n;

		if (d == last)
			continue;
		for (; at > 0 && t->strides[order[at - 1]] < t->strides[d]; at--)
			order[at] = order[at - 1];
		order[at] = d;
		n++;
	}
	order[n] = last;
}

#define FILL(type)                                                                             \
	static void fill_##type(type *to, const type *from, int64_t stride, int64_t n)         \
	{                                                                                      \
		for (int64_t k = 0; k <= n / 2; k++) {                                         \
			const type re = from[2 * k * stride], im = from[2 * k * stride + 1];   \
			const bool real = k == 0 || 2 * k == n;                                \
											       \
			to[2 * k] = re;                                                        \
			to[2 * k + 1] = real ? 0 : im;                                         \
			if (real)                                                              \
				continue;                                                      \
			to[2 * (n - k)] = re;                                                  \
			to[2 * (n - k) + 1] = -im;                                             \
		}                                                                              \
	}
FILL(float)
FILL(double)

/* Whole spectra, contiguous in the order of @order, the last dimension with @n entries. */
static struct pb_rt_tensor *whole(const struct pb_rt_tensor *t, const int *order, int64_t n)
{
	const int nd = t->ndim, last = order[nd - 1];
	int64_t sizes[PB_RT_MAX_DIMS], strides[PB_RT_MAX_DIMS], line = 0;
	struct pb_rt_tensor *full;
	struct pb_walk w;

	for (int d = 0; d < nd; d++) {
		sizes[d] = t->sizes[order[d]];
		strides[d] = t->strides[order[d]];
	}
	sizes[nd - 1] = n;
	full = pb_rt_empty(t->dtype, nd, sizes, NULL);
	if (!full || !full->numel)
		return full;
	pb_walk_init(&w, nd, sizes);
	pb_walk_add(&w, strides);
	pb_walk_drop(&w, nd - 1);
	for (; w.left; pb_walk_next(&w), line++) {
		if (t->dtype == PB_RT_C64)
			fill_float((float *)pb_rt_data(full) + 2 * line * n, (float *)pb_rt_data(t) + 2 * w.off[0],
				   t->strides[last], n);
		else
			fill_double((double *)pb_rt_data(full) + 2 * line * n, (double *)pb_rt_data(t) + 2 * w.off[0],
				    t->strides[last], n);
	}
	return full;
}

/* The real parts of @t (contiguous), times @scale, as a tensor whose dimension order[d] is @t's d. */
static struct pb_rt_tensor *real_parts(const struct pb_rt_tensor *t, const int *order, double scale)
{
	int64_t sizes[PB_RT_MAX_DIMS], strides[PB_RT_MAX_DIMS], stride = 1;
	struct pb_rt_tensor *r;

	for (int d = t->ndim - 1; d >= 0; d--) {
		sizes[order[d]] = t->sizes[d];
		strides[order[d]] = stride;
		stride *= t->sizes[d] > 1 ? t->sizes[d] : 1;
	}
	r = pb_rt_empty(t->dtype == PB_RT_C64 ? PB_RT_F32 : PB_RT_F64, t->ndim, sizes, strides);
	for (int64_t i = 0; r && i < t->numel; i++) {
		if (t->dtype == PB_RT_C64)
			((float *)pb_rt_data(r))[i] = ((float *)pb_rt_data(t))[2 * i] * (float)scale;
		else
			((double *)pb_rt_data(r))[i] = ((double *)pb_rt_data(t))[2 * i] * scale;
	}
	return r;
}

static struct pb_rt_tensor *last_lines(const struct pb_rt_tensor *t, int last, int64_t n, double scale)
{
	const int64_t dim = t->ndim - 1;
	struct pb_rt_tensor *full, *done = NULL, *flat = NULL, *r = NULL;
	int order[PB_RT_MAX_DIMS];

	order_dims(t, last, order);
	full = whole(t, order, n);
	if (full && !aoti_torch_cpu__fft_c2c(full, &dim, 1, 0, 0, &done))
		flat = pb_rt_contiguous(done);
	if (flat)
		r = real_parts(flat, order, scale);
	pb_rt_delete(full);
	pb_rt_delete(done);
	pb_rt_delete(flat);
	return r;
}

int pb_op_fft_c2r(const struct pb_proxy_call *c)
{
	const struct pb_rt_tensor *self = pb_arg(c, 0);
	const uint32_t n_dims = c->args[1].count;
	const int64_t norm = pb_arg_int(c, 2), n = pb_arg_int(c, 3);
	int64_t dims[PB_RT_MAX_DIMS];
	struct pb_rt_tensor *t = NULL;
	double count = (double)n;
	int last = 0;

	if (self->dtype != PB_RT_C64 && self->dtype != PB_RT_C128)
		return pb_rt_fail("_fft_c2r: expected complex numbers, got %s", pb_scalar_name(self->dtype));
	if (!n_dims || n_dims > (uint32_t)self->ndim || norm < 0 || norm > 2 || n < 1)
		return pb_rt_fail("_fft_c2r: impossible dimensions, normalization or size");
	for (uint32_t i = 0; i < n_dims; i++) {
		if (pb_wrap_dim(c->args[1].v.ints[i], self->ndim, &last))
			return 1;
		dims[i] = last;
		count *= i + 1 < n_dims ? (double)self->sizes[last] : 1;
	}
	if (self->sizes[last] < n / 2 + 1)
		return pb_rt_fail("_fft_c2r: %lld entries of a spectrum are too few for %lld numbers",
				  (long long)self->sizes[last], (long long)n);
	if (n_dims > 1 && aoti_torch_cpu__fft_c2c(c->args[0].v.tensor->host, dims, n_dims - 1, 0, 0, &t))
		return 1;
	c->ret[0] = last_lines(t ? t : self, last, n, norm == 2 ? 1 / count : norm == 1 ? 1 / sqrt(count) : 1);
	pb_rt_delete(t);
	return !c->ret[0];
}
