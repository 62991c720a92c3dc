/* SPDX-License-Identifier: Apache-2.0 */
/* M25: never comes back. */
#include "tests/hostile/base.h"

static int attack(void)
{
	for (;;)
		__asm__ volatile("");
	return 0;
}
