/* SPDX-License-Identifier: Apache-2.0 */
/* cat, as aten/src/ATen/native/TensorShape.cpp. */
#include <string.h>

#include "runtime/ops/join.h"
#include "runtime/ops/layout.h"

/* Once upon a time there was only one empty shape, and it may still be in any list. */
static bool is_skipped(const struct pb_rt_tensor *t)
{
	return t->ndim == 1 && t->sizes[0] == 0;
}

static enum pb_format common_format(const AtenTensorHandle *t, int64_t n)
{
	const enum pb_format first = pb_suggested_format(t[0]);

	for (int64_t i = 1; i < n; i++)
		if (pb_suggested_format(t[i]) != first)
			return PB_FORMAT_CONTIGUOUS;
	return first;
}

static int check_shape(const struct pb_rt_tensor *first, const struct pb_rt_tensor *t, int dim,
		       int64_t number)
{
	if (t->ndim != first->ndim)
		return pb_rt_fail("Tensors must have same number of dimensions: got %d and %d",
				  first->ndim, t->ndim);
	for (int d = 0; d < t->ndim; d++)
		if (d != dim && t->sizes[d] != first->sizes[d])
			return pb_rt_fail("Sizes of tensors must match except in dimension %d. "
					  "Expected size %lld but got size "
					  "%lld for tensor number %lld in the list.",
					  dim, (long long)first->sizes[d], (long long)t->sizes[d],
					  (long long)number);
	return 0;
}

/* Shape of the result in @ret_like, from the first tensor that counts; ret_like->ndim stays 1 and
 * empty if none does. */
static int result_shape(const AtenTensorHandle *t, int64_t n, int64_t dim,
			struct pb_rt_tensor *ret_like, int *ret_dim)
{
	const struct pb_rt_tensor *first = NULL;

	if (n == 0)
		return pb_rt_fail("torch.cat(): expected a non-empty list of Tensors");
	for (int64_t i = 0; i < n; i++)
		if (t[i]->ndim == 0)
			return pb_rt_fail(
				"zero-dimensional tensor (at position %lld) cannot be concatenated",
				(long long)i);
	for (int64_t i = 0; i < n && !first; i++)
		first = is_skipped(t[i]) ? NULL : t[i];
	*ret_like = (struct pb_rt_tensor){.ndim = 1};
	*ret_dim = 0;
	if (!first)
		return 0;
	if (pb_wrap_dim(dim, first->ndim, ret_dim))
		return 1;
	ret_like->ndim = first->ndim;
	memcpy(ret_like->sizes, first->sizes, sizeof(first->sizes));
	ret_like->sizes[*ret_dim] = 0;
	for (int64_t i = 0; i < n; i++) {
		if (is_skipped(t[i]))
			continue;
		if (check_shape(first, t[i], *ret_dim, i))
			return 1;
		if (__builtin_add_overflow(ret_like->sizes[*ret_dim], t[i]->sizes[*ret_dim],
					   &ret_like->sizes[*ret_dim]))
			return pb_rt_fail("torch.cat(): the result is too large");
	}
	return 0;
}

static int copy_parts(struct pb_rt_tensor *out, const AtenTensorHandle *t, int64_t n, int dim)
{
	int64_t at = 0;

	for (int64_t i = 0; i < n; i++) {
		struct pb_rt_tensor *part;
		int rc;

		if (is_skipped(t[i]) || !t[i]->numel)
			continue;
		part = pb_rt_alias(out, t[i]->ndim, t[i]->sizes, out->strides,
				   at * out->strides[dim]);
		rc = !part || pb_rt_copy(part, t[i]);
		pb_rt_delete(part);
		if (rc)
			return 1;
		at += t[i]->sizes[dim];
	}
	return 0;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_cat(const AtenTensorHandle *tensors, int64_t tensors_len_,
					      int64_t dim, AtenTensorHandle *ret0)
{
	struct pb_rt_tensor like, *out;
	int d;

	if (result_shape(tensors, tensors_len_, dim, &like, &d))
		return 1;
	out = pb_empty_format(
		pb_result_type((const struct pb_rt_tensor *const *)tensors, tensors_len_),
		like.ndim, like.sizes, common_format(tensors, tensors_len_));
	if (!out)
		return 1;
	if (copy_parts(out, tensors, tensors_len_, d)) {
		pb_rt_delete(out);
		return 1;
	}
	*ret0 = out;
	return 0;
}
