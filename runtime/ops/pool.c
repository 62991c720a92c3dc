/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Maximum and average over windows, as
 * aten/src/ATen/native/cpu/{MaxPool,AvgPool,AdaptiveAvgPool,AdaptiveMaxPool}Kernel.cpp: NaN is a
 * maximum, ties go to the first, averages of 16-bit types add up in float.
 */
#include "runtime/ops/pool.h"

#include <math.h>
#include <string.h>

#include "runtime/ops/layout.h"
#include "runtime/ops/map.h"
#include "runtime/ops/pool_plan.h"

/* One plane; strides of input and outputs along depth, height, width. */
struct plane {
	const struct pb_pool *p;
	int64_t xs[3], ys[3], is[3];
	const void *x;
	void *y;
	int64_t *index;
};

#define EACH_OUTPUT                                           \
	for (int64_t od = 0; od < l->p->out[0]; od++)         \
		for (int64_t oh = 0; oh < l->p->out[1]; oh++) \
			for (int64_t ow = 0; ow < l->p->out[2]; ow++)
#define WINDOWS                                                                          \
	const struct pb_window *wd = &l->p->windows[0][od], *wh = &l->p->windows[1][oh], \
			       *ww = &l->p->windows[2][ow]
#define EACH_INPUT                                                  \
	for (int64_t d = wd->lo; d < wd->hi; d += wd->step)         \
		for (int64_t h = wh->lo; h < wh->hi; h += wh->step) \
			for (int64_t w = ww->lo; w < ww->hi; w += ww->step)

#define MAX_PLANE(name, type, lowest)                                                              \
	static void name(const struct plane *l)                                                    \
	{                                                                                          \
		const int64_t height = l->p->in[1], width = l->p->in[2];                           \
		EACH_OUTPUT                                                                        \
		{                                                                                  \
			WINDOWS;                                                                   \
			type best = lowest;                                                        \
			int64_t at = (wd->lo * height + wh->lo) * width + ww->lo;                  \
			EACH_INPUT                                                                 \
			{                                                                          \
				const type v =                                                     \
					((const type *)l                                           \
						 ->x)[d * l->xs[0] + h * l->xs[1] + w * l->xs[2]]; \
				if (v > best || v != v) {                                          \
					best = v;                                                  \
					at = (d * height + h) * width + w;                         \
				}                                                                  \
			}                                                                          \
			((type *)l->y)[od * l->ys[0] + oh * l->ys[1] + ow * l->ys[2]] = best;      \
			l->index[od * l->is[0] + oh * l->is[1] + ow * l->is[2]] = at;              \
		}                                                                                  \
	}

MAX_PLANE(max_f32, float, -INFINITY)
MAX_PLANE(max_f64, double, -INFINITY)
MAX_PLANE(max_i64, int64_t, INT64_MIN)

static int64_t length(const struct pb_window *w)
{
	return w->hi > w->lo ? w->hi - w->lo : 0;
}

static int64_t divisor(const struct pb_pool *p, const struct pb_window *a,
		       const struct pb_window *b, const struct pb_window *c)
{
	if (p->divisor)
		return p->divisor;
	return p->count_pad ? a->full * b->full * c->full : length(a) * length(b) * length(c);
}

static float quotient_avg_f32(float sum, int64_t n)
{
	return sum / (float)n;
}

static double quotient_avg_f64(double sum, int64_t n)
{
	return sum / (double)n;
}

static int64_t quotient_avg_i64(int64_t sum, int64_t n)
{
	return n == -1 ? (int64_t)(0 - (uint64_t)sum) : sum / n;
}

#define AVG_PLANE(name, type, sum_type)                                                            \
	static void name(const struct plane *l)                                                    \
	{                                                                                          \
		EACH_OUTPUT                                                                        \
		{                                                                                  \
			WINDOWS;                                                                   \
			sum_type sum = 0;                                                          \
			EACH_INPUT                                                                 \
			sum += (sum_type)((const type *)l->x)[d * l->xs[0] + h * l->xs[1] +        \
							      w * l->xs[2]];                       \
			if (length(wd) && length(wh) && length(ww))                                \
				sum = (sum_type)quotient_##name((type)sum,                         \
								divisor(l->p, wd, wh, ww));        \
			((type *)l->y)[od * l->ys[0] + oh * l->ys[1] + ow * l->ys[2]] = (type)sum; \
		}                                                                                  \
	}

AVG_PLANE(avg_f32, float, float)
AVG_PLANE(avg_f64, double, double)
AVG_PLANE(avg_i64, int64_t, uint64_t)

/* The strides of a plane of @t, and where it begins (elements). */
static void plane_strides(const struct pb_pool *p, const struct pb_rt_tensor *t, int64_t *ret)
{
	const int first = t->ndim - p->spatial;

	ret[0] = 0;
	for (int i = 0; i < p->spatial; i++)
		ret[3 - p->spatial + i] = t->strides[first + i];
}

static int64_t plane_at(const struct pb_pool *p, const struct pb_rt_tensor *t, int64_t n, int64_t c)
{
	const int first = t->ndim - p->spatial;

	return c * t->strides[first - 1] + (first == 2 ? n * t->strides[0] : 0);
}

typedef void plane_fn(const struct plane *l);

