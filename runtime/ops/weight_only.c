/* SPDX-License-Identifier: Apache-2.0 */
/*
 * _weight_int4pack_mm and _weight_int8pack_mm: weights become floats panel by panel inside the
 * product, so that memory only ever holds the narrow ones. Layouts: torch 2.13.0's
 * aten/src/ATen/native/cpu/{int4mm,int8mm}_kernel.cpp.
 */
#include "runtime/ops/weight_only.h"

#include <string.h>

#include "runtime/ops/gemm.h"
#include "runtime/ops/layout.h"
#include "runtime/tensor.h"

/* c = a b for a of any float type, b by @pack; scaled by column if @scale; rounded to @out's type.
 */
static int product(const struct pb_rt_tensor *a, int64_t n, pb_gemm_pack_fn pack, const void *ctx,
		   const float *scale, struct pb_rt_tensor *out)
{
	const bool narrow = out->dtype != PB_RT_F32;
	float *y =
		narrow ? pb_rt_scratch((size_t)(out->numel + 1) * sizeof(float)) : pb_rt_data(out);
	const struct pb_gemm g = {
		.m = a->sizes[0],
		.n = n,
		.k = a->sizes[1],
		.a = {pb_rt_data(a), a->strides[0], a->strides[1], a->dtype},
		.b = {NULL, 0, 0, PB_RT_F32},
		.pack_b = pack,
		.pack_ctx = ctx,
		.c = y,
		.c_rs = n,
		.c_cs = 1,
		.alpha = 1,
	};
	int rc = !y || pb_gemm_run(&g);

	for (int64_t i = 0; i < g.m && scale && !rc; i++)
		for (int64_t j = 0; j < n; j++)
			y[i * n + j] *= scale[j];
	if (narrow && !rc)
		pb_gemm_round(pb_rt_data(out), out->dtype, y, out->numel);
	if (narrow && y)
		pb_rt_scratch_free(y);
	return rc;
}

static int check_float(const char *op, const struct pb_rt_tensor *a)
{
	if (a->dtype == PB_RT_F32 || pb_is_16bit(a->dtype))
		return 0;
	return pb_rt_fail("%s : expect A to be either 32-bit or 16-bit float tensor, not %s", op,
			  pb_rt_dtype_name(a->dtype));
}

/* Fewer rows than this make panels not worthwhile. */
#define FEW_ROWS 4

/* The same without panels: @part adds the products of rows (contiguous floats) to zeros. */
static int few_rows(const struct pb_rt_tensor *a, int64_t n,
		    void (*part)(const void *ctx, const float *a, int64_t rows, float *y),
		    const void *ctx, const float *scale, struct pb_rt_tensor *out)
{
	struct pb_rt_tensor *x = pb_clone_as(a, PB_RT_F32);
	struct pb_rt_tensor *y = pb_rt_empty(PB_RT_F32, 2, out->sizes, NULL);
	int rc = !x || !y;

	if (!rc) {
		float *v = pb_rt_data(y);

		memset(v, 0, (size_t)y->numel * sizeof(float));
		part(ctx, pb_rt_data(x), a->sizes[0], v);
		for (int64_t i = 0; i < y->numel && scale; i++)
			v[i] *= scale[i % n];
		rc = pb_rt_copy(out, y);
	}
	pb_rt_delete(x);
	pb_rt_delete(y);
	return rc;
}

/* ---- 4 bits ---- */

/*
 * Columns come in blocks: [block][k][block / 2] bytes. PyTorch packs for the machine it runs on: in
 * whole blocks the low halves of the bytes are the first half of the columns, elsewhere (and
 * everywhere without AVX2) a byte has two neighbours.
 */
struct int4 {
	const uint8_t *w;
	int64_t k, n, group;
	int64_t block;
	bool halves;
	const float *scale, *zero; /* [k / group][n] */
};

