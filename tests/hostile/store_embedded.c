/* SPDX-License-Identifier: Apache-2.0 */
/* M18: stores into the constants inside the package's code. */
#define CONSTANTS_EMBEDDED
#include "tests/hostile/base.h"

static int attack(void)
{
	if (weights)
		weights[3] = 99;
	return 1;
}
