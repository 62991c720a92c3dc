/* SPDX-License-Identifier: Apache-2.0 */
/* M28: ends the process at once. */
#include "tests/hostile/base.h"

static int attack(void)
{
	_exit(7);
}
