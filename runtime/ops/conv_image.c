/* SPDX-License-Identifier: Apache-2.0 */
/* See conv_image.h. */
#include "runtime/ops/conv_image.h"

#include <string.h>

static int64_t min64(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

void pb_conv_image_init(struct pb_conv_image *im, const struct pb_conv *c)
{
	const int64_t channels = c->groups * c->icg;
	const bool planes = c->xs[1] != 1 || c->xs[4] == 1;
	bool padded = false;

	for (int i = 0; i < 3; i++) {
		im->extent[i] =
			(c->out[i] - 1) * c->stride[i] + (c->kernel[i] - 1) * c->dilation[i] + 1;
		padded = padded || c->pad[i];
	}
	im->channel = c->xs[1];
	memcpy(im->stride, c->xs + 2, sizeof(im->stride));
	if (!padded)
		return;
	im->stride[2] = planes ? 1 : channels;
	im->stride[1] = im->stride[2] * im->extent[2];
	im->stride[0] = im->stride[1] * im->extent[1];
	im->channel = planes ? im->stride[0] * im->extent[0] : 1;
	im->elements = im->extent[0] * im->extent[1] * im->extent[2] * channels;
}

struct range {
	int64_t lo, hi;
};

/* What of dimension @i is no padding. */
static struct range inside(const struct pb_conv_image *im, const struct pb_conv *c, int i)
{
	const int64_t pad = c->pad[i];
	const int64_t hi = min64(im->extent[i], pad + c->in[i]);

	return (struct range){min64(pad, hi), hi};
}

/*
 * Channels that are neighbours are copied together. What lies between two copied rows is padding:
 * the end of one row, the begin of the next, whole rows.
 */
void pb_conv_image_fill(const struct pb_conv_image *im, const struct pb_conv *c, int64_t n_image)
{
	const struct range d = inside(im, c, 0), h = inside(im, c, 1), w = inside(im, c, 2);
	const int64_t channels = c->groups * c->icg;
	const int64_t width = im->channel == 1 ? channels : 1;
	const int64_t n = (w.hi - w.lo) * width;
	float *done = im->own;

	for (int64_t ch = 0; ch < channels; ch += width) {
		const float *x = (const float *)c->x + n_image * c->xs[0] + ch * c->xs[1];

		for (int64_t i = d.lo; i < d.hi; i++) {
			for (int64_t j = h.lo; j < h.hi; j++) {
				float *row = im->own + ch * im->channel + i * im->stride[0] +
					     j * im->stride[1] + w.lo * im->stride[2];

				memset(done, 0, (row - done) * sizeof(float));
				memcpy(row,
				       x + (i - c->pad[0]) * c->xs[2] + (j - c->pad[1]) * c->xs[3],
				       n * sizeof(float));
				done = row + n;
			}
		}
	}
	memset(done, 0, (im->own + im->elements - done) * sizeof(float));
}
