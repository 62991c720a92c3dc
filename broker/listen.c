/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The listening socket: made here, or handed over by whoever started the broker, by systemd's protocol (sd_listen_fds(3)):
 * LISTEN_FDS says how many there are from descriptor 3 on, LISTEN_PID for whom.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "broker/broker.h"

#define FIRST_FD 3

/* A folder that nobody else may write to: there a name is this user's. */
static bool is_mine(const char *dir)
{
	struct stat sb;

	return stat(dir, &sb) == 0 && S_ISDIR(sb.st_mode) && sb.st_uid == geteuid() && !(sb.st_mode & 022);
}

pb_status pb_default_socket(char ret[108], struct pt2box_error *err)
{
	const char *env = getenv("PT2BOX_SOCKET"), *run = getenv("XDG_RUNTIME_DIR");
	char dir[64];
	int n;

	if (env && *env) {
		n = snprintf(ret, 108, "%s", env);
	} else if (geteuid() == 0) {
		n = snprintf(ret, 108, "/run/pt2box.sock");
	} else {
		snprintf(dir, sizeof(dir), "/run/user/%u", geteuid());
		if (!run || !*run)
			run = is_mine(dir) ? dir : NULL;
		/* Not in /tmp: whoever is first there would be taken for the broker. */
		if (!run)
			return pb_error_set(err, PT2BOX_USAGE,
					    "there is no XDG_RUNTIME_DIR and no /run/user/%u: name a socket with --socket",
					    geteuid());
		n = snprintf(ret, 108, "%s/pt2box.sock", run);
	}
	return n < 108 ? PT2BOX_OK : pb_error_set(err, PT2BOX_USAGE, "the socket's path is too long");
}

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

/* Nobody else's until it has its group and mode. It listens as soon as it has a name. */
static pb_status bind_as(int fd, const struct sockaddr_un *a, unsigned mode, const char *group, struct pt2box_error *err)
{
	const struct group *gr = group ? getgrnam(group) : NULL;
	const mode_t before = umask(0177);
	const int rc = bind(fd, (const struct sockaddr *)a, sizeof(*a)) != 0 || listen(fd, 64) != 0;
	gid_t gid = gr ? gr->gr_gid : (gid_t)-1;

	umask(before);
	if (rc != 0)
		return pb_error_sys(err, "%s", a->sun_path);
	if (group && !gr)
		gid = (gid_t)strtoul(group, NULL, 10); /* a number, as the configuration has checked */
	if ((group && chown(a->sun_path, (uid_t)-1, gid) != 0) || chmod(a->sun_path, mode) != 0)
		return pb_error_sys(err, "group and mode of %s", a->sun_path);
	return PT2BOX_OK;
}

pb_status pb_listen(const char *path, unsigned mode, const char *group, int *ret_fd, struct pt2box_error *err)
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
	if (fd < 0)
		return pb_error_sys(err, "%s", path);
	st = bind_as(fd, &a, mode, group, err);
	if (st)
		return st;
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
