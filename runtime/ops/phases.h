/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Padded planes of a convolution's input, split by the phase of the stride: sample s * i + f of a
 * padded dimension is element i of phase f. Output position o under tap t is then element o + (t *
 * dilation) / s of phase (t * dilation) % s: unit stride over o for every stride and dilation, with
 * no bounds to check.
 */
#ifndef PT2BOX_RUNTIME_OPS_PHASES_H
#define PT2BOX_RUNTIME_OPS_PHASES_H

#include "runtime/ops/conv.h"

struct pb_phases {
	int64_t count[3];  /* phases in use */
	int64_t len[3];	   /* elements of a phase */
	int64_t stride[3]; /* of an element, within one phase */
	int64_t phase[3];  /* of a phase */
	int64_t channel;   /* elements of one channel */
	int64_t run;	   /* output positions that are neighbours in the planes */
	int64_t out[3];
};

void pb_phases_init(struct pb_phases *ph, const struct pb_conv *c);
/* Channels [c0, c0 + n_channels) of image @n. */
void pb_phases_fill(const struct pb_phases *ph, const struct pb_conv *c, int64_t n, int64_t c0,
		    int64_t n_channels, float *dst);

/* Offset of tap @t (numbered over depth, height, width). */
static inline int64_t pb_phases_tap(const struct pb_phases *ph, const struct pb_conv *c, int64_t t)
{
	const int64_t tap[3] = {t / c->kernel[2] / c->kernel[1], t / c->kernel[2] % c->kernel[1],
				t % c->kernel[2]};
	int64_t off = 0;

	for (int i = 0; i < 3; i++) {
		const int64_t at = tap[i] * c->dilation[i];

		off += at % c->stride[i] * ph->phase[i] + at / c->stride[i] * ph->stride[i];
	}
	return off;
}

/* Offset of output position @j (numbered over depth, height, width) within a plane. */
static inline int64_t pb_phases_position(const struct pb_phases *ph, int64_t j)
{
	const int64_t w = j % ph->out[2], h = j / ph->out[2] % ph->out[1],
		      d = j / ph->out[2] / ph->out[1];

	return d * ph->stride[0] + h * ph->stride[1] + w;
}

#endif
