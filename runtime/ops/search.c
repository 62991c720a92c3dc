/* SPDX-License-Identifier: Apache-2.0 */
/*
 * searchsorted and bucketize, as aten/src/ATen/native/{Bucketization.cpp,BucketizationUtils.h}.
 * Both sides are brought to their common dtype, computed as int64, float or double.
 */
#include "runtime/ops/search.h"

#include <string.h>

#include "runtime/ops/layout.h"
#include "runtime/ops/map.h"

struct search {
	const void *seq;
	const int64_t *sorter; /* or NULL */
	int64_t n;
	bool right;
};

/* NaN counts as larger than anything: the comparisons are written so that it does. */
#define FIND(name, type)                                                    \
	static int64_t name(const struct search *s, const void *at)         \
	{                                                                   \
		const type *v = s->seq;                                     \
		const type x = *(const type *)at;                           \
		int64_t lo = 0, hi = s->n;                                  \
		while (lo < hi) {                                           \
			const int64_t mid = lo + (hi - lo) / 2;             \
			const type y = v[s->sorter ? s->sorter[mid] : mid]; \
			if (s->right ? !(y > x) : !(y >= x))                \
				lo = mid + 1;                               \
			else                                                \
				hi = mid;                                   \
		}                                                           \
		return lo;                                                  \
	}

FIND(find_i64, int64_t)
FIND(find_f32, float)
FIND(find_f64, double)

typedef int64_t find_fn(const struct search *s, const void *at);

/* Everything contiguous, sequence and values of one dtype; rows of values go with rows of the
 * sequence. */
static void search_rows(const struct pb_rt_tensor *seq, const struct pb_rt_tensor *values,
			const struct pb_rt_tensor *sorter, bool right, struct pb_rt_tensor *out)
{
	const int64_t size = (int64_t)pb_rt_dtype_size(seq->dtype),
		      n = seq->sizes[seq->ndim ? seq->ndim - 1 : 0];
	const bool rows = seq->ndim > 1;
	const int64_t per_row = rows ? values->sizes[values->ndim - 1] : values->numel;
	find_fn *find = seq->dtype == PB_RT_F32	  ? find_f32
			: seq->dtype == PB_RT_F64 ? find_f64
						  : find_i64;

	for (int64_t i = 0; i < values->numel; i++) {
		const int64_t row = rows ? i / per_row : 0;
		const struct search s = {
			(const char *)pb_rt_data(seq) + row * n * size,
			sorter ? (const int64_t *)pb_rt_data(sorter) + row * n : NULL, n, right};
		const int64_t at = find(&s, (const char *)pb_rt_data(values) + i * size);

		if (out->dtype == PB_RT_I32)
			((int32_t *)pb_rt_data(out))[i] = (int32_t)at;
		else
			((int64_t *)pb_rt_data(out))[i] = at;
	}
}

static int check_sorter(const struct pb_rt_tensor *seq, const struct pb_rt_tensor *sorter)
{
	const int64_t n = seq->ndim ? seq->sizes[seq->ndim - 1] : 1;
	struct pb_rt_tensor *c;
	int rc = 0;

	if (!pb_same_shape(seq, sorter))
		return pb_rt_fail("torch.searchsorted(): boundary and sorter must have the same "
				  "size, but got boundary tensor %s"
				  "and got sorter tensor %s",
				  PB_SHAPE(seq), PB_SHAPE(sorter));
	if (sorter->dtype != PB_RT_I64)
		return pb_rt_fail("torch.searchsorted(): sorter must be a tensor of long dtype but "
				  "got dtype %s",
				  pb_scalar_name(sorter->dtype));
	c = pb_rt_contiguous(sorter);
	if (!c)
		return 1;
	for (int64_t i = 0; i < c->numel && !rc; i++) {
		const int64_t at = ((const int64_t *)pb_rt_data(c))[i];

		if (at < 0 || at >= n)
			rc = pb_rt_fail("torch.searchsorted(): sorter index out of range");
	}
	pb_rt_delete(c);
	return rc;
}

static int check_shapes(const struct pb_rt_tensor *seq, const struct pb_rt_tensor *values)
{
	if (seq->ndim == 0)
		return pb_rt_fail(
			"torch.searchsorted(): input value can be a scalar only when boundaries "
			"tensor dimension is 1, "
			"but we got boundaries tensor dim(0) and input value's dim(%d) numel(%lld)",
			values->ndim, (long long)values->numel);
	if (seq->ndim == 1)
		return 0;
	if (seq->ndim == values->ndim &&
	    !memcmp(seq->sizes, values->sizes, (size_t)(seq->ndim - 1) * sizeof(int64_t)))
		return 0;
	if (values->ndim == 0)
		return pb_rt_fail("torch.searchsorted(): input value can be a scalar only when "
				  "boundaries tensor dimension is 1, "
				  "but we got boundaries tensor dim(%d) and input value's dim(%d) "
				  "numel(%lld)",
				  seq->ndim, values->ndim, (long long)values->numel);
	return pb_rt_fail("torch.searchsorted(): boundaries tensor should be 1 dimension or the "
			  "first N-1 dimensions of "
			  "boundaries tensor and input value tensor must match, but we got "
			  "boundaries tensor %s and input value "
			  "tensor %s",
			  PB_SHAPE(seq), PB_SHAPE(values));
}

