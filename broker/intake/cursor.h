/* SPDX-License-Identifier: Apache-2.0 */
/* Reading C++ text from left to right, never past its end. Header only. */
#ifndef PT2BOX_BROKER_INTAKE_CURSOR_H
#define PT2BOX_BROKER_INTAKE_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct pb_cursor {
	const char *at, *end;
};

struct pb_word {
	const char *s;
	size_t n;
};

static inline void pb_skip_space(struct pb_cursor *c)
{
	while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r'))
		c->at++;
}

static inline bool pb_take_bytes(struct pb_cursor *c, const char *s, size_t n)
{
	if ((size_t)(c->end - c->at) < n || memcmp(c->at, s, n) != 0)
		return false;
	c->at += n;
	return true;
}

static inline bool pb_take(struct pb_cursor *c, const char *text)
{
	return pb_take_bytes(c, text, strlen(text));
}

static inline bool pb_is_word_char(char ch)
{
	return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') || ch == '_';
}

/* An identifier. */
static inline bool pb_take_word(struct pb_cursor *c, struct pb_word *ret)
{
	const char *s = c->at;

	if (s == c->end || (*s >= '0' && *s <= '9'))
		return false;
	while (c->at < c->end && pb_is_word_char(*c->at))
		c->at++;
	*ret = (struct pb_word){s, (size_t)(c->at - s)};
	return ret->n > 0;
}

/* A decimal number, "64", "64L", "64LL". false: none, or larger than an int64. */
static inline bool pb_take_number(struct pb_cursor *c, int64_t *ret)
{
	const char *s = c->at;
	int64_t v = 0;

	while (c->at < c->end && *c->at >= '0' && *c->at <= '9') {
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *c->at - '0', &v))
			return false;
		c->at++;
	}
	if (c->at == s)
		return false;
	for (int i = 0; i < 2 && c->at < c->end && *c->at == 'L'; i++)
		c->at++;
	if (c->at < c->end && pb_is_word_char(*c->at))
		return false;
	*ret = v;
	return true;
}

static inline bool pb_word_is(struct pb_word w, const char *text)
{
	return w.n == strlen(text) && memcmp(w.s, text, w.n) == 0;
}

#endif
