/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this machine can enforce: the steps of a role, really taken in a child that is thrown away, each told whether it
 * worked or not. In the spawner it is what models get. Elsewhere it needs no rights: without them a user namespace is tried.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "confine/confine.h"
#include "confine/layers.h"
#include "confine/steps.h"

#ifndef SO_PASSRIGHTS /* Linux 6.16 */
#define SO_PASSRIGHTS 83
#endif

#define PROBE_MS 5000
#define TEXT_MAX 16384

static void try_seals(void)
{
	int fd = memfd_create("probe", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	const int seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

	if (fd < 0 || fcntl(fd, F_ADD_SEALS, seals) != 0)
		pb_layer_off("sealed memory", "%s", strerror(errno));
	else if (write(fd, "x", 1) == 1)
		pb_layer_off("sealed memory", "a seal does not hold");
	else
		pb_layer_on("sealed memory", "neither writing nor resizing");
	if (fd >= 0)
		close(fd);
}

static void try_sockets(void)
{
	int p[2], no = 0;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p) != 0)
		return;
	if (setsockopt(p[0], SOL_SOCKET, SO_PASSRIGHTS, &no, sizeof(no)) != 0)
		pb_layer_off("no descriptors from models", "%s: they are closed on receipt", strerror(errno));
	else
		pb_layer_on("no descriptors from models", "refused when they are sent");
	close(p[0]);
	close(p[1]);
}

static void try_filter(void)
{
	int listener;

	if (pb_step_filter("seccomp load filter", "worker-load", false, &listener, NULL))
		return;
	close(listener);
	(void)!pb_step_filter("seccomp run filter", "worker-run", true, NULL, NULL);
}

/* In pid 1 of a namespace of its own. */
static void try_role(uint32_t uid)
{
	const struct pb_limits l = {.data_bytes = 1ull << 30, .files = 64, .tasks = 64};
	struct pt2box_error e;

	(void)!pb_step_check_namespaces(&e);
	pb_step_cgroup_namespace();
	pb_step_oom_score();
	pb_step_keyring();
	(void)!pb_step_empty_root(&e);
	(void)!pb_step_limits(&l, &e);
	(void)!pb_step_identity(uid, uid, &e);
	(void)!pb_step_sealed_process(&e);
	pb_step_no_exec_gain();
	pb_step_landlock(false);
	try_filter();
}

/* By a number that the filters allow. */
static void write_report(void)
{
	char *text = pb_confine_report_text();

	if (text)
		(void)!write(2, text, strlen(text));
	free(text);
}

static _Noreturn void probe_child(int out, uint32_t uid, bool in_spawner)
{
	struct pt2box_error e;
	pid_t pid;
	int status;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (dup2(out, 2) < 0)
		_exit(1);
	try_seals();
	try_sockets();
	if (in_spawner || pb_step_spawner_namespaces(&e) == PT2BOX_OK) {
		/* As root too, the rest is tried in a namespace that can be thrown away. */
		pid = (pid_t)syscall(SYS_clone, CLONE_NEWPID | CLONE_NEWNS | SIGCHLD, NULL, NULL, NULL, NULL);
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			try_role(uid);
			write_report();
			_exit(0);
		}
		if (pid > 0) {
			waitpid(pid, &status, __WALL);
			_exit(0);
		}
		(void)!pb_layer_failed(&e, "pid and mount namespaces", "clone");
	}
	write_report();
	_exit(0);
}

/* Read to the end, or to the deadline: a kernel that hangs a probe must not hang its caller. */
static char *read_all(int fd)
{
	char *text = calloc(1, TEXT_MAX);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	size_t len = 0;

	while (text && len < TEXT_MAX - 1 && poll(&p, 1, PROBE_MS) > 0) {
		ssize_t n = read(fd, text + len, TEXT_MAX - 1 - len);

		if (n <= 0)
			break;
		len += (size_t)n;
	}
	return text;
}

char *pb_confine_probe_text(uint32_t uid, bool in_spawner)
{
	int p[2];
	char *text;
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) != 0)
		return NULL;
	pid = fork();
	if (pid == 0)
		probe_child(p[1], uid, in_spawner);
	close(p[1]);
	text = pid > 0 ? read_all(p[0]) : NULL;
	close(p[0]);
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return text;
}
