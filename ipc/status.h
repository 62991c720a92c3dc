/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Statuses and errors inside pt2box: the public enum under a short name, and helpers that fill struct pt2box_error.
 * Owns nothing. Only process code logs; everything below returns.
 */
#ifndef PT2BOX_IPC_STATUS_H
#define PT2BOX_IPC_STATUS_H

#include <stdarg.h>

#include "include/pt2box.h"

typedef enum pt2box_status pb_status; /* the one typedef: it stands in every signature */

#define PB_CHECK __attribute__((warn_unused_result))
#define PB_PRINTF(f, a) __attribute__((format(printf, f, a)))

/* Fill @err (may be NULL) with a status and a sentence; returns @status. errno is not recorded. */
pb_status pb_error_set(struct pt2box_error *err, pb_status status, const char *fmt, ...) PB_PRINTF(3, 4);
/* The same for a failed system call: appends ": strerror(errno)" and records errno; status is PT2BOX_SYSTEM. */
pb_status pb_error_sys(struct pt2box_error *err, const char *fmt, ...) PB_PRINTF(2, 3);
#ifdef __clang_analyzer__ /* it sees one file at a time, and would think that these may return OK */
#define pb_error_set(err, status, ...) ((void)(pb_error_set)(err, status, __VA_ARGS__), (status))
#define pb_error_sys(...) ((void)(pb_error_sys)(__VA_ARGS__), PT2BOX_SYSTEM)
#endif
void pb_error_clear(struct pt2box_error *err);
/* Copy @src into @dst replacing control characters and invalid UTF-8 by '?'; always terminated. For peers' strings. */
void pb_text_escape(char *dst, size_t dst_bytes, const char *src, size_t src_bytes);

#endif
