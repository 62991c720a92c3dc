/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fractional_max_pool2d and 3d: windows of one size at places that a random number for each plane
 * and dimension decides. As torch 2.13.0's aten/src/ATen/native/FractionalMaxPool{2,3}d.cpp; two
 * dimensions are seen as three.
 */
#include <math.h>
#include <string.h>

#include "runtime/ops/gemm.h"
#include "runtime/ops/layout.h"
#include "runtime/ops/sampler.h"
#include "runtime/tensor.h"

struct pool {
	const char *op;
	int nd;
	int64_t batch, planes, in[3], out[3], kernel[3];
	const struct pb_rt_tensor *x, *samples; /* contiguous, of the wide type */
	struct pb_rt_tensor *values, *indices;	/* contiguous */
	int64_t *starts[3];
	int32_t dtype; /* of the input, before it was widened to x */
};

/* Where the windows begin along one dimension. */
#define INTERVALS(name, type)                                                                      \
	static void name(type sample, int64_t in, int64_t out, int64_t kernel, int64_t *ret)       \
	{                                                                                          \
		if (out > 1) {                                                                     \
			const type alpha = (type)(in - kernel) / (type)(out - 1);                  \
			for (int64_t i = 0; i < out - 1; i++)                                      \
				ret[i] =                                                           \
					(int)(((type)i + sample) * alpha) - (int)(sample * alpha); \
		}                                                                                  \
		if (out > 0)                                                                       \
			ret[out - 1] = in - kernel;                                                \
	}

INTERVALS(intervals_f32, float)
INTERVALS(intervals_f64, double)

/* 16-bit types: rounded after each step. */
static void intervals_16bit(float sample, int64_t in, int64_t out, int64_t kernel, int32_t dtype,
			    int64_t *ret)
{
	const float alpha =
		out > 1 ? pb_gemm_rounded(pb_gemm_rounded((float)(in - kernel), dtype) /
						  pb_gemm_rounded((float)(out - 1), dtype),
					  dtype)
			: 0;
	const int first = (int)pb_gemm_rounded(sample * alpha, dtype);

	for (int64_t i = 0; i < out - 1; i++) {
		const float at = pb_gemm_rounded(pb_gemm_rounded((float)i, dtype) + sample, dtype);

		ret[i] = (int)pb_gemm_rounded(at * alpha, dtype) - first;
	}
	ret[out - 1] = in - kernel;
}

/* Samples of 2d come width first, of 3d depth first. */
static void set_starts(const struct pool *p, int64_t plane)
{
	for (int i = 3 - p->nd; i < 3; i++) {
		const int k = p->nd == 2 ? 2 - i : i;
		const int64_t at = plane * p->nd + k;

		if (pb_is_16bit(p->dtype))
			intervals_16bit(((float *)pb_rt_data(p->samples))[at], p->in[i], p->out[i],
					p->kernel[i], p->dtype, p->starts[i]);
		else if (p->samples->dtype == PB_RT_F64)
			intervals_f64(((double *)pb_rt_data(p->samples))[at], p->in[i], p->out[i],
				      p->kernel[i], p->starts[i]);
		else
			intervals_f32(((float *)pb_rt_data(p->samples))[at], p->in[i], p->out[i],
				      p->kernel[i], p->starts[i]);
		/* Samples that are not in [0, 1), and rounding, must not lead outside. */
		for (int64_t j = 0; j < p->out[i]; j++) {
			int64_t *s = &p->starts[i][j];

			*s = *s < 0			    ? 0
			     : *s > p->in[i] - p->kernel[i] ? p->in[i] - p->kernel[i]
							    : *s;
		}
	}
}

/* The largest element of a window, or its last NaN. */
#define WINDOW(name, type)                                                                        \
	static void name(const struct pool *p, int64_t plane, const int64_t at[3], int64_t o)     \
	{                                                                                         \
		const type *x =                                                                   \
			(const type *)pb_rt_data(p->x) + plane * p->in[0] * p->in[1] * p->in[2];  \
		type best = -INFINITY;                                                            \
		int64_t where = (at[0] * p->in[1] + at[1]) * p->in[2] + at[2];                    \
		for (int64_t d = 0; d < p->kernel[0]; d++)                                        \
			for (int64_t h = 0; h < p->kernel[1]; h++)                                \
				for (int64_t w = 0; w < p->kernel[2]; w++) {                      \
					const int64_t i =                                         \
						((at[0] + d) * p->in[1] + at[1] + h) * p->in[2] + \
						at[2] + w;                                        \
					if (x[i] > best || isnan(x[i])) {                         \
						best = x[i];                                      \
						where = i;                                        \
					}                                                         \
				}                                                                 \
		((type *)pb_rt_data(p->values))[o] = best;                                        \
		((int64_t *)pb_rt_data(p->indices))[o] = where;                                   \
	}

WINDOW(window_f32, float)
WINDOW(window_f64, double)

static void run(const struct pool *p)
{
	int64_t o = 0;

	for (int64_t plane = 0; plane < p->batch * p->planes; plane++) {
		set_starts(p, plane);
		for (int64_t d = 0; d < p->out[0]; d++)
			for (int64_t h = 0; h < p->out[1]; h++)
				for (int64_t w = 0; w < p->out[2]; w++, o++) {
					const int64_t at[3] = {p->starts[0][d], p->starts[1][h],
							       p->starts[2][w]};

					if (p->x->dtype == PB_RT_F64)
						window_f64(p, plane, at, o);
					else
						window_f32(p, plane, at, o);
				}
	}
}

