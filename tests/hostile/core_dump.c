/* SPDX-License-Identifier: Apache-2.0 */
/* M38: dies in a way that leaves a core file where one may be left. */
#include "tests/hostile/base.h"

static int attack(void)
{
	*(volatile int *)8 = 1;
	return 0;
}
