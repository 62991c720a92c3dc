/* SPDX-License-Identifier: Apache-2.0 */
/* The short writer and reader of msgpack against msgpack-c: same bytes out, same values in. */
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/pack.h"
#include "tests/lib/check.h"

/* Numbers around every border between forms. */
static int64_t draw(uint64_t *seed)
{
	unsigned bits = check_rand(seed) % 64;
	int64_t v = (int64_t)(check_rand(seed) >> bits), near = (int64_t)(check_rand(seed) % 5) - 2;

	switch (check_rand(seed) % 4) {
	case 0:
		return (int64_t)((1ull << bits) + (uint64_t)near);
	case 1:
		return -v;
	case 2:
		return -(int64_t)(1ull << (bits % 63)) + near;
	default:
		return v;
	}
}

static void test_same_bytes(void **state)
{
	static const uint32_t lengths[] = {0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536};
	static char text[65536];
	static uint8_t ours[1 << 20];
	uint64_t seed = 1;

	(void)state;
	for (int round = 0; round < 2000; round++) {
		struct pb_pack p = {ours, ours + sizeof(ours), false};
		msgpack_sbuffer buf;
		msgpack_packer pk;

		msgpack_sbuffer_init(&buf);
		msgpack_packer_init(&pk, &buf, msgpack_sbuffer_write);
		for (int i = 0; i < 30; i++) {
			int64_t v = draw(&seed);

			pb_pack_int(&p, v);
			msgpack_pack_int64(&pk, v);
			pb_pack_uint(&p, (uint64_t)v);
			msgpack_pack_uint64(&pk, (uint64_t)v);
		}
		if (round < 10) {
			pb_pack_array(&p, lengths[round]);
			msgpack_pack_array(&pk, lengths[round]);
			pb_pack_str(&p, text, lengths[round]);
			msgpack_pack_str(&pk, lengths[round]);
			msgpack_pack_str_body(&pk, text, lengths[round]);
		}
		pb_pack_nil(&p);
		msgpack_pack_nil(&pk);
		assert_false(p.full);
		assert_int_equal(p.at - ours, buf.size);
		assert_memory_equal(ours, buf.data, buf.size);
		msgpack_sbuffer_destroy(&buf);
	}
}

/* Every form that msgpack-c calls a positive integer, an array, a string, and no other. */
static void test_same_values(void **state)
{
	uint64_t seed = 2;

	(void)state;
	for (int round = 0; round < 200000; round++) {
		uint8_t bytes[24] = {0};
		uint32_t n;
		size_t off = 0;
		msgpack_unpacked u;
		struct pb_unpack in;
		bool whole;

		bytes[0] = (uint8_t)round;
		/* msgpack-c makes room for what an array32 or map32 claims: not for 4 G objects, please. */
		for (int i = 1; i < 24; i++) {
			bytes[i] = check_rand(&seed) % 3 ? 0 : (uint8_t)check_rand(&seed);
			if (bytes[i - 1] == 0xdd || bytes[i - 1] == 0xdf || bytes[i] == 0xdd || bytes[i] == 0xdf)
				bytes[i] = 0;
		}
		if (bytes[0] == 0xdd || bytes[0] == 0xdf)
			bytes[2] = 0;
		msgpack_unpacked_init(&u);
		whole = msgpack_unpack_next(&u, (const char *)bytes, sizeof(bytes), &off) ==
			MSGPACK_UNPACK_SUCCESS;
		in = (struct pb_unpack){bytes, bytes + sizeof(bytes), false};
		assert_true(pb_unpack_uint(&in, UINT64_MAX) == (in.bad ? 0 : u.data.via.u64));
		assert_int_equal(!in.bad, whole && u.data.type == MSGPACK_OBJECT_POSITIVE_INTEGER);
		if (!in.bad)
			assert_int_equal(in.at - bytes, off);
		in = (struct pb_unpack){bytes, bytes + sizeof(bytes), false};
		pb_unpack_str(&in, &n);
		assert_int_equal(!in.bad, whole && u.data.type == MSGPACK_OBJECT_STR);
		if (!in.bad) {
			assert_int_equal(n, u.data.via.str.size);
			assert_int_equal(in.at - bytes, off);
		}
		in = (struct pb_unpack){bytes, bytes + sizeof(bytes), false};
		n = pb_unpack_array(&in, UINT32_MAX);
		if (whole)
			assert_int_equal(!in.bad, u.data.type == MSGPACK_OBJECT_ARRAY);
		if (whole && !in.bad)
			assert_int_equal(n, u.data.via.array.size);
		in = (struct pb_unpack){bytes, bytes + sizeof(bytes), false};
		assert_int_equal(pb_unpack_nil(&in), bytes[0] == 0xc0);
		msgpack_unpacked_destroy(&u);
	}
}

/* No byte after the end is read or written; a sanitizer would see it. */
static void test_ends(void **state)
{
	uint64_t seed = 3;

	(void)state;
	for (int round = 0; round < 20000; round++) {
		size_t room = check_rand(&seed) % 12;
		uint8_t *buf = malloc(room + 1);
		struct pb_pack p = {buf, buf + room, false};
		struct pb_unpack u = {buf, buf + room, false};
		uint32_t n;

		pb_pack_int(&p, draw(&seed));
		pb_pack_str(&p, "hello", 5);
		assert_true(p.at <= buf + room);
		for (size_t i = 0; i < room; i++)
			buf[i] = (uint8_t)check_rand(&seed);
		switch (round % 3) {
		case 0:
			pb_unpack_uint(&u, UINT64_MAX);
			break;
		case 1:
			pb_unpack_str(&u, &n);
			break;
		default:
			pb_unpack_array(&u, UINT32_MAX);
			break;
		}
		assert_true(u.at <= buf + room);
		free(buf);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_same_bytes),
		CHECK_TEST(test_same_values),
		CHECK_TEST(test_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
