/* SPDX-License-Identifier: Apache-2.0 */
/* M22: asks for more than there is in one piece, and stores into what it gets. */
#include "tests/hostile/base.h"

static int attack(void)
{
	volatile char *p = malloc(1ull << 46);

	p[0] = 1;
	return 1;
}
