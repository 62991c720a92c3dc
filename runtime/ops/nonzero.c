/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nonzero, masked_select, masked_scatter, repeat_interleave, as
 * aten/src/ATen/native/{TensorAdvancedIndexing,Repeat}.cpp. A tensor is first turned into
 * contiguous truth values (Tensor.copy_ to bool knows every dtype).
 */
#include "runtime/ops/nonzero.h"

#include "runtime/ops/layout.h"
#include "runtime/ops/walk.h"

static int64_t count_true(const struct pb_rt_tensor *truth)
{
	const uint8_t *v = pb_rt_data(truth);
	int64_t c = 0;

	for (int64_t i = 0; i < truth->numel; i++)
		c += v[i];
	return c;
}

/* Coordinates of the first @max true elements, a row each. */
static void write_rows(const struct pb_rt_tensor *truth, struct pb_rt_tensor *out, int64_t max)
{
	const uint8_t *v = pb_rt_data(truth);
	int64_t *row = pb_rt_data(out);
	struct pb_walk w;

	if (truth->ndim == 1) {
		/* Writes before it knows: where the next one goes there is room while any is
		 * missing. */
		for (int64_t i = 0; max && i < truth->numel; i++) {
			*row = i;
			row += v[i] ? out->strides[0] : 0;
			max -= v[i];
		}
		return;
	}
	pb_walk_init(&w, truth->ndim, truth->sizes);
	for (; w.left && max; pb_walk_next(&w), v++) {
		if (!*v)
			continue;
		for (int d = 0; d < truth->ndim; d++)
			row[d * out->strides[1]] = w.at[d];
		row += out->strides[0];
		max--;
	}
}

