/* SPDX-License-Identifier: Apache-2.0 */
/* M30: closes standard output. In a template its number is then the next that a received descriptor gets. */
#include "tests/hostile/base.h"

static int attack(void)
{
	close(1);
	return 0;
}
