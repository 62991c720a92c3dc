/* SPDX-License-Identifier: Apache-2.0 */
/* See spare.h. The spawner is believed, but a packet that makes no sense ends the process all the same. */
#include "broker/intake/spare.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FD_HIGH 64 /* descriptors on their way to their numbers wait above this */

static struct pb_spare_job job;

/* Descriptors that came, 0 if the packet is not one; they are above FD_HIGH then. */
static size_t receive(int fds[PB_FDS_MAX])
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * PB_FDS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec iov = {&job, sizeof(job)};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof(control.buf)};
	struct cmsghdr *c;
	size_t n_fds;
	ssize_t n;

	do
		n = recvmsg(PB_SPARE_FD, &h, 0);
	while (n < 0 && errno == EINTR);
	c = n == (ssize_t)sizeof(job) && !(h.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ? CMSG_FIRSTHDR(&h) : NULL;
	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
		return 0;
	n_fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	for (size_t i = 0; i < n_fds; i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
		fds[i] = fcntl(fd, F_DUPFD, FD_HIGH);
		close(fd);
	}
	return n_fds;
}

static bool split(int *ret_argc, char ***ret_argv)
{
	static char *argv[PB_SPARE_ARGS + 1];
	char *at = job.args, *end = job.args + sizeof(job.args);

	if (job.n_args > PB_SPARE_ARGS)
		return false;
	for (uint32_t i = 0; i < job.n_args; i++) {
		size_t n = strnlen(at, (size_t)(end - at));

		if (at + n == end)
			return false;
		argv[i] = at;
		at += n + 1;
	}
	*ret_argc = (int)job.n_args;
	*ret_argv = argv;
	return true;
}

bool pb_spare_wait(int *ret_argc, char ***ret_argv)
{
	int fds[PB_FDS_MAX];
	size_t n = receive(fds);

	close(PB_SPARE_FD);
	for (size_t i = 0; i < n; i++) {
		if (job.target[i] < 0 || job.target[i] >= FD_HIGH || dup2(fds[i], job.target[i]) < 0)
			return false;
		close(fds[i]);
	}
	return n > 0 && split(ret_argc, ret_argv);
}
