/* SPDX-License-Identifier: Apache-2.0 */
/* See fft_line.h. Decimation in time by the prime factors of the length; Bluestein's algorithm
 * where one is large. */
#include "runtime/ops/fft_line.h"

#include <math.h>
#include <string.h>

#include "runtime/tensor.h"

#define LARGEST_FACTOR 61

static double complex times(double complex x, double complex y)
{
	const double a = creal(x), b = cimag(x), c = creal(y), d = cimag(y);

	return CMPLX(a * c - b * d, a * d + b * c);
}

/* exp(-+2 pi i k / n); the angle is reduced first, so that long transforms stay exact. */
static double complex root(int64_t k, int64_t n, bool forward)
{
	const double angle = 2 * M_PI * (double)(k % n) / (double)n;

	return CMPLX(cos(angle), forward ? -sin(angle) : sin(angle));
}

static int64_t factor(int64_t n)
{
	if (n % 4 == 0)
		return 4;
	for (int64_t p = 2; p * p <= n; p++)
		if (n % p == 0)
			return p;
	return n;
}

static int64_t largest_factor(int64_t n)
{
	int64_t largest = 1;

	while (n > 1) {
		const int64_t p = factor(n);

		largest = p > largest ? p : largest;
		n /= p;
	}
	return largest;
}

/* ---- combining p transforms of length m into one of p * m ---- */

static void combine_2(double complex *x, int64_t m, const double complex *roots, int64_t step)
{
	for (int64_t j = 0; j < m; j++) {
		const double complex a = x[j], b = times(x[m + j], roots[j * step]);

		x[j] = a + b;
		x[m + j] = a - b;
	}
}

static void combine_4(double complex *x, int64_t m, const double complex *roots, int64_t step,
		      bool forward)
{
	for (int64_t j = 0; j < m; j++) {
		const double complex a = x[j], b = times(x[m + j], roots[j * step]),
				     c = times(x[2 * m + j], roots[2 * j * step]),
				     d = times(x[3 * m + j], roots[3 * j * step]);
		const double complex s = a + c, t = a - c, u = b + d, v = b - d;
		/* v times -i or i */
		const double complex w =
			forward ? CMPLX(cimag(v), -creal(v)) : CMPLX(-cimag(v), creal(v));

		x[j] = s + u;
		x[m + j] = t + w;
		x[2 * m + j] = s - u;
		x[3 * m + j] = t - w;
	}
}

static void combine_any(double complex *x, int64_t m, int64_t p, const double complex *roots,
			int64_t step, int64_t n)
{
	double complex t[LARGEST_FACTOR];

	for (int64_t j = 0; j < m; j++) {
		for (int64_t k = 0; k < p; k++)
			t[k] = times(x[k * m + j], roots[k * j * step]);
		for (int64_t q = 0; q < p; q++) {
			double complex sum = t[0];

			for (int64_t k = 1; k < p; k++)
				sum += times(t[k], roots[k * q % p * (n / p)]);
			x[q * m + j] = sum;
		}
	}
}

/* @step: of the roots of unity, of which there are f->n. */
static void transform(const struct pb_fft *f, double complex *out, const double complex *in,
		      int64_t stride, int64_t n)
{
	const int64_t p = factor(n), m = n / p, step = f->n / n;

	if (n == 1) {
		*out = *in;
		return;
	}
	for (int64_t k = 0; k < p; k++)
		transform(f, out + k * m, in + k * stride, stride * p, m);
	if (p == 2)
		combine_2(out, m, f->roots, step);
	else if (p == 4)
		combine_4(out, m, f->roots, step, f->forward);
	else
		combine_any(out, m, p, f->roots, step, f->n);
}

/* ---- Bluestein ---- */

static void bluestein(struct pb_fft *f, double complex *x)
{
	const int64_t n = f->n, size = f->inner->n;

	for (int64_t i = 0; i < size; i++)
		f->padded[i] = i < n ? times(x[i], f->chirp[i]) : 0;
	pb_fft_run(f->inner, f->padded);
	/* The inverse by a forward transform: conjugate before and after. */
	for (int64_t i = 0; i < size; i++)
		f->padded[i] = conj(times(f->padded[i], f->kernel[i]));
	pb_fft_run(f->inner, f->padded);
	for (int64_t i = 0; i < n; i++)
		x[i] = times(conj(f->padded[i]) / (double)size, f->chirp[i]);
}

static int init_bluestein(struct pb_fft *f)
{
	const int64_t n = f->n;
	int64_t size = 1;

	while (size < 2 * n - 1)
		size *= 2;
	f->inner = pb_fft_new(size, true);
	f->chirp = pb_rt_scratch((size_t)n * sizeof(*f->chirp));
	f->kernel = pb_rt_scratch((size_t)size * sizeof(*f->kernel));
	f->padded = pb_rt_scratch((size_t)size * sizeof(*f->padded));
	if (!f->inner || !f->chirp || !f->kernel || !f->padded)
		return 1;
	memset(f->kernel, 0, (size_t)size * sizeof(*f->kernel));
	for (int64_t i = 0; i < n; i++) {
		/* i * i modulo 2 n */
		f->chirp[i] = root((int64_t)((unsigned __int128)i * (unsigned __int128)i %
					     (unsigned __int128)(2 * n)),
				   2 * n, f->forward);
		f->kernel[i] = conj(f->chirp[i]);
		if (i)
			f->kernel[size - i] = f->kernel[i];
	}
	pb_fft_run(f->inner, f->kernel);
	return 0;
}

static int init_direct(struct pb_fft *f)
{
	f->roots = pb_rt_scratch((size_t)f->n * sizeof(*f->roots));
	f->work = pb_rt_scratch((size_t)f->n * sizeof(*f->work));
	if (!f->roots || !f->work)
		return 1;
	for (int64_t k = 0; k < f->n; k++)
		f->roots[k] = root(k, f->n, f->forward);
	return 0;
}

struct pb_fft *pb_fft_new(int64_t n, bool forward)
{
	struct pb_fft *f;

	if (n < 1 || n > INT32_MAX) {
		pb_rt_fail("a Fourier transform of length %lld", (long long)n);
		return NULL;
	}
	f = pb_rt_scratch(sizeof(*f));
	if (!f)
		return NULL;
	*f = (struct pb_fft){.n = n, .forward = forward};
	if (largest_factor(n) > LARGEST_FACTOR ? init_bluestein(f) : init_direct(f)) {
		pb_fft_free(f);
		return NULL;
	}
	return f;
}

void pb_fft_free(struct pb_fft *f)
{
	if (!f)
		return;
	pb_fft_free(f->inner);
	pb_rt_scratch_free(f->roots);
	pb_rt_scratch_free(f->work);
	pb_rt_scratch_free(f->chirp);
	pb_rt_scratch_free(f->kernel);
	pb_rt_scratch_free(f->padded);
	pb_rt_scratch_free(f);
}

void pb_fft_run(struct pb_fft *f, double complex *x)
{
	if (f->inner) {
		bluestein(f, x);
		return;
	}
	transform(f, f->work, x, 1, f->n);
	memcpy(x, f->work, (size_t)f->n * sizeof(*x));
}
