/* SPDX-License-Identifier: Apache-2.0 */
/*
 * segment_reduce: consecutive parts of a dimension, by lengths or by offsets, become one element
 * each. Rules of torch 2.13.0's aten/src/ATen/native/SegmentReduce.cpp.
 */
#include <math.h>
#include <string.h>

#include "runtime/ops/histogram.h"
#include "runtime/ops/layout.h"
#include "runtime/tensor.h"

enum reduction { R_MAX, R_MEAN, R_MIN, R_SUM, R_PROD, R_NONE };

struct segments {
	enum reduction reduction;
	const struct pb_rt_tensor *data; /* contiguous */
	const int64_t *ends; /* [outer][count + 1]: where each begins and the last ends */
	int64_t outer, count, size, inner;
	const double *initial;
};

static enum reduction reduction_of(const char *name)
{
	static const char *const names[] = {"max", "mean", "min", "sum", "prod"};
	int i = 0;

	while (i < R_NONE && strcmp(names[i], name) != 0)
		i++;
	return (enum reduction)i;
}

static double start_of(const struct segments *s)
{
	if (s->initial)
		return *s->initial;
	switch (s->reduction) {
	case R_MAX:
		return -INFINITY;
	case R_MIN:
		return INFINITY;
	case R_PROD:
		return 1;
	default:
		return 0;
	}
}

#define REDUCE(name, type)                                                             \
	static type name(const struct segments *s, const type *x, int64_t n)           \
	{                                                                              \
		type v = (type)start_of(s);                                            \
		if (n == 0 && s->reduction == R_MEAN && !s->initial)                   \
			return NAN;                                                    \
		for (int64_t i = 0; i < n; i++) {                                      \
			const type e = x[i * s->inner];                                \
			switch (s->reduction) {                                        \
			case R_MAX:                                                    \
				v = isnan(e) ? e : isnan(v) || v > e ? v : e;          \
				break;                                                 \
			case R_MIN:                                                    \
				v = isnan(e) ? e : isnan(v) || v < e ? v : e;          \
				break;                                                 \
			case R_PROD:                                                   \
				v *= e;                                                \
				break;                                                 \
			default:                                                       \
				v += e;                                                \
			}                                                              \
		}                                                                      \
		return s->reduction == R_MEAN && n > 0 && !isnan(v) ? v / (type)n : v; \
	}

REDUCE(reduce_f32, float)
REDUCE(reduce_f64, double)

static void run(const struct segments *s, struct pb_rt_tensor *out)
{
	for (int64_t o = 0; o < s->outer; o++)
		for (int64_t k = 0; k < s->count; k++) {
			const int64_t *e = s->ends + o * (s->count + 1) + k;
			const int64_t at = (o * s->count + k) * s->inner;

			for (int64_t i = 0; i < s->inner; i++) {
				const int64_t from = (o * s->size + e[0]) * s->inner + i;

				if (out->dtype == PB_RT_F64)
					((double *)pb_rt_data(out))[at + i] = reduce_f64(
						s, (const double *)pb_rt_data(s->data) + from,
						e[1] - e[0]);
				else
					((float *)pb_rt_data(out))[at + i] = reduce_f32(
						s, (const float *)pb_rt_data(s->data) + from,
						e[1] - e[0]);
			}
		}
}

/* Where segments begin, from lengths or offsets; every one inside the data. */
static int fill_ends(const struct segments *s, const int64_t *from, bool are_lengths, bool unsafe,
		     int64_t *ends)
{
	for (int64_t o = 0; o < s->outer; o++) {
		int64_t *e = ends + o * (s->count + 1), at = 0;

		for (int64_t k = 0; k < s->count; k++) {
			e[k] = are_lengths ? at : from[o * (s->count + 1) + k];
			at = are_lengths ? at + from[o * s->count + k]
					 : from[o * (s->count + 1) + k + 1];
			if (are_lengths && from[o * s->count + k] < 0)
				return pb_rt_fail("lengths contains negative value!");
			if (e[k] < 0 || at < e[k] || at > s->size)
				return pb_rt_fail("segment_reduce: segment %lld goes from %lld to "
						  "%lld of %lld",
						  (long long)k, (long long)e[k], (long long)at,
						  (long long)s->size);
		}
		e[s->count] = at;
		if (are_lengths && !unsafe && at != s->size)
			return pb_rt_fail("segment_reduce(): Expected all rows of lengths along "
					  "axis to sum to data.size(lengths.dim()-1) when "
					  "!unsafe.");
	}
	return 0;
}

