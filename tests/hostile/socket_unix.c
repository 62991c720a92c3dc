/* SPDX-License-Identifier: Apache-2.0 */
/* M08: a local socket. */
#include "tests/hostile/base.h"

#include <sys/socket.h>

static int attack(void)
{
	return socket(AF_UNIX, SOCK_SEQPACKET, 0) >= 0;
}
