/* SPDX-License-Identifier: Apache-2.0 */
/* M07: a socket, to the loopback address, where nobody listens: to be refused is to have reached the network. */
#include "tests/hostile/base.h"

#include <netinet/in.h>
#include <sys/socket.h>

static int attack(void)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = 0x0900, .sin_addr = {0x0100007f}};
	int s = socket(AF_INET, SOCK_STREAM, 0);

	return s >= 0 && (connect(s, (struct sockaddr *)&to, sizeof(to)) == 0 || errno == ECONNREFUSED);
}
