/* SPDX-License-Identifier: Apache-2.0 */
/* See map.h. */
#include "runtime/ops/map.h"

#include "runtime/convert.h"
#include "runtime/ops/layout.h"
#include "runtime/ops/walk.h"

struct block {
	_Alignas(64) char bytes[PB_CONVERT_BLOCK * 16];
};

/* Where @fn reads @n elements of input @k: in place, or converted into @tmp. NULL with the error
 * set. */
static const void *read_block(const struct pb_map *m, int k, int64_t at, int64_t stride, int64_t n,
			      struct block *tmp)
{
	const struct pb_rt_tensor *t = m->in[k];
	const char *p = (const char *)pb_rt_data(t) + at * (int64_t)pb_rt_dtype_size(t->dtype);

	if (t->dtype == m->in_dtype && stride == 1)
		return p;
	return pb_rt_convert(tmp, m->in_dtype, 1, p, t->dtype, stride, n) ? NULL : tmp;
}

static int run(const struct pb_map *m, struct pb_rt_tensor *out, const int64_t *at,
	       const int64_t *strides, int64_t n)
{
	struct block tmp[PB_MAP_INPUTS], result;
	const int64_t size = (int64_t)pb_rt_dtype_size(out->dtype);
	const bool direct = out->dtype == m->out_dtype && strides[0] == 1;

	for (int64_t i = 0; i < n; i += PB_CONVERT_BLOCK) {
		const int64_t step = n - i < PB_CONVERT_BLOCK ? n - i : PB_CONVERT_BLOCK;
		char *o = (char *)pb_rt_data(out) + (at[0] + i * strides[0]) * size;
		const void *in[PB_MAP_INPUTS];

		for (int k = 0; k < m->n_in; k++) {
			in[k] = read_block(m, k, at[1 + k] + i * strides[1 + k], strides[1 + k],
					   step, &tmp[k]);
			if (!in[k])
				return 1;
		}
		m->fn(direct ? o : result.bytes, in, step, m->arg);
		if (!direct &&
		    pb_rt_convert(o, out->dtype, strides[0], result.bytes, m->out_dtype, 1, step))
			return 1;
	}
	return 0;
}

int pb_map_into(const struct pb_map *m, struct pb_rt_tensor *out)
{
	int64_t strides[PB_RT_MAX_DIMS], n, inner[1 + PB_MAP_INPUTS];
	struct pb_walk w;

	if (!out->numel)
		return 0;
	pb_walk_init(&w, out->ndim, out->sizes);
	pb_walk_add(&w, out->strides);
	for (int k = 0; k < m->n_in; k++) {
		if (!pb_expand_strides(m->in[k], out->ndim, out->sizes, strides))
			return pb_rt_fail("a tensor of shape %s cannot be expanded to %s",
					  PB_SHAPE(m->in[k]), PB_SHAPE(out));
		pb_walk_add(&w, strides);
	}
	pb_walk_by_stride(&w);
	pb_walk_merge(&w);
	pb_walk_inner(&w, &n, inner);
	for (; w.left; pb_walk_next(&w))
		if (run(m, out, w.off, inner, n))
			return 1;
	return 0;
}

struct pb_rt_tensor *pb_map_new(const struct pb_map *m, int32_t dtype)
{
	struct pb_rt_tensor *out = pb_elementwise_empty(m->in, m->n_in, dtype, m->promotes);

	if (out && pb_map_into(m, out)) {
		pb_rt_delete(out);
		return NULL;
	}
	return out;
}

int32_t pb_compute_dtype(int32_t dtype)
{
	if (pb_is_integral(dtype) || dtype == PB_RT_BOOL)
		return PB_RT_I64;
	if (dtype == PB_RT_C32)
		return PB_RT_C64;
	return pb_is_16bit(dtype) ? PB_RT_F32 : dtype;
}
