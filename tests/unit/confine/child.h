/* SPDX-License-Identifier: Apache-2.0 */
/* A forked child that does something irrevocable, and what became of it. */
#ifndef PT2BOX_TESTS_UNIT_CONFINE_CHILD_H
#define PT2BOX_TESTS_UNIT_CONFINE_CHILD_H

#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "confine/steps.h"

#define ORDINARY_UID 12345

/* In a child: says what failed and ends. */
#define REQUIRE(c)                                                                                                     \
	do {                                                                                                           \
		if (!(c)) {                                                                                            \
			dprintf(2, "%s:%d: %s\n", __FILE__, __LINE__, #c);                                             \
			_exit(101);                                                                                    \
		}                                                                                                      \
	} while (0)

/* Wait status of a child that runs @f and exits 0 if it returns. */
static inline int status_of(void (*f)(void *arg), void *arg)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		/* cmocka has handlers for what may kill a test. */
		for (int sig = 1; sig < 32; sig++)
			signal(sig, SIG_DFL);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(30);
		f(arg);
		_exit(0);
	}
	return waitpid(pid, &status, 0) == pid ? status : -1;
}

static inline bool killed_by(int status, int sig)
{
	return WIFSIGNALED(status) && WTERMSIG(status) == sig;
}

static inline void become_ordinary(void)
{
	REQUIRE(setgroups(0, NULL) == 0);
	REQUIRE(setresgid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID) == 0);
	REQUIRE(setresuid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID) == 0);
}

struct in_namespaces {
	void (*f)(void *arg);
	void *arg;
	bool ordinary;
};

/* As the spawner starts a role: pid 1 of its own namespaces. Ends as that process does. */
static inline void in_namespaces_child(void *arg)
{
	const struct in_namespaces *n = arg;
	struct pt2box_error e = {.text = ""};
	int status;
	pid_t pid;

	if (n->ordinary && geteuid() == 0)
		become_ordinary();
	if (pb_step_spawner_namespaces(&e)) {
		dprintf(2, "%s\n", e.text);
		_exit(102);
	}
	pid = (pid_t)syscall(SYS_clone, CLONE_NEWPID | CLONE_NEWNS | SIGCHLD, NULL, NULL, NULL, NULL);
	REQUIRE(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		n->f(n->arg);
		_exit(0);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid);
	if (WIFSIGNALED(status)) {
		signal(WTERMSIG(status), SIG_DFL);
		kill(getpid(), WTERMSIG(status));
		_exit(103);
	}
	_exit(WEXITSTATUS(status));
}

static inline int status_in_namespaces(void (*f)(void *arg), void *arg, bool ordinary)
{
	struct in_namespaces n = {f, arg, ordinary};

	return status_of(in_namespaces_child, &n);
}

#endif
