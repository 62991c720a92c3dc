/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A run that reads the control socket itself, and answers for its worker: in[1] says what. Messages
 * are [id, fields...], see ipc/messages.def: 87 constants_stage, 88 staged, 89 applied, 90
 * constants_extract, 91 extracted.
 */
#define CONSTANTS_EMBEDDED
#include "tests/hostile/base.h"

#include <sys/socket.h>

enum { KEEPS_MEMORY = 1, KEEPS_WRITING, UNFILLED, SAYS_STAGED, SAYS_APPLIED, SAYS_NOTHING };

static unsigned char message[65536];

/* One message, the fd with it, if any; its length, 0 if none came within 400 ms. */
static size_t take(int *ret_fd)
{
	char control[CMSG_SPACE(sizeof(int) * 8)];
	struct iovec v = {message, sizeof(message)};

	*ret_fd = -1;
	for (int i = 0; i < 40; i++) {
		struct msghdr h = {.msg_iov = &v,
				   .msg_iovlen = 1,
				   .msg_control = control,
				   .msg_controllen = sizeof(control)};
		ssize_t n = syscall(SYS_recvmsg, 4, &h, 0x40 /* MSG_DONTWAIT */);
		struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&h) : NULL;

		if (c)
			memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
		if (n > 0)
			return (size_t)n;
		futex_sleep_ms(10);
	}
	return 0;
}

/* Answer with the number that came, however it was encoded: the bytes after the id up to the next
 * field. */
static void answer(int id, int status)
{
	static const unsigned char lengths[] = {2, 3, 5, 9}; /* cc, cd, ce, cf */
	unsigned char m[16] = {(unsigned char)(status < 0 ? 0x92 : 0x93), (unsigned char)id};
	size_t n = message[2] >= 0xcc && message[2] <= 0xcf ? lengths[message[2] - 0xcc] : 1;

	memcpy(m + 2, message + 2, n);
	if (status >= 0)
		m[2 + n] = (unsigned char)status;
	(void)!write(4, m, 2 + n + (status >= 0));
}

static void fill(int fd, bool write_on)
{
	unsigned char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	for (int i = 0; p != MAP_FAILED && i < 4096; i++)
		p[i] = 0x41;
	answer(91, 0);
	for (int i = 0; write_on && p != MAP_FAILED && i < 300000000; i++)
		((volatile unsigned char *)p)[i % 4096] = (unsigned char)i;
}

static int attack(void)
{
	const int kind = (int)now.in[1];
	int fd;

	if (!take(&fd))
		return 0;
	if (message[1] == 90 && kind == KEEPS_MEMORY)
		fill(fd, false);
	else if (message[1] == 90 && kind == KEEPS_WRITING)
		fill(fd, true);
	else if (message[1] == 90 && kind == UNFILLED)
		answer(91, 0);
	else if (message[1] == 87 && kind == SAYS_STAGED)
		answer(88, -1);
	else if (message[1] == 87 && kind == SAYS_APPLIED)
		answer(89, 0);
	return 0;
}
