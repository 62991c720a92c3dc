/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pad: constant, reflect, replicate, circular, as
 * aten/src/ATen/native/{PadNd,ReflectionPad,ReplicationPadding}.cpp. Every mode is a table for each
 * dimension that says which input position an output position shows.
 */
#include <string.h>

#include "runtime/ops/join.h"
#include "runtime/ops/layout.h"

enum mode { CONSTANT, REFLECT, REPLICATE, CIRCULAR };

struct pad {
	enum mode mode;
	int ndim;
	int64_t before[PB_RT_MAX_DIMS], after[PB_RT_MAX_DIMS];
	int64_t sizes[PB_RT_MAX_DIMS];	 /* of the result */
	int64_t *table[PB_RT_MAX_DIMS];	 /* offset in the input, elements; -1: the constant */
	int64_t strides[PB_RT_MAX_DIMS]; /* of the result */
	size_t element;
	char value[16];
};

/* The input position shown at @i, which counts from the input's begin; what is cropped does not
 * wrap around. */
static int64_t source(const struct pad *p, int d, int64_t i, int64_t n)
{
	const int64_t lo = p->before[d] < 0 ? -p->before[d] : 0,
		      hi = p->after[d] < 0 ? n + p->after[d] : n;

	switch (p->mode) {
	case REFLECT:
		return i < 0 ? -i : i >= n ? 2 * (n - 1) - i : i;
	case REPLICATE:
		return i < 0 ? 0 : i >= n ? n - 1 : i;
	case CIRCULAR:
		return i < lo ? i + (hi - lo) : i >= hi ? i - (hi - lo) : i;
	default:
		return i < 0 || i >= n ? -1 : i;
	}
}

/* One block holds all tables. */
static int64_t *make_tables(struct pad *p, const struct pb_rt_tensor *self)
{
	int64_t total = 0, *block;

	for (int d = 0; d < p->ndim; d++)
		total += p->sizes[d];
	block = pb_rt_scratch((size_t)total * sizeof(*block) + 1);
	if (!block)
		return NULL;
	total = 0;
	for (int d = 0; d < p->ndim; d++) {
		p->table[d] = block + total;
		total += p->sizes[d];
		for (int64_t i = 0; i < p->sizes[d]; i++) {
			const int64_t s = source(p, d, i - p->before[d], self->sizes[d]);

			p->table[d][i] = s < 0 ? -1 : s * self->strides[d];
		}
	}
	return block;
}

#define ROW(type)                                                                             \
	do {                                                                                  \
		type *o = (type *)out, v;                                                     \
		memcpy(&v, p->value, sizeof(v));                                              \
		for (int64_t i = 0; i < n; i++)                                               \
			o[i * step] = !in || table[i] < 0 ? v : ((const type *)in)[table[i]]; \
	} while (0)

struct wide16 {
	uint64_t lo, hi;
};

/* @in NULL: outside the input already. */
static void row(const struct pad *p, char *out, const char *in)
{
	const int d = p->ndim - 1;
	const int64_t n = p->sizes[d], step = p->strides[d], *table = p->table[d];

	switch (p->element) {
	case 1:
		ROW(uint8_t);
		break;
	case 2:
		ROW(uint16_t);
		break;
	case 4:
		ROW(uint32_t);
		break;
	case 8:
		ROW(uint64_t);
		break;
	default:
		ROW(struct wide16);
	}
}

static void fill(const struct pad *p, int d, char *out, const char *in)
{
	const int64_t step = p->strides[d] * (int64_t)p->element;

	if (d == p->ndim - 1) {
		row(p, out, in);
		return;
	}
	for (int64_t i = 0; i < p->sizes[d]; i++) {
		const int64_t at = p->table[d][i];

		fill(p, d + 1, out + i * step,
		     in && at >= 0 ? in + at * (int64_t)p->element : NULL);
	}
}

/* ---- shapes ---- */

static int mode_of(const char *name, enum mode *ret)
{
	static const char *const names[] = {"constant", "reflect", "replicate", "circular"};

	for (int i = 0; i < 4; i++) {
		if (!strcmp(name, names[i])) {
			*ret = (enum mode)i;
			return 0;
		}
	}
	return pb_rt_fail("Unrecognised padding mode: %s", name);
}

static int check_constant(const struct pb_rt_tensor *self, int64_t len)
{
	if (len % 2)
		return pb_rt_fail("Length of pad must be even but instead it equals %lld",
				  (long long)len);
	if (len / 2 > self->ndim)
		return pb_rt_fail("Length of pad should be no more than twice the number of "
				  "dimensions of the input. Pad length "
				  "is %lld while the input has %d dimensions.",
				  (long long)len, self->ndim);
	return 0;
}

static int check_other(const struct pb_rt_tensor *self, int64_t len, const double *value)
{
	const int n = self->ndim;

	if (len % 2)
		return pb_rt_fail("Padding length must be divisible by 2");
	if (value && *value != 0)
		return pb_rt_fail("Padding mode doesn't take in value argument");
	if (!((len == 2 && (n == 2 || n == 3)) || (len == 4 && (n == 3 || n == 4)) ||
	      (len == 6 && (n == 4 || n == 5))))
		return pb_rt_fail("Only 2D, 3D, 4D, 5D padding with non-constant padding are "
				  "supported for now");
	return 0;
}

