/* SPDX-License-Identifier: Apache-2.0 */
/* M32: sends a descriptor to the broker. */
#include "tests/hostile/base.h"

#include <sys/socket.h>

static int attack(void)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {.buf = {0}};
	struct iovec iov = {"\x92\x4b\x01", 3};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof(control.buf)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	*c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
	return sendmsg(AT == AT_RUN ? 4 : 3, &m, MSG_DONTWAIT) >= 0;
}