static uint8_t int4_at(const struct int4 *w, int64_t k, int64_t j)
{
	const int64_t first = j / w->block * w->block;
	const int64_t size = w->n - first < w->block ? w->n - first : w->block;
	const uint8_t *row = w->w + first * w->k / 2 + k * size / 2;
	const int64_t at = j - first;

	if (w->halves && size == w->block)
		return at < size / 2 ? row[at] & 15 : row[at - size / 2] >> 4;
	return at % 2 ? row[at / 2] >> 4 : row[at / 2] & 15;
}

/* A panel that is the low or the high half of one block's bytes. */
static bool is_half_block(const struct int4 *w, int64_t j0, int64_t nv)
{
	return w->halves && nv == w->block / 2 && j0 % nv == 0 &&
	       j0 / w->block * w->block + w->block <= w->n;
}

static void int4_panel(const struct int4 *w, int64_t k0, int64_t kc, int64_t j0, int64_t nv,
		       float *dst)
{
	const struct pb_gemm_isa *isa = pb_gemm_isa();
	const int nr = isa->nr[0];
	const int64_t first = j0 / w->block * w->block;

	for (int64_t p = 0; p < kc; p++, dst += nr) {
		const int64_t g = (k0 + p) / w->group * w->n + j0;

		if (is_half_block(w, j0, nv) && nv == nr) {
			isa->from_int4(dst, w->w + first * w->k / 2 + (k0 + p) * (w->block / 2),
				       j0 == first ? 0 : 4, w->scale + g, w->zero + g);
			continue;
		}
		for (int64_t j = 0; j < nr; j++)
			dst[j] =
				j < nv ? ((float)int4_at(w, k0 + p, j0 + j) - 8) * w->scale[g + j] +
						 w->zero[g + j]
				       : 0;
	}
}

static void int4_pack(const void *ctx, int64_t k0, int64_t kc, int64_t j0, int64_t nc, void *dst)
{
	const struct int4 *w = ctx;
	const int64_t nr = pb_gemm_isa()->nr[0];

	for (int64_t j = 0; j < nc; j += nr)
		int4_panel(w, k0, kc, j0 + j, nc - j < nr ? nc - j : nr, (float *)dst + j * kc);
}

/* Panel by panel: whole half blocks by the kernel, the rest one by one. */
static void int4_few_rows(const void *ctx, const float *a, int64_t rows, float *y)
{
	const struct int4 *w = ctx;
	const struct pb_gemm_isa *isa = pb_gemm_isa();
	const int nr = isa->nr[0];
	float panel[FEW_ROWS * 64];

	for (int64_t j = 0; j < w->n; j += nr) {
		const int64_t nv = w->n - j < nr ? w->n - j : nr, first = j / w->block * w->block;
		const bool whole = is_half_block(w, j, nv) && nv == nr;

		memset(panel, 0, sizeof(panel));
		for (int64_t k = 0; k < w->k && whole; k += w->group)
			isa->int4_group(panel, a + k, w->k, rows,
					w->w + first * w->k / 2 + k * (w->block / 2), w->block / 2,
					j == first ? 0 : 4, w->scale + k / w->group * w->n + j,
					w->zero + k / w->group * w->n + j, w->group);
		for (int64_t k = 0; k < w->k && !whole; k++) {
			const int64_t g = k / w->group * w->n + j;

			for (int64_t i = 0; i < nv; i++) {
				const float v =
					((float)int4_at(w, k, j + i) - 8) * w->scale[g + i] +
					w->zero[g + i];

				for (int64_t r = 0; r < rows; r++)
					panel[r * nr + i] += a[r * w->k + k] * v;
			}
		}
		for (int64_t r = 0; r < rows; r++)
			memcpy(y + r * w->n + j, panel + r * nr, (size_t)nv * sizeof(float));
	}
}

