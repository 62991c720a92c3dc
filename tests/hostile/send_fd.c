/* SPDX-License-Identifier: Apache-2.0 */
/* M32: sends a descriptor to the broker. */
#include "tests/hostile/base.h"

#include <sys/socket.h>

static int attack(void)
{
	struct msghdr m = {0};

	return sendmsg(3, &m, 0) >= 0 || sendmsg(4, &m, 0) >= 0;
}
