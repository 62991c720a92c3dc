/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The codec of control messages, over every row of the table: values at their edges, each byte changed, each message cut,
 * every role and state, every count of descriptors, and the bombs of msgpack.
 */
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/messages.h"
#include "tests/lib/check.h"
#include "tests/unit/ipc/samples.h"

static uint8_t frame[PB_FRAME_MAX];

/* Decoded from an exact allocation, so that a sanitizer sees one byte too far. */
static pb_status decode_as(const struct pb_msg_row *row, const uint8_t *data, size_t len, union pb_msg *ret)
{
	const struct pb_msg_row *got = NULL;
	uint8_t *exact = malloc(len ? len : 1);
	struct pt2box_error err;
	pb_status st;

	assert_non_null(exact);
	memcpy(exact, data, len);
	st = pb_msg_decode(exact, len, row->from, row->to, sample_state(row), row->min_fds, &got, ret, &err);
	if (st) {
		assert_int_equal(PT2BOX_PROTOCOL, st);
		assert_int_equal(PT2BOX_PROTOCOL, err.status);
		assert_true(strlen(err.text) > 0);
	} else {
		/* What was accepted can be said again. */
		uint8_t again[PB_FRAME_MAX];
		size_t n;

		assert_int_equal(PT2BOX_OK, pb_msg_encode(got, ret, again, sizeof(again), &n));
	}
	free(exact);
	return st;
}

static void assert_same(const struct pb_msg_row *row, const union pb_msg *a, const union pb_msg *b)
{
	for (uint32_t i = 0; i < row->n_fields; i++) {
		const struct pb_field *f = &row->fields[i];
		const uint8_t *x = (const uint8_t *)a + f->offset, *y = (const uint8_t *)b + f->offset;
		struct pb_bytes p, q;

		switch (f->type) {
		case PB_FIELD_u64:
		case PB_FIELD_i64:
			assert_memory_equal(x, y, 8);
			break;
		case PB_FIELD_str:
			assert_string_equal((const char *)x, (const char *)y);
			break;
		case PB_FIELD_bin:
			memcpy(&p, x, sizeof(p));
			memcpy(&q, y, sizeof(q));
			assert_int_equal(p.len, q.len);
			break;
		}
	}
}

static void test_table(void **state)
{
	size_t n;
	const struct pb_msg_row *rows = pb_msg_rows(&n);

	(void)state;
	assert_true(n > 40);
	for (size_t i = 0; i < n; i++) {
		assert_ptr_equal(&rows[i], pb_msg_row(rows[i].id)); /* so ids are unique */
		assert_true(rows[i].id > 0);
		assert_true(rows[i].min_fds <= rows[i].max_fds && rows[i].max_fds <= PB_FDS_MAX);
		assert_true(strlen(rows[i].doc) > 5);
		assert_true(rows[i].struct_size <= sizeof(union pb_msg));
		/* A client's connection has states; our own processes have none. */
		assert_int_equal(rows[i].from == PB_CLIENT, rows[i].state != PB_STATE_ANY);
	}
	assert_null(pb_msg_row(0));
	assert_null(pb_msg_row(UINT64_MAX));
	assert_null(pb_msg_row((uint64_t)1 << 32 | 1));
}

static void test_every_row(void **state)
{
	size_t n, len;
	const struct pb_msg_row *rows = pb_msg_rows(&n);

	(void)state;
	for (size_t i = 0; i < n; i++) {
		for (int kind = 0; kind < SAMPLE_KINDS; kind++) {
			union pb_msg m, back;

			sample_message(&rows[i], (enum sample_kind)kind, &m);
			assert_int_equal(PT2BOX_OK, pb_msg_encode(&rows[i], &m, frame, sizeof(frame), &len));
			memset(&back, 0xff, sizeof(back));
			assert_int_equal(PT2BOX_OK, decode_as(&rows[i], frame, len, &back));
			assert_same(&rows[i], &m, &back);
			/* No room: refused, not cut. */
			assert_int_equal(PT2BOX_INTERNAL, pb_msg_encode(&rows[i], &m, frame, len - 1, &len));
			assert_int_equal(PT2BOX_INTERNAL, pb_msg_encode(&rows[i], &m, frame, 0, &len));
		}
	}
}

