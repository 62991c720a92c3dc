/* SPDX-License-Identifier: Apache-2.0 */
/* One Fourier transform of one line, of any length, in double. */
#ifndef PT2BOX_RUNTIME_OPS_FFT_LINE_H
#define PT2BOX_RUNTIME_OPS_FFT_LINE_H

#include <complex.h>
#include <stdbool.h>
#include <stdint.h>

struct pb_fft {
	int64_t n;
	bool forward;
	double complex *roots; /* exp(-+2 pi i k / n) */
	double complex *work;  /* n of them */
	/* Lengths with a large prime factor go through a convolution of a power of two (Bluestein).
	 */
	struct pb_fft *inner;
	double complex *chirp, *kernel, *padded;
};

/* NULL with the error set. */
struct pb_fft *pb_fft_new(int64_t n, bool forward);
void pb_fft_free(struct pb_fft *f);
/* In place, not scaled. */
void pb_fft_run(struct pb_fft *f, double complex *x);

#endif