/* Contiguous, through @common (which rounds) in the type that is compared. */
static struct pb_rt_tensor *comparable(const struct pb_rt_tensor *t, int32_t common)
{
	struct pb_rt_tensor *c = pb_as_dtype(t, common), *w = NULL, *out = NULL;

	if (c)
		w = pb_as_dtype(c, pb_compute_dtype(common));
	if (w)
		out = pb_rt_contiguous(w);
	pb_rt_delete(c);
	pb_rt_delete(w);
	return out;
}

static int search(const struct pb_rt_tensor *seq, const struct pb_rt_tensor *values, int32_t common,
		  bool out_int32, bool right, const struct pb_rt_tensor *sorter,
		  AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *s = NULL, *v = NULL, *order = NULL, *out;

	if (check_shapes(seq, values) || (sorter && check_sorter(seq, sorter)))
		return 1;
	if (pb_is_complex(common) || common == PB_RT_BOOL)
		return pb_not_implemented("searchsorted_out_cpu", common);
	if (out_int32 && seq->sizes[seq->ndim - 1] > INT32_MAX)
		return pb_rt_fail("torch.searchsorted(): the size of boundaries' last dimension "
				  "should be less than 2147483647");
	out = pb_rt_empty(out_int32 ? PB_RT_I32 : PB_RT_I64, values->ndim, values->sizes, NULL);
	if (out)
		s = comparable(seq, common);
	if (s)
		v = comparable(values, common);
	if (v && sorter)
		order = pb_rt_contiguous(sorter);
	if (!v || (sorter && !order)) {
		pb_rt_delete(out);
		out = NULL;
	} else {
		search_rows(s, v, order, right, out);
		*ret0 = out;
	}
	pb_rt_delete(s);
	pb_rt_delete(v);
	pb_rt_delete(order);
	return !out;
}

/* side overrides right, but they may not contradict. */
static int right_of(int32_t right, const char *const *side, bool *ret_right)
{
	*ret_right = right != 0;
	if (!side)
		return 0;
	if (strcmp(*side, "left") && strcmp(*side, "right"))
		return pb_rt_fail(
			"torch.searchsorted(): side can only be 'left' or 'right' but got %s",
			*side);
	if (right && !strcmp(*side, "left"))
		return pb_rt_fail("torch.searchsorted(): side and right can't be set to opposites, "
				  "got side of left while right "
				  "was True");
	*ret_right = !strcmp(*side, "right");
	return 0;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_searchsorted_Tensor(
	AtenTensorHandle sorted_sequence, AtenTensorHandle self, int32_t out_int32, int32_t right,
	const char **side, AtenTensorHandle *sorter, AtenTensorHandle *ret0)
{
	const struct pb_rt_tensor *both[2] = {sorted_sequence, self};
	bool is_right;

	if (right_of(right, side, &is_right))
		return 1;
	return search(sorted_sequence, self, pb_result_type(both, 2), out_int32 != 0, is_right,
		      sorter ? *sorter : NULL, ret0);
}

/* A number takes the sequence's dtype if it is of its kind, else both become floats. */
static int search_number(const struct pb_rt_tensor *seq, double value, bool out_int32, bool right,
			 const struct pb_rt_tensor *sorter, AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *number = pb_rt_empty(PB_RT_F64, 0, NULL, NULL);
	int rc;

	if (!number)
		return 1;
	*(double *)pb_rt_data(number) = value;
	rc = search(seq, number, pb_result_type_scalar(seq), out_int32, right, sorter, ret0);
	pb_rt_delete(number);
	return rc;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_searchsorted_Scalar(AtenTensorHandle sorted_sequence,
							      double self, int32_t out_int32,
							      int32_t right, const char **side,
							      AtenTensorHandle *sorter,
							      AtenTensorHandle *ret0)
{
	bool is_right;

	if (right_of(right, side, &is_right))
		return 1;
	return search_number(sorted_sequence, self, out_int32 != 0, is_right,
			     sorter ? *sorter : NULL, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_bucketize_Tensor(AtenTensorHandle self,
							   AtenTensorHandle boundaries,
							   int32_t out_int32, int32_t right,
							   AtenTensorHandle *ret0)
{
	const struct pb_rt_tensor *both[2] = {boundaries, self};

	if (boundaries->ndim != 1)
		return pb_rt_fail("boundaries tensor must be 1 dimension, but got dim(%d)",
				  boundaries->ndim);
	return search(boundaries, self, pb_result_type(both, 2), out_int32 != 0, right != 0, NULL,
		      ret0);
}