/* Bytes as others would write them, so that the format does not change by accident. */
static void test_bytes_on_the_wire(void **state)
{
	static const uint8_t hello[] = "\x93\x01\x01\xa3"
				       "top";
	static const uint8_t failed[] = "\x96\x15\xcd\x01\x00\x16\xff\x0b\xa2no";
	static const uint8_t ps[] = "\x92\x0c\xcf\xff\xff\xff\xff\xff\xff\xff\xff";
	/* The same number, written longer than need be, is the same number. */
	static const uint8_t ps_long[] = "\xdd\x00\x00\x00\x02\xcd\x00\x0c\xcf\x00\x00\x00\x00\x00\x00\x00\x05";
	union pb_msg m;
	size_t len;

	(void)state;
	m.hello = (struct pb_msg_hello){.version = 1, .program = "top"};
	assert_int_equal(PT2BOX_OK, pb_msg_encode(pb_msg_row(PB_MSG_hello), &m, frame, sizeof(frame), &len));
	assert_int_equal(sizeof(hello) - 1, len);
	assert_memory_equal(hello, frame, len);
	m.failed = (struct pb_msg_failed){.request = 256, .status = 22, .sys_errno = -1, .signal = 11, .text = "no"};
	assert_int_equal(PT2BOX_OK, pb_msg_encode(pb_msg_row(PB_MSG_failed), &m, frame, sizeof(frame), &len));
	assert_int_equal(sizeof(failed) - 1, len);
	assert_memory_equal(failed, frame, len);
	assert_int_equal(PT2BOX_OK, decode_as(pb_msg_row(PB_MSG_ps), ps, sizeof(ps) - 1, &m));
	assert_true(m.ps.request == UINT64_MAX);
	assert_int_equal(PT2BOX_OK, decode_as(pb_msg_row(PB_MSG_ps), ps_long, sizeof(ps_long) - 1, &m));
	assert_int_equal(5, m.ps.request);
}

/* ---- what is not valid ---- */

/* [id, fields of a sample...], where the field @at is packed by @put instead. */
static size_t with_field(const struct pb_msg_row *row, uint32_t at, void (*put)(msgpack_packer *, const struct pb_field *))
{
	msgpack_sbuffer buf;
	msgpack_packer pk;
	size_t len;

	msgpack_sbuffer_init(&buf);
	msgpack_packer_init(&pk, &buf, msgpack_sbuffer_write);
	msgpack_pack_array(&pk, row->n_fields + 1);
	msgpack_pack_uint16(&pk, row->id);
	for (uint32_t i = 0; i < row->n_fields; i++) {
		if (i == at)
			put(&pk, &row->fields[i]);
		else if (row->fields[i].type == PB_FIELD_str)
			msgpack_pack_str(&pk, 0);
		else if (row->fields[i].type == PB_FIELD_bin)
			msgpack_pack_bin(&pk, 0);
		else
			msgpack_pack_int(&pk, 0);
	}
	assert_true(buf.size <= sizeof(frame));
	len = buf.size;
	memcpy(frame, buf.data, len);
	msgpack_sbuffer_destroy(&buf);
	return len;
}

static void put_over(msgpack_packer *pk, const struct pb_field *f)
{
	static char text[65536];

	memset(text, 'x', sizeof(text));
	if (f->type == PB_FIELD_str) {
		msgpack_pack_str(pk, f->max + 1);
		msgpack_pack_str_body(pk, text, f->max + 1);
	} else if (f->type == PB_FIELD_bin) {
		msgpack_pack_bin(pk, f->max + 1);
		msgpack_pack_bin_body(pk, text, f->max + 1);
	} else {
		msgpack_pack_uint64(pk, f->max == UINT64_MAX ? f->max : f->max + 1);
	}
}

static void put_under(msgpack_packer *pk, const struct pb_field *f)
{
	if (f->type == PB_FIELD_i64)
		msgpack_pack_int64(pk, -(int64_t)f->max - 1);
	else
		msgpack_pack_int64(pk, f->type == PB_FIELD_u64 ? -1 : INT64_MIN);
}

static void put_int_min(msgpack_packer *pk, const struct pb_field *f)
{
	(void)f;
	msgpack_pack_int64(pk, INT64_MIN);
}

