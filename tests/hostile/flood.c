/* SPDX-License-Identifier: Apache-2.0 */
/* M42: 64 MiB on standard error. */
#include "tests/hostile/base.h"

static int attack(void)
{
	static char block[65536];

	memset(block, 'x', sizeof(block));
	for (int i = 0; i < 1024; i++)
		(void)!write(2, block, sizeof(block));
	return 0;
}
