/* SPDX-License-Identifier: Apache-2.0 */
/* M30: closes every descriptor. */
#include "tests/hostile/base.h"

static int attack(void)
{
	for (int fd = 0; fd < 64; fd++)
		close(fd);
	return 0;
}
