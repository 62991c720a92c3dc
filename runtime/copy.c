/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tensor.copy_: any strides, broadcasting, any pair of types. Dimensions are ordered by the
 * destination's strides and merged where both sides allow, so that most copies end in one long run.
 */
#include <string.h>

#include "runtime/convert.h"
#include "runtime/ops/shape.h"
#include "runtime/tensor.h"

struct dim {
	int64_t size, dst, src; /* strides in elements */
};

struct plan {
	struct dim dims[PB_RT_MAX_DIMS]; /* outermost first */
	int ndim;
};

/* @t's stride along dimension @i of @shape, 0 where it is broadcast; false if it cannot be. */
static bool broadcast_stride(const struct pb_rt_tensor *t, const struct pb_rt_tensor *shape, int i,
			     int64_t *ret_stride)
{
	const int k = i - (shape->ndim - t->ndim);

	*ret_stride = 0;
	if (k < 0 || t->sizes[k] == 1)
		return true;
	*ret_stride = t->strides[k];
	return t->sizes[k] == shape->sizes[i];
}

static bool outside(const struct dim *a, const struct dim *b)
{
	return a->dst != b->dst ? a->dst > b->dst : a->src > b->src;
}

static void insert(struct plan *p, struct dim d)
{
	int i = p->ndim++;

	for (; i > 0 && outside(&d, &p->dims[i - 1]); i--)
		p->dims[i] = p->dims[i - 1];
	p->dims[i] = d;
}

static void merge(struct plan *p)
{
	int k = 0;

	for (int i = 1; i < p->ndim; i++) {
		struct dim *outer = &p->dims[k];
		const struct dim *inner = &p->dims[i];

		if (outer->dst == inner->dst * inner->size &&
		    outer->src == inner->src * inner->size)
			*outer = (struct dim){outer->size * inner->size, inner->dst, inner->src};
		else
			p->dims[++k] = *inner;
	}
	p->ndim = p->ndim ? k + 1 : 0;
}

static int make_plan(struct plan *p, const struct pb_rt_tensor *dst, const struct pb_rt_tensor *src)
{
	int extra = src->ndim - dst->ndim;

	p->ndim = 0;
	for (int i = 0; i < extra; i++)
		if (src->sizes[i] != 1)
			goto refuse;
	for (int i = 0; i < dst->ndim; i++) {
		struct dim d = {.size = dst->sizes[i], .dst = dst->strides[i]};

		if (!broadcast_stride(src, dst, i, &d.src))
			goto refuse;
		if (d.size != 1)
			insert(p, d);
	}
	merge(p);
	return 0;
refuse:
	return pb_rt_fail("output with shape %s doesn't match the broadcast shape of %s",
			  PB_SHAPE(dst), PB_SHAPE(src));
}

#define STRIDED(type)                                          \
	do {                                                   \
		type *restrict d = dst;                        \
		const type *restrict s = src;                  \
		for (int64_t i = 0; i < n; i++)                \
			d[i * dst_stride] = s[i * src_stride]; \
	} while (0)

struct wide16 {
	uint64_t lo, hi;
};

static void move(void *dst, int64_t dst_stride, const void *src, int64_t src_stride, int64_t n,
		 size_t size)
{
	if (dst_stride == 1 && src_stride == 1) {
		memcpy(dst, src, (size_t)n * size);
		return;
	}
	switch (size) {
	case 1:
		STRIDED(uint8_t);
		break;
	case 2:
		STRIDED(uint16_t);
		break;
	case 4:
		STRIDED(uint32_t);
		break;
	case 8:
		STRIDED(uint64_t);
		break;
	default:
		STRIDED(struct wide16);
	}
}

struct job {
	int32_t dst_dtype, src_dtype;
	size_t dst_size, src_size;
};

static int run_dim(const struct job *j, const struct plan *p, int i, char *dst, const char *src)
{
	const struct dim *d = &p->dims[i];

	if (i == p->ndim - 1) {
		if (j->dst_dtype != j->src_dtype)
			return pb_rt_convert(dst, j->dst_dtype, d->dst, src, j->src_dtype, d->src,
					     d->size);
		move(dst, d->dst, src, d->src, d->size, j->dst_size);
		return 0;
	}
	for (int64_t k = 0; k < d->size; k++)
		if (run_dim(j, p, i + 1, dst + k * d->dst * (int64_t)j->dst_size,
			    src + k * d->src * (int64_t)j->src_size))
			return 1;
	return 0;
}

int pb_rt_copy(struct pb_rt_tensor *dst, const struct pb_rt_tensor *src)
{
	const struct job j = {dst->dtype, src->dtype, pb_rt_dtype_size(dst->dtype),
			      pb_rt_dtype_size(src->dtype)};
	char *to = pb_rt_data(dst);
	const char *from = pb_rt_data(src);
	struct plan p;

	if (!dst->storage || !src->storage)
		return pb_rt_fail("a copy with a tensor that is not defined");
	if (make_plan(&p, dst, src))
		return 1;
	if (dst->numel == 0 || (to == from && j.dst_dtype == j.src_dtype &&
				!memcmp(dst->sizes, src->sizes, sizeof(dst->sizes)) &&
				!memcmp(dst->strides, src->strides, sizeof(dst->strides))))
		return 0;
	if (p.ndim == 0) {
		p.dims[0] = (struct dim){1, 1, 1};
		p.ndim = 1;
	}
	return run_dim(&j, &p, 0, to, from);
}