static void put_nil(msgpack_packer *pk, const struct pb_field *f)
{
	(void)f;
	msgpack_pack_nil(pk);
}

static void put_true(msgpack_packer *pk, const struct pb_field *f)
{
	(void)f;
	msgpack_pack_true(pk);
}

static void put_float(msgpack_packer *pk, const struct pb_field *f)
{
	(void)f;
	msgpack_pack_double(pk, 1.0);
}

static void put_array(msgpack_packer *pk, const struct pb_field *f)
{
	(void)f;
	msgpack_pack_array(pk, 0);
}

static void put_map(msgpack_packer *pk, const struct pb_field *f)
{
	(void)f;
	msgpack_pack_map(pk, 0);
}

static void put_ext(msgpack_packer *pk, const struct pb_field *f)
{
	(void)f;
	msgpack_pack_ext(pk, 1, 1);
	msgpack_pack_ext_body(pk, "x", 1);
}

/* A string where bytes belong and the other way round, text where a number belongs. */
static void put_other_text(msgpack_packer *pk, const struct pb_field *f)
{
	if (f->type == PB_FIELD_str)
		msgpack_pack_bin(pk, 0);
	else
		msgpack_pack_str(pk, 0);
}

static void put_nul(msgpack_packer *pk, const struct pb_field *f)
{
	if (f->type != PB_FIELD_str) {
		msgpack_pack_nil(pk);
		return;
	}
	msgpack_pack_str(pk, 2);
	msgpack_pack_str_body(pk, "a", 2);
}

static void test_fields_out_of_range(void **state)
{
	static void (*const puts[])(msgpack_packer *, const struct pb_field *) = {
		put_over, put_under, put_int_min, put_nil, put_true,	   put_float,
		put_array, put_map,  put_ext,	  put_nul, put_other_text,
	};
	size_t n;
	const struct pb_msg_row *rows = pb_msg_rows(&n);
	union pb_msg m;

	(void)state;
	for (size_t i = 0; i < n; i++)
		for (uint32_t f = 0; f < rows[i].n_fields; f++)
			for (size_t p = 0; p < sizeof(puts) / sizeof(puts[0]); p++) {
				const size_t len = with_field(&rows[i], f, puts[p]);

				if (puts[p] == put_over && rows[i].fields[f].max == UINT64_MAX)
					continue; /* there is nothing above it */
				if (decode_as(&rows[i], frame, len, &m) == PT2BOX_OK)
					fail_msg("%s.%s, fault %zu: accepted", rows[i].name, rows[i].fields[f].name, p);
			}
}

static void test_encoder_refuses_what_the_decoder_would(void **state)
{
	size_t n, len;
	const struct pb_msg_row *rows = pb_msg_rows(&n);

	(void)state;
	for (size_t i = 0; i < n; i++)
		for (uint32_t f = 0; f < rows[i].n_fields; f++) {
			const struct pb_field *field = &rows[i].fields[f];
			uint64_t over = field->max + 1;
			struct pb_bytes bin = {frame, (uint32_t)over};
			union pb_msg m;
			uint8_t *at = (uint8_t *)&m + field->offset;

			sample_message(&rows[i], SAMPLE_SOME, &m);
			if (field->max == UINT64_MAX)
				continue;
			if (field->type == PB_FIELD_str)
				memset(at, 'x', field->max + 1); /* no terminator */
			else if (field->type == PB_FIELD_bin)
				memcpy(at, &bin, sizeof(bin));
			else
				memcpy(at, &over, 8);
			assert_int_equal(PT2BOX_INTERNAL, pb_msg_encode(&rows[i], &m, frame, sizeof(frame), &len));
			if (field->type != PB_FIELD_i64)
				continue;
			over = -over;
			memcpy(at, &over, 8);
			assert_int_equal(PT2BOX_INTERNAL, pb_msg_encode(&rows[i], &m, frame, sizeof(frame), &len));
		}
}

static void test_text_is_made_harmless(void **state)
{
	static const uint8_t hello[] = "\x93\x01\x01\xa8"
				       "a\x1b\n\xff\xc3\xbc\x7f!";
	union pb_msg m;

	(void)state;
	assert_int_equal(PT2BOX_OK, decode_as(pb_msg_row(PB_MSG_hello), hello, sizeof(hello) - 1, &m));
	assert_string_equal("a???\xc3\xbc?!", m.hello.program);
}

