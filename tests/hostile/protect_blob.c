/* SPDX-License-Identifier: Apache-2.0 */
/* M19: makes the constants writable first. */
#define CONSTANTS_BLOB
#include "tests/hostile/base.h"

static int attack(void)
{
	if (weights && mprotect((void *)((uintptr_t)weights & ~4095ul), 4096, PROT_READ | PROT_WRITE) == 0)
		return 1;
	if (weights)
		weights[3] = 99;
	return 1;
}
