/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See npz.h. Writing: stored entries, zip64 where a number needs it, the same bytes for the same arrays.
 * Source: PKWARE APPNOTE 6.3.10, sections 4.3 and 4.5.3.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cmd/npy.h"
#include "client/cmd/npz.h"

#define LOCAL 30
#define CENTRAL 46
#define ZIP64_EXTRA 20
#define BIG 0xffffffffu
/* 1 January 1980, as numpy writes. */
#define DOS_DATE 0x21

struct entry {
	char name[260];
	uint64_t offset, size;
	uint32_t crc;
};

static void common_fields(uint8_t *p, const struct entry *e, bool big)
{
	pb_put_u16(p, big ? 45 : 20);
	pb_put_u16(p + 2, 0x800); /* names are UTF-8 */
	pb_put_u16(p + 4, 0);	  /* stored */
	pb_put_u16(p + 6, 0);
	pb_put_u16(p + 8, DOS_DATE);
	pb_put_u32(p + 10, e->crc);
	pb_put_u32(p + 14, big ? BIG : e->size);
	pb_put_u32(p + 18, big ? BIG : e->size);
	pb_put_u16(p + 22, strlen(e->name));
}

static void put_local(struct pb_sink *s, const struct entry *e)
{
	uint8_t h[LOCAL] = {'P', 'K', 3, 4}, extra[ZIP64_EXTRA];
	bool big = e->size >= BIG;

	common_fields(h + 4, e, big);
	pb_put_u16(h + 28, big ? sizeof(extra) : 0);
	pb_sink_write(s, h, sizeof(h));
	pb_sink_write(s, e->name, strlen(e->name));
	pb_put_u16(extra, 1);
	pb_put_u16(extra + 2, 16);
	pb_put_u64(extra + 4, e->size);
	pb_put_u64(extra + 12, e->size);
	if (big)
		pb_sink_write(s, extra, sizeof(extra));
}

static void put_central(struct pb_sink *s, const struct entry *e)
{
	uint8_t h[CENTRAL] = {'P', 'K', 1, 2}, extra[28];
	bool big = e->size >= BIG, far = e->offset >= BIG;
	size_t n = 4;

	if (big) {
		pb_put_u64(extra + n, e->size);
		pb_put_u64(extra + n + 8, e->size);
		n += 16;
	}
	if (far) {
		pb_put_u64(extra + n, e->offset);
		n += 8;
	}
	pb_put_u16(extra, 1);
	pb_put_u16(extra + 2, n - 4);
	pb_put_u16(h + 4, 3 << 8 | 45); /* made by: Unix */
	common_fields(h + 6, e, big);
	if (far)
		pb_put_u16(h + 6, 45);
	pb_put_u16(h + 30, n > 4 ? n : 0);
	pb_put_u32(h + 38, 0100644u << 16);
	pb_put_u32(h + 42, far ? BIG : e->offset);
	pb_sink_write(s, h, sizeof(h));
	pb_sink_write(s, e->name, strlen(e->name));
	if (n > 4)
		pb_sink_write(s, extra, n);
}

static void put_end(struct pb_sink *s, uint64_t begin, size_t n)
{
	uint64_t end = s->pos;
	bool big = begin >= BIG || end - begin >= BIG || n >= 0xffff;
	uint8_t far[56] = {'P', 'K', 6, 6}, locator[20] = {'P', 'K', 6, 7}, last[22] = {'P', 'K', 5, 6};

	pb_put_u64(far + 4, sizeof(far) - 12);
	pb_put_u16(far + 12, 3 << 8 | 45);
	pb_put_u16(far + 14, 45);
	pb_put_u64(far + 24, n);
	pb_put_u64(far + 32, n);
	pb_put_u64(far + 40, end - begin);
	pb_put_u64(far + 48, begin);
	pb_put_u64(locator + 8, end);
	pb_put_u32(locator + 16, 1);
	if (big) {
		pb_sink_write(s, far, sizeof(far));
		pb_sink_write(s, locator, sizeof(locator));
	}
	pb_put_u16(last + 8, big ? 0xffff : n);
	pb_put_u16(last + 10, big ? 0xffff : n);
	pb_put_u32(last + 12, big ? BIG : end - begin);
	pb_put_u32(last + 16, big ? BIG : begin);
	pb_sink_write(s, last, sizeof(last));
}

static pb_status put_entry(struct pb_sink *s, const struct pb_array_view *v, struct entry *e, struct pt2box_error *err)
{
	uint8_t crc[4];
	pb_status st;

	if ((size_t)snprintf(e->name, sizeof(e->name), "%s.npy", v->name) >= sizeof(e->name))
		return pb_error_set(err, PT2BOX_USAGE, "an array's name is too long");
	e->offset = s->pos;
	e->size = pb_npy_size(v);
	put_local(s, e);
	s->crc = 0;
	s->want_crc = true;
	st = pb_npy_write(s, v, err);
	s->want_crc = false;
	e->crc = s->crc;
	pb_put_u32(crc, e->crc);
	pb_sink_patch(s, e->offset + 14, crc, sizeof(crc));
	return st;
}

pb_status pb_npz_write(struct pb_sink *s, const struct pb_array_view *v, size_t n, struct pt2box_error *err)
{
	struct entry *e = calloc(n ? n : 1, sizeof(*e));
	pb_status st = e ? PT2BOX_OK : pb_error_set(err, PT2BOX_NO_MEMORY, "out of memory");
	uint64_t begin;

	for (size_t i = 0; i < n && !st; i++)
		st = put_entry(s, &v[i], &e[i], err);
	begin = s->pos;
	for (size_t i = 0; i < n && !st; i++)
		put_central(s, &e[i]);
	if (!st)
		put_end(s, begin, n);
	free(e);
	return st;
}