static void test_every_byte_changed(void **state)
{
	size_t n, len, accepted = 0, tried = 0;
	const struct pb_msg_row *rows = pb_msg_rows(&n);
	const int step = CHECK_SANITIZED ? 37 : 5;

	(void)state;
	for (size_t i = 0; i < n; i++)
		for (int kind = 0; kind < SAMPLE_KINDS; kind++) {
			union pb_msg m;

			sample_message(&rows[i], (enum sample_kind)kind, &m);
			assert_int_equal(PT2BOX_OK, pb_msg_encode(&rows[i], &m, frame, sizeof(frame), &len));
			for (size_t at = 0; at < (len < 600 ? len : 600); at++) {
				const uint8_t was = frame[at];

				for (int v = 1; v < 256; v += at < 40 ? 1 : step) {
					frame[at] = (uint8_t)(was ^ v);
					accepted += decode_as(&rows[i], frame, len, &m) == PT2BOX_OK;
					tried++;
				}
				frame[at] = was;
			}
		}
	/* Neither all nor nothing: other numbers and letters are valid, other structure is not. */
	assert_true(accepted > tried / 1000 && accepted < tried - tried / 20);
}

static void test_every_cut_and_a_byte_too_many(void **state)
{
	size_t n, len;
	const struct pb_msg_row *rows = pb_msg_rows(&n);

	(void)state;
	for (size_t i = 0; i < n; i++)
		for (int kind = 0; kind < SAMPLE_KINDS; kind++) {
			union pb_msg m;

			sample_message(&rows[i], (enum sample_kind)kind, &m);
			assert_int_equal(PT2BOX_OK, pb_msg_encode(&rows[i], &m, frame, sizeof(frame), &len));
			for (size_t cut = 0; cut < len; cut++)
				assert_int_equal(PT2BOX_PROTOCOL, decode_as(&rows[i], frame, cut, &m));
			for (int extra = 0; extra < 256; extra++) {
				frame[len] = (uint8_t)extra;
				assert_int_equal(PT2BOX_PROTOCOL, decode_as(&rows[i], frame, len + 1, &m));
			}
		}
}

static void test_number_of_fields(void **state)
{
	size_t n;
	const struct pb_msg_row *rows = pb_msg_rows(&n);

	(void)state;
	for (size_t i = 0; i < n; i++)
		for (uint32_t fields = 0; fields < 15; fields++) {
			union pb_msg m;
			size_t len = 0;

			if (fields == rows[i].n_fields)
				continue;
			frame[len++] = (uint8_t)(0x90 | (fields + 1));
			frame[len++] = (uint8_t)rows[i].id;
			for (uint32_t f = 0; f < fields; f++)
				frame[len++] = f < rows[i].n_fields && rows[i].fields[f].type == PB_FIELD_str ? 0xa0 : 0;
			assert_int_equal(PT2BOX_PROTOCOL, decode_as(&rows[i], frame, len, &m));
		}
}

static void test_permissions(void **state)
{
	size_t n, len;
	const struct pb_msg_row *rows = pb_msg_rows(&n), *got;

	(void)state;
	for (size_t i = 0; i < n; i++) {
		union pb_msg m;

		sample_message(&rows[i], SAMPLE_SOME, &m);
		assert_int_equal(PT2BOX_OK, pb_msg_encode(&rows[i], &m, frame, sizeof(frame), &len));
		for (int from = PB_CLIENT; from <= PB_WORKER; from++)
			for (int to = PB_CLIENT; to <= PB_WORKER; to++)
				for (int st = PB_STATE_ANY; st <= PB_STATE_READY; st++) {
					const bool ok = rows[i].from == (enum pb_role)from &&
							rows[i].to == (enum pb_role)to &&
							(rows[i].state == PB_STATE_ANY ||
							 rows[i].state == (enum pb_state)st);

					assert_int_equal(ok ? PT2BOX_OK : PT2BOX_PROTOCOL,
							 pb_msg_decode(frame, len, from, to, st, rows[i].min_fds, &got,
								       &m, NULL));
				}
	}
}

