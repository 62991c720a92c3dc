/* SPDX-License-Identifier: Apache-2.0 */
/*
 * _embedding_bag, as aten/src/ATen/native/EmbeddingBag.cpp: sums, means or maxima of rows. Rows add
 * up in float or double. What PyTorch returns beside the result depends on which of its code paths
 * ran, and so it does here.
 */
#include "runtime/ops/embedding.h"

#include <string.h>

#include "runtime/convert.h"
#include "runtime/ops/layout.h"
#include "runtime/ops/map.h"

enum mode { SUM, MEAN, MAX };

struct bags {
	enum mode mode;
	int32_t dtype; /* of indices and offsets */
	int64_t n, n_bags, width, rows, padding_idx;
	const int64_t *index, *offset;
	int32_t compute;    /* the type that is computed in */
	const void *sample; /* of it; NULL: 1 */
	const struct pb_rt_tensor *weight;
	void *row;	     /* room for one, where rows have to be converted */
	bool counts_offsets; /* bag_size has an element for the last offset too */
	bool fast;
	/* held */
	struct pb_rt_tensor *indices, *offsets, *samples;
};

static void bags_deinit(struct bags *b)
{
	pb_rt_delete(b->indices);
	pb_rt_delete(b->offsets);
	pb_rt_scratch_free(b->row);
	pb_rt_delete(b->samples);
}

/* Contiguous and of @dtype; another handle. */
static struct pb_rt_tensor *flat(const struct pb_rt_tensor *t, int32_t dtype)
{
	return t->dtype == dtype ? pb_rt_contiguous(t) : pb_clone_as(t, dtype);
}

static int check_samples(const struct bags *b, const struct pb_rt_tensor *weight,
			 const struct pb_rt_tensor *samples)
{
	if (!samples)
		return 0;
	if (b->mode != SUM)
		return pb_rt_fail("embedding_bag: per_sample_weights was not None; it is only "
				  "supported for mode='sum'");
	if (samples->dtype != weight->dtype)
		return pb_rt_fail("expected scalar type %s but found %s",
				  pb_scalar_name(weight->dtype), pb_scalar_name(samples->dtype));
	if (samples->ndim != 1 || samples->numel != b->n)
		return pb_rt_fail("per_sample_weights of shape %s for %lld indices",
				  PB_SHAPE(samples), (long long)b->n);
	return 0;
}

static int check_values(const struct bags *b, int64_t n_offsets)
{
	for (int64_t i = 0; i < b->n; i++)
		if (b->index[i] < 0 || b->index[i] >= b->rows)
			return pb_rt_fail("embedding_bag: Expected idx >= 0 && idx < "
					  "num_embeddings but found idx to be %lld",
					  (long long)b->index[i]);
	if (n_offsets && b->offset[0] != 0)
		return pb_rt_fail("offsets[0] has to be 0, i.e., the first sequence in the "
				  "mini-batch has to start from position "
				  "0. However, got %lld",
				  (long long)b->offset[0]);
	for (int64_t i = 1; i < n_offsets; i++)
		if (b->offset[i] < b->offset[i - 1])
			return pb_rt_fail("offsets must not decrease, but offsets[%lld] is %lld",
					  (long long)i, (long long)b->offset[i]);
	if (n_offsets && b->offset[n_offsets - 1] > b->n)
		return pb_rt_fail("offsets[-1] can not be greater than input's length %lld but got "
				  "offsets[-1] of %lld",
				  (long long)b->n, (long long)b->offset[n_offsets - 1]);
	return 0;
}

