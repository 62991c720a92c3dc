/* SPDX-License-Identifier: Apache-2.0 */
/* M12: kills all it can see. */
#include "tests/hostile/base.h"

static int attack(void)
{
	return kill(-1, 0) == 0;
}
