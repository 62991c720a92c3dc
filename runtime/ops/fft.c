/* SPDX-License-Identifier: Apache-2.0 */
/*
 * _fft_r2c and _fft_c2c, with the layouts of aten/src/ATen/native/mkl/SpectralOps.cpp. Everything
 * is transformed as double complex, a dimension after the other, and rounded once.
 */
#include "runtime/ops/fft.h"

#include <math.h>
#include <string.h>

#include "runtime/ops/fft_line.h"
#include "runtime/ops/layout.h"
#include "runtime/ops/walk.h"

/* Along @dim of a contiguous tensor of complex128. */
static int transform_dim(struct pb_rt_tensor *t, int dim, bool forward, double scale)
{
	const int64_t n = t->sizes[dim], stride = t->strides[dim];
	double complex *line = pb_rt_scratch((size_t)n * sizeof(*line));
	struct pb_fft *f = line ? pb_fft_new(n, forward) : NULL;
	struct pb_walk w;

	if (!f) {
		pb_rt_scratch_free(line);
		return 1;
	}
	pb_walk_init(&w, t->ndim, t->sizes);
	pb_walk_add(&w, t->strides);
	pb_walk_drop(&w, dim);
	for (; w.left; pb_walk_next(&w)) {
		double complex *p = (double complex *)pb_rt_data(t) + w.off[0];

		for (int64_t i = 0; i < n; i++)
			line[i] = p[i * stride];
		pb_fft_run(f, line);
		for (int64_t i = 0; i < n; i++)
			p[i * stride] = line[i] * scale;
	}
	pb_fft_free(f);
	pb_rt_scratch_free(line);
	return 0;
}

static int wrap_dims(const struct pb_rt_tensor *self, const int64_t *dim, int64_t n, int *ret_dims)
{
	bool seen[PB_RT_MAX_DIMS] = {false};

	if (n > self->ndim)
		return pb_rt_fail("_fft: more dimensions to transform than there are");
	for (int64_t i = 0; i < n; i++) {
		if (pb_wrap_dim(dim[i], self->ndim, &ret_dims[i]))
			return 1;
		if (seen[ret_dims[i]])
			return pb_rt_fail("FFT dims must be unique");
		seen[ret_dims[i]] = true;
		if (self->sizes[ret_dims[i]] < 1)
			return pb_rt_fail("FFT: invalid number of data points (%lld) specified",
					  (long long)self->sizes[ret_dims[i]]);
	}
	return 0;
}

static int scale_for(const struct pb_rt_tensor *self, const int *dims, int64_t n,
		     int64_t normalization, double *ret)
{
	double points = 1;

	for (int64_t i = 0; i < n; i++)
		points *= (double)self->sizes[dims[i]];
	if (normalization < 0 || normalization > 2)
		return pb_rt_fail("Unsupported normalization type %lld", (long long)normalization);
	*ret = normalization == 0 ? 1 : normalization == 1 ? 1 / sqrt(points) : 1 / points;
	return 0;
}

/* Larger strides first; of equal ones the order stays. */
static void sort_by_stride(const struct pb_rt_tensor *t, int *dims, int64_t n)
{
	for (int64_t i = 1; i < n; i++) {
		for (int64_t k = i; k > 0 && t->strides[dims[k]] > t->strides[dims[k - 1]]; k--) {
			const int d = dims[k];

			dims[k] = dims[k - 1];
			dims[k - 1] = d;
		}
	}
}

/* std::partition: dimensions that are not transformed to the front. Returns how many. */
static int partition(int *perm, int n, const bool *transformed)
{
	int first = 0, last = n;

	for (;;) {
		int d;

		while (first != last && !transformed[perm[first]])
			first++;
		if (first == last)
			return first;
		last--;
		while (first != last && transformed[perm[last]])
			last--;
		if (first == last)
			return first;
		d = perm[first];
		perm[first++] = perm[last];
		perm[last] = d;
	}
}

/* Strides of the result: a batch in the order of the input's strides, then the transformed
 * dimensions. */
