/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input of a convolution with its padding, in the layout that it has: the input itself where
 * there is none, else a copy. Every tap of every position is then an offset, with no bounds to
 * check.
 */
#ifndef PT2BOX_RUNTIME_OPS_CONV_IMAGE_H
#define PT2BOX_RUNTIME_OPS_CONV_IMAGE_H

#include "runtime/ops/conv.h"

struct pb_conv_image {
	const float *x;	  /* of the image and group at hand */
	float *own;	  /* memory of a copy, given by the caller; NULL: the input itself */
	int64_t elements; /* of the copy; 0: none is needed */
	int64_t extent[3];
	int64_t channel, stride[3]; /* elements */
};

void pb_conv_image_init(struct pb_conv_image *im, const struct pb_conv *c);
/* All channels of image @n_image into im->own. */
void pb_conv_image_fill(const struct pb_conv_image *im, const struct pb_conv *c, int64_t n_image);

#endif
