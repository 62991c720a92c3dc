/* SPDX-License-Identifier: Apache-2.0 */
/* The codec of control messages, driven by the rows that messages.def expands to. See messages.h. */
#include "ipc/messages.h"

#include <msgpack.h>
#include <stdbool.h>
#include <string.h>

/* Room in the struct is the maximum plus the terminating NUL; UINT64_MAX rows are never strings. */
#define MSG(name, id, from, to, state, min_fds, max_fds, doc) static const struct pb_field fields_##name[] = {
#define FIELD(msg, type, name, max, doc) {#name, PB_FIELD_##type, offsetof(struct pb_msg_##msg, name), max, doc},
#define END(name)                                                                                                      \
	{NULL, PB_FIELD_u64, 0, 0, NULL}                                                                               \
	}                                                                                                              \
	;
#include "ipc/messages.def"
#undef MSG
#undef FIELD
#undef END

static const struct pb_msg_row rows[] = {
#define MSG(name, id, from, to, state, min_fds, max_fds, doc)                                                          \
	{#name, id,	       PB_##from, PB_##to, PB_STATE_##state,                                                   \
	 min_fds, max_fds,     fields_##name, sizeof(fields_##name) / sizeof(fields_##name[0]) - 1,                    \
	 sizeof(struct pb_msg_##name), doc},
#define FIELD(msg, type, name, max, doc)
#define END(name)
#include "ipc/messages.def"
#undef MSG
#undef FIELD
#undef END
};

const struct pb_msg_row *pb_msg_rows(size_t *ret_n)
{
	*ret_n = sizeof(rows) / sizeof(rows[0]);
	return rows;
}

const struct pb_msg_row *pb_msg_row(uint64_t id)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (rows[i].id == id)
			return &rows[i];
	return NULL;
}

const char *pb_role_name(enum pb_role role)
{
	static const char *const names[] = {"client", "broker", "spawner", "warden", "template", "worker", "ops process"};

	return names[role];
}

/* ---- encode ---- */

struct out {
	uint8_t *buf;
	size_t len, cap;
};

static int out_write(void *data, const char *bytes, size_t n)
{
	struct out *o = data;

	if (n > o->cap - o->len)
		return -1;
	memcpy(o->buf + o->len, bytes, n);
	o->len += n;
	return 0;
}

static int64_t magnitude(int64_t v)
{
	return v < 0 && v != INT64_MIN ? -v : v;
}

static int encode_field(msgpack_packer *pk, const struct pb_field *f, const uint8_t *msg)
{
	const uint8_t *at = msg + f->offset;
	const struct pb_bytes *bin;
	uint64_t u;
	int64_t i;
	size_t n;

	switch (f->type) {
	case PB_FIELD_u64:
		memcpy(&u, at, sizeof(u));
		return u > f->max ? -1 : msgpack_pack_uint64(pk, u);
	case PB_FIELD_i64:
		memcpy(&i, at, sizeof(i));
		return (uint64_t)magnitude(i) > f->max ? -1 : msgpack_pack_int64(pk, i);
	case PB_FIELD_str:
		n = strnlen((const char *)at, f->max + 1);
		if (n > f->max)
			return -1;
		return msgpack_pack_str(pk, n) | msgpack_pack_str_body(pk, at, n);
	case PB_FIELD_bin:
		bin = (const void *)at;
		if (bin->len > f->max)
			return -1;
		return msgpack_pack_bin(pk, bin->len) | msgpack_pack_bin_body(pk, bin->data, bin->len);
	}
	return -1;
}

pb_status pb_msg_encode(const struct pb_msg_row *row, const void *msg, uint8_t *buf, size_t cap, size_t *ret_len)
{
	struct out o = {buf, 0, cap};
	msgpack_packer pk;
	int r;

	msgpack_packer_init(&pk, &o, out_write);
	r = msgpack_pack_array(&pk, row->n_fields + 1);
	r |= msgpack_pack_uint16(&pk, row->id);
	for (uint32_t i = 0; i < row->n_fields; i++)
		r |= encode_field(&pk, &row->fields[i], msg);
	if (r)
		return PT2BOX_INTERNAL;
	*ret_len = o.len;
	return PT2BOX_OK;
}

/* ---- the scan ---- */

struct scan {
	const uint8_t *at, *end;
	uint32_t objects_left;
};

static bool scan_be(struct scan *s, unsigned bytes, uint64_t *ret)
{
	if ((size_t)(s->end - s->at) < bytes)
		return false;
	*ret = 0;
	for (unsigned i = 0; i < bytes; i++)
		*ret = *ret << 8 | *s->at++;
	return true;
}

static bool scan_skip(struct scan *s, uint64_t n)
{
	if ((uint64_t)(s->end - s->at) < n)
		return false;
	s->at += n;
	return true;
}

static bool scan_object(struct scan *s, unsigned depth);

static bool scan_items(struct scan *s, uint64_t n, unsigned depth)
{
	/* Every item takes a byte at least: a larger count is a lie, found before anybody allocates for it. */
	if (depth == 0 || n > (uint64_t)(s->end - s->at))
		return false;
	for (uint64_t i = 0; i < n; i++)
		if (!scan_object(s, depth - 1))
			return false;
	return true;
}

static bool scan_counted(struct scan *s, unsigned count_bytes, unsigned extra)
{
	uint64_t n;

	return scan_be(s, count_bytes, &n) && scan_skip(s, n + extra);
}

static bool scan_object(struct scan *s, unsigned depth)
{
	static const uint8_t fixed[] = {4, 8, 1, 2, 4, 8, 1, 2, 4, 8}; /* 0xca..0xd3 */
	uint64_t n;
	uint8_t b;

	if (s->at == s->end || s->objects_left-- == 0)
		return false;
	b = *s->at++;
	if (b <= 0x7f || b >= 0xe0 || b == 0xc0 || b == 0xc2 || b == 0xc3)
		return true;
	if (b <= 0x8f)
		return scan_items(s, 2 * (uint64_t)(b & 15), depth);
	if (b <= 0x9f)
		return scan_items(s, b & 15, depth);
	if (b <= 0xbf)
		return scan_skip(s, b & 31);
	if (b >= 0xca && b <= 0xd3)
		return scan_skip(s, fixed[b - 0xca]);
	switch (b) {
	case 0xc4:
	case 0xd9:
		return scan_counted(s, 1, 0);
	case 0xc5:
	case 0xda:
		return scan_counted(s, 2, 0);
	case 0xc6:
	case 0xdb:
		return scan_counted(s, 4, 0);
	case 0xdc:
		return scan_be(s, 2, &n) && scan_items(s, n, depth);
	case 0xdd:
		return scan_be(s, 4, &n) && scan_items(s, n, depth);
	case 0xde:
		return scan_be(s, 2, &n) && scan_items(s, 2 * n, depth);
	case 0xdf:
		return scan_be(s, 4, &n) && scan_items(s, 2 * n, depth);
	default:
		return false; /* ext types and 0xc1: nothing of ours */
	}
}

pb_status pb_msgpack_scan(const uint8_t *data, size_t len, unsigned max_depth)
{
	struct scan s = {data, data + len, PB_MSGPACK_OBJECTS_MAX};

	return scan_object(&s, max_depth) && s.at == s.end ? PT2BOX_OK : PT2BOX_PROTOCOL;
}

/* ---- decode ---- */

static bool clean_text(const char *p, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (p[i] == '\0')
			return false;
	return true;
}

static bool decode_field(const struct pb_field *f, const msgpack_object *o, uint8_t *msg)
{
	uint8_t *at = msg + f->offset;
	struct pb_bytes bin;

	switch (f->type) {
	case PB_FIELD_u64:
		if (o->type != MSGPACK_OBJECT_POSITIVE_INTEGER || o->via.u64 > f->max)
			return false;
		memcpy(at, &o->via.u64, 8);
		return true;
	case PB_FIELD_i64:
		if (o->type == MSGPACK_OBJECT_POSITIVE_INTEGER) {
			if (o->via.u64 > f->max)
				return false;
			memcpy(at, &o->via.u64, 8);
			return true;
		}
		if (o->type != MSGPACK_OBJECT_NEGATIVE_INTEGER || o->via.i64 == INT64_MIN ||
		    (uint64_t)-o->via.i64 > f->max)
			return false;
		memcpy(at, &o->via.i64, 8);
		return true;
	case PB_FIELD_str:
		if (o->type != MSGPACK_OBJECT_STR || o->via.str.size > f->max ||
		    !clean_text(o->via.str.ptr, o->via.str.size))
			return false;
		pb_text_escape((char *)at, f->max + 1, o->via.str.ptr, o->via.str.size);
		return true;
	case PB_FIELD_bin:
		if (o->type != MSGPACK_OBJECT_BIN || o->via.bin.size > f->max)
			return false;
		bin = (struct pb_bytes){(const uint8_t *)o->via.bin.ptr, o->via.bin.size};
		memcpy(at, &bin, sizeof(bin));
		return true;
	}
	return false;
}

static pb_status check_row(const struct pb_msg_row *row, enum pb_role from, enum pb_role to, enum pb_state state,
			   size_t n_fds, struct pt2box_error *err)
{
	if (row->from != from || row->to != to)
		return pb_error_set(err, PT2BOX_PROTOCOL, "%s may not send %s to %s", pb_role_name(from), row->name,
				    pb_role_name(to));
	if (row->state != PB_STATE_ANY && row->state != state)
		return pb_error_set(err, PT2BOX_PROTOCOL, "%s in the wrong state", row->name);
	if (n_fds < row->min_fds || n_fds > row->max_fds)
		return pb_error_set(err, PT2BOX_PROTOCOL, "%s with %zu descriptors", row->name, n_fds);
	return PT2BOX_OK;
}

static pb_status decode_array(const msgpack_object *o, enum pb_role from, enum pb_role to, enum pb_state state,
			      size_t n_fds, const struct pb_msg_row **ret_row, union pb_msg *ret,
			      struct pt2box_error *err)
{
	const struct pb_msg_row *row;
	pb_status st;

	if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size == 0 ||
	    o->via.array.ptr[0].type != MSGPACK_OBJECT_POSITIVE_INTEGER)
		return pb_error_set(err, PT2BOX_PROTOCOL, "not a message");
	row = pb_msg_row(o->via.array.ptr[0].via.u64);
	if (!row)
		return pb_error_set(err, PT2BOX_PROTOCOL, "unknown message %llu",
				    (unsigned long long)o->via.array.ptr[0].via.u64);
	st = check_row(row, from, to, state, n_fds, err);
	if (st)
		return st;
	if (o->via.array.size != row->n_fields + 1)
		return pb_error_set(err, PT2BOX_PROTOCOL, "%s with %u fields", row->name, o->via.array.size - 1);
	memset(ret, 0, row->struct_size);
	for (uint32_t i = 0; i < row->n_fields; i++)
		if (!decode_field(&row->fields[i], &o->via.array.ptr[i + 1], (uint8_t *)ret))
			return pb_error_set(err, PT2BOX_PROTOCOL, "%s: bad %s", row->name, row->fields[i].name);
	*ret_row = row;
	return PT2BOX_OK;
}

pb_status pb_msg_decode(const uint8_t *frame, size_t len, enum pb_role from, enum pb_role to, enum pb_state state,
			size_t n_fds, const struct pb_msg_row **ret_row, union pb_msg *ret, struct pt2box_error *err)
{
	msgpack_unpacked u;
	size_t off = 0;
	pb_status st;

	if (pb_msgpack_scan(frame, len, 2))
		return pb_error_set(err, PT2BOX_PROTOCOL, "malformed message");
	msgpack_unpacked_init(&u);
	if (msgpack_unpack_next(&u, (const char *)frame, len, &off) != MSGPACK_UNPACK_SUCCESS || off != len)
		st = pb_error_set(err, PT2BOX_PROTOCOL, "malformed message");
	else
		st = decode_array(&u.data, from, to, state, n_fds, ret_row, ret, err);
	msgpack_unpacked_destroy(&u);
	return st;
}
