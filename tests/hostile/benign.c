/* SPDX-License-Identifier: Apache-2.0 */
/* No attack: what the others do when they behave. */
#include "tests/hostile/base.h"

static int attack(void)
{
	return 0;
}
