/* SPDX-License-Identifier: Apache-2.0 */
/* Broadcasting, layouts of results, overlap; see layout.h. Rules of
 * aten/src/ATen/{TensorIterator,MemoryOverlap}.cpp. */
#include <string.h>

#include "runtime/convert.h"
#include "runtime/ops/layout.h"

int pb_broadcast(const struct pb_rt_tensor *const *t, int n, int *ret_ndim, int64_t *ret_sizes)
{
	int ndim = 0;

	for (int i = 0; i < n; i++)
		ndim = t[i]->ndim > ndim ? t[i]->ndim : ndim;
	for (int d = 0; d < ndim; d++)
		ret_sizes[d] = 1;
	for (int i = 0; i < n; i++) {
		for (int d = 0; d < t[i]->ndim; d++) {
			const int k = ndim - t[i]->ndim + d;
			const int64_t size = t[i]->sizes[d];

			if (size != 1 && ret_sizes[k] != 1 && size != ret_sizes[k])
				return pb_rt_fail("The size of tensor a (%lld) must match the size "
						  "of tensor b (%lld) "
						  "at non-singleton dimension %d",
						  (long long)ret_sizes[k], (long long)size, k);
			if (size != 1)
				ret_sizes[k] = size;
		}
	}
	*ret_ndim = ndim;
	return 0;
}

bool pb_expand_strides(const struct pb_rt_tensor *t, int ndim, const int64_t *sizes,
		       int64_t *ret_strides)
{
	if (t->ndim > ndim)
		return false;
	for (int i = 0; i < ndim; i++) {
		const int d = i - (ndim - t->ndim);

		ret_strides[i] = 0;
		if (d < 0 || (t->sizes[d] == 1 && sizes[i] != 1))
			continue;
		if (t->sizes[d] != sizes[i])
			return false;
		ret_strides[i] = t->strides[d];
	}
	return true;
}

/* 1: dimension @a belongs outside @b, -1: inside, 0: no operand tells. */
static int iter_compare(const struct pb_iter *it, int a, int b)
{
	for (int i = 0; i < it->n; i++) {
		const int64_t sa = it->strides[i][a], sb = it->strides[i][b];

		if (sa == 0 || sb == 0)
			continue;
		if (sa != sb)
			return sa < sb ? -1 : 1;
		if (it->sizes[a] > it->sizes[b])
			return 1;
	}
	return 0;
}

void pb_iter_output(const struct pb_iter *it, int64_t *ret_strides)
{
	int perm[PB_RT_MAX_DIMS] = {0};
	bool inverted = true;
	int64_t step = 1;

	for (int i = 0; i < it->ndim; i++)
		perm[i] = it->ndim - 1 - i;
	for (int i = 1; i < it->ndim; i++) {
		int at = i;

		for (int j = i - 1; j >= 0; j--) {
			const int c = iter_compare(it, perm[j], perm[at]), p = perm[j];

			if (c < 0)
				break;
			if (c == 0)
				continue;
			perm[j] = perm[at];
			perm[at] = p;
			at = j;
		}
	}
	for (int i = 0; i < it->ndim; i++)
		inverted = inverted && perm[i] == it->ndim - 1 - i;
	for (int i = 0; i < it->ndim; i++) {
		ret_strides[perm[i]] = step;
		/* With an order of its own, TensorIterator multiplies by zero sizes too. */
		if (!inverted || it->sizes[perm[i]] > 1)
			step *= it->sizes[perm[i]];
	}
}

/* TensorIterator's shortcut: operands of one shape and one layout give it to the result. */
static const struct pb_rt_tensor *common_layout(const struct pb_rt_tensor *const *t, int n)
{
	bool contiguous = true, same = true;

	for (int i = 0; i < n; i++) {
		contiguous = contiguous && pb_rt_is_contiguous(t[i]);
		if (!pb_same_shape(t[i], t[0]))
			return NULL;
		same = same && pb_is_dense(t[i]) &&
		       !memcmp(t[i]->strides, t[0]->strides, (size_t)t[0]->ndim * sizeof(int64_t));
	}
	return contiguous || same ? t[0] : NULL;
}

