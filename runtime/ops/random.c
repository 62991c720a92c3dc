/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rand, randn, randint, randperm: the draws of ATen/core/TransformationHelper.h and
 * native/cpu/DistributionTemplates.h, in their order, so that a seed gives PyTorch's numbers. What
 * draws through MKL in PyTorch (bernoulli, dropout, exponential) is not here.
 */
#include "runtime/ops/random.h"

#include <math.h>

#include "runtime/convert.h"
#include "runtime/ops/gemm.h"
#include "runtime/ops/layout.h"
#include "runtime/ops/walk.h"
#include "runtime/random.h"

/* Ranges from here on take 64 bits, so that the remainder is nearly even. */
#define WIDE_RANGE (UINT64_C(1) << 28)

struct draw {
	int kind;
	uint64_t range;
	int64_t base;
	double from, to; /* also mean and standard deviation */
};

enum { DRAW_INT, DRAW_UNIFORM, DRAW_NORMAL };

/* ---- one number ---- */

static int64_t draw_int(const struct draw *d)
{
	const uint64_t r = d->range >= WIDE_RANGE ? pb_rt_random64() : pb_rt_random32();

	return (int64_t)(r % d->range + (uint64_t)d->base);
}

static double uniform_double(double from, double to)
{
	const double x = (double)(pb_rt_random64() & ((UINT64_C(1) << 53) - 1)) * 0x1p-53;

	return x * (to - from) + from;
}

static float uniform_float(float from, float to)
{
	const float x = (float)(pb_rt_random32() & ((UINT32_C(1) << 24) - 1)) * 0x1p-24f;

	return x * (to - from) + from;
}

static double draw_uniform(const struct draw *d, int32_t dtype)
{
	float x;

	if (dtype == PB_RT_F64)
		return uniform_double(d->from, d->to);
	x = uniform_float((float)d->from, (float)d->to);
	if (pb_is_16bit(dtype)) {
		uint16_t narrow;

		/* Rounded up to the end of the range, which is not in it. */
		pb_gemm_round(&narrow, dtype, &x, 1);
		pb_gemm_widen(&x, &narrow, dtype, 1);
		x = x == (float)d->to ? (float)d->from : x;
	}
	return (double)x;
}

/* Box-Muller makes two; the second one is kept for the next call, until a seed. */
static double draw_normal(const struct draw *d)
{
	static double kept;
	static uint64_t kept_epoch = UINT64_MAX;
	double u1, u2, r, theta;

	if (kept_epoch == pb_rt_random_epoch()) {
		kept_epoch = UINT64_MAX;
		return kept * d->to + d->from;
	}
	u1 = uniform_double(0, 1);
	u2 = uniform_double(0, 1);
	r = sqrt(-2 * log1p(-u2));
	theta = 2 * M_PI * u1;
	kept = r * sin(theta);
	kept_epoch = pb_rt_random_epoch();
	return r * cos(theta) * d->to + d->from;
}

/* ---- a tensor, in the order of its memory ---- */

static int store_int(char *p, int32_t dtype, int64_t v)
{
	return pb_rt_convert(p, dtype, 1, &v, PB_RT_I64, 1, 1);
}

static int fill_serial(struct pb_rt_tensor *t, const struct draw *d)
{
	const int64_t size = (int64_t)pb_rt_dtype_size(t->dtype);
	struct pb_walk w;

	pb_walk_init(&w, t->ndim, t->sizes);
	pb_walk_add(&w, t->strides);
	pb_walk_by_stride(&w);
	for (; w.left; pb_walk_next(&w)) {
		char *p = (char *)pb_rt_data(t) + w.off[0] * size;
		const int rc = d->kind == DRAW_INT
				       ? store_int(p, t->dtype, draw_int(d))
				       : pb_store_scalar(p, t->dtype,
							 d->kind == DRAW_NORMAL
								 ? draw_normal(d)
								 : draw_uniform(d, t->dtype));

		if (rc)
			return 1;
	}
	return 0;
}

/* Sixteen uniform numbers become normal ones: element i with element i + 8. */
#define NORMAL_16(name, type, log_fn, sqrt_fn, cos_fn, sin_fn)              \
	static void name(type *v, type mean, type std)                      \
	{                                                                   \
		for (int i = 0; i < 8; i++) {                               \
			const type radius = sqrt_fn(-2 * log_fn(1 - v[i])); \
			const type theta = (type)(2 * M_PI) * v[i + 8];     \
			v[i] = radius * cos_fn(theta) * std + mean;         \
			v[i + 8] = radius * sin_fn(theta) * std + mean;     \
		}                                                           \
	}

