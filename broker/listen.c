/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The listening socket: made here, or handed over by whoever started the broker, by systemd's protocol (sd_listen_fds(3)):
 * LISTEN_FDS says how many there are from descriptor 3 on, LISTEN_PID for whom.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "broker/broker.h"

#define FIRST_FD 3

/* A socket left by a broker that died is taken over; one that somebody answers on is not. */
static pb_status take_path(const struct sockaddr_un *a, struct pt2box_error *err)
{
	PB_CLEANUP(pb_close_fd) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct stat sb;

	if (fd < 0)
		return pb_error_sys(err, "socket");
	if (lstat(a->sun_path, &sb) != 0)
		return PT2BOX_OK;
	if (!S_ISSOCK(sb.st_mode))
		return pb_error_set(err, PT2BOX_USAGE, "%s exists and is not a socket", a->sun_path);
	if (connect(fd, (const struct sockaddr *)a, sizeof(*a)) == 0)
		return pb_error_set(err, PT2BOX_USAGE, "a broker already listens on %s", a->sun_path);
	if (unlink(a->sun_path) != 0)
		return pb_error_sys(err, "%s", a->sun_path);
	return PT2BOX_OK;
}

pb_status pb_listen(const char *path, int *ret_fd, struct pt2box_error *err)
{
	PB_CLEANUP(pb_close_fd) int fd = -1;
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	pb_status st;

	if (strlen(path) >= sizeof(a.sun_path))
		return pb_error_set(err, PT2BOX_USAGE, "the socket's path is too long");
	strcpy(a.sun_path, path);
	st = take_path(&a, err);
	if (st)
		return st;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(fd, 64) != 0)
		return pb_error_sys(err, "%s", path);
	/* Anybody may connect: what they may do is decided by who they are. */
	if (geteuid() == 0)
		chmod(path, 0666);
	*ret_fd = pb_take_fd(&fd);
	return PT2BOX_OK;
}

static int option(int fd, int name)
{
	socklen_t len = sizeof(int);
	int value = -1;

	return getsockopt(fd, SOL_SOCKET, name, &value, &len) == 0 ? value : -1;
}

pb_status pb_listen_inherited(int *ret_fd, struct pt2box_error *err)
{
	const char *fds = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
	bool ours = fds && pid && strtol(pid, NULL, 10) == getpid();
	long n = ours ? strtol(fds, NULL, 10) : 0;

	/* Not for what this process starts. */
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDNAMES");
	if (n == 0)
		return PT2BOX_OK;
	if (n != 1)
		return pb_error_set(err, PT2BOX_USAGE, "%s sockets were handed over, one is listened on", fds);
	if (option(FIRST_FD, SO_DOMAIN) != AF_UNIX || option(FIRST_FD, SO_TYPE) != SOCK_SEQPACKET ||
	    option(FIRST_FD, SO_ACCEPTCONN) != 1)
		return pb_error_set(err, PT2BOX_USAGE, "what was handed over is no listening Unix socket of type SEQPACKET");
	if (fcntl(FIRST_FD, F_SETFD, FD_CLOEXEC) != 0 || fcntl(FIRST_FD, F_SETFL, O_NONBLOCK) != 0)
		return pb_error_sys(err, "the socket that was handed over");
	*ret_fd = FIRST_FD;
	return PT2BOX_OK;
}
