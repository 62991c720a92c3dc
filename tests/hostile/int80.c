/* SPDX-License-Identifier: Apache-2.0 */
/* M14: the 32-bit entry of the kernel (getpid there). */
#include "tests/hostile/base.h"

static int attack(void)
{
	long r;

	__asm__ volatile("int $0x80" : "=a"(r) : "a"(20) : "memory", "r8", "r9", "r10", "r11");
	return r > 0;
}