static int bags_init(struct bags *b, const struct pb_rt_tensor *weight,
		     const struct pb_rt_tensor *indices, const struct pb_rt_tensor *offsets,
		     const struct pb_rt_tensor *samples, bool include_last)
{
	if (indices->ndim != 1 || offsets->ndim != 1 || weight->ndim != 2)
		return pb_rt_fail("embedding_bag: expected a matrix, 1D indices and 1D offsets, "
				  "but got %s, %s and %s",
				  PB_SHAPE(weight), PB_SHAPE(indices), PB_SHAPE(offsets));
	if ((indices->dtype != PB_RT_I64 && indices->dtype != PB_RT_I32) ||
	    (offsets->dtype != PB_RT_I64 && offsets->dtype != PB_RT_I32))
		return pb_rt_fail("embedding_bag: indices and offsets must be Long or Int");
	if (!pb_is_float(weight->dtype))
		return pb_not_implemented("embedding_bag", weight->dtype);
	if (include_last && offsets->numel < 1)
		return pb_rt_fail("include_last_offset: number of offset should be at least 1");
	b->weight = weight;
	b->compute = pb_compute_dtype(weight->dtype);
	b->dtype = pb_promote(indices->dtype, offsets->dtype);
	b->n = indices->numel;
	b->n_bags = offsets->numel - include_last;
	b->rows = weight->sizes[0];
	b->width = weight->sizes[1];
	if (check_samples(b, weight, samples))
		return 1;
	b->indices = flat(indices, PB_RT_I64);
	b->offsets = flat(offsets, PB_RT_I64);
	b->row = pb_rt_scratch((size_t)b->width * pb_rt_dtype_size(b->compute) + 1);
	b->samples = samples ? flat(samples, b->compute) : NULL;
	if (!b->indices || !b->offsets || !b->row || (samples && !b->samples))
		return 1;
	b->index = pb_rt_data(b->indices);
	b->offset = pb_rt_data(b->offsets);
	b->sample = samples ? pb_rt_data(b->samples) : NULL;
	b->fast = b->mode == SUM && weight->dtype != PB_RT_F64 && weight->strides[1] == 1 &&
		  b->padding_idx < 0 && (!samples || samples->strides[0] == 1);
	return check_values(b, offsets->numel);
}

/* Row @i of the table, contiguous, in the type that is computed in. */
static const void *row_of(const struct bags *b, int64_t i)
{
	const struct pb_rt_tensor *w = b->weight;
	const char *p = (const char *)pb_rt_data(w) +
			i * w->strides[0] * (int64_t)pb_rt_dtype_size(w->dtype);

	if (w->dtype == b->compute && w->strides[1] == 1)
		return p;
	(void)pb_rt_convert(b->row, b->compute, 1, p, w->dtype, w->strides[1], b->width);
	return b->row;
}

/* End of bag @i among the indices. */
static int64_t bag_end(const struct bags *b, int64_t i)
{
	return i + 1 < b->offsets->numel ? b->offset[i + 1] : b->n;
}

/* The sum of each bag. @size: elements that count in each. */
#define ADD_BAGS(name, type)                                                                     \
	static void name(const struct bags *b, type *out, const int64_t *size)                   \
	{                                                                                        \
		for (int64_t i = 0; i < b->n_bags; i++, out += b->width) {                       \
			for (int64_t d = 0; d < b->width; d++)                                   \
				out[d] = 0;                                                      \
			for (int64_t k = b->offset[i]; k < bag_end(b, i); k++) {                 \
				const type *row = row_of(b, b->index[k]);                        \
				const type s = b->sample ? ((const type *)b->sample)[k] : 1;     \
				if (b->index[k] == b->padding_idx)                               \
					continue;                                                \
				for (int64_t d = 0; d < b->width; d++)                           \
					out[d] += row[d] * s;                                    \
			}                                                                        \
			for (int64_t d = 0; d < b->width && b->mode == MEAN && size[i] > 1; d++) \
				out[d] /= (type)size[i];                                         \
		}                                                                                \
	}

ADD_BAGS(add_f32, float)
ADD_BAGS(add_f64, double)

