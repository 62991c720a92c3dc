/* SPDX-License-Identifier: Apache-2.0 */
/*
 * _grouped_mm: one product a group. Offsets are where groups end: along the rows of the first
 * matrix, the columns of the second, or what both share; without them there is a batch. Checks as
 * in torch 2.13.0's aten/src/ATen/native/GroupedMMUtils.h.
 */
#include "runtime/ops/layout.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/scaled_mm.h"
#include "runtime/tensor.h"

struct grouped {
	const struct pb_rt_tensor *a, *b, *offs;
	int64_t groups;
};

/* One stride is 1, and the other a whole number of 16 bytes. */
static int check_strides(const struct pb_rt_tensor *t)
{
	const int64_t align = 16 / (int64_t)pb_rt_dtype_size(t->dtype);
	const int last = t->ndim - 1;
	const int64_t *s = t->strides, *n = t->sizes;

	if (s[last - 1] == 1 && s[last] >= (n[last - 1] > 1 ? n[last - 1] : 1))
		return s[last] % align ? pb_rt_fail("strides should be multiple of 16 bytes") : 0;
	if (s[last] == 1 && s[last - 1] >= (n[last] > 1 ? n[last] : 1))
		return s[last - 1] % align ? pb_rt_fail("strides should be multiple of 16 bytes")
					   : 0;
	return pb_rt_fail("Invalid strides/sizes, got %lld and %lld for a matrix %s, expected "
			  "16-byte aligned",
			  (long long)s[last - 1], (long long)s[last], PB_SHAPE(t));
}

static int check(const struct grouped *g, const int32_t *out_dtype)
{
	const struct pb_rt_tensor *a = g->a, *b = g->b;
	const bool ragged = a->ndim == 2 || b->ndim == 2;

	if (a->ndim < 2 || a->ndim > 3 || b->ndim < 2 || b->ndim > 3 ||
	    a->sizes[a->ndim - 1] != b->sizes[b->ndim - 2])
		return pb_rt_fail("contraction dimension of mat_a and mat_b must match, got %s and "
				  "%s",
				  PB_SHAPE(a), PB_SHAPE(b));
	if ((a->dtype != PB_RT_F32 && !pb_is_16bit(a->dtype)) || b->dtype != a->dtype)
		return pb_rt_fail("Expected mat_a and mat_b to be Float32, BFloat16 or Float16 "
				  "matrices of one type, got %s and %s",
				  pb_rt_dtype_name(a->dtype), pb_rt_dtype_name(b->dtype));
	if (ragged != (g->offs != NULL))
		return pb_rt_fail(ragged ? "Have to provide offsets if there is a 2d matrix"
					 : "Offsets are only for 2d matrices");
	if (g->offs && (g->offs->ndim != 1 || g->offs->dtype != PB_RT_I32))
		return pb_rt_fail("offs has to be a 1D tensor of int32, got %s of %s",
				  PB_SHAPE(g->offs), pb_rt_dtype_name(g->offs->dtype));
	if (out_dtype && *out_dtype != a->dtype)
		return pb_rt_fail("Grouped gemm output dtype must match `mat_a` dtype");
	if ((a->ndim == 3 && a->sizes[0] != g->groups) ||
	    (b->ndim == 3 && b->sizes[0] != g->groups))
		return pb_rt_fail("batched matrices %s and %s do not have %lld groups", PB_SHAPE(a),
				  PB_SHAPE(b), (long long)g->groups);
	return check_strides(a) || check_strides(b);
}

static int32_t offset(const struct grouped *g, int64_t i)
{
	return i < 0 ? 0 : ((int32_t *)pb_rt_data(g->offs))[i * g->offs->strides[0]];
}

/* Group @i of a matrix: of a batch, or [from, to) along @dim; -1: all of it. */
static struct pb_rt_tensor *part(const struct pb_rt_tensor *t, int64_t i, int dim, int64_t from,
				 int64_t to)
{
	const int first = t->ndim - 2;
	int64_t sizes[2] = {t->sizes[first], t->sizes[first + 1]}, at = t->offset;

	if (t->ndim == 3)
		return pb_rt_alias(t, 2, sizes, t->strides + 1, at + i * t->strides[0]);
	if (dim >= 0) {
		sizes[dim] = to - from;
		at += from * t->strides[dim];
	}
	return pb_rt_alias(t, 2, sizes, t->strides, at);
}

static int one_group(const struct grouped *g, struct pb_rt_tensor *out, int64_t i)
{
	const bool a2 = g->a->ndim == 2, b2 = g->b->ndim == 2;
	const int64_t from = g->offs ? offset(g, i - 1) : 0, to = g->offs ? offset(g, i) : 0;
	const int64_t limit = !g->offs ? 0 : a2 ? g->a->sizes[b2] : g->b->sizes[1];
	struct pb_rt_tensor *a, *b, *c;
	int rc;

	if (from < 0 || to < from || to > limit)
		return pb_rt_fail("_grouped_mm: group %lld goes from %lld to %lld of %lld",
				  (long long)i, (long long)from, (long long)to, (long long)limit);
	a = part(g->a, i, b2 ? 1 : 0, from, to);
	b = part(g->b, i, a2 ? 0 : 1, from, to);
	c = part(out, i, a2 ? 0 : 1, from, to);
	rc = !a || !b || !c || aoti_torch_cpu_mm_out(c, a, b);
	pb_rt_delete(a);
	pb_rt_delete(b);
	pb_rt_delete(c);
	return rc;
}

/* Rows of the result are padded to 16 bytes, as PyTorch's are. */
static struct pb_rt_tensor *new_result(const struct grouped *g)
{
	const int64_t align = 16 / (int64_t)pb_rt_dtype_size(g->a->dtype);
	const int64_t m = g->a->sizes[g->a->ndim - 2], n = g->b->sizes[g->b->ndim - 1];
	const int64_t row = (n + align - 1) / align * align;

	if (g->a->ndim == g->b->ndim)
		return pb_rt_empty(g->a->dtype, 3, (int64_t[]){g->groups, m, n},
				   (int64_t[]){m * row, row, 1});
	return pb_rt_empty(g->a->dtype, 2, (int64_t[]){m, n}, (int64_t[]){row, 1});
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__grouped_mm(AtenTensorHandle self, AtenTensorHandle mat2,
						      AtenTensorHandle *offs,
						      AtenTensorHandle *bias, int32_t *out_dtype,
						      AtenTensorHandle *ret0)
{
	struct grouped g = {self, mat2, offs ? *offs : NULL, 0};
	struct pb_rt_tensor *out;
	int rc = 0;

	g.groups = g.offs ? g.offs->sizes[0] : self->sizes[0];
	if (bias)
		return pb_rt_fail("Bias not supported yet");
	if (check(&g, out_dtype))
		return 1;
	out = new_result(&g);
	if (!out)
		return 1;
	for (int64_t i = 0; i < g.groups && !rc; i++)
		rc = one_group(&g, out, i);
	if (rc)
		pb_rt_delete(out);
	else
		*ret0 = out;
	return rc;
}