static void test_numbers_of_descriptors(void **state)
{
	size_t n, len;
	const struct pb_msg_row *rows = pb_msg_rows(&n), *got;

	(void)state;
	for (size_t i = 0; i < n; i++) {
		union pb_msg m;

		sample_message(&rows[i], SAMPLE_SOME, &m);
		assert_int_equal(PT2BOX_OK, pb_msg_encode(&rows[i], &m, frame, sizeof(frame), &len));
		for (size_t fds = 0; fds < 300; fds++) {
			const bool ok = fds >= rows[i].min_fds && fds <= rows[i].max_fds;

			assert_int_equal(ok ? PT2BOX_OK : PT2BOX_PROTOCOL,
					 pb_msg_decode(frame, len, rows[i].from, rows[i].to, sample_state(&rows[i]),
						       fds, &got, &m, NULL));
		}
	}
}

static void test_unknown_ids(void **state)
{
	const struct pb_msg_row *got;
	union pb_msg m;

	(void)state;
	for (uint32_t id = 0; id < 65536; id++) {
		const uint8_t only[] = {0x91, 0xcd, (uint8_t)(id >> 8), (uint8_t)id};

		if (pb_msg_row(id))
			continue;
		assert_int_equal(PT2BOX_PROTOCOL, pb_msg_decode(only, sizeof(only), PB_CLIENT, PB_BROKER,
								PB_STATE_READY, 0, &got, &m, NULL));
	}
}

/* ---- bombs: confinement.md 3 and case C01 ---- */

struct bomb {
	const char *what;
	size_t len;
	uint8_t bytes[40];
};

static const struct bomb bombs[] = {
	{"array of 2^32 - 1", 5, {0xdd, 0xff, 0xff, 0xff, 0xff}},
	{"array of 64 Mi", 5, {0xdd, 0x04, 0, 0, 0}},
	{"map of 2^32 - 1", 5, {0xdf, 0xff, 0xff, 0xff, 0xff}},
	{"map of 2^31", 5, {0xdf, 0x80, 0, 0, 0}},
	{"array of 65535", 3, {0xdc, 0xff, 0xff}},
	{"text of 4 GiB", 5, {0xdb, 0xff, 0xff, 0xff, 0xff}},
	{"bytes of 4 GiB", 5, {0xc6, 0xff, 0xff, 0xff, 0xff}},
	{"ext of 4 GiB", 6, {0xc9, 0xff, 0xff, 0xff, 0xff, 1}},
	{"fixext", 3, {0xd4, 1, 2}},
	{"fixext 16", 18, {0xd8, 1}},
	{"timestamp", 6, {0xd6, 0xff, 0, 0, 0, 0}},
	{"never used", 1, {0xc1}},
	{"a map", 3, {0x81, 0xa0, 0}},
	{"a number", 1, {12}},
	{"nil", 1, {0xc0}},
	{"no id", 1, {0x90}},
	{"negative id", 2, {0x91, 0xff}},
	{"id as text", 3, {0x91, 0xa1, 12}},
	{"id as float", 10, {0x91, 0xcb, 0x40, 0x28}},
	{"id as array", 3, {0x91, 0x91, 12}},
	{"two messages", 4, {0x92, 12, 1, 0x90}},
	{"nothing", 0, {0}},
};

static void test_bombs(void **state)
{
	const struct pb_msg_row *got;
	union pb_msg m;

	(void)state;
	for (size_t i = 0; i < sizeof(bombs) / sizeof(bombs[0]); i++)
		for (int from = PB_CLIENT; from <= PB_WORKER; from++)
			if (pb_msg_decode(bombs[i].bytes, bombs[i].len, from, PB_BROKER, PB_STATE_READY, 0, &got, &m,
					  NULL) != PT2BOX_PROTOCOL)
				fail_msg("%s: accepted", bombs[i].what);
	/* 31 nested arrays of 16 Mi: 15.9 GiB of address space if the library saw them. */
	for (int i = 0; i < 31; i++)
		memcpy(frame + 5 * i, "\xdd\x01\x00\x00\x00", 5);
	assert_int_equal(PT2BOX_PROTOCOL,
			 pb_msg_decode(frame, 155, PB_CLIENT, PB_BROKER, PB_STATE_READY, 0, &got, &m, NULL));
	/* As deep as a frame is long. */
	memset(frame, 0x91, sizeof(frame));
	assert_int_equal(PT2BOX_PROTOCOL,
			 pb_msg_decode(frame, sizeof(frame), PB_CLIENT, PB_BROKER, PB_STATE_READY, 0, &got, &m, NULL));
	/* Neither these nor any test before asked for memory by the gigabyte. */
	if (!CHECK_SANITIZED)
		assert_in_range(check_status_kib("VmPeak"), 1, 256 * 1024);
}

