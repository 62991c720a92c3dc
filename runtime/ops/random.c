/* SPDX-License-Identifier: Apache-2.0 */
/* rand, randn, randint, randperm and the like: the operators; the draws are in random_draw.c. */
#include "runtime/ops/random.h"

#include <string.h>

#include "runtime/ops/layout.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/random_draw.h"
#include "runtime/random.h"

/* Gives up @t. */
static int filled_take(struct pb_rt_tensor *t, const struct pb_draw *d, AtenTensorHandle *ret0)
{
	if (!t || pb_draw_fill(t, d)) {
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
		      const int32_t *device, AtenGeneratorHandle *generator,
		      const struct pb_draw *d, AtenTensorHandle *ret0)
{
	if (check_options(layout, device, generator))
		return 1;
	return filled_take(pb_rt_empty(dtype, n, size, NULL), d, ret0);
}

static int like_filled(const struct pb_rt_tensor *self, const int32_t *dtype, const int32_t *layout,
		       const int32_t *device, AtenGeneratorHandle *generator, const int32_t *format,
		       const struct pb_draw *d, AtenTensorHandle *ret0)
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

static const struct pb_draw unit = {.kind = PB_DRAW_UNIFORM, .from = 0, .to = 1};
static const struct pb_draw standard = {.kind = PB_DRAW_NORMAL, .from = 0, .to = 1};

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
	struct pb_draw d;

	UNUSED;
	if (pb_draw_range(low, high, or_default(dtype, PB_RT_F32), &d))
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
	struct pb_draw d;

	UNUSED;
	if (pb_draw_range(0, high, or_default(dtype, PB_RT_F32), &d))
		return 1;
	return new_filled(size, size_len_, or_default(dtype, PB_RT_F32), layout, device, generator,
			  &d, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_randint_low_out(AtenTensorHandle out, int64_t low,
							  int64_t high, const int64_t *size,
							  int64_t size_len_)
{
	struct pb_draw d;

	if (pb_draw_range(low, high, out->dtype, &d))
		return 1;
	if (size_len_ < 0 || size_len_ > PB_RT_MAX_DIMS)
		return pb_rt_fail("randint: more than %d dimensions", PB_RT_MAX_DIMS);
	return pb_resize_output(out, (int)size_len_, size) || pb_draw_fill(out, &d);
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
	struct pb_draw d;

	UNUSED;
	if (pb_draw_range(low, high, or_default(dtype, self->dtype), &d))
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
	const struct pb_draw d = {.kind = PB_DRAW_UNIFORM, .from = from, .to = to};

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
	const struct pb_draw d = {.kind = PB_DRAW_NORMAL, .from = mean, .to = std};

	if (std < 0)
		return pb_rt_fail("normal expects std >= 0.0, but found std %g", std);
	return like_filled(self, NULL, NULL, NULL, generator, NULL, &d, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_exponential(AtenTensorHandle self, double lambd,
						      AtenGeneratorHandle *generator,
						      AtenTensorHandle *ret0)
{
	const struct pb_draw d = {.kind = PB_DRAW_EXPONENTIAL, .to = lambd};

	if (!(lambd > 0))
		return pb_rt_fail("exponential_ expects lambda > 0.0, but found lambda=%g", lambd);
	return like_filled(self, NULL, NULL, NULL, generator, NULL, &d, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_bernoulli__float(AtenTensorHandle self, double p,
							   AtenGeneratorHandle *generator)
{
	const struct pb_draw d = {.kind = PB_DRAW_BERNOULLI, .to = p};

	if (!(p >= 0 && p <= 1))
		return pb_rt_fail("bernoulli_ expects p to be in [0, 1], but got p=%g", p);
	return check_options(NULL, NULL, generator) || pb_no_internal_overlap(self) ||
	       pb_draw_fill(self, &d);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_bernoulli__Tensor(AtenTensorHandle self,
							    AtenTensorHandle p,
							    AtenGeneratorHandle *generator)
{
	int64_t strides[PB_RT_MAX_DIMS];
	struct pb_rt_tensor *wide, *spread = NULL;
	int rc;

	if (check_options(NULL, NULL, generator) || pb_no_internal_overlap(self))
		return 1;
	if (!pb_is_float(p->dtype))
		return pb_rt_fail("bernoulli_: expected probabilities of a floating type, got %s",
				  pb_rt_dtype_name(p->dtype));
	if (!pb_expand_strides(p, self->ndim, self->sizes, strides))
		return pb_rt_fail("bernoulli_: probabilities %s cannot be expanded to %s",
				  PB_SHAPE(p), PB_SHAPE(self));
	wide = pb_as_dtype(p, p->dtype == PB_RT_F64 ? PB_RT_F64 : PB_RT_F32);
	if (wide && pb_expand_strides(wide, self->ndim, self->sizes, strides))
		spread = pb_rt_alias(wide, self->ndim, self->sizes, strides, wide->offset);
	rc = !spread || pb_draw_bernoulli(self, spread);
	pb_rt_delete(wide);
	pb_rt_delete(spread);
	return rc;
}

/* ---- dropout ---- */

/* input * mask * scale, rounded after each product. */
static struct pb_rt_tensor *masked(const struct pb_rt_tensor *input, struct pb_rt_tensor *mask,
				   double scale)
{
	AtenTensorHandle product = NULL, scaled = NULL;

	if (aoti_torch_cpu_mul_Tensor((AtenTensorHandle)input, mask, &product))
		return NULL;
	if (aoti_torch_cpu_mul_Scalar(product, scale, &scaled))
		scaled = NULL;
	pb_rt_delete(product);
	return scaled;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu_native_dropout(AtenTensorHandle input, double p,
							 int32_t *train, AtenTensorHandle *ret0,
							 AtenTensorHandle *ret1)
{
	const bool drops = input->numel && (!train || *train);
	/* PyTorch's mask of nothing has the input's type. */
	const int32_t mask_dtype = input->numel ? PB_RT_BOOL : input->dtype;
	const struct pb_draw keep = {.kind = PB_DRAW_BERNOULLI, .to = drops ? 1 - p : 1};
	const double scale = keep.to == 0 ? 0 : 1 / keep.to;
	struct pb_rt_tensor *mask, *out = NULL;

	if (drops && !(p >= 0 && p <= 1))
		return pb_rt_fail("bernoulli_ expects p to be in [0, 1], but got p=%g", 1 - p);
	mask = pb_empty_like(input, mask_dtype);
	if (mask && !drops && mask->numel)
		memset(pb_rt_data(mask), 1, (size_t)mask->numel);
	if (mask && (!drops || !pb_draw_fill(mask, &keep)))
		out = drops ? masked(input, mask, scale) : pb_clone(input);
	if (!out) {
		pb_rt_delete(mask);
		return 1;
	}
	*ret0 = out;
	*ret1 = mask;
	return 0;
}
