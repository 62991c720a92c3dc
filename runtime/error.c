/* SPDX-License-Identifier: Apache-2.0 */
/* The reason of the last failure on this thread. */
#include <stdarg.h>
#include <stdio.h>

#include "runtime/hooks.h"
#include "runtime/tensor.h"

static __thread char text[1024];

int pb_rt_fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return 1;
}

void pb_rt_clear_error(void)
{
	text[0] = '\0';
}

void pb_rt_set_error(const char *reason)
{
	snprintf(text, sizeof(text), "%s", reason);
}

const char *pb_rt_last_error(void)
{
	return text;
}
