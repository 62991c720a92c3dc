/* SPDX-License-Identifier: Apache-2.0 */
/* Statuses, errors, and the texts of peers made harmless. */
#include <errno.h>
#include <string.h>

#include "ipc/status.h"
#include "tests/lib/check.h"

static void test_names_are_unique(void **state)
{
	static const struct {
		enum pt2box_status number;
		const char *name;
	} rows[] = {
#define ROW(name, number, text) {PT2BOX_##name, #name},
		PT2BOX_STATUS_LIST(ROW)
#undef ROW
	};
	const size_t n = sizeof(rows) / sizeof(rows[0]);

	(void)state;
	for (size_t i = 0; i < n; i++) {
		assert_string_equal(rows[i].name, pt2box_status_name(rows[i].number));
		assert_true(strlen(pt2box_status_text(rows[i].number)) > 3);
		assert_in_range(rows[i].number, 0, 125); /* an exit code that no shell uses itself */
		for (size_t j = i + 1; j < n; j++)
			assert_int_not_equal(rows[i].number, rows[j].number);
	}
	assert_int_equal(0, PT2BOX_OK);
	assert_string_equal("?", pt2box_status_name((enum pt2box_status)3));
	assert_string_equal("?", pt2box_status_name((enum pt2box_status)255));
	assert_string_equal("unknown status", pt2box_status_text((enum pt2box_status)-1));
}

static void test_error_set(void **state)
{
	struct pt2box_error e;

	(void)state;
	memset(&e, 0xff, sizeof(e));
	assert_int_equal(PT2BOX_LIMIT, pb_error_set(&e, PT2BOX_LIMIT, "%d of %s", 3, "four"));
	assert_int_equal(PT2BOX_LIMIT, e.status);
	assert_string_equal("3 of four", e.text);
	assert_int_equal(0, e.sys_errno);
	assert_int_equal(0, e.signal);
	assert_int_equal(PT2BOX_DENIED, pb_error_set(NULL, PT2BOX_DENIED, "nobody asks"));
	pb_error_clear(NULL);
	pb_error_clear(&e);
	assert_int_equal(PT2BOX_OK, e.status);
	assert_string_equal("", e.text);
}

