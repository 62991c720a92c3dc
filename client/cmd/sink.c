/* SPDX-License-Identifier: Apache-2.0 */
/* See sink.h. */
#include "client/cmd/sink.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUFFER (1u << 18)

void pb_put_u16(uint8_t *p, uint64_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

void pb_put_u32(uint8_t *p, uint64_t v)
{
	pb_put_u16(p, v);
	pb_put_u16(p + 2, v >> 16);
}

void pb_put_u64(uint8_t *p, uint64_t v)
{
	pb_put_u32(p, v);
	pb_put_u32(p + 4, v >> 32);
}

/* CRC-32 of zip, eight bytes a step: one byte a step would be slower than the disk. */
static uint32_t table[8][256];

static void make_table(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;

		for (int k = 0; k < 8; k++)
			c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
		table[0][i] = c;
	}
	for (int t = 1; t < 8; t++)
		for (uint32_t i = 0; i < 256; i++)
			table[t][i] = table[t - 1][i] >> 8 ^ table[0][table[t - 1][i] & 0xff];
}

static uint32_t crc32_more(uint32_t crc, const uint8_t *p, size_t n)
{
	uint32_t c = ~crc;

	for (; n >= 8; n -= 8, p += 8) {
		uint32_t a, b;

		memcpy(&a, p, 4);
		memcpy(&b, p + 4, 4);
		a ^= c;
		c = table[7][a & 0xff] ^ table[6][a >> 8 & 0xff] ^ table[5][a >> 16 & 0xff] ^ table[4][a >> 24] ^
		    table[3][b & 0xff] ^ table[2][b >> 8 & 0xff] ^ table[1][b >> 16 & 0xff] ^ table[0][b >> 24];
	}
	for (; n; n--, p++)
		c = c >> 8 ^ table[0][(c ^ *p) & 0xff];
	return ~c;
}

bool pb_sink_init(struct pb_sink *s, int fd)
{
	if (!table[0][1])
		make_table();
	*s = (struct pb_sink){.fd = fd, .buffer = malloc(BUFFER)};
	return s->buffer != NULL;
}

static void write_all(struct pb_sink *s, const uint8_t *p, size_t n)
{
	while (n && !s->error) {
		ssize_t done = write(s->fd, p, n);

		if (done < 0 && errno != EINTR)
			s->error = errno;
		if (done > 0) {
			p += done;
			n -= (size_t)done;
		}
	}
}

static void flush(struct pb_sink *s)
{
	write_all(s, s->buffer, s->used);
	s->used = 0;
}

bool pb_sink_deinit(struct pb_sink *s)
{
	flush(s);
	free(s->buffer);
	s->buffer = NULL;
	return s->error == 0;
}

void pb_sink_write(struct pb_sink *s, const void *data, size_t n)
{
	if (!n)
		return;
	if (s->want_crc)
		s->crc = crc32_more(s->crc, data, n);
	s->pos += n;
	if (n > BUFFER - s->used)
		flush(s);
	if (n >= BUFFER) {
		write_all(s, data, n);
	} else {
		memcpy(s->buffer + s->used, data, n);
		s->used += n;
	}
}

void pb_sink_patch(struct pb_sink *s, uint64_t at, const void *data, size_t n)
{
	if (at >= s->pos - s->used && at + n <= s->pos) {
		memcpy(s->buffer + (at - (s->pos - s->used)), data, n); /* it has not left yet */
		return;
	}
	flush(s);
	if (!s->error && pwrite(s->fd, data, n, (off_t)at) != (ssize_t)n)
		s->error = errno ? errno : EIO;
}

/* The innermost dimension of the walk. */
static void put_row(struct pb_sink *s, const uint8_t *p, int64_t n, int64_t step, size_t elem)
{
	if (step == (int64_t)elem) {
		pb_sink_write(s, p, (size_t)n * elem);
		return;
	}
	for (int64_t i = 0; i < n; i++)
		pb_sink_write(s, p + i * step, elem);
}

void pb_sink_elements(struct pb_sink *s, const struct pb_array_view *v, bool fortran)
{
	size_t elem = pt2box_dtype_size(v->dtype);
	int64_t index[PT2BOX_MAX_DIMS] = {0}, size[PT2BOX_MAX_DIMS], step[PT2BOX_MAX_DIMS], expect = 1;
	const uint8_t *p = v->data;
	int32_t n = 0, d;

	/* The walk's dimensions, slowest first; those that lie densely in the next become one with it. */
	for (int32_t k = v->ndim - 1; k >= 0; k--) {
		d = fortran ? v->ndim - 1 - k : k;
		if (v->sizes[d] == 0)
			return;
		if (v->sizes[d] == 1)
			continue;
		if (n && v->strides[d] == step[n - 1] * size[n - 1]) {
			size[n - 1] *= v->sizes[d];
			continue;
		}
		size[n] = v->sizes[d];
		step[n++] = v->strides[d];
	}
	if (n == 0) {
		pb_sink_write(s, p, elem);
		return;
	}
	/* size[0] is the fastest. */
	for (d = 1; d < n; d++)
		expect *= size[d];
	for (int64_t row = 0; row < expect; row++) {
		put_row(s, p, size[0], step[0] * (int64_t)elem, elem);
		for (d = 1; d < n; d++) {
			p += step[d] * (int64_t)elem;
			if (++index[d] < size[d])
				break;
			p -= size[d] * step[d] * (int64_t)elem;
			index[d] = 0;
		}
	}
}
