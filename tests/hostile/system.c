/* SPDX-License-Identifier: Apache-2.0 */
/* M09: a shell. */
#include "tests/hostile/base.h"

static int attack(void)
{
	return system("true") == 0;
}