static int check_sides(const struct pad *p, const struct pb_rt_tensor *self, int d, int64_t before,
		       int64_t after)
{
	const int64_t n = self->sizes[d];

	if (before < -n || before > INT32_MAX * (int64_t)INT32_MAX || after < -n ||
	    after > INT32_MAX * (int64_t)INT32_MAX)
		return before < 0 || after < 0
			       ? pb_rt_fail("The input size %lld, plus negative padding %lld and "
					    "%lld, resulted in a negative "
					    "output size",
					    (long long)n, (long long)before, (long long)after)
			       : pb_rt_fail("pad: the padding is too large");
	if (p->mode == REFLECT && (before >= n || after >= n))
		return pb_rt_fail("Argument #%d: Padding size should be less than the "
				  "corresponding input dimension, but got: "
				  "padding (%lld, %lld) at dimension %d of input %s",
				  4 + 2 * (self->ndim - 1 - d), (long long)before, (long long)after,
				  d, PB_SHAPE(self));
	if (p->mode == CIRCULAR &&
	    (before > n + (after < 0 ? after : 0) || after > n + (before < 0 ? before : 0)))
		return pb_rt_fail("Padding value causes wrapping around more than once.");
	if (p->mode == REPLICATE && n == 0 && n + before + after > 0)
		return pb_rt_fail("pad: nothing to replicate in dimension %d of input %s", d,
				  PB_SHAPE(self));
	if (n + before + after < 0)
		return pb_rt_fail("The input size %lld, plus negative padding %lld and %lld, "
				  "resulted in a negative output size, "
				  "which is invalid. Check dimension %d of your input.",
				  (long long)n, (long long)before, (long long)after, d);
	return 0;
}

/* Pairs count from the last dimension. */
static int plan(struct pad *p, const struct pb_rt_tensor *self, const int64_t *pad, int64_t len)
{
	p->ndim = self->ndim;
	memcpy(p->sizes, self->sizes, sizeof(p->sizes));
	for (int64_t i = 0; i < len / 2; i++) {
		const int d = self->ndim - 1 - (int)i;

		if (check_sides(p, self, d, pad[2 * i], pad[2 * i + 1]))
			return 1;
		p->before[d] = pad[2 * i];
		p->after[d] = pad[2 * i + 1];
		p->sizes[d] += pad[2 * i] + pad[2 * i + 1];
	}
	return 0;
}

static bool only_crops(const int64_t *pad, int64_t len)
{
	for (int64_t i = 0; i < len; i++)
		if (pad[i] > 0)
			return false;
	return true;
}

/* A copy of the part that is left, in the layout of that part. */
static int crop(const struct pad *p, const struct pb_rt_tensor *self, AtenTensorHandle *ret0)
{
	int64_t offset = self->offset;
	struct pb_rt_tensor *part, *out;

	for (int d = 0; d < p->ndim; d++)
		offset -= p->before[d] * self->strides[d];
	part = pb_rt_alias(self, p->ndim, p->sizes, self->strides, offset);
	out = part ? pb_clone(part) : NULL;
	pb_rt_delete(part);
	if (!out)
		return 1;
	*ret0 = out;
	return 0;
}

static int pad_tensor(const struct pb_rt_tensor *self, const int64_t *pad, int64_t len,
		      const char *mode, const double *value, AtenTensorHandle *ret0)
{
	struct pad p = {.element = pb_rt_dtype_size(self->dtype)};
	struct pb_rt_tensor *out;
	int64_t *tables;

	if (mode_of(mode, &p.mode))
		return 1;
	if (p.mode == CONSTANT ? check_constant(self, len) : check_other(self, len, value))
		return 1;
	if (plan(&p, self, pad, len) || pb_store_scalar(p.value, self->dtype, value ? *value : 0))
		return 1;
	if (p.mode == CONSTANT && only_crops(pad, len))
		return crop(&p, self, ret0);
	tables = make_tables(&p, self);
	if (!tables)
		return 1;
	out = pb_empty_format(self->dtype, p.ndim, p.sizes,
			      p.mode == CIRCULAR ? PB_FORMAT_CONTIGUOUS
						 : pb_suggested_format(self));
	if (out) {
		memcpy(p.strides, out->strides, sizeof(p.strides));
		if (out->numel)
			fill(&p, 0, pb_rt_data(out), self->numel ? pb_rt_data(self) : NULL);
		*ret0 = out;
	}
	pb_rt_scratch_free(tables);
	return !out;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_pad(AtenTensorHandle self, const int64_t *pad,
					      int64_t pad_len_, const char *mode, double *value,
					      AtenTensorHandle *ret0)
{
	return pad_tensor(self, pad, pad_len_, mode, value, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_aten_pad(AtenTensorHandle self, const int64_t *pad,
					       int64_t pad_len_, const char *mode, double *value,
					       AtenTensorHandle *ret0)
{
	return pad_tensor(self, pad, pad_len_, mode, value, ret0);
}
