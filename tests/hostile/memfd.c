/* SPDX-License-Identifier: Apache-2.0 */
/* M23: a file in memory, and something in it. */
#include "tests/hostile/base.h"

static int attack(void)
{
	static char block[65536];
	long fd = syscall(SYS_memfd_create, "x", 0);

	return fd >= 0 && write((int)fd, block, sizeof(block)) > 0;
}
