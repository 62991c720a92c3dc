/* SPDX-License-Identifier: Apache-2.0 */
/* Overwrites the heap behind its own allocation. */
#include "tests/hostile/base.h"

static int attack(void)
{
	unsigned char *p = malloc(64);

	for (int i = 0; i < 16384; i++)
		((volatile unsigned char *)p)[i] = 0xff;
	free(p);
	free(malloc(100000));
	abort();
}
