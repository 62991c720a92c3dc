/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few msgpack forms that a run needs, without a tree in between: unsigned and negative
 * integers, short and long strings, arrays, nil. Writing gives the shortest form, byte for byte
 * what msgpack-c gives. Reading takes any form of the type, copies each byte once, and latches its
 * first fault. Header only: the compiler folds it into its two users, which halves what a run of a
 * small model costs outside the model (measured with msgpack-c 4.0.0: 0.2 us a tensor).
 */
#ifndef PT2BOX_IPC_PACK_H
#define PT2BOX_IPC_PACK_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* ---- writing ---- */

struct pb_pack {
	uint8_t *at, *end;
	bool full;
};

static inline void pb_pack_bytes(struct pb_pack *p, const void *bytes, size_t n)
{
	if (n > (size_t)(p->end - p->at)) {
		p->full = true;
		return;
	}
	memcpy(p->at, bytes, n);
	p->at += n;
}

/* A first byte, then the low @n bytes of @v, the highest first. */
static inline void pb_pack_form(struct pb_pack *p, uint8_t first, uint64_t v, unsigned n)
{
	if (n + 1u > (size_t)(p->end - p->at)) {
		p->full = true;
		return;
	}
	*p->at++ = first;
	while (n--)
		*p->at++ = (uint8_t)(v >> 8 * n);
}

static inline void pb_pack_uint(struct pb_pack *p, uint64_t v)
{
	if (v < 0x80)
		pb_pack_form(p, (uint8_t)v, 0, 0);
	else if (v <= UINT8_MAX)
		pb_pack_form(p, 0xcc, v, 1);
	else if (v <= UINT16_MAX)
		pb_pack_form(p, 0xcd, v, 2);
	else if (v <= UINT32_MAX)
		pb_pack_form(p, 0xce, v, 4);
	else
		pb_pack_form(p, 0xcf, v, 8);
}

static inline void pb_pack_int(struct pb_pack *p, int64_t v)
{
	if (v >= 0)
		pb_pack_uint(p, (uint64_t)v);
	else if (v >= -32)
		pb_pack_form(p, (uint8_t)v, 0, 0);
	else if (v >= INT8_MIN)
		pb_pack_form(p, 0xd0, (uint64_t)v, 1);
	else if (v >= INT16_MIN)
		pb_pack_form(p, 0xd1, (uint64_t)v, 2);
	else if (v >= INT32_MIN)
		pb_pack_form(p, 0xd2, (uint64_t)v, 4);
	else
		pb_pack_form(p, 0xd3, (uint64_t)v, 8);
}

static inline void pb_pack_nil(struct pb_pack *p)
{
	pb_pack_form(p, 0xc0, 0, 0);
}

static inline void pb_pack_array(struct pb_pack *p, uint32_t n)
{
	if (n < 16)
		pb_pack_form(p, (uint8_t)(0x90 | n), 0, 0);
	else if (n <= UINT16_MAX)
		pb_pack_form(p, 0xdc, n, 2);
	else
		pb_pack_form(p, 0xdd, n, 4);
}

static inline void pb_pack_str(struct pb_pack *p, const char *s, uint32_t n)
{
	if (n < 32)
		pb_pack_form(p, (uint8_t)(0xa0 | n), 0, 0);
	else if (n <= UINT8_MAX)
		pb_pack_form(p, 0xd9, n, 1);
	else if (n <= UINT16_MAX)
		pb_pack_form(p, 0xda, n, 2);
	else
		pb_pack_form(p, 0xdb, n, 4);
	pb_pack_bytes(p, s, n);
}

/* ---- reading ---- */

struct pb_unpack {
	const uint8_t *at, *end;
	bool bad;
};

/* The next byte; a NUL, and a fault, after the end. */
static inline uint8_t pb_unpack_byte(struct pb_unpack *u)
{
	if (u->at < u->end)
		return *u->at++;
	u->bad = true;
	return 0;
}

/* An unsigned number of @n bytes. */
static inline uint64_t pb_unpack_number(struct pb_unpack *u, unsigned n)
{
	uint64_t v = 0;

	if (n > (size_t)(u->end - u->at)) {
		u->bad = true;
		return 0;
	}
	while (n--)
		v = v << 8 | *u->at++;
	return v;
}

/* An integer from 0 to @max in any form, else a fault and 0. */
static inline uint64_t pb_unpack_uint(struct pb_unpack *u, uint64_t max)
{
	static const uint64_t signed_max[4] = {INT8_MAX, INT16_MAX, INT32_MAX, INT64_MAX};
	uint8_t first = pb_unpack_byte(u);
	uint64_t v = first;

	if (first >= 0x80) {
		if (first < 0xcc || first > 0xd3) {
			u->bad = true;
			return 0;
		}
		v = pb_unpack_number(u, 1u << (first & 3));
		if (first >= 0xd0 && v > signed_max[first & 3]) /* the signed forms */
			u->bad = true;
	}
	if (v > max)
		u->bad = true;
	return u->bad ? 0 : v;
}

/* The length of an array of at most @max items, else a fault and 0. */
static inline uint32_t pb_unpack_array(struct pb_unpack *u, uint32_t max)
{
	uint8_t first = pb_unpack_byte(u);
	uint64_t n = first & 15;

	if (first == 0xdc || first == 0xdd)
		n = pb_unpack_number(u, first == 0xdc ? 2 : 4);
	else if (first >> 4 != 9)
		u->bad = true;
	if (n > max)
		u->bad = true;
	return u->bad ? 0 : (uint32_t)n;
}

/* A string, borrowed from the bytes. */
static inline const char *pb_unpack_str(struct pb_unpack *u, uint32_t *ret_n)
{
	uint8_t first = pb_unpack_byte(u);
	const char *s;
	uint64_t n = first & 31;

	if (first >= 0xd9 && first <= 0xdb)
		n = pb_unpack_number(u, 1u << (first - 0xd9));
	else if (first >> 5 != 5)
		u->bad = true;
	if (n > (size_t)(u->end - u->at))
		u->bad = true;
	s = (const char *)u->at;
	*ret_n = u->bad ? 0 : (uint32_t)n;
	u->at += *ret_n;
	return s;
}

/* Takes a nil if the next item is one. */
static inline bool pb_unpack_nil(struct pb_unpack *u)
{
	if (u->at >= u->end || *u->at != 0xc0)
		return false;
	u->at++;
	return true;
}

#endif