struct pb_rt_tensor *pb_elementwise_empty(const struct pb_rt_tensor *const *t, int n, int32_t dtype,
					  bool promotes)
{
	struct pb_iter it = {.n = n};
	struct pb_rt_tensor converted[PB_ITER_TENSORS];
	const struct pb_rt_tensor *in[PB_ITER_TENSORS] = {NULL}, *like;
	int64_t strides[PB_RT_MAX_DIMS];

	if (pb_broadcast(t, n, &it.ndim, it.sizes))
		return NULL;
	for (int i = 0; i < n; i++) {
		in[i] = t[i];
		if (!promotes || t[i]->dtype == dtype)
			continue;
		converted[i] = *t[i];
		pb_like_strides(t[i], converted[i].strides);
		in[i] = &converted[i];
	}
	like = common_layout(in, n);
	if (like)
		return pb_rt_empty(dtype, it.ndim, it.sizes,
				   pb_rt_is_contiguous(like) ? NULL : like->strides);
	for (int i = 0; i < n; i++)
		(void)pb_expand_strides(in[i], it.ndim, it.sizes, it.strides[i]);
	pb_iter_output(&it, strides);
	return pb_rt_empty(dtype, it.ndim, it.sizes, strides);
}

/* ---- outputs ---- */

bool pb_same_shape(const struct pb_rt_tensor *a, const struct pb_rt_tensor *b)
{
	return a->ndim == b->ndim && !memcmp(a->sizes, b->sizes, (size_t)a->ndim * sizeof(int64_t));
}

int pb_resize_output(struct pb_rt_tensor *out, int ndim, const int64_t *sizes)
{
	struct pb_rt_tensor *t;
	uint64_t bytes;

	if (out->ndim == ndim && !memcmp(out->sizes, sizes, (size_t)ndim * sizeof(*sizes)))
		return 0;
	t = out->storage ? pb_rt_alias(out, ndim, sizes, NULL, out->offset) : NULL;
	if (t && !pb_rt_extent_bytes(t, t->offset, &bytes) && bytes > out->storage->bytes) {
		pb_rt_delete(t);
		t = NULL;
	}
	if (!t)
		t = pb_rt_empty(out->dtype, ndim, sizes, NULL);
	if (!t)
		return 1;
	pb_rt_assign(out, t);
	pb_rt_delete(t);
	return 0;
}

static bool internal_overlap(const struct pb_rt_tensor *t)
{
	for (int d = 0; d < t->ndim; d++)
		if (t->sizes[d] > 1 && t->strides[d] == 0)
			return true;
	return false;
}

enum pb_overlap pb_overlap(const struct pb_rt_tensor *a, const struct pb_rt_tensor *b)
{
	const char *pa = pb_rt_data(a), *pb = pb_rt_data(b), *ea, *eb;

	if (a->numel == 0 || b->numel == 0 || a->storage != b->storage)
		return PB_OVERLAP_NONE;
	if (!pb_is_dense(a) || !pb_is_dense(b))
		return PB_OVERLAP_UNKNOWN;
	ea = pa + (uint64_t)a->numel * pb_rt_dtype_size(a->dtype);
	eb = pb + (uint64_t)b->numel * pb_rt_dtype_size(b->dtype);
	if (pa == pb && ea == eb)
		return !memcmp(a->strides, b->strides,
			       (size_t)(a->ndim > b->ndim ? a->ndim : b->ndim) * sizeof(int64_t))
			       ? PB_OVERLAP_FULL
			       : PB_OVERLAP_PARTIAL;
	return pa < eb && pb < ea ? PB_OVERLAP_PARTIAL : PB_OVERLAP_NONE;
}

int pb_no_internal_overlap(const struct pb_rt_tensor *out)
{
	if (internal_overlap(out))
		return pb_rt_fail("unsupported operation: more than one element of the written-to "
				  "tensor refers to a "
				  "single memory location. Please clone() the tensor before "
				  "performing the operation.");
	return 0;
}

int pb_no_overlap(const struct pb_rt_tensor *out, const struct pb_rt_tensor *in)
{
	const enum pb_overlap o = pb_overlap(out, in);

	if (o == PB_OVERLAP_PARTIAL || o == PB_OVERLAP_FULL)
		return pb_rt_fail("unsupported operation: some elements of the input tensor and "
				  "the written-to tensor "
				  "refer to a single memory location. Please clone() the tensor "
				  "before performing the "
				  "operation.");
	return 0;
}

int pb_store_scalar(void *dst, int32_t dtype, double value)
{
	return pb_rt_convert(dst, dtype, 1, &value, PB_RT_F64, 1, 1);
}
