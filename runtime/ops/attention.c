/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention in blocks of queries and keys with a running maximum and sum (online softmax), so that
 * the scores of one block stay in L2. Keys and values of a head are packed once into panels of the
 * matrix product and serve all its query blocks, and all query heads that share them. Behaviour
 * follows aten/src/ATen/native/cpu/FlashAttentionKernel.cpp of torch 2.13.0: the output is laid out
 * like the query, logsumexp is [B, H, Lq] over [B, Lq, H] memory, a row that sees no key at all is
 * 0 with logsumexp 0, causal masks are aligned to the upper left corner.
 */
#include "runtime/ops/attention.h"

#include <math.h>
#include <string.h>

#include "runtime/ops/gemm.h"
#include "runtime/ops/parallel.h"
#include "runtime/ops/shape.h"
#include "runtime/tensor.h"

#define BLOCK_Q 48
#define BLOCK_K 512
/* With fewer query rows than this per key head, packing keys and values costs more than it saves.
 */
#define PACK_ROWS 12

struct attention {
	const struct pb_rt_tensor *q, *k, *v, *mask;
	struct pb_rt_tensor *out, *lse;
	int64_t batch, heads, kv_heads, lq, lk, d;
	bool causal, packed;
	float scale;
	/* Scratch of one part, in bytes. */
	size_t k_pack, v_pack, wide, each;
};

struct scratch {
	char *k_pack, *v_pack;
	float *wide, *s, *o, *q, *max, *sum, *bias;
};

