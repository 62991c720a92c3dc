/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid_sampler_3d: values of a volume at given places. Coordinates, padding and the order of the
 * sums are those of torch 2.13.0's aten/src/ATen/native/{GridSampler.cpp,GridSamplerUtils.h}.
 */
#include <math.h>

#include "runtime/ops/layout.h"
#include "runtime/ops/sampler.h"
#include "runtime/tensor.h"

enum { BILINEAR, NEAREST };
enum { ZEROS, BORDER, REFLECTION };

struct sampler {
	const struct pb_rt_tensor *x, *grid; /* of the wide type */
	struct pb_rt_tensor *out;	     /* contiguous, the same */
	int64_t mode, padding;
	bool align;
};

#define SAMPLER(suffix, type, floor_fn, fmod_fn, fabs_fn, nearbyint_fn)                            \
	static type reflect_##suffix(type v, int64_t twice_low, int64_t twice_high)                \
	{                                                                                          \
		const type lo = (type)twice_low / 2, span = (type)(twice_high - twice_low) / 2;    \
		type extra;                                                                        \
		int64_t flips;                                                                     \
		if (twice_low == twice_high)                                                       \
			return 0;                                                                  \
		v = fabs_fn(v - lo);                                                               \
		extra = fmod_fn(v, span);                                                          \
		flips = (int64_t)floor_fn(v / span);                                               \
		return flips % 2 == 0 ? extra + lo : span - extra + lo;                            \
	}                                                                                          \
                                                                                                   \
	static type clip_##suffix(type v, int64_t size)                                            \
	{                                                                                          \
		const type hi = (type)(size - 1), y = v > 0 ? v : 0; /* NaN becomes 0 */           \
		return y < hi ? y : hi;                                                            \
	}                                                                                          \
                                                                                                   \
	/* From [-1, 1] to an index, as the padding wants it. */                                   \
	static type source_##suffix(const struct sampler *s, type v, int64_t size)                 \
	{                                                                                          \
		v = s->align ? (v + 1) / 2 * (type)(size - 1) : ((v + 1) * (type)size - 1) / 2;    \
		if (s->padding == BORDER)                                                          \
			return clip_##suffix(v, size);                                             \
		if (s->padding == REFLECTION) {                                                    \
			v = s->align ? reflect_##suffix(v, 0, 2 * (size - 1))                      \
				     : reflect_##suffix(v, -1, 2 * size - 1);                      \
			return clip_##suffix(v, size);                                             \
		}                                                                                  \
		/* What cannot be converted to an index: far outside. */                           \
		return v > (type)INT32_MAX - 1 || v < (type)INT32_MIN || !isfinite(v) ? -100 : v;  \
	}                                                                                          \
                                                                                                   \
	static bool inside_##suffix(const struct pb_rt_tensor *x, int64_t d, int64_t h, int64_t w) \
	{                                                                                          \
		return d >= 0 && d < x->sizes[2] && h >= 0 && h < x->sizes[3] && w >= 0 &&         \
		       w < x->sizes[4];                                                            \
	}                                                                                          \
                                                                                                   \
	static type at_##suffix(const struct pb_rt_tensor *x, int64_t base, int64_t d, int64_t h,  \
				int64_t w)                                                         \
	{                                                                                          \
		return ((const type *)pb_rt_data(                                                  \
			x))[base + d * x->strides[2] + h * x->strides[3] + w * x->strides[4]];     \
	}                                                                                          \
                                                                                                   \
	static type near_##suffix(const struct sampler *s, int64_t base, type d, type h, type w)   \
	{                                                                                          \
		const int64_t id = (int64_t)nearbyint_fn(d), ih = (int64_t)nearbyint_fn(h),        \
			      iw = (int64_t)nearbyint_fn(w);                                       \
		return inside_##suffix(s->x, id, ih, iw) ? at_##suffix(s->x, base, id, ih, iw)     \
							 : 0;                                      \
	}                                                                                          \
                                                                                                   \
	static type linear_##suffix(const struct sampler *s, int64_t base, type d, type h, type w) \
	{                                                                                          \
		const int64_t id = (int64_t)floor_fn(d), ih = (int64_t)floor_fn(h),                \
			      iw = (int64_t)floor_fn(w);                                           \
		type sum = 0;                                                                      \
		for (int c = 0; c < 8; c++) {                                                      \
			const int64_t kd = c >> 2, kh = c >> 1 & 1, kw = c & 1;                    \
			const type fd = kd ? d - (type)id : (type)(id + 1) - d;                    \
			const type fh = kh ? h - (type)ih : (type)(ih + 1) - h;                    \
			const type fw = kw ? w - (type)iw : (type)(iw + 1) - w;                    \
			if (inside_##suffix(s->x, id + kd, ih + kh, iw + kw))                      \
				sum += at_##suffix(s->x, base, id + kd, ih + kh, iw + kw) *        \
				       (fw * fh * fd);                                             \
		}                                                                                  \
		return sum;                                                                        \
	}                                                                                          \
                                                                                                   \
	static void sample_##suffix(const struct sampler *s)                                       \
	{                                                                                          \
		const struct pb_rt_tensor *g = s->grid, *x = s->x;                                 \
		const int64_t *n = s->out->sizes, *gs = g->strides;                                \
		const int64_t plane = n[2] * n[3] * n[4];                                          \
		type *y = pb_rt_data(s->out);                                                      \
		for (int64_t i = 0; i < n[0] * plane; i++) {                                       \
			const int64_t b = i / plane, p = i % plane;                                \
			const type *at = (const type *)pb_rt_data(g) + b * gs[0] +                 \
					 p / (n[3] * n[4]) * gs[1] + p / n[4] % n[3] * gs[2] +     \
					 p % n[4] * gs[3];                                         \
			const type w = source_##suffix(s, at[0], x->sizes[4]);                     \
			const type h = source_##suffix(s, at[gs[4]], x->sizes[3]);                 \
			const type d = source_##suffix(s, at[2 * gs[4]], x->sizes[2]);             \
			for (int64_t c = 0; c < n[1]; c++) {                                       \
				const int64_t base = b * x->strides[0] + c * x->strides[1];        \
				y[(b * n[1] + c) * plane + p] =                                    \
					s->mode == NEAREST ? near_##suffix(s, base, d, h, w)       \
							   : linear_##suffix(s, base, d, h, w);    \
			}                                                                          \
		}                                                                                  \
	}

SAMPLER(f32, float, floorf, fmodf, fabsf, nearbyintf)
SAMPLER(f64, double, floor, fmod, fabs, nearbyint)

static int check(const struct pb_rt_tensor *x, const struct pb_rt_tensor *grid, int64_t mode,
		 int64_t padding)
{
	if (x->ndim != 5 || grid->ndim != 5)
		return pb_rt_fail("grid_sampler(): expected 5D input and grid with same number of "
				  "dimensions, but got input with sizes %s and grid with sizes %s",
				  PB_SHAPE(x), PB_SHAPE(grid));
	if (x->sizes[0] != grid->sizes[0] || grid->sizes[4] != 3)
		return pb_rt_fail("grid_sampler(): expected grid to have the input's batch and "
				  "size 3 in last dimension, but got input with sizes %s and grid "
				  "with sizes %s",
				  PB_SHAPE(x), PB_SHAPE(grid));
	for (int d = 2; d < 5; d++)
		if (x->sizes[d] <= 0)
			return pb_rt_fail("grid_sampler(): expected input to have non-empty "
					  "spatial dimensions, but input has sizes %s with "
					  "dimension %d being empty",
					  PB_SHAPE(x), d);
	if (!pb_is_float(x->dtype))
		return pb_not_implemented("grid_sampler3d_cpu", x->dtype);
	if (grid->dtype != x->dtype)
		return pb_rt_fail("grid_sampler(): expected input and grid to have same dtype, "
				  "but input has %s and grid has %s",
				  pb_rt_dtype_name(x->dtype), pb_rt_dtype_name(grid->dtype));
	if (mode == 2)
		return pb_rt_fail("grid_sampler(): bicubic interpolation only supports 4D input");
	if (mode < 0 || mode > 2 || padding < 0 || padding > 2)
		return pb_rt_fail("grid_sampler_3d: unknown mode %lld or padding %lld",
				  (long long)mode, (long long)padding);
	return 0;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_grid_sampler_3d(
	AtenTensorHandle input, AtenTensorHandle grid, int64_t interpolation_mode,
	int64_t padding_mode, int32_t align_corners, AtenTensorHandle *ret0)
{
	const int32_t wide = input->dtype == PB_RT_F64 ? PB_RT_F64 : PB_RT_F32;
	struct pb_rt_tensor *x, *g, *y = NULL, *out = NULL;

	if (check(input, grid, interpolation_mode, padding_mode))
		return 1;
	x = pb_as_dtype(input, wide);
	g = pb_as_dtype(grid, wide);
	if (x && g)
		y = pb_rt_empty(wide, 5,
				(int64_t[]){input->sizes[0], input->sizes[1], grid->sizes[1],
					    grid->sizes[2], grid->sizes[3]},
				NULL);
	if (y) {
		const struct sampler s = {
			x, g, y, interpolation_mode, padding_mode, align_corners != 0};

		if (y->numel && wide == PB_RT_F64)
			sample_f64(&s);
		else if (y->numel)
			sample_f32(&s);
		out = pb_as_dtype(y, input->dtype);
	}
	pb_rt_delete(x);
	pb_rt_delete(g);
	pb_rt_delete(y);
	if (!out)
		return 1;
	*ret0 = out;
	return 0;
}