/* The most that a frame can make the library allocate: one object a byte. */
static void test_frame_full_of_nils(void **state)
{
	const long before = check_status_kib("VmRSS");
	const struct pb_msg_row *got;
	union pb_msg m;

	(void)state;
	memset(frame, 0xc0, sizeof(frame));
	memcpy(frame, "\xdd\x00\x00\xff\xfb\x0c", 6);
	for (int i = 0; i < 50; i++)
		assert_int_equal(PT2BOX_PROTOCOL, pb_msg_decode(frame, sizeof(frame), PB_CLIENT, PB_BROKER,
								PB_STATE_READY, 0, &got, &m, NULL));
	if (!CHECK_SANITIZED)
		assert_true(check_status_kib("VmRSS") < before + 4096);
}

static void test_scan_depth(void **state)
{
	static const uint8_t nested[] = {0x91, 0x91, 0x91, 0xc0};

	(void)state;
	assert_int_equal(PT2BOX_OK, pb_msgpack_scan(nested, sizeof(nested), 3));
	assert_int_equal(PT2BOX_PROTOCOL, pb_msgpack_scan(nested, sizeof(nested), 2));
	assert_int_equal(PT2BOX_PROTOCOL, pb_msgpack_scan(nested, sizeof(nested), 0));
	assert_int_equal(PT2BOX_PROTOCOL, pb_msgpack_scan(nested, sizeof(nested) - 1, 3));
	assert_int_equal(PT2BOX_OK, pb_msgpack_scan(nested + 3, 1, 0));
	assert_int_equal(PT2BOX_PROTOCOL, pb_msgpack_scan(nested, 0, 3));
}

/* Whatever the scan lets through, the library reads whole: no byte over, none missing. */
static void test_scan_agrees_with_the_library(void **state)
{
	uint64_t seed = 5;
	size_t valid = 0;

	(void)state;
	for (int i = 0; i < 200000; i++) {
		uint8_t data[24];
		const size_t len = 1 + check_rand(&seed) % sizeof(data);
		msgpack_unpacked u;
		size_t off = 0;
		bool whole;

		for (size_t j = 0; j < len; j++) {
			const uint64_t r = check_rand(&seed);

			/* Heads of containers and numbers more often than chance has them. */
			data[j] = (uint8_t)(r & 256 ? 0x80 + (r & 0x7f) : r & 512 ? r & 3 : r);
		}
		msgpack_unpacked_init(&u);
		if (pb_msgpack_scan(data, len, 8) == PT2BOX_OK) {
			whole = msgpack_unpack_next(&u, (const char *)data, len, &off) == MSGPACK_UNPACK_SUCCESS &&
				off == len;
			assert_true(whole);
			valid++;
		}
		msgpack_unpacked_destroy(&u);
	}
	assert_true(valid > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_table),
		CHECK_TEST(test_every_row),
		CHECK_TEST(test_bytes_on_the_wire),
		CHECK_TEST(test_fields_out_of_range),
		CHECK_TEST(test_encoder_refuses_what_the_decoder_would),
		CHECK_TEST(test_text_is_made_harmless),
		CHECK_TEST(test_every_byte_changed),
		CHECK_TEST(test_every_cut_and_a_byte_too_many),
		CHECK_TEST(test_number_of_fields),
		CHECK_TEST(test_permissions),
		CHECK_TEST(test_numbers_of_descriptors),
		CHECK_TEST(test_unknown_ids),
		CHECK_TEST(test_bombs),
		CHECK_TEST(test_frame_full_of_nils),
		CHECK_TEST(test_scan_depth),
		CHECK_TEST(test_scan_agrees_with_the_library),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
