/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A broker of one's own: found, started as a child in a session of its own (so that a terminal's
 * Ctrl-C is the caller's to handle), ended by closing its socket. If this process dies the broker
 * sees the end of the socket, and of us.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "client/internal.h"

#define EMBEDDED_FD 3
#define END_MS 5000

extern char **environ;

/* The folder of the library or program that this code is in. */
static bool own_dir(char dir[PATH_MAX])
{
	struct link_map *map = NULL;
	char path[PATH_MAX];
	Dl_info info;
	char *slash;

	/* A program's own name may be relative, or whatever its parent said: the kernel knows
	 * better. */
	if (dladdr1((void *)&pt2box_open, &info, (void **)&map, RTLD_DL_LINKMAP) && map &&
	    map->l_name[0])
		snprintf(path, sizeof(path), "%s", map->l_name);
	else
		snprintf(path, sizeof(path), "/proc/self/exe");
	if (!realpath(path, dir))
		return false;
	slash = strrchr(dir, '/');
	if (!slash)
		return false;
	*slash = '\0';
	return true;
}

static bool is_there(char path[PATH_MAX], const char *dir, const char *sub)
{
	int n = snprintf(path, PATH_MAX, "%s%s/pt2boxd", dir, sub);

	return n > 0 && n < PATH_MAX && access(path, X_OK) == 0;
}

static pb_status find_broker(char path[PATH_MAX], struct pt2box_error *err)
{
	const char *env = secure_getenv("PT2BOX_LIBEXEC");
	char dir[PATH_MAX];
	bool own;

	if (env && *env) {
		if (is_there(path, env, ""))
			return PT2BOX_OK;
		return pb_error_set(err, PT2BOX_NOT_FOUND,
				    "there is no program pt2boxd in %s (PT2BOX_LIBEXEC)", env);
	}
	own = own_dir(dir);
	/* The tree that it was built in, then an installation that was moved, then where it was to
	 * be installed. */
	if (own && (is_there(path, dir, "/libexec") || is_there(path, dir, "/../libexec/pt2box")))
		return PT2BOX_OK;
	if (is_there(path, PB_LIBEXEC_DIR, ""))
		return PT2BOX_OK;
	return pb_error_set(err, PT2BOX_NOT_FOUND,
			    "the program pt2boxd is neither in %s/libexec nor in " PB_LIBEXEC_DIR
			    ": install pt2box, or set PT2BOX_LIBEXEC",
			    own ? dir : ".");
}

/* Above the standard descriptors: what this program prints must never reach the broker. */
static pb_status raise_fd(int *fd, struct pt2box_error *err)
{
	int up;

	if (*fd > 2)
		return PT2BOX_OK;
	up = fcntl(*fd, F_DUPFD_CLOEXEC, 3);
	if (up < 0)
		return pb_error_sys(err, "descriptor");
	close(*fd);
	*fd = up;
	return PT2BOX_OK;
}

static int spawn(const char *path, int sock, pid_t *ret_pid)
{
	char fd_text[16];
	char *argv[] = {"pt2boxd", "--embedded-fd", fd_text,
			secure_getenv("PT2BOX_VERBOSE") ? "--verbose" : NULL, NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t all, none;
	int e;

	snprintf(fd_text, sizeof(fd_text), "%d", EMBEDDED_FD);
	sigfillset(&all);
	sigemptyset(&none);
	posix_spawnattr_init(&attr);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_setsigdefault(&attr, &all);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF |
						POSIX_SPAWN_SETSIGMASK);
	e = posix_spawn_file_actions_adddup2(&actions, sock, EMBEDDED_FD);
	if (!e)
		e = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	if (!e)
		e = posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
	if (!e && fcntl(2, F_GETFD) < 0)
		e = posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	if (!e)
		e = posix_spawn_file_actions_addclosefrom_np(&actions, EMBEDDED_FD + 1);
	if (!e)
		e = posix_spawn(ret_pid, path, &actions, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	return e;
}

pb_status pb_embedded_start(int *ret_sock, struct pb_embedded *ret, struct pt2box_error *err)
{
	PB_CLEANUP(pb_close_fd) int ours = -1;
	PB_CLEANUP(pb_close_fd) int theirs = -1;
	char path[PATH_MAX];
	int pair[2];
	pb_status st = find_broker(path, err);

	if (!st)
		st = pb_socket_pair(pair, err);
	if (st)
		return st;
	ours = pair[0];
	theirs = pair[1];
	st = raise_fd(&ours, err);
	if (!st)
		st = raise_fd(&theirs, err);
	if (st)
		return st;
	errno = spawn(path, theirs, &ret->pid);
	if (errno)
		return pb_error_sys(err, "cannot start %s", path);
	ret->pidfd = (int)syscall(SYS_pidfd_open, ret->pid, 0);
	*ret_sock = pb_take_fd(&ours);
	return PT2BOX_OK;
}

static bool has_ended(const struct pb_embedded *e, int timeout_ms)
{
	struct pollfd p = {.fd = e->pidfd, .events = POLLIN};
	int n;

	do
		n = poll(&p, 1, timeout_ms);
	while (n < 0 && errno == EINTR);
	return n != 0;
}

void pb_embedded_end(struct pb_embedded *e)
{
	if (e->pidfd < 0)
		return;
	if (!has_ended(e, END_MS))
		syscall(SYS_pidfd_send_signal, e->pidfd, SIGKILL, NULL, 0);
	while (waitid(P_PIDFD, (id_t)e->pidfd, &(siginfo_t){0}, WEXITED) != 0 && errno == EINTR)
		;
	pb_close_fd(&e->pidfd);
}

void pb_embedded_explain(const struct pb_embedded *e, struct pt2box_error *err)
{
	siginfo_t si = {.si_pid = 0};
	size_t used = strlen(err->text);

	if (e->pidfd < 0 || !has_ended(e, 200) ||
	    waitid(P_PIDFD, (id_t)e->pidfd, &si, WEXITED | WNOWAIT | WNOHANG) != 0)
		return;
	if (si.si_code == CLD_EXITED)
		snprintf(err->text + used, sizeof(err->text) - used,
			 ": it ended with exit status %d", si.si_status);
	else if (si.si_pid)
		snprintf(err->text + used, sizeof(err->text) - used, ": it died by signal %d",
			 si.si_status);
}