static int geometry(struct pool *p, const struct pb_rt_tensor *self,
		    const struct pb_rt_tensor *samples, const int64_t *kernel, int64_t n_kernel,
		    const int64_t *out, int64_t n_out)
{
	const int first = self->ndim - p->nd;

	if (n_kernel != p->nd || n_out != p->nd)
		return pb_rt_fail("%s: kernel_size and output_size must be %d numbers each", p->op,
				  p->nd);
	if (first != 1 && first != 2)
		return pb_rt_fail("%s: Expected %dD or %dD tensor, but got: %s", p->op, p->nd + 1,
				  p->nd + 2, PB_SHAPE(self));
	p->batch = first == 2 ? self->sizes[0] : 1;
	p->planes = self->sizes[first - 1];
	for (int i = 0; i < 3; i++) {
		const int d = i - (3 - p->nd);

		p->in[i] = d < 0 ? 1 : self->sizes[first + d];
		p->out[i] = d < 0 ? 1 : out[d];
		p->kernel[i] = d < 0 ? 1 : kernel[d];
		if (p->in[i] <= 0 || p->out[i] <= 0 || p->kernel[i] <= 0 ||
		    p->out[i] + p->kernel[i] - 1 > p->in[i] - (p->nd == 3 && d >= 0))
			return pb_rt_fail("%s: kernel %lld and output %lld are too large relative "
					  "to input %s",
					  p->op, (long long)p->kernel[i], (long long)p->out[i],
					  PB_SHAPE(self));
	}
	if (samples->ndim != 3 || samples->sizes[0] < p->batch || samples->sizes[1] < p->planes ||
	    samples->sizes[1] != p->planes || samples->sizes[2] != p->nd)
		return pb_rt_fail("%s: Expect _random_samples to be [%lld, %lld, %d], got %s",
				  p->op, (long long)p->batch, (long long)p->planes, p->nd,
				  PB_SHAPE(samples));
	if (!pb_is_float(self->dtype))
		return pb_not_implemented("fractional_max_pool_out_frame", self->dtype);
	if (samples->dtype != self->dtype)
		return pb_rt_fail("%s: Expect _random_samples to have the same dtype as input",
				  p->op);
	return 0;
}

static int compute(struct pool *p)
{
	const int64_t n = p->out[0] + p->out[1] + p->out[2];
	int64_t *starts = pb_rt_scratch((size_t)n * sizeof(*starts));

	if (!starts)
		return 1;
	p->starts[0] = starts;
	p->starts[1] = starts + p->out[0];
	p->starts[2] = p->starts[1] + p->out[1];
	starts[0] = 0; /* of 2d */
	run(p);
	pb_rt_scratch_free(starts);
	return 0;
}

static int pool(struct pool *p, const struct pb_rt_tensor *self, const struct pb_rt_tensor *samples,
		AtenTensorHandle *ret0, AtenTensorHandle *ret1)
{
	const int32_t wide = self->dtype == PB_RT_F64 ? PB_RT_F64 : PB_RT_F32;
	struct pb_rt_tensor *x = pb_clone_as(self, wide), *s = pb_clone_as(samples, wide);
	struct pb_rt_tensor *values = NULL;
	int64_t sizes[PB_RT_MAX_DIMS];
	int rc;

	memcpy(sizes, self->sizes, sizeof(sizes));
	for (int i = 0; i < p->nd; i++)
		sizes[self->ndim - p->nd + i] = p->out[i + 3 - p->nd];
	p->x = x;
	p->dtype = self->dtype;
	p->samples = s;
	p->values = pb_rt_empty(wide, self->ndim, sizes, NULL);
	p->indices = pb_rt_empty(PB_RT_I64, self->ndim, sizes, NULL);
	rc = !x || !s || !p->values || !p->indices || (p->values->numel && compute(p));
	if (!rc)
		values = pb_as_dtype(p->values, self->dtype);
	pb_rt_delete(x);
	pb_rt_delete(s);
	pb_rt_delete(p->values);
	if (!values) {
		pb_rt_delete(p->indices);
		return 1;
	}
	*ret0 = values;
	*ret1 = p->indices;
	return 0;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_fractional_max_pool2d(
	AtenTensorHandle self, const int64_t *kernel_size, int64_t kernel_size_len_,
	const int64_t *output_size, int64_t output_size_len_, AtenTensorHandle random_samples,
	AtenTensorHandle *ret0, AtenTensorHandle *ret1)
{
	struct pool p = {.op = "fractional_max_pool2d()", .nd = 2};

	return geometry(&p, self, random_samples, kernel_size, kernel_size_len_, output_size,
			output_size_len_) ||
	       pool(&p, self, random_samples, ret0, ret1);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_fractional_max_pool3d(
	AtenTensorHandle self, const int64_t *kernel_size, int64_t kernel_size_len_,
	const int64_t *output_size, int64_t output_size_len_, AtenTensorHandle random_samples,
	AtenTensorHandle *ret0, AtenTensorHandle *ret1)
{
	struct pool p = {.op = "fractional_max_pool3d_out()", .nd = 3};

	return geometry(&p, self, random_samples, kernel_size, kernel_size_len_, output_size,
			output_size_len_) ||
	       pool(&p, self, random_samples, ret0, ret1);
}