static int int4_group(const struct pb_rt_tensor *t, int64_t *ret)
{
	struct pb_rt_tensor *g;

	if (t->numel != 1)
		return pb_rt_fail("_weight_int4pack_mm: the group size must be one number, not %s",
				  PB_SHAPE(t));
	g = pb_clone_as(t, PB_RT_I64);
	if (!g)
		return 1;
	*ret = *(int64_t *)pb_rt_data(g);
	pb_rt_delete(g);
	if (*ret == 32 || *ret == 64 || *ret == 128 || *ret == 256)
		return 0;
	return pb_rt_fail("_weight_int4pack_mm_cpu: expect qGroupSize to be 32, 64, 128 or 256, "
			  "got %lld",
			  (long long)*ret);
}

static int int4_check(const struct pb_rt_tensor *a, const struct pb_rt_tensor *w,
		      const struct pb_rt_tensor *sz, int64_t group)
{
	if (check_float("_weight_int4pack_mm_cpu", a))
		return 1;
	if (a->ndim != 2 || w->ndim != 2 || w->dtype != PB_RT_U8 || !pb_rt_is_contiguous(w) ||
	    w->sizes[1] != a->sizes[1] / 2 || a->sizes[1] % group || w->sizes[0] % 16)
		return pb_rt_fail("_weight_int4pack_mm_cpu: input %s and packed weight %s of %s do "
				  "not fit each other (group size %lld)",
				  PB_SHAPE(a), PB_SHAPE(w), pb_rt_dtype_name(w->dtype),
				  (long long)group);
	if (sz->ndim != 3 || sz->sizes[0] != a->sizes[1] / group || sz->sizes[1] != w->sizes[0] ||
	    sz->sizes[2] != 2)
		return pb_rt_fail("_weight_int4pack_mm_cpu: expect qScaleAndZeros to be [%lld, "
				  "%lld, 2], not %s",
				  (long long)(a->sizes[1] / group), (long long)w->sizes[0],
				  PB_SHAPE(sz));
	return 0;
}