static int check(const struct pb_rt_tensor *data, const struct pb_rt_tensor *by, int64_t axis)
{
	if (data->ndim < 1 || data->numel == 0)
		return pb_rt_fail("segment_reduce: data %s has no elements", PB_SHAPE(data));
	if (data->dtype != PB_RT_F32 && data->dtype != PB_RT_F64)
		return pb_not_implemented("_segment_reduce_cpu", data->dtype);
	if (by->dtype != PB_RT_I32 && by->dtype != PB_RT_I64)
		return pb_not_implemented("_segment_reduce_lengths_cpu_kernel1", by->dtype);
	if (by->ndim < 1 || by->ndim > data->ndim || axis != by->ndim - 1)
		return pb_rt_fail("segment_reduce(): Expected axis to be the last dimension of "
				  "lengths or offsets %s but got %lld.",
				  PB_SHAPE(by), (long long)axis);
	for (int64_t d = 0; d < axis; d++)
		if (by->sizes[d] != data->sizes[d])
			return pb_rt_fail("segment_reduce: lengths or offsets %s do not fit data "
					  "%s",
					  PB_SHAPE(by), PB_SHAPE(data));
	return 0;
}

static int compute(struct segments *s, const struct pb_rt_tensor *by, bool are_lengths, bool unsafe,
		   struct pb_rt_tensor *out)
{
	int64_t *ends = pb_rt_scratch((size_t)(s->outer * (s->count + 1) + 1) * sizeof(*ends));
	int rc = !ends || fill_ends(s, pb_rt_data(by), are_lengths, unsafe, ends);

	if (!rc) {
		s->ends = ends;
		run(s, out);
	}
	if (ends)
		pb_rt_scratch_free(ends);
	return rc;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_segment_reduce(AtenTensorHandle data, const char *reduce,
							 AtenTensorHandle *lengths,
							 AtenTensorHandle *indices,
							 AtenTensorHandle *offsets, int64_t axis,
							 int32_t unsafe, double *initial,
							 AtenTensorHandle *ret0)
{
	const struct pb_rt_tensor *by = offsets ? *offsets : lengths ? *lengths : NULL;
	struct segments s = {.reduction = reduction_of(reduce), .initial = initial};
	int64_t sizes[PB_RT_MAX_DIMS];
	struct pb_rt_tensor *x, *b, *out = NULL;
	int at, rc;

	if (s.reduction == R_NONE)
		return pb_rt_fail("segment_reduce: unsupported reduction \"%.20s\"", reduce);
	if (indices)
		return pb_rt_fail("segment_reduce(): indices based reduction is not supported "
				  "yet.");
	if (!by)
		return pb_rt_fail("segment_reduce(): Either lengths or offsets must be defined.");
	if (!pb_wrap_dim(axis, data->ndim, &at))
		axis = at;
	if (check(data, by, axis))
		return 1;
	memcpy(sizes, data->sizes, sizeof(sizes));
	s.size = data->sizes[axis];
	s.count = sizes[axis] = by->sizes[axis] - (offsets != NULL);
	s.outer = s.inner = 1;
	for (int d = 0; d < data->ndim; d++) {
		s.outer *= d < axis ? data->sizes[d] : 1;
		s.inner *= d > axis ? data->sizes[d] : 1;
	}
	if (s.count < 0)
		return pb_rt_fail("segment_reduce: offsets %s have no end", PB_SHAPE(by));
	x = pb_rt_contiguous(data);
	b = pb_clone_as(by, PB_RT_I64);
	s.data = x;
	if (x && b)
		out = pb_rt_empty(data->dtype, data->ndim, sizes, NULL);
	rc = !out || compute(&s, b, !offsets, unsafe != 0, out);
	pb_rt_delete(x);
	pb_rt_delete(b);
	if (rc)
		pb_rt_delete(out);
	else
		*ret0 = out;
	return rc;
}
