/* SPDX-License-Identifier: Apache-2.0 */
/* M42: terminal escapes on standard error. */
#include "tests/hostile/base.h"

static int attack(void)
{
	static const char text[] = "\033]0;owned\007\033[2J\033[31mred\r\n\x9b" "31m \xff\xfe end\n";

	return write(2, text, sizeof(text) - 1) < 0 && errno != EAGAIN;
}
