/* SPDX-License-Identifier: Apache-2.0 */
/* Names and sentences of statuses; filling struct pt2box_error; making a peer's text harmless. */
#include "ipc/status.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

const char *pt2box_status_name(enum pt2box_status status)
{
	switch (status) {
#define NAME(name, number, text)                                                                                       \
	case PT2BOX_##name:                                                                                            \
		return #name;
		PT2BOX_STATUS_LIST(NAME)
#undef NAME
	}
	return "?";
}

const char *pt2box_status_text(enum pt2box_status status)
{
	switch (status) {
#define TEXT(name, number, text)                                                                                       \
	case PT2BOX_##name:                                                                                            \
		return text;
		PT2BOX_STATUS_LIST(TEXT)
#undef TEXT
	}
	return "unknown status";
}

void pb_error_clear(struct pt2box_error *err)
{
	if (err)
		memset(err, 0, sizeof(*err));
}

static pb_status set(struct pt2box_error *err, pb_status status, const char *fmt, va_list ap)
{
	char raw[sizeof(err->text)];
	int n;

	if (!err)
		return status;
	n = vsnprintf(raw, sizeof(raw), fmt, ap);
	pb_error_clear(err);
	err->status = status;
	pb_text_escape(err->text, sizeof(err->text), raw,
		       n < 0 ? 0 : (size_t)n < sizeof(raw) ? (size_t)n : sizeof(raw) - 1);
	return status;
}

pb_status (pb_error_set)(struct pt2box_error *err, pb_status status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	set(err, status, fmt, ap);
	va_end(ap);
	return status;
}

pb_status (pb_error_sys)(struct pt2box_error *err, const char *fmt, ...)
{
	int e = errno;
	va_list ap;

	va_start(ap, fmt);
	set(err, PT2BOX_SYSTEM, fmt, ap);
	va_end(ap);
	if (err) {
		size_t used = strlen(err->text);

		snprintf(err->text + used, sizeof(err->text) - used, ": %s", strerror(e));
		err->sys_errno = e;
	}
	return PT2BOX_SYSTEM;
}

/* Length of the valid UTF-8 sequence at @s (shortest form, no surrogates), 0 if there is none. */
static size_t utf8_len(const uint8_t *s, size_t n)
{
	uint32_t c, min;
	size_t len;

	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf) {
		len = 2;
		c = s[0] & 0x1f;
		min = 0x80;
	} else if ((s[0] & 0xf0) == 0xe0) {
		len = 3;
		c = s[0] & 0x0f;
		min = 0x800;
	} else if (s[0] >= 0xf0 && s[0] <= 0xf4) {
		len = 4;
		c = s[0] & 0x07;
		min = 0x10000;
	} else {
		return 0;
	}
	if (len > n)
		return 0;
	for (size_t i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	return c >= min && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff) ? len : 0;
}

void pb_text_escape(char *dst, size_t dst_bytes, const char *src, size_t src_bytes)
{
	const uint8_t *s = (const uint8_t *)src;
	size_t n = 0, i = 0;

	if (dst_bytes == 0)
		return;
	while (i < src_bytes && s[i]) {
		size_t len = utf8_len(s + i, src_bytes - i);

		/* C0, DEL and the C1 controls (terminals obey some of them) become '?'. */
		if (len == 0 || s[i] < 0x20 || s[i] == 0x7f || (len == 2 && s[i] == 0xc2 && s[i + 1] < 0xa0)) {
			if (n + 2 > dst_bytes)
				break;
			dst[n++] = '?';
			i += len ? len : 1;
			continue;
		}
		if (n + len + 1 > dst_bytes)
			break;
		memcpy(dst + n, s + i, len);
		n += len;
		i += len;
	}
	dst[n] = '\0';
}
