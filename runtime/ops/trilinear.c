/* SPDX-License-Identifier: Apache-2.0 */
/*
 * _trilinear: the product of three tensors, each of which may lack dimensions, summed over some.
 * The meaning of torch 2.13.0's aten/src/ATen/native/Linear.cpp; unroll_dim is only how it goes
 * about it.
 */
#include <string.h>

#include "runtime/ops/distance.h"
#include "runtime/ops/layout.h"
#include "runtime/ops/walk.h"
#include "runtime/tensor.h"

struct operand {
	struct pb_rt_tensor *t; /* of the wide type */
	int64_t strides[PB_RT_MAX_DIMS];
};

static bool holds(const int64_t *list, int64_t n, int64_t d)
{
	for (int64_t i = 0; i < n; i++)
		if (list[i] == d)
			return true;
	return false;
}

/* Strides and sizes with a dimension of 1 put in for each in @expand. */
static int place(struct operand *o, const struct pb_rt_tensor *t, const int64_t *expand, int64_t n,
		 int ndim, int64_t *sizes)
{
	int from = 0;

	if (t->ndim + n != ndim)
		return pb_rt_fail("trilinear: expand dimensions of %s do not make %d dimensions",
				  PB_SHAPE(t), ndim);
	for (int d = 0; d < ndim; d++) {
		o->strides[d] = 0;
		if (holds(expand, n, d))
			continue;
		if (from >= t->ndim)
			return pb_rt_fail("trilinear: expand dimensions of %s are out of range",
					  PB_SHAPE(t));
		if (sizes[d] == 1)
			sizes[d] = t->sizes[from];
		else if (t->sizes[from] != sizes[d] && t->sizes[from] != 1)
			return pb_rt_fail("trilinear: dimension %d has size %lld in one tensor and "
					  "%lld in %s",
					  d, (long long)sizes[d], (long long)t->sizes[from],
					  PB_SHAPE(t));
		o->strides[d] = t->sizes[from] == 1 ? 0 : o->t->strides[from];
		from++;
	}
	return 0;
}

#define SUM(type)                                                                  \
	do {                                                                       \
		type *y = pb_rt_data(out);                                         \
		const type *a = pb_rt_data(o[0].t), *b = pb_rt_data(o[1].t),       \
			   *c = pb_rt_data(o[2].t);                                \
		for (; w.left; pb_walk_next(&w))                                   \
			for (int64_t i = 0; i < n; i++)                            \
				y[w.off[0] + i * s[0]] += a[w.off[1] + i * s[1]] * \
							  b[w.off[2] + i * s[2]] * \
							  c[w.off[3] + i * s[3]];  \
	} while (0)

static void sum(const struct operand *o, struct pb_rt_tensor *out, const int64_t *out_strides,
		int ndim, const int64_t *sizes)
{
	int64_t n, s[PB_WALK_TENSORS];
	struct pb_walk w;

	pb_walk_init(&w, ndim, sizes);
	pb_walk_add(&w, out_strides);
	for (int i = 0; i < 3; i++)
		pb_walk_add(&w, o[i].strides);
	pb_walk_inner(&w, &n, s);
	if (out->dtype == PB_RT_F64)
		SUM(double);
	else
		SUM(float);
}

/* A new tensor of zeros without the summed dimensions, and its strides along all. */
static struct pb_rt_tensor *new_sum(int32_t dtype, int ndim, const int64_t *sizes,
				    const int64_t *sumdim, int64_t n, int64_t *strides)
{
	int64_t kept[PB_RT_MAX_DIMS];
	struct pb_rt_tensor *t;
	int k = 0;

	for (int d = 0; d < ndim; d++)
		if (!holds(sumdim, n, d))
			kept[k++] = sizes[d];
	t = pb_rt_empty(dtype, k, kept, NULL);
	if (!t)
		return NULL;
	k = 0;
	for (int d = 0; d < ndim; d++)
		strides[d] = holds(sumdim, n, d) ? 0 : t->strides[k++];
	if (t->numel)
		memset(pb_rt_data(t), 0, (size_t)t->numel * pb_rt_dtype_size(dtype));
	return t;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__trilinear(AtenTensorHandle i1, AtenTensorHandle i2,
						     AtenTensorHandle i3, const int64_t *expand1,
						     int64_t expand1_len_, const int64_t *expand2,
						     int64_t expand2_len_, const int64_t *expand3,
						     int64_t expand3_len_, const int64_t *sumdim,
						     int64_t sumdim_len_, int64_t unroll_dim,
						     AtenTensorHandle *ret0)
{
	const int64_t total = i1->ndim + expand1_len_;
	const int ndim = (int)total;
	const int32_t wide = i1->dtype == PB_RT_F64 ? PB_RT_F64 : PB_RT_F32;
	int64_t sizes[PB_RT_MAX_DIMS], strides[PB_RT_MAX_DIMS];
	struct operand o[3] = {{NULL, {0}}, {NULL, {0}}, {NULL, {0}}};
	struct pb_rt_tensor *acc = NULL, *out = NULL;
	int rc;

	if (!pb_is_float(i1->dtype) || i2->dtype != i1->dtype || i3->dtype != i1->dtype)
		return pb_rt_fail("trilinear: not implemented for %s, %s and %s",
				  pb_rt_dtype_name(i1->dtype), pb_rt_dtype_name(i2->dtype),
				  pb_rt_dtype_name(i3->dtype));
	if (total > PB_RT_MAX_DIMS || unroll_dim < 0 || unroll_dim >= total)
		return pb_rt_fail("trilinear: unroll_dim must be in [0,%lld]",
				  (long long)(total - 1));
	for (int d = 0; d < ndim; d++)
		sizes[d] = 1;
	o[0].t = pb_as_dtype(i1, wide);
	o[1].t = pb_as_dtype(i2, wide);
	o[2].t = pb_as_dtype(i3, wide);
	rc = !o[0].t || !o[1].t || !o[2].t ||
	     place(&o[0], i1, expand1, expand1_len_, ndim, sizes) ||
	     place(&o[1], i2, expand2, expand2_len_, ndim, sizes) ||
	     place(&o[2], i3, expand3, expand3_len_, ndim, sizes);
	if (!rc)
		acc = new_sum(wide, ndim, sizes, sumdim, sumdim_len_, strides);
	if (acc) {
		sum(o, acc, strides, ndim, sizes);
		out = pb_as_dtype(acc, i1->dtype);
	}
	for (int i = 0; i < 3; i++)
		pb_rt_delete(o[i].t);
	pb_rt_delete(acc);
	if (!out)
		return 1;
	*ret0 = out;
	return 0;
}