/* Column after column, as PyTorch lays nonzero out on the CPU. */
static int nonzero(const struct pb_rt_tensor *self, AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *truth = pb_clone_as(self, PB_RT_BOOL), *out;
	int64_t found;

	if (!truth)
		return 1;
	found = count_true(truth);
	out = pb_rt_empty(PB_RT_I64, 2, (int64_t[]){found, self->ndim},
			  (int64_t[]){1, found > 1 ? found : 1});
	if (out && out->numel)
		write_rows(truth, out, found);
	pb_rt_delete(truth);
	if (!out)
		return 1;
	*ret0 = out;
	return 0;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_nonzero(AtenTensorHandle self, AtenTensorHandle *ret0)
{
	return nonzero(self, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_nonzero(AtenTensorHandle self, AtenTensorHandle *out)
{
	return nonzero(self, out);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_nonzero_static(AtenTensorHandle self, int64_t size,
							 int64_t fill_value, AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *truth, *out;
	int64_t found;

	if (size < 0)
		return pb_rt_fail("nonzero_static: 'size' must be an non-negative integer");
	truth = pb_clone_as(self, PB_RT_BOOL);
	if (!truth)
		return 1;
	out = pb_rt_empty(PB_RT_I64, 2, (int64_t[]){size, self->ndim}, NULL);
	if (out && out->numel) {
		found = count_true(truth);
		for (int64_t i = found * self->ndim; i < out->numel; i++)
			((int64_t *)pb_rt_data(out))[i] = fill_value;
		write_rows(truth, out, found < size ? found : size);
	}
	pb_rt_delete(truth);
	if (!out)
		return 1;
	*ret0 = out;
	return 0;
}

/* ---- masks ---- */

/* @t as it is expanded to the common shape: a new handle. */
static struct pb_rt_tensor *expanded(const struct pb_rt_tensor *t, int ndim, const int64_t *sizes)
{
	int64_t strides[PB_RT_MAX_DIMS];

	if (!pb_expand_strides(t, ndim, sizes, strides)) {
		pb_rt_fail("a tensor of shape %s cannot be expanded", PB_SHAPE(t));
		return NULL;
	}
	return pb_rt_alias(t, ndim, sizes, strides, t->offset);
}

struct masked {
	struct pb_rt_tensor *self, *mask; /* expanded; the mask also contiguous */
	int64_t count;
};

static void masked_deinit(struct masked *m)
{
	pb_rt_delete(m->self);
	pb_rt_delete(m->mask);
}

static int masked_init(struct masked *m, const struct pb_rt_tensor *self,
		       const struct pb_rt_tensor *mask)
{
	const struct pb_rt_tensor *both[2] = {self, mask};
	struct pb_rt_tensor *wide;
	int64_t sizes[PB_RT_MAX_DIMS];
	int ndim;

	*m = (struct masked){NULL, NULL, 0};
	if (pb_broadcast(both, 2, &ndim, sizes))
		return 1;
	m->self = expanded(self, ndim, sizes);
	wide = expanded(mask, ndim, sizes);
	if (wide)
		m->mask = pb_clone_as(wide, PB_RT_BOOL);
	pb_rt_delete(wide);
	if (!m->self || !m->mask) {
		masked_deinit(m);
		return 1;
	}
	m->count = count_true(m->mask);
	return 0;
}

static void copy_element(char *dst, const char *src, size_t size)
{
	switch (size) {
	case 1:
		*dst = *src;
		break;
	case 2:
		memcpy(dst, src, 2);
		break;
	case 4:
		memcpy(dst, src, 4);
		break;
	case 8:
		memcpy(dst, src, 8);
		break;
	default:
		memcpy(dst, src, size);
	}
}

/* Elements of m->self under the mask to @packed, or from it. */
static void move_masked(const struct masked *m, char *packed, bool get)
{
	const size_t size = pb_rt_dtype_size(m->self->dtype);
	const uint8_t *mask = pb_rt_data(m->mask);
	char *self = pb_rt_data(m->self);
	struct pb_walk w;
	int64_t n, stride;

	pb_walk_init(&w, m->self->ndim, m->self->sizes);
	pb_walk_add(&w, m->self->strides);
	pb_walk_merge(&w);
	pb_walk_inner(&w, &n, &stride);
	for (; w.left; pb_walk_next(&w), mask += n) {
		for (int64_t i = 0; i < n; i++) {
			char *p = self + (w.off[0] + i * stride) * (int64_t)size;

			if (!mask[i])
				continue;
			copy_element(get ? packed : p, get ? p : packed, size);
			packed += size;
		}
	}
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_masked_select(AtenTensorHandle self,
							AtenTensorHandle mask,
							AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *out;
	struct masked m;

	if (mask->dtype != PB_RT_BOOL)
		return pb_rt_fail("masked_select: expected BoolTensor for mask");
	if (masked_init(&m, self, mask))
		return 1;
	out = pb_rt_empty(self->dtype, 1, &m.count, NULL);
	if (out && m.count)
		move_masked(&m, pb_rt_data(out), true);
	masked_deinit(&m);
	if (!out)
		return 1;
	*ret0 = out;
	return 0;
}

/* Into a contiguous copy of the expanded self. */
static int scatter_masked(struct masked *m, const struct pb_rt_tensor *source,
			  struct pb_rt_tensor **ret_out)
{
	struct pb_rt_tensor *src, *view = m->self;

	if (m->count > source->numel)
		return pb_rt_fail("Number of elements of source < number of ones in mask");
	src = pb_rt_contiguous(source);
	m->self = src ? pb_clone_contiguous(view) : NULL;
	pb_rt_delete(view);
	if (m->self && m->count)
		move_masked(m, pb_rt_data(src), false);
	pb_rt_delete(src);
	*ret_out = m->self;
	m->self = NULL;
	return !*ret_out;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_masked_scatter(AtenTensorHandle self,
							 AtenTensorHandle mask,
							 AtenTensorHandle source,
							 AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *out = NULL;
	struct masked m;
	int rc;

	if (mask->dtype != PB_RT_BOOL)
		return pb_rt_fail(
			"masked_scatter_ only supports boolean masks, but got mask with dtype %s",
			pb_rt_dtype_name(mask->dtype));
	if (self->dtype != source->dtype)
		return pb_rt_fail("masked_scatter: expected self and source to have same dtypes "
				  "but got %s and %s",
				  pb_scalar_name(self->dtype), pb_scalar_name(source->dtype));
	if (masked_init(&m, self, mask))
		return 1;
	rc = scatter_masked(&m, source, &out);
	masked_deinit(&m);
	if (!rc)
		*ret0 = out;
	return rc;
}

/* ---- repeat_interleave ---- */

static int sum_repeats(const int64_t *repeats, int64_t n, int64_t *ret_sum)
{
	int64_t sum = 0;

	for (int64_t i = 0; i < n; i++) {
		if (repeats[i] < 0)
			return pb_rt_fail("repeats can not be negative");
		if (__builtin_add_overflow(sum, repeats[i], &sum))
			return pb_rt_fail("repeats add up to more than can be counted");
	}
	*ret_sum = sum;
	return 0;
}

static int repeat_interleave(const struct pb_rt_tensor *repeats, const struct pb_rt_tensor *counts,
			     const int64_t *output_size, AtenTensorHandle *ret0)
{
	const int64_t *count = pb_rt_data(counts), n = counts->numel;
	struct pb_rt_tensor *out;
	int64_t total, at = 0;

	if (sum_repeats(count, n, &total))
		return 1;
	if (output_size && *output_size != total)
		return pb_rt_fail("allocated size does not match required size");
	out = pb_rt_empty(repeats->dtype, 1, &total, NULL);
	if (!out)
		return 1;
	for (int64_t i = 0; i < n; i++) {
		for (int64_t k = 0; k < count[i]; k++, at++) {
			if (repeats->dtype == PB_RT_I64)
				((int64_t *)pb_rt_data(out))[at] = i;
			else
				((int32_t *)pb_rt_data(out))[at] = (int32_t)i;
		}
	}
	*ret0 = out;
	return 0;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_repeat_interleave_Tensor(AtenTensorHandle repeats,
								   int64_t *output_size,
								   AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *counts;
	int rc;

	if (repeats->ndim != 1)
		return pb_rt_fail("repeat_interleave only accept 1D vector as repeat");
	if (repeats->dtype != PB_RT_I64 && repeats->dtype != PB_RT_I32)
		return pb_rt_fail("repeats has to be Long or Int tensor");
	counts = pb_clone_as(repeats, PB_RT_I64);
	if (!counts)
		return 1;
	rc = repeat_interleave(repeats, counts, output_size, ret0);
	pb_rt_delete(counts);
	return rc;
}

AOTI_EXPORT AOTITorchError aoti_torch_repeat_interleave_Tensor(AtenTensorHandle repeats,
							       int64_t *output_size,
							       AtenTensorHandle *out)
{
	return aoti_torch_cpu_repeat_interleave_Tensor(repeats, output_size, out);
}
