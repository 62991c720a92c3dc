/* SPDX-License-Identifier: Apache-2.0 */
/* M08: connects to a name that a process outside listens on (tests/tools/matrix.c). */
#include "tests/hostile/base.h"

#include <sys/socket.h>
#include <sys/un.h>

static int attack(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "\0pt2box-test-abstract"};
	int s = socket(AF_UNIX, SOCK_STREAM, 0);

	return s >= 0 && connect(s, (struct sockaddr *)&a, offsetof(struct sockaddr_un, sun_path) + 21) == 0;
}
