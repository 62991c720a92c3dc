/* SPDX-License-Identifier: Apache-2.0 */
/* M28: ends the process as if all were well. */
#include "tests/hostile/base.h"

static int attack(void)
{
	exit(0);
}