static int64_t min64(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static const char *element(const struct pb_rt_tensor *t, int64_t b, int64_t h, int64_t i)
{
	return (const char *)pb_rt_data(t) +
	       (b * t->strides[0] + h * t->strides[1] + i * t->strides[2]) *
		       (int64_t)pb_rt_dtype_size(t->dtype);
}

/* Rows [i0, i0 + n) of one head as contiguous floats. */
static void widen_rows(const struct pb_rt_tensor *t, int64_t b, int64_t h, int64_t i0, int64_t n,
		       float *dst)
{
	const int64_t d = t->sizes[3], stride = t->strides[3];
	const int64_t size = (int64_t)pb_rt_dtype_size(t->dtype);

	for (int64_t i = 0; i < n; i++, dst += d) {
		const char *src = element(t, b, h, i0 + i);

		if (stride == 1)
			pb_gemm_widen(dst, src, t->dtype, d);
		else
			for (int64_t j = 0; j < d; j++)
				pb_gemm_widen(dst + j, src + j * stride * size, t->dtype, 1);
	}
}

static bool in_place(const struct pb_rt_tensor *t)
{
	return t->dtype == PB_RT_F32 && (t->strides[3] == 1 || t->sizes[3] == 1);
}

/* Rows of one head as a float matrix: in place, or widened into @buf. */
static struct pb_gemm_in rows_of(const struct pb_rt_tensor *t, int64_t b, int64_t h, int64_t i0,
				 int64_t n, float *buf)
{
	if (in_place(t))
		return (struct pb_gemm_in){element(t, b, h, i0), t->strides[2], 1, PB_RT_F32};
	widen_rows(t, b, h, i0, n, buf);
	return (struct pb_gemm_in){buf, t->sizes[3], 1, PB_RT_F32};
}

static struct pb_gemm_in transpose(struct pb_gemm_in x)
{
	return (struct pb_gemm_in){x.p, x.cs, x.rs, x.dtype};
}

static size_t k_block_bytes(const struct attention *a)
{
	return pb_gemm_packed_bytes(a->d, BLOCK_K, PB_RT_F32);
}

static size_t v_block_bytes(const struct attention *a)
{
	return pb_gemm_packed_bytes(BLOCK_K, a->d, PB_RT_F32);
}

static void pack_head(const struct attention *a, int64_t b, int64_t kvh, const struct scratch *x)
{
	for (int64_t k0 = 0, i = 0; k0 < a->lk; k0 += BLOCK_K, i++) {
		const int64_t n = min64(BLOCK_K, a->lk - k0);
		const struct pb_gemm_in k = transpose(rows_of(a->k, b, kvh, k0, n, x->wide));

		pb_gemm_pack(&k, a->d, n, x->k_pack + i * k_block_bytes(a));

		const struct pb_gemm_in v = rows_of(a->v, b, kvh, k0, n, x->wide);

		pb_gemm_pack(&v, n, a->d, x->v_pack + i * v_block_bytes(a));
	}
}

/* The additive mask of one row for keys [k0, k0 + n), NULL for none. */
static const float *mask_row(const struct attention *a, int64_t b, int64_t h, int64_t i, int64_t k0,
			     int64_t n, float *buf)
{
	const struct pb_rt_tensor *m = a->mask;
	const int64_t size = m ? (int64_t)pb_rt_dtype_size(m->dtype) : 0;
	int64_t at[4] = {b, h, i, k0}, off = 0, step;
	const char *p;

	if (!m)
		return NULL;
	for (int d = 0; d < m->ndim; d++)
		if (m->sizes[m->ndim - 1 - d] != 1)
			off += at[3 - d] * m->strides[m->ndim - 1 - d];
	step = m->ndim && m->sizes[m->ndim - 1] != 1 ? m->strides[m->ndim - 1] : 0;
	p = (const char *)pb_rt_data(m) + off * size;
	if (step == 1 && m->dtype == PB_RT_F32)
		return (const float *)p;
	if (step == 1) {
		pb_gemm_widen(buf, p, m->dtype, n);
		return buf;
	}
	for (int64_t j = 0; j < n; j++)
		pb_gemm_widen(buf + j, p + j * step * size, m->dtype, 1);
	return buf;
}

/* Scores of one row become weights; the row's earlier output is scaled to the new maximum. */
static void softmax_row(const struct attention *a, const struct scratch *x, int64_t r, int64_t n,
			int64_t width, const float *bias)
{
	const struct pb_gemm_isa *isa = pb_gemm_isa();
	float *s = x->s + r * BLOCK_K;
	float max = isa->max_scaled(s, n, a->scale, bias);
	float sum;

	if (x->max[r] > max)
		max = x->max[r];
	if (max == -INFINITY) {
		memset(s, 0, width * sizeof(float));
		return;
	}
	sum = isa->exp_sub_sum(s, n, max);
	if (n < width)
		memset(s + n, 0, (width - n) * sizeof(float));
	if (max != x->max[r] && x->max[r] != -INFINITY) {
		const float shrink = expf(x->max[r] - max);

		x->sum[r] *= shrink;
		isa->scale_row(x->o + r * a->d, a->d, shrink);
	}
	x->sum[r] += sum;
	x->max[r] = max;
}

static int scores(const struct attention *a, const struct scratch *x, const struct pb_gemm_in *q,
		  int64_t m, int64_t b, int64_t kvh, int64_t k0, int64_t n)
{
	struct pb_gemm g = {.m = m,
			    .n = n,
			    .k = a->d,
			    .serial = true,
			    .a = *q,
			    .c = x->s,
			    .c_rs = BLOCK_K,
			    .c_cs = 1,
			    .alpha = 1};

	if (a->packed) {
		g.b.dtype = PB_RT_F32;
		g.b_packed = x->k_pack + k0 / BLOCK_K * k_block_bytes(a);
	} else {
		g.b = transpose(rows_of(a->k, b, kvh, k0, n, x->wide));
	}
	return pb_gemm_run(&g);
}

static int weigh(const struct attention *a, const struct scratch *x, int64_t m, int64_t b,
		 int64_t kvh, int64_t k0, int64_t n)
{
	struct pb_gemm g = {
		.m = m,
		.n = a->d,
		.k = n,
		.serial = true,
		.accumulate = k0 > 0,
		.a = {x->s, BLOCK_K, 1, PB_RT_F32},
		.c = x->o,
		.c_rs = a->d,
		.c_cs = 1,
		.alpha = 1,
	};

	if (a->packed) {
		g.b.dtype = PB_RT_F32;
		g.b_packed = x->v_pack + k0 / BLOCK_K * v_block_bytes(a);
		g.b_packed_k = min64(BLOCK_K, a->lk - k0);
	} else {
		g.b = rows_of(a->v, b, kvh, k0, n, x->wide);
	}
	return pb_gemm_run(&g);
}

static void finish_rows(const struct attention *a, const struct scratch *x, int64_t b, int64_t h,
			int64_t q0, int64_t m)
{
	struct pb_rt_tensor *out = a->out;
	const int64_t size = (int64_t)pb_rt_dtype_size(out->dtype);

	for (int64_t i = 0; i < m; i++) {
		float *o = x->o + i * a->d;
		char *dst = (char *)element(out, b, h, q0 + i);
		float *lse = (float *)pb_rt_data(a->lse) + b * a->lse->strides[0] +
			     h * a->lse->strides[1] + (q0 + i) * a->lse->strides[2];
		const bool seen = x->max[i] != -INFINITY;

		pb_gemm_isa()->scale_row(o, a->d, seen ? 1.0f / x->sum[i] : 0.0f);
		*lse = seen ? x->max[i] + logf(x->sum[i]) : 0.0f;
		if (!seen)
			memset(o, 0, a->d * sizeof(float));
		if (out->strides[3] == 1)
			pb_gemm_round(dst, out->dtype, o, a->d);
		else
			for (int64_t j = 0; j < a->d; j++)
				pb_gemm_round(dst + j * out->strides[3] * size, out->dtype, o + j,
					      1);
	}
}

static int query_block(const struct attention *a, const struct scratch *x, int64_t b, int64_t h,
		       int64_t q0, int64_t m)
{
	const int64_t kvh = h / (a->heads / a->kv_heads);
	const int64_t keys = a->causal ? min64(a->lk, q0 + m) : a->lk;
	const struct pb_gemm_in q = rows_of(a->q, b, h, q0, m, x->q);

	for (int64_t i = 0; i < m; i++) {
		x->max[i] = -INFINITY;
		x->sum[i] = 0;
	}
	for (int64_t k0 = 0; k0 < keys; k0 += BLOCK_K) {
		const int64_t n = min64(BLOCK_K, keys - k0);

		if (scores(a, x, &q, m, b, kvh, k0, n))
			return 1;
		for (int64_t i = 0; i < m; i++) {
			int64_t seen = a->causal ? min64(n, q0 + i - k0 + 1) : n;

			if (seen < 0)
				seen = 0;
			softmax_row(a, x, i, seen, n, mask_row(a, b, h, q0 + i, k0, seen, x->bias));
		}
		if (weigh(a, x, m, b, kvh, k0, n))
			return 1;
	}
	finish_rows(a, x, b, h, q0, m);
	return 0;
}

/* One batch entry and key head, with all query heads that share it. */
static int head(const struct attention *a, const struct scratch *x, int64_t b, int64_t kvh)
{
	const int64_t share = a->heads / a->kv_heads;
	const int64_t blocks = (a->lq + BLOCK_Q - 1) / BLOCK_Q;

	if (a->packed)
		pack_head(a, b, kvh, x);
	for (int64_t h = kvh * share; h < (kvh + 1) * share; h++) {
		for (int64_t i = 0; i < blocks; i++) {
			const int64_t q0 = a->lq * i / blocks, q1 = a->lq * (i + 1) / blocks;

			if (query_block(a, x, b, h, q0, q1 - q0))
				return 1;
		}
	}
	return 0;
}

/* ---- scratch and parts ---- */

static size_t round64(size_t x)
{
	return (x + 63) & ~(size_t)63;
}

static void plan_scratch(struct attention *a)
{
	const int64_t blocks = (a->lk + BLOCK_K - 1) / BLOCK_K;
	const bool wide = !in_place(a->k) || !in_place(a->v);

	a->k_pack = a->packed ? round64(blocks * k_block_bytes(a)) : 0;
	a->v_pack = a->packed ? round64(blocks * v_block_bytes(a)) : 0;
	a->wide = wide ? round64(BLOCK_K * a->d * sizeof(float)) : 0;
	a->each = a->k_pack + a->v_pack + a->wide + round64(BLOCK_Q * BLOCK_K * sizeof(float)) +
		  2 * round64(BLOCK_Q * a->d * sizeof(float)) +
		  2 * round64(BLOCK_Q * sizeof(float)) + round64(BLOCK_K * sizeof(float));
}

static struct scratch cut_scratch(const struct attention *a, char *p)
{
	struct scratch x;

	x.k_pack = p;
	x.v_pack = p += a->k_pack;
	x.wide = (float *)(p += a->v_pack);
	x.s = (float *)(p += a->wide);
	x.o = (float *)(p += round64(BLOCK_Q * BLOCK_K * sizeof(float)));
	x.q = (float *)(p += round64(BLOCK_Q * a->d * sizeof(float)));
	x.max = (float *)(p += round64(BLOCK_Q * a->d * sizeof(float)));
	x.sum = (float *)(p += round64(BLOCK_Q * sizeof(float)));
	x.bias = (float *)(p += round64(BLOCK_Q * sizeof(float)));
	return x;
}

struct job {
	const struct attention *a;
	char *scratch;
	int parts;
	int failed;
};

static void part(void *arg, int i)
{
	struct job *job = arg;
	const struct attention *a = job->a;
	const struct scratch x = cut_scratch(a, job->scratch + i * a->each);
	const int64_t units = a->batch * a->kv_heads;

	for (int64_t u = units * i / job->parts; u < units * (i + 1) / job->parts; u++)
		if (head(a, &x, u / a->kv_heads, u % a->kv_heads))
			job->failed = 1;
}

static int attend(struct attention *a)
{
	const double flops = 4.0 * (double)a->batch * a->heads * a->lq * a->lk * a->d;
	const int64_t units = a->batch * a->kv_heads;
	int threads = pb_parallel_threads(flops);
	struct job job = {.a = a};

	if (threads > units)
		threads = (int)units;
	/* Unpacked products may allocate, which only one thread may do. */
	a->packed = threads > 1 || a->lq * (a->heads / a->kv_heads) > PACK_ROWS;
	plan_scratch(a);
	job.parts = threads;
	job.scratch = pb_rt_scratch(a->each * threads);
	if (!job.scratch)
		return 1;
	pb_parallel(threads, part, &job);
	pb_rt_scratch_free(job.scratch);
	return job.failed;
}

/* ---- double: plain rows ---- */

static double at64(const struct pb_rt_tensor *t, int64_t b, int64_t h, int64_t i, int64_t j)
{
	return ((const double *)element(t, b, h, i))[j * t->strides[3]];
}

static double mask64(const struct attention *a, int64_t b, int64_t h, int64_t i, int64_t j)
{
	const struct pb_rt_tensor *m = a->mask;
	const int64_t at[4] = {b, h, i, j};
	int64_t off = 0;

	if (!m)
		return 0;
	for (int d = 0; d < m->ndim; d++)
		if (m->sizes[m->ndim - 1 - d] != 1)
			off += at[3 - d] * m->strides[m->ndim - 1 - d];
	return m->dtype == PB_RT_F64 ? ((const double *)pb_rt_data(m))[off]
				     : ((const float *)pb_rt_data(m))[off];
}

static void row64(const struct attention *a, int64_t b, int64_t h, int64_t i, double scale,
		  double *s)
{
	const int64_t kvh = h / (a->heads / a->kv_heads),
		      n = a->causal ? min64(a->lk, i + 1) : a->lk;
	double max = -INFINITY, sum = 0, *out = (double *)element(a->out, b, h, i);
	double *lse = (double *)pb_rt_data(a->lse) + b * a->lse->strides[0] +
		      h * a->lse->strides[1] + i * a->lse->strides[2];

	for (int64_t j = 0; j < n; j++) {
		double v = 0;

		for (int64_t c = 0; c < a->d; c++)
			v += at64(a->q, b, h, i, c) * at64(a->k, b, kvh, j, c);
		s[j] = v * scale + mask64(a, b, h, i, j);
		max = s[j] > max ? s[j] : max;
	}
	for (int64_t j = 0; j < n; j++) {
		s[j] = max == -INFINITY ? 0 : exp(s[j] - max);
		sum += s[j];
	}
	for (int64_t c = 0; c < a->d; c++) {
		double v = 0;

		for (int64_t j = 0; j < n; j++)
			v += s[j] * at64(a->v, b, kvh, j, c);
		out[c * a->out->strides[3]] = max == -INFINITY ? 0 : v / sum;
	}
	*lse = max == -INFINITY ? 0 : max + log(sum);
}

static int attend64(const struct attention *a, double scale)
{
	double *s = pb_rt_scratch((a->lk + 1) * sizeof(double));

	if (!s)
		return 1;
	for (int64_t b = 0; b < a->batch; b++)
		for (int64_t h = 0; h < a->heads; h++)
			for (int64_t i = 0; i < a->lq; i++)
				row64(a, b, h, i, scale, s);
	pb_rt_scratch_free(s);
	return 0;
}

/* ---- the operator ---- */

#define OP "_scaled_dot_product_flash_attention_for_cpu"

static int check(const struct pb_rt_tensor *q, const struct pb_rt_tensor *k,
		 const struct pb_rt_tensor *v, const struct pb_rt_tensor *mask, double dropout_p)
{
	const int32_t t = q->dtype;

	if (q->ndim != 4 || k->ndim != 4 || v->ndim != 4)
		return pb_rt_fail(
			OP ": accepts only 4 dims inputs shape of {B, H, T, K}, got %s, %s, %s",
			PB_SHAPE(q), PB_SHAPE(k), PB_SHAPE(v));
	if (t != PB_RT_F32 && t != PB_RT_F64 && t != PB_RT_BF16 && t != PB_RT_F16)
		return pb_rt_fail(OP ": expected data type in FP32, FP64, BF16, FP16, but got %s",
				  pb_rt_dtype_name(t));
	if (k->dtype != t || v->dtype != t)
		return pb_rt_fail(OP ": query, key and value must have the same data type");
	if (dropout_p != 0)
		return pb_rt_fail(OP ": currently do not support dropout > 0");
	if (q->sizes[3] != k->sizes[3] || q->sizes[3] != v->sizes[3])
		return pb_rt_fail(OP ": Q/K/V should have the same head size, got %s, %s, %s",
				  PB_SHAPE(q), PB_SHAPE(k), PB_SHAPE(v));
	if (q->sizes[0] != k->sizes[0] || k->sizes[0] != v->sizes[0] ||
	    k->sizes[1] != v->sizes[1] || k->sizes[2] != v->sizes[2] || !k->sizes[1] ||
	    q->sizes[1] % k->sizes[1])
		return pb_rt_fail(OP ": shapes do not match: query %s, key %s, value %s",
				  PB_SHAPE(q), PB_SHAPE(k), PB_SHAPE(v));
	if (mask && mask->dtype != t && !(mask->dtype == PB_RT_F32 && t != PB_RT_F64))
		return pb_rt_fail(
			OP
			": attention mask must have the data type of the query or float32, got %s",
			pb_rt_dtype_name(mask->dtype));
	if (mask && mask->ndim > 4)
		return pb_rt_fail(OP ": attention mask of shape %s has more than 4 dimensions",
				  PB_SHAPE(mask));
	if (mask) {
		const int64_t full[4] = {q->sizes[0], q->sizes[1], q->sizes[2], k->sizes[2]};

		for (int d = 0; d < mask->ndim; d++) {
			const int64_t size = mask->sizes[mask->ndim - 1 - d];

			if (size != 1 && size != full[3 - d])
				return pb_rt_fail(OP ": attention mask of shape %s does not "
						     "broadcast to [%lld, %lld, "
						     "%lld, %lld]",
						  PB_SHAPE(mask), (long long)full[0],
						  (long long)full[1], (long long)full[2],
						  (long long)full[3]);
		}
	}
	return 0;
}

/*
 * Strides of at::empty_like(t): those of t where it is dense without overlap, else dense in the
 * order of its strides (c10's infer_dense_strides: ties and zero strides keep the order of the
 * dimensions).
 */
static void like_strides(const struct pb_rt_tensor *t, int64_t *strides)
{
	int perm[4] = {3, 2, 1, 0};
	int64_t step = 1;

	for (int i = 1; i < 4; i++) {
		int at = i;

		for (int j = i - 1; j >= 0; j--) {
			const int64_t s0 = t->strides[perm[j]], s1 = t->strides[perm[at]];
			const bool ambiguous = s0 == 0 || s1 == 0;

			if (!ambiguous &&
			    (s0 > s1 || (s0 == s1 && t->sizes[perm[j]] > t->sizes[perm[at]]))) {
				const int swap = perm[j];

				perm[j] = perm[at];
				perm[at] = swap;
				at = j;
			} else if (!ambiguous && s0 < s1) {
				break;
			}
		}
	}
	for (int i = 0; i < 4; i++) {
		strides[perm[i]] = step;
		step *= t->sizes[perm[i]] > 1 ? t->sizes[perm[i]] : 1;
	}
	/* Dense and without overlap: dimensions of size 1 keep whatever stride they have. */
	for (int i = 0; i < 4; i++)
		if (t->sizes[i] > 1 && t->strides[i] != strides[i])
			return;
	memcpy(strides, t->strides, 4 * sizeof(*strides));
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__scaled_dot_product_flash_attention_for_cpu(
	AtenTensorHandle query, AtenTensorHandle key, AtenTensorHandle value, double dropout_p,
	int32_t is_causal, AtenTensorHandle *attn_mask, double *scale, AtenTensorHandle *ret0,
	AtenTensorHandle *ret1)
{
	struct attention a = {
		.q = query, .k = key, .v = value, .mask = attn_mask ? *attn_mask : NULL};
	const double s =
		scale ? *scale : 1.0 / sqrt((double)(query->ndim == 4 ? query->sizes[3] : 1));
	int64_t strides[4], lse_sizes[3], lse_strides[3];
	int rc;

	if (check(query, key, value, a.mask, dropout_p))
		return 1;
	a.batch = query->sizes[0];
	a.heads = query->sizes[1];
	a.lq = query->sizes[2];
	a.d = query->sizes[3];
	a.kv_heads = key->sizes[1];
	a.lk = key->sizes[2];
	a.causal = is_causal != 0;
	a.scale = (float)s;
	like_strides(query, strides);
	a.out = pb_rt_empty(query->dtype, 4, query->sizes, strides);
	memcpy(lse_sizes, (int64_t[]){a.batch, a.heads, a.lq}, sizeof(lse_sizes));
	memcpy(lse_strides, (int64_t[]){a.lq * a.heads, 1, a.heads}, sizeof(lse_strides));
	a.lse = pb_rt_empty(query->dtype == PB_RT_F64 ? PB_RT_F64 : PB_RT_F32, 3, lse_sizes,
			    lse_strides);
	if (!a.out || !a.lse)
		rc = 1;
	else if (!a.batch || !a.heads || !a.lq)
		rc = 0;
	else
		rc = query->dtype == PB_RT_F64 ? attend64(&a, s) : attend(&a);
	if (rc) {
		pb_rt_delete(a.out);
		pb_rt_delete(a.lse);
		return rc;
	}
	*ret0 = a.out;
	*ret1 = a.lse;
	return 0;
}