static void result_strides(const struct pb_rt_tensor *self, const int *dims, int64_t n,
			   const int64_t *sizes, int64_t *ret)
{
	bool transformed[PB_RT_MAX_DIMS] = {false};
	int perm[PB_RT_MAX_DIMS], batch;
	int64_t step = 1;

	for (int d = 0; d < self->ndim; d++)
		perm[d] = d;
	for (int64_t i = 0; i < n; i++)
		transformed[dims[i]] = true;
	batch = partition(perm, self->ndim, transformed);
	sort_by_stride(self, perm, batch);
	memcpy(perm + batch, dims, (size_t)n * sizeof(*dims));
	for (int i = self->ndim - 1; i >= 0; i--) {
		ret[perm[i]] = step;
		step *= i >= batch && sizes[perm[i]] < 1 ? 1 : sizes[perm[i]];
	}
}

/* @half: the last of @dims keeps its first half only. */
static int fft(const struct pb_rt_tensor *self, const int *dims, int64_t n, double scale,
	       bool forward, bool half, int32_t dtype, AtenTensorHandle *ret0)
{
	int64_t sizes[PB_RT_MAX_DIMS], strides[PB_RT_MAX_DIMS];
	struct pb_rt_tensor *wide = pb_clone_as(self, PB_RT_C128), *part = NULL, *out = NULL;
	int sorted[PB_RT_MAX_DIMS], rc = !wide;

	for (int64_t i = 0; i < n && !rc && self->numel; i++)
		rc = transform_dim(wide, dims[i], forward, i == 0 ? scale : 1);
	memcpy(sizes, self->sizes, sizeof(sizes));
	memcpy(sorted, dims, (size_t)n * sizeof(*dims));
	if (half)
		sizes[dims[n - 1]] = sizes[dims[n - 1]] / 2 + 1;
	/* The half dimension is the innermost one whatever its stride. */
	sort_by_stride(self, sorted, dtype == self->dtype ? n : n - 1);
	result_strides(self, sorted, n, sizes, strides);
	if (!rc)
		part = pb_rt_alias(wide, self->ndim, sizes, wide->strides, 0);
	if (part)
		out = pb_rt_empty(dtype, self->ndim, sizes, strides);
	rc = !out || pb_rt_copy(out, part);
	pb_rt_delete(wide);
	pb_rt_delete(part);
	if (rc)
		pb_rt_delete(out);
	else
		*ret0 = out;
	return rc;
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__fft_r2c(AtenTensorHandle self, const int64_t *dim,
						   int64_t dim_len_, int64_t normalization,
						   int32_t onesided, AtenTensorHandle *ret0)
{
	int dims[PB_RT_MAX_DIMS];
	double scale = 1;

	if (self->dtype != PB_RT_F32 && self->dtype != PB_RT_F64)
		return pb_rt_fail("Unsupported dtype %s", pb_scalar_name(self->dtype));
	if (dim_len_ < 1)
		return pb_rt_fail("_fft_r2c: no dimension to transform");
	if (wrap_dims(self, dim, dim_len_, dims) ||
	    scale_for(self, dims, dim_len_, normalization, &scale))
		return 1;
	return fft(self, dims, dim_len_, scale, true, onesided != 0,
		   self->dtype == PB_RT_F32 ? PB_RT_C64 : PB_RT_C128, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch_cpu__fft_c2c(AtenTensorHandle self, const int64_t *dim,
						   int64_t dim_len_, int64_t normalization,
						   int32_t forward, AtenTensorHandle *ret0)
{
	int dims[PB_RT_MAX_DIMS];
	double scale = 1;

	if (self->dtype != PB_RT_C64 && self->dtype != PB_RT_C128)
		return pb_rt_fail("Unsupported dtype %s", pb_scalar_name(self->dtype));
	if (dim_len_ == 0) {
		struct pb_rt_tensor *copy = pb_clone(self);

		*ret0 = copy ? copy : *ret0;
		return !copy;
	}
	if (wrap_dims(self, dim, dim_len_, dims) ||
	    scale_for(self, dims, dim_len_, normalization, &scale))
		return 1;
	return fft(self, dims, dim_len_, scale, forward != 0, false, self->dtype, ret0);
}

AOTI_EXPORT AOTITorchError aoti_torch__fft_c2c(AtenTensorHandle self, const int64_t *dim_ptr,
					       int64_t dim_size, int64_t normalization,
					       int32_t forward, AtenTensorHandle *ret)
{
	return aoti_torch_cpu__fft_c2c(self, dim_ptr, dim_size, normalization, forward, ret);
}
