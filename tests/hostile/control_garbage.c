/* SPDX-License-Identifier: Apache-2.0 */
/* M31: garbage on the control sockets (3 in a template, 4 in a worker). */
#include "tests/hostile/base.h"

static int attack(void)
{
	static char junk[4096];
	int fd = AT == AT_RUN ? 4 : 3;

	memset(junk, 0xc1, sizeof(junk));
	(void)!write(fd, junk, sizeof(junk));
	futex_sleep_ms(200);
	return 0;
}
