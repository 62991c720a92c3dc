/* SPDX-License-Identifier: Apache-2.0 */
/* amax, as aten/src/ATen/native/ReduceOps.cpp: NaN is the largest. */
#include "runtime/ops/reduce.h"

#include "runtime/convert.h"
#include "runtime/ops/layout.h"
#include "runtime/ops/map.h"
#include "runtime/ops/walk.h"

/* Largest of @n and of *acc. */
#define LARGEST(name, type)                                               \
	static void name(void *acc, const void *line, int64_t n)          \
	{                                                                 \
		const type *v = line;                                     \
		type best = *(type *)acc;                                 \
		for (int64_t i = 0; i < n; i++)                           \
			best = v[i] != v[i] || best < v[i] ? v[i] : best; \
		*(type *)acc = best;                                      \
	}

LARGEST(largest_i64, int64_t)
LARGEST(largest_f32, float)
LARGEST(largest_f64, double)

static void largest(void *acc, int32_t compute, const void *line, int64_t n)
{
	if (compute == PB_RT_F32)
		largest_f32(acc, line, n);
	else if (compute == PB_RT_F64)
		largest_f64(acc, line, n);
	else
		largest_i64(acc, line, n);
}

/* Every element of @out, whose reduced dimensions have size 1, from the block of @in under it. */
static int reduce(const struct pb_rt_tensor *in, const bool *reduced, struct pb_rt_tensor *out)
{
	const int64_t size = (int64_t)pb_rt_dtype_size(in->dtype),
		      out_size = (int64_t)pb_rt_dtype_size(out->dtype);
	const int32_t compute = pb_compute_dtype(in->dtype);
	int64_t block[PB_RT_MAX_DIMS], n, stride;
	struct pb_walk w, inner;

	for (int d = 0; d < in->ndim; d++)
		block[d] = reduced[d] ? in->sizes[d] : 1;
	pb_walk_init(&inner, in->ndim, block);
	pb_walk_add(&inner, in->strides);
	pb_walk_merge(&inner);
	pb_walk_inner(&inner, &n, &stride);
	pb_walk_init(&w, out->ndim, out->sizes);
	pb_walk_add(&w, out->strides);
	pb_walk_add(&w, in->strides);
	for (; w.left; pb_walk_next(&w)) {
		const char *from = (const char *)pb_rt_data(in) + w.off[1] * size;
		int64_t line[PB_CONVERT_BLOCK], acc;
		struct pb_walk b = inner;

		(void)pb_rt_convert(&acc, compute, 1, from, in->dtype, 1, 1);
		for (; b.left; pb_walk_next(&b)) {
			for (int64_t i = 0; i < n; i += PB_CONVERT_BLOCK) {
				const int64_t m =
					n - i < PB_CONVERT_BLOCK ? n - i : PB_CONVERT_BLOCK;

				(void)pb_rt_convert(line, compute, 1,
						    from + (b.off[0] + i * stride) * size,
						    in->dtype, stride, m);
				largest(&acc, compute, line, m);
			}
		}
		if (pb_rt_convert((char *)pb_rt_data(out) + w.off[0] * out_size, out->dtype, 1,
				  &acc, compute, 1, 1))
			return 1;
	}
	return 0;
}

static int reduced_dims(const struct pb_rt_tensor *self, const int64_t *dim, int64_t n, bool *ret)
{
	for (int d = 0; d < self->ndim; d++)
		ret[d] = n == 0;
	for (int64_t i = 0; i < n; i++) {
		int d;

		if (pb_wrap_dim(dim[i], self->ndim, &d))
			return 1;
		if (self->ndim && ret[d])
			return pb_rt_fail("dim %d appears multiple times in the list of dims", d);
		ret[d] = true;
	}
	for (int d = 0; d < self->ndim; d++)
		if (ret[d] && self->sizes[d] == 0)
			return pb_rt_fail(
				n ? "amax(): Expected reduction dim %d to have non-zero size."
				  : "amax(): Expected reduction dim to be specified for "
				    "input.numel() == 0. Specify "
				    "the reduction dim with the 'dim' argument.",
				d);
	return 0;
}

AOTI_EXPORT AOTITorchError aoti_torch_aten_amax(AtenTensorHandle self, const int64_t *dim,
						int64_t dim_len_, int32_t keepdim,
						AtenTensorHandle *ret0)
{
	int64_t kept[PB_RT_MAX_DIMS], left[PB_RT_MAX_DIMS];
	bool reduced[PB_RT_MAX_DIMS + 1] = {false};
	struct pb_rt_tensor *wide, *out = NULL;
	int n = 0;

	if (reduced_dims(self, dim, dim_len_, reduced))
		return 1;
	if (pb_is_complex(self->dtype))
		return pb_not_implemented("max_values_cpu", self->dtype);
	for (int d = 0; d < self->ndim; d++) {
		kept[d] = reduced[d] ? 1 : self->sizes[d];
		if (!reduced[d] || keepdim)
			left[n++] = kept[d];
	}
	wide = pb_rt_empty(self->dtype, self->ndim, kept, NULL);
	if (wide && !reduce(self, reduced, wide))
		out = pb_rt_alias(wide, n, left, NULL, 0);
	pb_rt_delete(wide);
	if (!out)
		return 1;
	*ret0 = out;
	return 0;
}
