/* SPDX-License-Identifier: Apache-2.0 */
/* M37: remembers the run before: its own model's, which is its right. */
#include "tests/hostile/base.h"

static int runs;

static int attack(void)
{
	now.out[0] = (float)++runs;
	return 0;
}
