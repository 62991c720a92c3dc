/* SPDX-License-Identifier: Apache-2.0 */
/* A harmless system call made by an instruction of the model's own: what a tracer looks for. */
#include "tests/hostile/base.h"

static int attack(void)
{
	long r;

	__asm__ volatile("syscall" : "=a"(r) : "a"(SYS_getpid) : "rcx", "r11", "memory");
	return r <= 0;
}
