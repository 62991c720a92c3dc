/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An example of a plugin, and what tests need of one: the operators of the fixtures customop and opkinds. Compiled alone,
 * against include/pt2box_op.h only:
 *
 *	cc -shared -fPIC -I. -o example.so tests/plugins/example.c
 */
#include <string.h>

#include "include/pt2box_op.h"

#define FLOAT32 6
#define FLOAT64 7

/* Elements of a contiguous copy, in @to; the caller knows that there are at most @max of them. */
static size_t gather(const struct pt2box_op_tensor *t, float *to, size_t max)
{
	int64_t at[PT2BOX_OP_MAX_DIMS] = {0};
	size_t n = 0;

	for (int d = 0; d < t->ndim; d++)
		if (t->sizes[d] == 0)
			return 0;
	for (;;) {
		int64_t offset = 0;
		int d = t->ndim - 1;

		for (int k = 0; k < t->ndim; k++)
			offset += at[k] * t->strides[k];
		if (n == max)
			return n;
		to[n++] = ((const float *)t->data)[offset];
		while (d >= 0 && ++at[d] == t->sizes[d])
			at[d--] = 0;
		if (d < 0)
			return n;
	}
}

#define MAX 1024

/* Float32, and not too large for gather(). */
static int usable(struct pt2box_op_call *c, const struct pt2box_op_tensor *t)
{
	int64_t n = 1;

	if (t->dtype != FLOAT32)
		return c->fail(c, "expected float32, got dtype %d", t->dtype);
	for (int d = 0; d < t->ndim; d++)
		if (t->sizes[d] > MAX || (n *= t->sizes[d]) > MAX)
			return c->fail(c, "more than %d elements", MAX);
	return 0;
}

static int contiguous(const struct pt2box_op_tensor *t, int64_t *ret_n)
{
	int64_t step = 1;

	for (int d = t->ndim - 1; d >= 0; d--) {
		if (t->strides[d] != step && t->sizes[d] > 1)
			return 0;
		step *= t->sizes[d];
	}
	*ret_n = step;
	return 1;
}

static void triple_all(float *restrict to, const float *restrict x, int64_t n, float k)
{
	for (int64_t i = 0; i < n; i++)
		to[i] = x[i] * 3 + k;
}

/* x * 3 + k; of any size if it is contiguous */
static int triple(struct pt2box_op_call *c)
{
	const struct pt2box_op_tensor *x = c->args[0].v.tensor;
	const float k = (float)c->args[1].v.i;
	struct pt2box_op_tensor *y;
	float v[MAX];
	int64_t n;
	const int in_place = x->dtype == FLOAT32 && contiguous(x, &n);

	if (!in_place && usable(c, x))
		return 1;
	y = c->new_tensor(c, FLOAT32, x->ndim, x->sizes, NULL);
	if (!y)
		return 1;
	if (!in_place)
		n = (int64_t)gather(x, v, MAX);
	triple_all(y->data, in_place ? x->data : v, n, k);
	return c->set_result(c, 0, y);
}

static double sum_of(const struct pt2box_op_value *v)
{
	double s = 0;

	for (uint32_t i = 0; i < v->count; i++)
		s += v->kind == PT2BOX_OP_INTS ? (double)v->v.ints[i] :
		     v->kind == PT2BOX_OP_FLOATS ? v->v.floats[i] :
		     v->kind == PT2BOX_OP_BOOLS ? v->v.bools[i] : (double)strlen(v->v.strings[i]);
	return s;
}

static double scalar(const struct pt2box_op_value *v)
{
	return v->kind == PT2BOX_OP_FLOAT ? v->v.f : (double)v->v.i;
}