NORMAL_16(normal_16_f32, float, logf, sqrtf, cosf, sinf)
NORMAL_16(normal_16_f64, double, log, sqrt, cos, sin)

/* The last sixteen are drawn again where the length is not a multiple. */
#define FILL_NORMAL(name, type, uniform, block)                   \
	static void name(type *v, int64_t n, type mean, type std) \
	{                                                         \
		for (int64_t i = 0; i < n; i++)                   \
			v[i] = uniform;                           \
		for (int64_t i = 0; i + 16 <= n; i += 16)         \
			block(v + i, mean, std);                  \
		for (int i = 0; n % 16 && i < 16; i++)            \
			v[n - 16 + i] = uniform;                  \
		if (n % 16)                                       \
			block(v + n - 16, mean, std);             \
	}

FILL_NORMAL(fill_normal_f32, float, uniform_float(0, 1), normal_16_f32)
FILL_NORMAL(fill_normal_f64, double, uniform_double(0, 1), normal_16_f64)

static int fill(struct pb_rt_tensor *t, const struct draw *d)
{
	if (d->kind != DRAW_INT && t->dtype != PB_RT_F32 && t->dtype != PB_RT_F64 &&
	    (d->kind == DRAW_NORMAL || !pb_is_16bit(t->dtype)))
		return pb_not_implemented(d->kind == DRAW_NORMAL ? "normal_kernel_cpu"
								 : "check_uniform_bounds",
					  t->dtype);
	if (d->kind != DRAW_NORMAL || t->numel < 16 || !pb_rt_is_contiguous(t))
		return fill_serial(t, d);
	if (t->dtype == PB_RT_F32)
		fill_normal_f32(pb_rt_data(t), t->numel, (float)d->from, (float)d->to);
	else
		fill_normal_f64(pb_rt_data(t), t->numel, d->from, d->to);
	return 0;
}

/* Gives up @t. */
static int filled_take(struct pb_rt_tensor *t, const struct draw *d, AtenTensorHandle *ret0)
{
	if (!t || fill(t, d)) {
		pb_rt_delete(t);
		return 1;
	}
	*ret0 = t;
	return 0;
}

/* ---- arguments ---- */

static int check_options(const int32_t *layout, const int32_t *device,
			 AtenGeneratorHandle *generator)
{
	if ((layout && *layout) || (device && *device))
		return pb_rt_fail("random tensors are strided and on the CPU here");
	return generator && *generator
		       ? pb_rt_fail("generators other than the default one are not supported")
		       : 0;
}

static int new_filled(const int64_t *size, int64_t n, int32_t dtype, const int32_t *layout,
		      const int32_t *device, AtenGeneratorHandle *generator, const struct draw *d,
		      AtenTensorHandle *ret0)
{
	if (check_options(layout, device, generator))
		return 1;
	return filled_take(pb_rt_empty(dtype, n, size, NULL), d, ret0);
}

static int like_filled(const struct pb_rt_tensor *self, const int32_t *dtype, const int32_t *layout,
		       const int32_t *device, AtenGeneratorHandle *generator, const int32_t *format,
		       const struct draw *d, AtenTensorHandle *ret0)
{
	const int32_t type = dtype ? *dtype : self->dtype;

	if (check_options(layout, device, generator))
		return 1;
	if (format && *format != PB_FORMAT_PRESERVE)
		return filled_take(
			pb_empty_format(type, self->ndim, self->sizes, (enum pb_format) * format),
			d, ret0);
	return filled_take(pb_empty_like(self, type), d, ret0);
}

static const struct draw unit = {.kind = DRAW_UNIFORM, .from = 0, .to = 1};
static const struct draw standard = {.kind = DRAW_NORMAL, .from = 0, .to = 1};

/* Position of the highest bit. */
static int log2_floor(uint64_t x)
{
	return x ? 63 - __builtin_clzll(x) : 0;
}

/* Bounds that floats of @digits bits can hold, as PyTorch narrows them. */
static void float_bounds(int digits, int64_t *from, int64_t *to)
{
	const double unit_to = ldexp(1, log2_floor((uint64_t)*to - 1) - digits + 1);
	const double last =
		unit_to > 1 ? nearbyint((double)(*to - 1) / unit_to) * unit_to : (double)(*to - 1);
	const uint64_t low = *from < 0 ? 0 - ((uint64_t)*from + 1) : (uint64_t)*from + 1;
	const double unit_from = ldexp(1, log2_floor(low) - digits + 1);
	const double first = unit_from > 1 ? nearbyint((double)(*from + 1) / unit_from) * unit_from
					   : (double)(*from + 1);

	if (*to > 1 && last >= (double)*to)
		*to -= (int64_t)unit_to;
	if (first < (double)*from)
		*from = (int64_t)first + (int64_t)unit_from;
}