/* The largest of each bag, and the index it came from. */
#define MAX_BAGS(name, type)                                                                 \
	static void name(const struct bags *b, type *out, int64_t *from)                     \
	{                                                                                    \
		for (int64_t i = 0; i < b->n_bags; i++, out += b->width, from += b->width) { \
			bool first = true;                                                   \
			memset(out, 0, (size_t)b->width * sizeof(*out));                     \
			memset(from, 0, (size_t)b->width * sizeof(*from));                   \
			for (int64_t k = b->offset[i]; k < bag_end(b, i); k++) {             \
				const type *row = row_of(b, b->index[k]);                    \
				if (b->index[k] == b->padding_idx)                           \
					continue;                                            \
				for (int64_t d = 0; d < b->width; d++) {                     \
					if (first || row[d] > out[d]) {                      \
						out[d] = row[d];                             \
						from[d] = b->index[k];                       \
					}                                                    \
				}                                                            \
				first = false;                                               \
			}                                                                    \
		}                                                                            \
	}

MAX_BAGS(max_f32, float)
MAX_BAGS(max_f64, double)

/* ---- what is returned ---- */

enum { OUT, OFFSET2BAG, BAG_SIZE, MAX_INDICES, N_RESULTS };

static void count(const struct bags *b, int64_t *size)
{
	for (int64_t i = 0; i < b->n_bags; i++) {
		size[i] = 0;
		for (int64_t k = b->offset[i]; k < bag_end(b, i); k++)
			size[i] += b->index[k] != b->padding_idx;
	}
}

static void bag_of_each(const struct bags *b, int64_t *bag)
{
	for (int64_t k = 0; k < b->n; k++)
		bag[k] = b->n_bags;
	for (int64_t i = 0; i < b->n_bags; i++)
		for (int64_t k = b->offset[i]; k < bag_end(b, i); k++)
			bag[k] = i;
}

/* In the types that are computed in; narrowed below. */
static int make_results(const struct bags *b, struct pb_rt_tensor **r)
{
	const int64_t n2 = b->fast ? 0 : b->n, sizes[2] = {b->n_bags, b->width};
	const int64_t n_sizes = b->mode == SUM && b->counts_offsets ? b->offsets->numel : b->n_bags;
	int64_t *size;

	r[OUT] = pb_rt_empty(b->compute, 2, sizes, NULL);
	r[OFFSET2BAG] = pb_rt_empty(PB_RT_I64, 1, &n2, NULL);
	r[BAG_SIZE] = pb_rt_empty(PB_RT_I64, 1, &n_sizes, NULL);
	r[MAX_INDICES] = b->mode == MAX ? pb_rt_empty(PB_RT_I64, 2, sizes, NULL)
					: pb_rt_empty(PB_RT_I64, 1, &n_sizes, NULL);
	if (!r[OUT] || !r[OFFSET2BAG] || !r[BAG_SIZE] || !r[MAX_INDICES])
		return 1;
	size = pb_rt_data(r[BAG_SIZE]);
	if (b->mode == SUM && n_sizes)
		memset(size, 0, (size_t)n_sizes * sizeof(*size));
	else if (n_sizes)
		count(b, size);
	if (!b->fast && b->n)
		bag_of_each(b, pb_rt_data(r[OFFSET2BAG]));
	if (b->mode != MAX)
		return pb_rt_copy(r[MAX_INDICES], r[BAG_SIZE]);
	return 0;
}

static void compute(const struct bags *b, struct pb_rt_tensor **r)
{
	const bool wide = b->compute == PB_RT_F64;

	if (!r[OUT]->numel)
		return;
	if (b->mode == MAX && wide)
		max_f64(b, pb_rt_data(r[OUT]), pb_rt_data(r[MAX_INDICES]));
	else if (b->mode == MAX)
		max_f32(b, pb_rt_data(r[OUT]), pb_rt_data(r[MAX_INDICES]));
	else if (wide)
		add_f64(b, pb_rt_data(r[OUT]), pb_rt_data(r[BAG_SIZE]));
	else
		add_f32(b, pb_rt_data(r[OUT]), pb_rt_data(r[BAG_SIZE]));
}