/* See tests/fixtures/make_fixtures.py, opkinds. */
static int big(struct pt2box_op_call *c)
{
	const struct pt2box_op_value *a = c->args;
	const struct pt2box_op_tensor *x = a[0].v.tensor, *opt = a[8].v.tensor;
	struct pt2box_op_tensor *y, *z;
	float xs[MAX], opts[MAX], t0[MAX], t2[MAX], v[MAX];
	double add;
	size_t n;

	if (a[9].kind != PT2BOX_OP_NONE || a[13].kind != PT2BOX_OP_NONE || a[18].v.tensors[1])
		return c->fail(c, "what should be missing is there");
	if (a[10].v.i != FLOAT64 || a[11].v.device.type != 0 || a[16].v.i != 2 || a[17].v.i != 0)
		return c->fail(c, "dtype, device, memory format or layout came wrong");
	if (strcmp(a[23].v.s, "fast") != 0 || a[24].v.i != 0)
		return c->fail(c, "a default came wrong");
	if (usable(c, x) || usable(c, opt) || usable(c, a[18].v.tensors[0]) || usable(c, a[18].v.tensors[2]))
		return 1;
	add = scalar(&a[2]) + scalar(&a[3]) + scalar(&a[14]) + scalar(&a[15]) + scalar(&a[22]) + sum_of(&a[12]) +
	      sum_of(&a[19]) + sum_of(&a[7]) + (double)strlen(a[6].v.s) + sum_of(&a[21]) + sum_of(&a[20]) + scalar(&a[5]);
	for (uint32_t k = 0; k < a[1].count; k++) {
		if (usable(c, a[1].v.tensors[k]))
			return 1;
		n = gather(a[1].v.tensors[k], v, MAX);
		for (size_t i = 0; i < n; i++)
			add += v[i];
	}
	y = c->new_tensor(c, FLOAT32, x->ndim, x->sizes, NULL);
	z = c->new_tensor(c, (int32_t)a[10].v.i, x->ndim, x->sizes, NULL);
	if (!y || !z)
		return 1;
	n = gather(x, xs, MAX);
	if (gather(opt, opts, MAX) != n || gather(a[18].v.tensors[0], t0, MAX) != n || gather(a[18].v.tensors[2], t2, MAX) != n)
		return c->fail(c, "tensors of different sizes");
	for (size_t i = 0; i < n; i++) {
		/* Lengths and bools are not in the second result. */
		const double tail = (double)strlen(a[6].v.s) + sum_of(&a[21]) + sum_of(&a[20]) + scalar(&a[5]);
		const double all = xs[i] * a[4].v.f + add;

		((float *)y->data)[i] = (float)all;
		((double *)z->data)[i] = (float)(all - tail) + opts[i] + t0[i] + t2[i];
	}
	return c->set_result(c, 0, y) || c->set_result(c, 1, z);
}

/* Adds k to x, in place. */
static int mut(struct pt2box_op_call *c)
{
	const struct pt2box_op_tensor *x = c->args[0].v.tensor;
	int64_t n;

	if (usable(c, x))
		return 1;
	if (!contiguous(x, &n))
		return c->fail(c, "mut needs a contiguous tensor");
	for (int64_t i = 0; i < n; i++)
		((float *)x->data)[i] += (float)c->args[1].v.i;
	return 0;
}

/* Rows of x, k at a time. */
static int split(struct pt2box_op_call *c)
{
	const struct pt2box_op_tensor *x = c->args[0].v.tensor;
	const int64_t k = c->args[1].v.i;
	float v[MAX];
	size_t n;

	if (usable(c, x))
		return 1;
	if (x->ndim != 2 || k < 1)
		return c->fail(c, "split takes a matrix and a size of at least 1");
	n = gather(x, v, MAX);
	for (int64_t row = 0; n && row < x->sizes[0]; row += k) {
		const int64_t rows = x->sizes[0] - row < k ? x->sizes[0] - row : k, sizes[2] = {rows, x->sizes[1]};
		struct pt2box_op_tensor *part = c->new_tensor(c, FLOAT32, 2, sizes, NULL);

		if (!part)
			return 1;
		memcpy(part->data, v + row * x->sizes[1], (size_t)(rows * x->sizes[1]) * sizeof(float));
		if (c->append_result(c, 0, part))
			return 1;
	}
	return 0;
}

static const struct pt2box_op ops[] = {
	{"pt2box_test::triple", "(Tensor x, int k) -> Tensor", triple},
	{"pt2box_kinds::big",
	 "(Tensor x, Tensor[] ys, SymInt n, int ni, float f, bool b, str s, SymInt[] shape, Tensor? opt, Tensor? optn, "
	 "ScalarType dt, Device? dev, float[] fl, int? oi, Scalar sc, Scalar fs, MemoryFormat mf, Layout? lay, Tensor?[] tl, "
	 "int[] il, bool[] bl, str[] sl, int dflt=9, *, str mode=\"fast\", bool deep=False) -> (Tensor, Tensor)",
	 big},
	{"pt2box_kinds::mut", "(Tensor(a!) x, int k) -> ()", mut},
	{"pt2box_kinds::split", "(Tensor x, int k) -> Tensor[]", split},
};

static const struct pt2box_op_plugin plugin = {PT2BOX_OP_ABI, sizeof(struct pt2box_op), "example", ops,
					       sizeof(ops) / sizeof(ops[0])};

const struct pt2box_op_plugin *pt2box_op_plugin(void)
{
	return &plugin;
}
