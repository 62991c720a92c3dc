/* SPDX-License-Identifier: Apache-2.0 */
/* M30: closes standard output; nobody needs it. */
#include "tests/hostile/base.h"

static int attack(void)
{
	close(1);
	return 0;
}