static int narrow(struct pb_rt_tensor **t, int32_t dtype)
{
	struct pb_rt_tensor *n = pb_as_dtype(*t, dtype);

	pb_rt_delete(*t);
	*t = n;
	return !n;
}

static int embedding_bag(struct bags *b, const struct pb_rt_tensor *weight,
			 const struct pb_rt_tensor *indices, const struct pb_rt_tensor *offsets,
			 const struct pb_rt_tensor *samples, bool include_last,
			 AtenTensorHandle *const *ret)
{
	struct pb_rt_tensor *r[N_RESULTS] = {NULL};
	int rc = 0;

	if (b->mode < SUM || b->mode > MAX)
		return pb_rt_fail("embedding_bag: mode %d is not one of sum, mean, max",
				  (int)b->mode);
	rc = bags_init(b, weight, indices, offsets, samples, include_last) || make_results(b, r);
	if (!rc) {
		compute(b, r);
		rc = narrow(&r[OUT], weight->dtype);
		for (int i = OFFSET2BAG; i < N_RESULTS; i++)
			rc |= narrow(&r[i], b->dtype);
	}
	bags_deinit(b);
	for (int i = 0; i < N_RESULTS; i++) {
		if (rc)
			pb_rt_delete(r[i]);
		else
			*ret[i] = r[i];
	}
	return rc;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__embedding_bag(
	AtenTensorHandle weight, AtenTensorHandle indices, AtenTensorHandle offsets,
	int32_t scale_grad_by_freq, int64_t mode, int32_t sparse,
	AtenTensorHandle *per_sample_weights, int32_t include_last_offset, int64_t padding_idx,
	AtenTensorHandle *ret0, AtenTensorHandle *ret1, AtenTensorHandle *ret2,
	AtenTensorHandle *ret3)
{
	struct bags b = {.mode = (enum mode)mode, .padding_idx = padding_idx};

	(void)scale_grad_by_freq, (void)sparse;
	return embedding_bag(
		&b, weight, indices, offsets, per_sample_weights ? *per_sample_weights : NULL,
		include_last_offset != 0, (AtenTensorHandle *const[]){ret0, ret1, ret2, ret3});
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__embedding_bag_forward_only(
	AtenTensorHandle weight, AtenTensorHandle indices, AtenTensorHandle offsets,
	int32_t scale_grad_by_freq, int64_t mode, int32_t sparse,
	AtenTensorHandle *per_sample_weights, int32_t include_last_offset, int64_t padding_idx,
	AtenTensorHandle *ret0, AtenTensorHandle *ret1, AtenTensorHandle *ret2,
	AtenTensorHandle *ret3)
{
	struct bags b = {
		.mode = (enum mode)mode, .padding_idx = padding_idx, .counts_offsets = true};

	(void)scale_grad_by_freq, (void)sparse;
	return embedding_bag(
		&b, weight, indices, offsets, per_sample_weights ? *per_sample_weights : NULL,
		include_last_offset != 0, (AtenTensorHandle *const[]){ret0, ret1, ret2, ret3});
}

AOTI_EXPORT AOTITorchError
aoti_torch__embedding_bag(AtenTensorHandle weight, AtenTensorHandle indices,
			  AtenTensorHandle offsets, int32_t scale_grad_by_freq, int32_t mode,
			  int32_t sparse, AtenTensorHandle per_sample_weights,
			  int32_t include_last_offset, int32_t padding_idx, AtenTensorHandle *ret0,
			  AtenTensorHandle *ret1, AtenTensorHandle *ret2, AtenTensorHandle *ret3)
{
	return aoti_torch_cpu__embedding_bag(
		weight, indices, offsets, scale_grad_by_freq, mode, sparse,
		per_sample_weights ? &per_sample_weights : NULL, include_last_offset, padding_idx,
		ret0, ret1, ret2, ret3);
}