static void test_error_sys(void **state)
{
	struct pt2box_error e;
	char longest[600];

	(void)state;
	errno = ENOENT;
	assert_int_equal(PT2BOX_SYSTEM, pb_error_sys(&e, "open %s", "x"));
	assert_int_equal(ENOENT, e.sys_errno);
	assert_string_equal("open x: No such file or directory", e.text);
	errno = EIO;
	assert_int_equal(PT2BOX_SYSTEM, pb_error_sys(NULL, "nobody asks"));
	memset(longest, 'a', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	errno = EIO;
	assert_int_equal(PT2BOX_SYSTEM, pb_error_sys(&e, "%s", longest));
	assert_int_equal(sizeof(e.text) - 1, strlen(e.text));
	assert_int_equal(EIO, e.sys_errno);
}

/* A sentence that is too long is cut between characters, never inside one. */
static void test_error_cut_in_a_character(void **state)
{
	struct pt2box_error e;
	char text[700];

	(void)state;
	for (size_t lead = 0; lead < 4; lead++) {
		size_t n = lead;

		memset(text, 'a', lead);
		while (n + 4 < sizeof(text)) {
			memcpy(text + n, "\xf0\x9f\x94\xa5", 4);
			n += 4;
		}
		text[n] = '\0';
		(void)pb_error_set(&e, PT2BOX_LIMIT, "%s", text);
		assert_in_range(strlen(e.text), sizeof(e.text) - 5, sizeof(e.text) - 1);
		/* A half character at the end has become question marks or is gone. */
		n = lead;
		while (e.text[n] == '\xf0') {
			assert_memory_equal("\xf0\x9f\x94\xa5", e.text + n, 4);
			n += 4;
		}
		for (; e.text[n]; n++)
			assert_int_equal('?', e.text[n]);
	}
}

static void escapes_to(const char *src, size_t n, const char *want)
{
	char got[64];

	pb_text_escape(got, sizeof(got), src, n);
	assert_string_equal(want, got);
}
#define ESCAPES_TO(literal, want) escapes_to(literal, sizeof(literal) - 1, want)

static void test_escape(void **state)
{
	(void)state;
	ESCAPES_TO("", "");
	ESCAPES_TO("plain text, 100 %", "plain text, 100 %");
	ESCAPES_TO("a\nb\tc\rd", "a?b?c?d");
	ESCAPES_TO("\x1b[31mred\x1b[0m", "?[31mred?[0m");
	ESCAPES_TO("\x7f", "?");
	ESCAPES_TO("\xc2\x9b"
		   "2J",
		   "?2J"); /* CSI as a C1 control: terminals obey it */
	ESCAPES_TO("\xc2\xa0", "\xc2\xa0");
	ESCAPES_TO("gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f");
	ESCAPES_TO("\xe2\x82\xac \xf0\x9f\x94\xa5", "\xe2\x82\xac \xf0\x9f\x94\xa5");
	ESCAPES_TO("\xff\xfe\x80", "???");
	ESCAPES_TO("\xc0\xaf", "??");		      /* '/' in two bytes */
	ESCAPES_TO("\xe0\x80\xaf", "???");	      /* in three */
	ESCAPES_TO("\xed\xa0\x80", "???");	      /* a surrogate */
	ESCAPES_TO("\xf4\x90\x80\x80", "????");	      /* above 10ffff */
	ESCAPES_TO("\xf5\x80\x80\x80", "????");
	ESCAPES_TO("end\xe2\x82", "end??"); /* cut off */
	ESCAPES_TO("one\0two", "one");
}

static void test_escape_bounds(void **state)
{
	char dst[8];

	(void)state;
	memset(dst, 'x', sizeof(dst));
	pb_text_escape(dst, 0, "abc", 3);
	assert_int_equal('x', dst[0]);
	pb_text_escape(dst, 1, "abc", 3);
	assert_string_equal("", dst);
	assert_int_equal('x', dst[1]);
	pb_text_escape(dst, 3, "abc", 3);
	assert_string_equal("ab", dst);
	assert_int_equal('x', dst[3]);
	pb_text_escape(dst, 3, "a\xe2\x82\xac", 4);
	assert_string_equal("a", dst);
	pb_text_escape(dst, 3, "a\n\n", 3);
	assert_string_equal("a?", dst);
	pb_text_escape(dst, sizeof(dst), NULL, 0);
	assert_string_equal("", dst);
}

/* Shortest-form UTF-8 without controls, checked by decoding it again another way. */
static void assert_harmless(const char *s)
{
	const uint8_t *p = (const uint8_t *)s;

	while (*p) {
		uint32_t c = *p++;
		int more = 0;

		if (c >= 0xf0)
			more = 3;
		else if (c >= 0xe0)
			more = 2;
		else if (c >= 0x80)
			more = 1;
		c &= more ? 0x3fu >> more : 0x7fu;
		for (int i = 0; i < more; i++) {
			assert_int_equal(0x80, *p & 0xc0);
			c = c << 6 | (*p++ & 0x3f);
		}
		assert_true(c >= 0x20 && (c < 0x7f || c >= 0xa0) && c <= 0x10ffff);
		assert_false(c >= 0xd800 && c < 0xe000);
		assert_true(more == (c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3));
	}
}

static void test_escape_any_bytes(void **state)
{
	uint64_t seed = 4;

	(void)state;
	for (int i = 0; i < 20000; i++) {
		char src[40], dst[40], again[40];
		const size_t n = check_rand(&seed) % sizeof(src), cap = 1 + check_rand(&seed) % sizeof(dst);
		/* Half of the time bytes that lead and continue characters, so that valid ones are met. */
		const bool leads = check_rand(&seed) & 1;

		for (size_t j = 0; j < n; j++) {
			const uint64_t r = check_rand(&seed);

			src[j] = (char)(leads ? 0x80 + r % 0x78 : r);
		}
		pb_text_escape(dst, cap, src, n);
		assert_true(strlen(dst) < cap);
		assert_harmless(dst);
		pb_text_escape(again, sizeof(again), dst, strlen(dst));
		assert_string_equal(dst, again);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_names_are_unique),
		CHECK_TEST(test_error_set),
		CHECK_TEST(test_error_sys),
		CHECK_TEST(test_error_cut_in_a_character),
		CHECK_TEST(test_escape),
		CHECK_TEST(test_escape_bounds),
		CHECK_TEST(test_escape_any_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