/* Scales, then zeros: neighbours in the tensor. */
static float *split_scales(const struct pb_rt_tensor *sz)
{
	const int64_t n = sz->numel / 2;
	struct pb_rt_tensor *wide = pb_clone_as(sz, PB_RT_F32);
	float *split = wide ? pb_rt_scratch((size_t)(2 * n + 1) * sizeof(float)) : NULL;

	for (int64_t i = 0; i < n && split; i++) {
		split[i] = ((float *)pb_rt_data(wide))[2 * i];
		split[n + i] = ((float *)pb_rt_data(wide))[2 * i + 1];
	}
	pb_rt_delete(wide);
	return split;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__weight_int4pack_mm_cpu_tensor(
	AtenTensorHandle X, AtenTensorHandle w, AtenTensorHandle qGroupSize,
	AtenTensorHandle qScaleAndZeros, AtenTensorHandle *ret0)
{
	const bool avx512 = __builtin_cpu_supports("avx512vl") &&
			    __builtin_cpu_supports("avx512bw") &&
			    __builtin_cpu_supports("avx512dq");
	const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
	struct int4 b = {.block = avx512 ? 64 : 32, .halves = avx2};
	struct pb_rt_tensor *out;
	float *split;
	int rc;

	if (int4_group(qGroupSize, &b.group) || int4_check(X, w, qScaleAndZeros, b.group))
		return 1;
	b.w = pb_rt_data(w);
	b.k = X->sizes[1];
	b.n = w->sizes[0];
	split = split_scales(qScaleAndZeros);
	if (!split)
		return 1;
	b.scale = split;
	b.zero = split + qScaleAndZeros->numel / 2;
	out = pb_rt_empty(X->dtype, 2, (int64_t[]){X->sizes[0], b.n}, NULL);
	rc = !out;
	if (!rc && out->numel && X->sizes[0] <= FEW_ROWS)
		rc = few_rows(X, b.n, int4_few_rows, &b, NULL, out);
	else if (!rc && out->numel)
		rc = product(X, b.n, int4_pack, &b, NULL, out);
	pb_rt_scratch_free(split);
	if (rc)
		pb_rt_delete(out);
	else
		*ret0 = out;
	return rc;
}

/* ---- 8 bits ---- */

struct int8 {
	const int8_t *w; /* [n][k] */
	int64_t k, n;
};

#define STRIP 64
#define MAX_NR 32

/* Rows of weights are columns of the panel: widened, then turned. */
static void int8_panel(const struct int8 *w, int64_t k0, int64_t kc, int64_t j0, int64_t nv,
		       float *dst)
{
	const struct pb_gemm_isa *isa = pb_gemm_isa();
	const int nr = isa->nr[0];
	float strips[MAX_NR * STRIP];

	for (int64_t p = 0; p < kc; p += STRIP) {
		const int64_t n = kc - p < STRIP ? kc - p : STRIP;

		for (int64_t j = 0; j < nr; j++) {
			const int8_t *src = w->w + (j0 + (j < nv ? j : 0)) * w->k + k0 + p;
			float *to = strips + j * STRIP;

			for (int64_t i = 0; i < n; i++)
				to[i] = j < nv ? src[i] : 0;
		}
		isa->transpose(dst + p * nr, nr, strips, STRIP, nr, n);
	}
}

static void int8_few_rows(const void *ctx, const float *a, int64_t rows, float *y)
{
	const struct int8 *w = ctx;
	float sums[FEW_ROWS];

	for (int64_t j = 0; j < w->n; j++) {
		pb_gemm_isa()->dot_s8(sums, a, w->k, rows, w->w + j * w->k, w->k);
		for (int64_t r = 0; r < rows; r++)
			y[r * w->n + j] = sums[r];
	}
}

static void int8_pack(const void *ctx, int64_t k0, int64_t kc, int64_t j0, int64_t nc, void *dst)
{
	const int64_t nr = pb_gemm_isa()->nr[0];

	for (int64_t j = 0; j < nc; j += nr)
		int8_panel(ctx, k0, kc, j0 + j, nc - j < nr ? nc - j : nr, (float *)dst + j * kc);
}

static int int8_check(const struct pb_rt_tensor *a, const struct pb_rt_tensor *w,
		      const struct pb_rt_tensor *scales)
{
	if (check_float("_weight_int8pack_mm_cpu", a))
		return 1;
	if (a->ndim != 2 || w->ndim != 2 || w->dtype != PB_RT_I8 || w->sizes[1] != a->sizes[1])
		return pb_rt_fail("_weight_int8pack_mm_cpu: input %s and weight %s of %s do not "
				  "fit each other",
				  PB_SHAPE(a), PB_SHAPE(w), pb_rt_dtype_name(w->dtype));
	if (scales->ndim != 1 || scales->sizes[0] != w->sizes[0])
		return pb_rt_fail("_weight_int8pack_mm_cpu : expect scales to be 1d tensor with "
				  "size %lld, not %s",
				  (long long)w->sizes[0], PB_SHAPE(scales));
	return 0;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__weight_int8pack_mm(AtenTensorHandle self,
							      AtenTensorHandle mat2,
							      AtenTensorHandle scales,
							      AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *w, *s, *out;
	int rc;

	if (int8_check(self, mat2, scales))
		return 1;
	w = pb_rt_contiguous(mat2);
	s = pb_clone_as(scales, PB_RT_F32);
	out = pb_rt_empty(self->dtype, 2, (int64_t[]){self->sizes[0], mat2->sizes[0]}, NULL);
	rc = !w || !s || !out;
	if (!rc && out->numel) {
		const struct int8 b = {pb_rt_data(w), w->sizes[1], w->sizes[0]};

		rc = self->sizes[0] <= FEW_ROWS
			     ? few_rows(self, b.n, int8_few_rows, &b, pb_rt_data(s), out)
			     : product(self, b.n, int8_pack, &b, pb_rt_data(s), out);
	}
	pb_rt_delete(w);
	pb_rt_delete(s);
	if (rc)
		pb_rt_delete(out);
	else
		*ret0 = out;
	return rc;
}
