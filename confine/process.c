/* SPDX-License-Identifier: Apache-2.0 */
/* Steps about the process itself: descriptors, threads, parents, what others may do to it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "confine/confine.h"
#include "confine/layers.h"
#include "confine/steps.h"
#include "confine/test_layers.h"

#ifndef PR_SET_MDWE /* Linux 6.3 */
#define PR_SET_MDWE 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

#define FDS_LAYER "exact descriptors"
#define THREADS_LAYER "one thread"
#define THREADS_WAIT_MS 2000

/* Call @f for every number in a directory of /proc/self; false if it cannot be read. */
static bool each_number(const char *path, bool (*f)(int n, int dir, void *arg), void *arg)
{
	DIR *d = opendir(path);
	struct dirent *e;
	bool ok = d != NULL;

	while (ok && (e = readdir(d)) != NULL)
		if (e->d_name[0] != '.')
			ok = f(atoi(e->d_name), dirfd(d), arg);
	if (d)
		closedir(d);
	return ok;
}

struct fd_list {
	const int *fd;
	size_t n;
	int surplus;
};

static bool check_fd(int fd, int dir, void *arg)
{
	struct fd_list *l = arg;

	if (fd == dir)
		return true;
	for (size_t i = 0; i < l->n; i++)
		if (l->fd[i] == fd)
			return true;
	l->surplus = fd;
	return false;
}

pb_status pb_confine_fds(const int *fds, size_t n, struct pt2box_error *err)
{
	struct fd_list l = {.fd = fds, .n = n, .surplus = -1};

	if (!each_number("/proc/self/fd", check_fd, &l)) {
		if (l.surplus < 0)
			return pb_layer_failed(err, FDS_LAYER, "/proc/self/fd");
		return pb_layer_missing(err, FDS_LAYER, "descriptor %d is open", l.surplus);
	}
	pb_layer_on(FDS_LAYER, "nothing open beyond the list of %zu", n);
	return PT2BOX_OK;
}

static bool count(int n, int dir, void *arg)
{
	(void)n;
	(void)dir;
	++*(int *)arg;
	return true;
}

pb_status pb_step_one_thread(struct pt2box_error *err)
{
	const struct timespec nap = {.tv_nsec = 50000};
	struct timespec begin, now;
	int threads;

	/* libgomp's threads are detached: they still end when the thread that led them has been joined. */
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (;;) {
		threads = 0;
		if (!each_number("/proc/self/task", count, &threads))
			return pb_layer_failed(err, THREADS_LAYER, "/proc/self/task");
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (threads == 1 || (now.tv_sec - begin.tv_sec) * 1000 > THREADS_WAIT_MS)
			break;
		nanosleep(&nap, NULL);
	}
	if (threads != 1)
		return pb_layer_missing(err, THREADS_LAYER, "%d threads run before the sandbox is closed", threads);
	pb_layer_on(THREADS_LAYER, "when the load filter was installed");
	return PT2BOX_OK;
}

pb_status pb_step_sealed_process(struct pt2box_error *err)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
		return pb_layer_failed(err, "dies with its parent", "prctl");
	pb_layer_on("dies with its parent", "SIGKILL");
	if (pb_test_layer_off("dumpable"))
		prctl(PR_SET_DUMPABLE, 1);
	else if (prctl(PR_SET_DUMPABLE, 0) != 0 || prctl(PR_GET_DUMPABLE) != 0)
		return pb_layer_failed(err, "not dumpable", "prctl");
	pb_layer_on("not dumpable", "no core file, no ptrace, /proc entries are root's");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
		return pb_layer_failed(err, "no_new_privs", "prctl");
	pb_layer_on("no_new_privs", "exec gives no rights");
	return PT2BOX_OK;
}

void pb_step_keyring(void)
{
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0)
		pb_layer_off("own keyring", "%s", strerror(errno));
	else
		pb_layer_on("own keyring", "anonymous session keyring");
}

void pb_step_oom_score(void)
{
	int fd, was = prctl(PR_GET_DUMPABLE);

	/* The file is root's while the process is not dumpable. */
	prctl(PR_SET_DUMPABLE, 1);
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "1000", 4) != 4)
		pb_layer_off("first to die of memory", "%s", strerror(errno));
	else
		pb_layer_on("first to die of memory", "oom_score_adj 1000");
	if (fd >= 0)
		close(fd);
	if (was == 0)
		prctl(PR_SET_DUMPABLE, 0);
}

void pb_step_no_exec_gain(void)
{
	if (pb_test_layer_off("mdwe"))
		return;
	if (prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) != 0)
		pb_layer_off("no executable memory gained", "%s", errno == EINVAL ? "Linux 6.3 has it" : strerror(errno));
	else
		pb_layer_on("no executable memory gained", "written memory cannot be made executable");
}
