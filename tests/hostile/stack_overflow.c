/* SPDX-License-Identifier: Apache-2.0 */
/* M27: recursion without an end. */
#include "tests/hostile/base.h"

__attribute__((noinline)) static int deeper(int n)
{
	volatile char frame[4096];

	frame[0] = (char)n;
	return n == 0 ? 0 : deeper(n + 1) + frame[0];
}

static int attack(void)
{
	return deeper(1) == 0;
}
