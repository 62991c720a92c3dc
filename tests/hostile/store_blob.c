/* SPDX-License-Identifier: Apache-2.0 */
/* M18: stores into constants from a separate file. */
#define CONSTANTS_BLOB
#include "tests/hostile/base.h"

static int attack(void)
{
	if (weights)
		weights[3] = 99;
	return 1;
}
