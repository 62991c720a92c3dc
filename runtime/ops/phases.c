/* SPDX-License-Identifier: Apache-2.0 */
/* See phases.h. */
#include "runtime/ops/phases.h"

#include <string.h>

void pb_phases_init(struct pb_phases *ph, const struct pb_conv *c)
{
	int64_t size = 1;

	for (int i = 2; i >= 0; i--) {
		const int64_t reach = (c->kernel[i] - 1) * c->dilation[i];

		ph->count[i] = reach + 1 < c->stride[i] ? reach + 1 : c->stride[i];
		ph->len[i] = c->out[i] + reach / c->stride[i];
		ph->out[i] = c->out[i];
		ph->stride[i] = size;
		size *= ph->len[i];
	}
	/* All phases of one dimension lie behind each other, whole planes each. */
	for (int i = 2; i >= 0; i--) {
		ph->phase[i] = size;
		size *= ph->count[i];
	}
	ph->channel = size;
	ph->run = c->out[2];
	if (ph->len[2] == c->out[2]) {
		ph->run *= c->out[1];
		if (ph->len[1] == c->out[1])
			ph->run *= c->out[0];
	}
}

/* One row: elements i of phase f, from input samples s * i + f - pad. */
static void fill_row(const struct pb_conv *c, int64_t f, int64_t len, const float *src, float *dst)
{
	const int64_t s = c->stride[2], xs = c->xs[4], first = f - c->pad[2];
	int64_t i = 0, end = len;

	if (first < 0)
		i = (-first + s - 1) / s;
	if (first + s * (len - 1) >= c->in[2])
		end = c->in[2] > first ? (c->in[2] - first + s - 1) / s : 0;
	if (i > len)
		i = len;
	if (end < i)
		end = i;
	memset(dst, 0, i * sizeof(float));
	memset(dst + end, 0, (len - end) * sizeof(float));
	src += (first + s * i) * xs;
	if (s * xs == 1) {
		memcpy(dst + i, src, (end - i) * sizeof(float));
		return;
	}
	for (; i < end; i++, src += s * xs)
		dst[i] = *src;
}

static void fill_plane(const struct pb_phases *ph, const struct pb_conv *c, int64_t fd, int64_t fh,
		       int64_t fw, const float *src, float *dst)
{
	for (int64_t d = 0; d < ph->len[0]; d++) {
		const int64_t xd = d * c->stride[0] + fd - c->pad[0];

		for (int64_t h = 0; h < ph->len[1]; h++, dst += ph->len[2]) {
			const int64_t xh = h * c->stride[1] + fh - c->pad[1];

			if (xd < 0 || xh < 0 || xd >= c->in[0] || xh >= c->in[1])
				memset(dst, 0, ph->len[2] * sizeof(float));
			else
				fill_row(c, fw, ph->len[2], src + xd * c->xs[2] + xh * c->xs[3],
					 dst);
		}
	}
}

void pb_phases_fill(const struct pb_phases *ph, const struct pb_conv *c, int64_t n, int64_t c0,
		    int64_t n_channels, float *dst)
{
	for (int64_t ch = 0; ch < n_channels; ch++) {
		const float *src = (const float *)c->x + n * c->xs[0] + (c0 + ch) * c->xs[1];
		float *plane = dst + ch * ph->channel;

		for (int64_t fd = 0; fd < ph->count[0]; fd++)
			for (int64_t fh = 0; fh < ph->count[1]; fh++)
				for (int64_t fw = 0; fw < ph->count[2]; fw++)
					fill_plane(ph, c, fd, fh, fw, src,
						   plane + fd * ph->phase[0] + fh * ph->phase[1] +
							   fw * ph->phase[2]);
	}
}
