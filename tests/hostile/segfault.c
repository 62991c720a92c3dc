/* SPDX-License-Identifier: Apache-2.0 */
/* M27: a store through NULL. */
#include "tests/hostile/base.h"

static int attack(void)
{
	*(volatile int *)8 = 1;
	return 0;
}