static int check_int_bounds(int32_t dtype, int64_t low, int64_t high)
{
	const int bits = 8 * (int)pb_rt_dtype_size(dtype);
	const int64_t min = dtype == PB_RT_U8 || dtype == PB_RT_BOOL ? 0
			    : bits == 64			     ? INT64_MIN
								     : -(INT64_C(1) << (bits - 1));
	const int64_t max = dtype == PB_RT_BOOL ? 1
			    : dtype == PB_RT_U8 ? 255
			    : bits == 64	? INT64_MAX
						: (INT64_C(1) << (bits - 1)) - 1;

	if (low < min || low > max)
		return pb_rt_fail("from is out of bounds for %s", pb_rt_dtype_name(dtype));
	if (high - 1 > max)
		return pb_rt_fail("to - 1 is out of bounds for %s", pb_rt_dtype_name(dtype));
	return 0;
}

static int int_range(int64_t low, int64_t high, int32_t dtype, struct draw *ret)
{
	if (low >= high)
		return pb_rt_fail(
			"random_ expects 'from' to be less than 'to', but got from=%lld >= to=%lld",
			(long long)low, (long long)high);
	if (pb_is_float(dtype))
		float_bounds(dtype == PB_RT_F64	  ? 53
			     : dtype == PB_RT_F32 ? 24
			     : dtype == PB_RT_F16 ? 11
						  : 8,
			     &low, &high);
	else if (dtype > PB_RT_I64 && dtype != PB_RT_BOOL)
		return pb_not_implemented("random_from_to", dtype);
	else if (check_int_bounds(dtype, low, high))
		return 1;
	if (low >= high)
		return pb_rt_fail("random_ expects 'from' casted to dtype to be less than 'to' "
				  "casted to dtype, but got from=%lld "
				  ">= to=%lld",
				  (long long)low, (long long)high);
	*ret = (struct draw){
		.kind = DRAW_INT, .range = (uint64_t)high - (uint64_t)low, .base = low};
	return 0;
}

static int32_t or_default(const int32_t *dtype, int32_t otherwise)
{
	return dtype ? *dtype : otherwise;
}

#define UNUSED (void)device_index_, (void)pin_memory