/* @index may be NULL. @x and @y have the dtype that @fn is for. */
static void run(const struct pb_pool *p, plane_fn *fn, const struct pb_rt_tensor *x,
		struct pb_rt_tensor *y, struct pb_rt_tensor *index)
{
	const int64_t size = (int64_t)pb_rt_dtype_size(x->dtype);
	struct plane l = {.p = p};

	plane_strides(p, x, l.xs);
	plane_strides(p, y, l.ys);
	if (index)
		plane_strides(p, index, l.is);
	for (int64_t n = 0; n < p->planes_n && y->numel; n++) {
		for (int64_t c = 0; c < p->planes_c; c++) {
			l.x = (const char *)pb_rt_data(x) + plane_at(p, x, n, c) * size;
			l.y = (char *)pb_rt_data(y) + plane_at(p, y, n, c) * size;
			l.index = index ? (int64_t *)pb_rt_data(index) + plane_at(p, index, n, c)
					: NULL;
			fn(&l);
		}
	}
}

/* Memory format of a result. Without a batch, some operators ask a batch of one for it. */
static enum pb_format result_format(const struct pb_pool *p, const struct pb_rt_tensor *self)
{
	struct pb_rt_tensor batch = {.ndim = self->ndim + 1};

	if (p->spatial == 3 && (p->adaptive || p->averages))
		return PB_FORMAT_CONTIGUOUS;
	if (!p->batch_of_one || self->ndim != p->spatial + 1 || !pb_is_dense(self))
		return pb_suggested_format(self);
	batch.sizes[0] = 1;
	batch.strides[0] = INT64_MAX;
	memcpy(batch.sizes + 1, self->sizes, (size_t)self->ndim * sizeof(int64_t));
	memcpy(batch.strides + 1, self->strides, (size_t)self->ndim * sizeof(int64_t));
	return pb_suggested_format(&batch);
}

static struct pb_rt_tensor *new_output(const struct pb_pool *p, const struct pb_rt_tensor *self,
				       int32_t dtype)
{
	const int first = self->ndim - p->spatial, batch = first == 1;
	int64_t sizes[PB_RT_MAX_DIMS] = {1}, strides[PB_RT_MAX_DIMS];

	for (int d = 0; d < self->ndim; d++)
		sizes[batch + d] = d < first ? self->sizes[d] : p->out[3 - p->spatial + d - first];
	pb_format_strides(result_format(p, self), self->ndim + batch, sizes, strides);
	return pb_rt_empty(dtype, self->ndim, sizes + batch, strides + batch);
}

/* Runs in the type that is computed in, and converts before and after where that is another. */
static int pool(const struct pb_pool *p, plane_fn *fn, const struct pb_rt_tensor *self,
		struct pb_rt_tensor *y, struct pb_rt_tensor *index)
{
	struct pb_rt_tensor *x, *wide;
	int rc = 0;

	if (pb_compute_dtype(self->dtype) == self->dtype) {
		run(p, fn, self, y, index);
		return 0;
	}
	x = pb_clone_as(self, pb_compute_dtype(self->dtype));
	wide = x ? pb_rt_empty(x->dtype, y->ndim, y->sizes, NULL) : NULL;
	if (wide) {
		run(p, fn, x, wide, index);
		rc = pb_rt_copy(y, wide);
	}
	rc = rc || !wide;
	pb_rt_delete(x);
	pb_rt_delete(wide);
	return rc;
}

static bool can_max(const struct pb_pool *p, int32_t dtype)
{
	return pb_is_float(dtype) || (pb_is_integral(dtype) && !p->adaptive);
}

static bool can_average(const struct pb_pool *p, int32_t dtype)
{
	if (p->spatial == 3 && !p->adaptive && pb_is_16bit(dtype))
		return false;
	return pb_is_float(dtype) || (dtype == PB_RT_I64 && !p->adaptive);
}

int pb_pool_max(const struct pb_pool *p, const struct pb_rt_tensor *self,
		AtenTensorHandle *ret_values, AtenTensorHandle *ret_indices)
{
	const int32_t compute = pb_compute_dtype(self->dtype);
	struct pb_rt_tensor *y = NULL, *index = NULL;

	if (!can_max(p, self->dtype))
		return pb_not_implemented(p->op, self->dtype);
	y = new_output(p, self, self->dtype);
	index = y ? new_output(p, self, PB_RT_I64) : NULL;
	if (!index || pool(p,
			   compute == PB_RT_F32	  ? max_f32
			   : compute == PB_RT_F64 ? max_f64
						  : max_i64,
			   self, y, index)) {
		pb_rt_delete(y);
		pb_rt_delete(index);
		return 1;
	}
	*ret_values = y;
	*ret_indices = index;
	return 0;
}

int pb_pool_avg(const struct pb_pool *p, const struct pb_rt_tensor *self, AtenTensorHandle *ret0)
{
	const int32_t compute = pb_compute_dtype(self->dtype);
	struct pb_rt_tensor *y;

	/* Without elements an adaptive average never gets to its dtype. */
	if (!can_average(p, self->dtype) && (self->numel || !p->adaptive))
		return pb_not_implemented(p->op, self->dtype);
	y = new_output(p, self, self->dtype);
	if (!y || pool(p,
		       compute == PB_RT_F32   ? avg_f32
		       : compute == PB_RT_F64 ? avg_f64
					      : avg_i64,
		       self, y, NULL)) {
		pb_rt_delete(y);
		return 1;
	}
	*ret0 = y;
	return 0;
}
