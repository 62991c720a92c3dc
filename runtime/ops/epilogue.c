/* SPDX-License-Identifier: Apache-2.0 */
/* See epilogue.h. Names and defaults are those of torch 2.13.0's
 * aten/src/ATen/native/mkldnn/MKLDNNCommon.cpp (fusion_unary_attr_map, fusion_binary_alg_map). */
#include "runtime/ops/epilogue.h"

#include <string.h>

#include "runtime/ops/gemm_isa.h"
#include "runtime/ops/parallel.h"
#include "runtime/tensor.h"

static const struct {
	const char *name;
	enum pb_act act;
	int scalars; /* that it needs */
} unary[] = {
	{"none", PB_ACT_NONE, 0},
	{"relu", PB_ACT_RELU, 0},
	{"sigmoid", PB_ACT_SIGMOID, 0},
	{"tanh", PB_ACT_TANH, 0},
	{"swish", PB_ACT_SILU, 0},
	{"hardswish", PB_ACT_HARDSWISH, 0},
	{"hardsigmoid", PB_ACT_HARDSIGMOID, 0},
	{"leaky_relu", PB_ACT_LEAKY_RELU, 1},
	{"hardtanh", PB_ACT_HARDTANH, 2},
	{"gelu", PB_ACT_GELU, 0},
};

static const char *const binary[] = {
	[PB_BINARY_NONE] = "none", [PB_BINARY_ADD] = "add", [PB_BINARY_SUB] = "sub",
	[PB_BINARY_MUL] = "mul",   [PB_BINARY_DIV] = "div",
};

int pb_epilogue_unary(struct pb_epilogue *e, const char *op, const char *attr,
		      const double *const *scalars, int64_t n_scalars, const char *algorithm)
{
	size_t i = 0;

	e->act = (struct pb_activation){PB_ACT_NONE, 0, 0};
	if (!attr || !*attr)
		return 0;
	while (i < sizeof(unary) / sizeof(unary[0]) && strcmp(unary[i].name, attr) != 0)
		i++;
	if (i == sizeof(unary) / sizeof(unary[0]))
		return pb_rt_fail("%s: Unsupported unary fusion \"%.40s\"", op, attr);
	for (int k = 0; k < unary[i].scalars; k++)
		if (k >= n_scalars || !scalars || !scalars[k])
			return pb_rt_fail("%s: %s needs %d number%s", op, attr, unary[i].scalars,
					  unary[i].scalars == 1 ? "" : "s");
	e->act.kind = unary[i].act;
	if (unary[i].scalars > 0)
		e->act.a = (float)*scalars[0];
	if (unary[i].scalars > 1)
		e->act.b = (float)*scalars[1];
	if (e->act.kind == PB_ACT_GELU && algorithm && strcmp(algorithm, "tanh") == 0)
		e->act.kind = PB_ACT_GELU_TANH;
	else if (e->act.kind == PB_ACT_GELU && (!algorithm || strcmp(algorithm, "none") != 0))
		return pb_rt_fail("%s: Unsupported gelu algorithm: %.40s", op,
				  algorithm ? algorithm : "(none given)");
	return 0;
}

int pb_epilogue_binary(struct pb_epilogue *e, const char *op, const char *attr)
{
	e->binary = PB_BINARY_NONE;
	for (int i = PB_BINARY_ADD; attr && i <= PB_BINARY_DIV; i++)
		if (strcmp(attr, binary[i]) == 0)
			e->binary = (enum pb_binary)i;
	return e->binary ? 0
			 : pb_rt_fail("%s: Unsupported binary fusion \"%.40s\"", op,
				      attr ? attr : "");
}

struct job {
	const struct pb_epilogue *e;
	float *x;
	const float *other;
	int64_t n, part;
};

static void combine(enum pb_binary op, float *x, const float *y, int64_t n)
{
	switch (op) {
	case PB_BINARY_NONE:
		break;
	case PB_BINARY_ADD:
		for (int64_t i = 0; i < n; i++)
			x[i] += y[i];
		break;
	case PB_BINARY_SUB:
		for (int64_t i = 0; i < n; i++)
			x[i] -= y[i];
		break;
	case PB_BINARY_MUL:
		for (int64_t i = 0; i < n; i++)
			x[i] *= y[i];
		break;
	case PB_BINARY_DIV:
		for (int64_t i = 0; i < n; i++)
			x[i] /= y[i];
		break;
	}
}

/* In pieces that stay in the cache between the two steps. */
#define PIECE 2048

static void run_part(void *arg, int part)
{
	const struct job *j = arg;
	const int64_t begin = part * j->part, end = begin + j->part < j->n ? begin + j->part : j->n;

	for (int64_t i = begin; i < end; i += PIECE) {
		const int64_t n = end - i < PIECE ? end - i : PIECE;

		combine(j->e->binary, j->x + i, j->other ? j->other + i : NULL, n);
		pb_gemm_isa()->activate(j->x + i, n, &j->e->act);
	}
}

void pb_epilogue_apply(const struct pb_epilogue *e, float *x, const float *other, int64_t n)
{
	const int threads = pb_parallel_threads((double)n * 16);
	const struct job j = {e, x, other, n, (n + threads - 1) / threads};

	if (n && (e->binary || e->act.kind))
		pb_parallel(threads, run_part, (void *)&j);
}