AOTI_EXPORT AOTITorchError aoti_torch_cpu_rand(const int64_t *size, int64_t size_len_, PB_OPTIONS,
					       AtenTensorHandle *ret0)
{
	UNUSED;
	return new_filled(size, size_len_, or_default(dtype, PB_RT_F32), layout, device, NULL,
			  &unit, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_rand_generator(const int64_t *size, int64_t size_len_,
							 AtenGeneratorHandle *generator, PB_OPTIONS,
							 AtenTensorHandle *ret0)
{
	UNUSED;
	return new_filled(size, size_len_, or_default(dtype, PB_RT_F32), layout, device, generator,
			  &unit, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_rand_like(AtenTensorHandle self, PB_OPTIONS,
						    int32_t *memory_format, AtenTensorHandle *ret0)
{
	UNUSED;
	return like_filled(self, dtype, layout, device, NULL, memory_format, &unit, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_rand_like_generator(AtenTensorHandle self,
							      AtenGeneratorHandle *generator,
							      PB_OPTIONS, int32_t *memory_format,
							      AtenTensorHandle *ret0)
{
	UNUSED;
	return like_filled(self, dtype, layout, device, generator, memory_format, &unit, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_randn(const int64_t *size, int64_t size_len_, PB_OPTIONS,
						AtenTensorHandle *ret0)
{
	UNUSED;
	return new_filled(size, size_len_, or_default(dtype, PB_RT_F32), layout, device, NULL,
			  &standard, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_randn_generator(const int64_t *size, int64_t size_len_,
							  AtenGeneratorHandle *generator,
							  PB_OPTIONS, AtenTensorHandle *ret0)
{
	UNUSED;
	return new_filled(size, size_len_, or_default(dtype, PB_RT_F32), layout, device, generator,
			  &standard, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_randn_like(AtenTensorHandle self, PB_OPTIONS,
						     int32_t *memory_format, AtenTensorHandle *ret0)
{
	UNUSED;
	return like_filled(self, dtype, layout, device, NULL, memory_format, &standard, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_randn_like_generator(AtenTensorHandle self,
							       AtenGeneratorHandle *generator,
							       PB_OPTIONS, int32_t *memory_format,
							       AtenTensorHandle *ret0)
{
	UNUSED;
	return like_filled(self, dtype, layout, device, generator, memory_format, &standard, ret0);
}

/* The schema's default of int64 is the Python binding's affair: here nothing means float. */
AOTI_EXPORT AOTITorchError aoti_torch_cpu_randint_low(int64_t low, int64_t high,
						      const int64_t *size, int64_t size_len_,
						      PB_OPTIONS, AtenTensorHandle *ret0)
{
	struct draw d;

	UNUSED;
	if (int_range(low, high, or_default(dtype, PB_RT_F32), &d))
		return 1;
	return new_filled(size, size_len_, or_default(dtype, PB_RT_F32), layout, device, NULL, &d,
			  ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_randint(int64_t high, const int64_t *size,
						  int64_t size_len_, PB_OPTIONS,
						  AtenTensorHandle *ret0)
{
	return aoti_torch_cpu_randint_low(0, high, size, size_len_, dtype, layout, device,
					  device_index_, pin_memory, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_randint_generator(int64_t high, const int64_t *size,
							    int64_t size_len_,
							    AtenGeneratorHandle *generator,
							    PB_OPTIONS, AtenTensorHandle *ret0)
{
	struct draw d;

	UNUSED;
	if (int_range(0, high, or_default(dtype, PB_RT_F32), &d))
		return 1;
	return new_filled(size, size_len_, or_default(dtype, PB_RT_F32), layout, device, generator,
			  &d, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_randint_low_out(AtenTensorHandle out, int64_t low,
							  int64_t high, const int64_t *size,
							  int64_t size_len_)
{
	struct draw d;

	if (int_range(low, high, out->dtype, &d))
		return 1;
	if (size_len_ < 0 || size_len_ > PB_RT_MAX_DIMS)
		return pb_rt_fail("randint: more than %d dimensions", PB_RT_MAX_DIMS);
	return pb_resize_output(out, (int)size_len_, size) || fill(out, &d);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_randint_like(AtenTensorHandle self, int64_t high,
						       PB_OPTIONS, int32_t *memory_format,
						       AtenTensorHandle *ret0)
{
	return aoti_torch_cpu_randint_like_low_dtype(self, 0, high, dtype, layout, device,
						     device_index_, pin_memory, memory_format,
						     ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_randint_like_low_dtype(AtenTensorHandle self, int64_t low,
								 int64_t high, PB_OPTIONS,
								 int32_t *memory_format,
								 AtenTensorHandle *ret0)
{
	struct draw d;

	UNUSED;
	if (int_range(low, high, or_default(dtype, self->dtype), &d))
		return 1;
	return like_filled(self, dtype, layout, device, NULL, memory_format, &d, ret0);
}

/* Fisher and Yates, from the front. */
AOTI_EXPORT AOTITorchError aoti_torch_cpu_randperm(int64_t n, PB_OPTIONS, AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *t, *out;
	int64_t *v;

	UNUSED;
	if (n < 0)
		return pb_rt_fail("n must be non-negative, got%lld", (long long)n);
	if (check_options(layout, device, NULL))
		return 1;
	t = pb_rt_empty(PB_RT_I64, 1, &n, NULL);
	if (!t)
		return 1;
	v = pb_rt_data(t);
	for (int64_t i = 0; i < n; i++)
		v[i] = i;
	for (int64_t i = 0; i < n - 1; i++) {
		const int64_t k = i + (int64_t)(pb_rt_random32() % (uint64_t)(n - i)), x = v[i];

		v[i] = v[k];
		v[k] = x;
	}
	out = pb_as_dtype(t, or_default(dtype, PB_RT_I64));
	pb_rt_delete(t);
	if (!out)
		return 1;
	*ret0 = out;
	return 0;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_uniform(AtenTensorHandle self, double from, double to,
						  AtenGeneratorHandle *generator,
						  AtenTensorHandle *ret0)
{
	const struct draw d = {.kind = DRAW_UNIFORM, .from = from, .to = to};

	if (from > to)
		return pb_rt_fail(
			"uniform_ expects to return a [from, to) range, but found from=%g > to=%g",
			from, to);
	return like_filled(self, NULL, NULL, NULL, generator, NULL, &d, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_normal_functional(AtenTensorHandle self, double mean,
							    double std,
							    AtenGeneratorHandle *generator,
							    AtenTensorHandle *ret0)
{
	const struct draw d = {.kind = DRAW_NORMAL, .from = mean, .to = std};

	if (std < 0)
		return pb_rt_fail("normal expects std >= 0.0, but found std %g", std);
	return like_filled(self, NULL, NULL, NULL, generator, NULL, &d, ret0);
}
