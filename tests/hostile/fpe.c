/* SPDX-License-Identifier: Apache-2.0 */
/* M27: a division by zero. */
#include "tests/hostile/base.h"

static int attack(void)
{
	volatile int zero = 0;

	return 1000 / zero;
}
