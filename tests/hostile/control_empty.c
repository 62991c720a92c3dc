/* SPDX-License-Identifier: Apache-2.0 */
/* M31: empty and huge packets on the control sockets. */
#include "tests/hostile/base.h"

static int attack(void)
{
	static char junk[200000];
	int fd = AT == AT_RUN ? 4 : 3;

	(void)!write(fd, junk, 0);
	(void)!write(fd, junk, sizeof(junk));
	(void)!write(fd, junk, 65537);
	futex_sleep_ms(200);
	return 0;
}
