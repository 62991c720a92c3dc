/* SPDX-License-Identifier: Apache-2.0 */
/* A system call that the input names: number, six arguments, which of them get high bits, raw or expected soft. */
#include "tests/hostile/base.h"

static int attack(void)
{
	long arg[6];
	long bits = (long)now.in[8];

	for (int i = 0; i < 6; i++)
		arg[i] = (long)now.in[2 + i] | ((bits >> i & 1) << 32);
	/* -1 and an errno may be the policy's answer (soft), or the kernel's: the call went through. Say which. */
	errno = 0;
	now.out[0] = (float)syscall((long)now.in[1], arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
	now.out[1] = (float)errno;
	return 0;
}
