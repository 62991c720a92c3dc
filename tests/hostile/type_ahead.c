/* SPDX-License-Identifier: Apache-2.0 */
/* M16: puts a character into the terminal that it may have been started from. */
#include "tests/hostile/base.h"

#include <sys/ioctl.h>

static int attack(void)
{
	char c = '\n';

	for (int fd = 0; fd < 8; fd++)
		if (ioctl(fd, TIOCSTI, &c) == 0)
			return 1;
	return 0;
}
