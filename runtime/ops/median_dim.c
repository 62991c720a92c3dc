/* SPDX-License-Identifier: Apache-2.0 */
/*
 * median, mode and kthvalue as operators that are called by name: those along a dimension are here, the others are the C
 * ABI's. As aten/src/ATen/native/Sorting.cpp.
 */
#include "runtime/ops/layout.h"
#include "runtime/ops/select.h"
#include "runtime/ops/sort.h"
#include "runtime/ops/walk.h"
#include "runtime/proxy.h"

/* Position of the median, of equals by position; of the first NaN, if there is one and it counts. */
static int64_t median_at(struct pb_item *v, int64_t n, int32_t dtype, bool ignore_nan)
{
	const uint64_t nan = pb_nan_key(dtype);
	int64_t nans = 0, nth;

	for (int64_t i = 0; i < n && pb_is_float(dtype); i++) {
		if (v[i].key != nan)
			continue;
		if (!ignore_nan)
			return i;
		nans++;
	}
	nth = (n - nans - 1) / 2;
	pb_items_sort(v, v + n, n, dtype); /* stable */
	return v[nth].at;
}

/* Both results: sizes of @self with 1 at @dim, or without @dim. */
static int make_results(const struct pb_proxy_call *c, const struct pb_rt_tensor *self, int dim, bool keepdim)
{
	int64_t sizes[PB_RT_MAX_DIMS];
	int n = 0;

	for (int d = 0; d < self->ndim; d++) {
		if (d == dim && !keepdim)
			continue;
		sizes[n++] = d == dim ? 1 : self->sizes[d];
	}
	c->ret[0] = pb_rt_empty(self->dtype, n, sizes, NULL);
	c->ret[1] = pb_rt_empty(PB_RT_I64, n, sizes, NULL);
	return !c->ret[0] || !c->ret[1];
}

static int median_dim(const struct pb_proxy_call *c, bool ignore_nan)
{
	const struct pb_rt_tensor *self = pb_arg(c, 0);
	const size_t size = pb_rt_dtype_size(self->dtype);
	struct pb_item *v;
	struct pb_walk w;
	int64_t n, stride, at = 0;
	int d;

	if (pb_wrap_dim(pb_arg_int(c, 1), self->ndim, &d))
		return 1;
	if (self->ndim && self->sizes[d] == 0)
		return pb_rt_fail("median(): Expected reduction dim %d to have non-zero size.", d);
	if (!pb_has_order(self->dtype) || self->dtype == PB_RT_BOOL || self->dtype >= PB_RT_U16)
		return pb_not_implemented("median_out", self->dtype);
	if (make_results(c, self, d, pb_arg_bool(c, 2)))
		return 1;
	n = self->ndim ? self->sizes[d] : 1;
	stride = self->ndim ? self->strides[d] : 1;
	v = pb_rt_scratch((size_t)n * 2 * sizeof(*v) + 1);
	if (!v)
		return 1;
	pb_walk_init(&w, self->ndim, self->sizes);
	pb_walk_add(&w, self->strides);
	if (self->ndim)
		pb_walk_drop(&w, d);
	for (; self->numel && w.left; pb_walk_next(&w), at++) { /* results are contiguous: in the order of the walk */
		const char *line = (const char *)pb_rt_data(self) + w.off[0] * (int64_t)size;
		int64_t m;

		pb_items_of(v, line, self->dtype, stride, n, false);
		m = median_at(v, n, self->dtype, ignore_nan);
		memcpy((char *)pb_rt_data(c->ret[0]) + (size_t)at * size, line + m * stride * (int64_t)size, size);
		((int64_t *)pb_rt_data(c->ret[1]))[at] = m;
	}
	pb_rt_scratch_free(v);
	return 0;
}

int pb_op_median_dim(const struct pb_proxy_call *c)
{
	return median_dim(c, false);
}

int pb_op_nanmedian_dim(const struct pb_proxy_call *c)
{
	return median_dim(c, true);
}

/* Handles are not const in PyTorch's ABI. */
static AtenTensorHandle handle(const struct pb_proxy_call *c, int i)
{
	return c->args[i].v.tensor->host;
}

int pb_op_median(const struct pb_proxy_call *c)
{
	return aoti_torch_cpu_median(handle(c, 0), &c->ret[0]);
}

int pb_op_nanmedian(const struct pb_proxy_call *c)
{
	return aoti_torch_cpu_nanmedian(handle(c, 0), &c->ret[0]);
}

int pb_op_mode(const struct pb_proxy_call *c)
{
	return aoti_torch_cpu_mode(handle(c, 0), pb_arg_int(c, 1), pb_arg_bool(c, 2), &c->ret[0], &c->ret[1]);
}

int pb_op_kthvalue(const struct pb_proxy_call *c)
{
	return aoti_torch_cpu_kthvalue(handle(c, 0), pb_arg_int(c, 1), pb_arg_int(c, 2), pb_arg_bool(c, 3), &c->ret[0],
				       &c->ret[1]);
}
