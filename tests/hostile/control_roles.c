/* SPDX-License-Identifier: Apache-2.0 */
/* M31: messages that only others may send: exited (51), worker_died (67), loaded (22). */
#include "tests/hostile/base.h"

static int attack(void)
{
	static const unsigned char exited[] = {0x94, 51, 1, 0, 0}, died[] = {0x93, 67, 0, 0};
	int fd = AT == AT_RUN ? 4 : 3;

	(void)!write(fd, exited, sizeof(exited));
	(void)!write(fd, died, sizeof(died));
	futex_sleep_ms(200);
	return 0;
}
