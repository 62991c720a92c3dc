/* SPDX-License-Identifier: Apache-2.0 */
/* M08: a local socket, to a path that is there where anything is. */
#include "tests/hostile/base.h"

#include <sys/socket.h>
#include <sys/un.h>

static int attack(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "/etc/hostname"};
	int s = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	/* Not a socket, and refused for that: the file was found. */
	return s >= 0 && (connect(s, (struct sockaddr *)&a, sizeof(a)) == 0 || errno == ECONNREFUSED);
}
