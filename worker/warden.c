/* SPDX-License-Identifier: Apache-2.0 */
/* The warden: pid 1 of a template's namespace. Tiny, ours, and never runs or parses anything of a package. */
#include <errno.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "confine/confine.h"
#include "ipc/fdmap.h"
#include "ipc/socket.h"
#include "worker/roles.h"

struct death {
	pid_t pid;
	int status;
};

struct warden {
	pid_t template_pid;
	bool explain;
	int listener;
	int sigfd;
	bool model_given;
	int permits[PB_WORKERS_MAX + 1]; /* workers that may be forked, first first */
	size_t n_permits;
	pid_t pid[PB_WORKERS_MAX]; /* of workers; 0 none */
	struct death unknown[PB_WORKERS_MAX]; /* died before the template said which worker they were */
	size_t n_unknown;
	bool ends;
	struct pb_rx rx;
};

/* ---- the load filter's questions ---- */

static void answer(struct warden *w, uint64_t id, int error, uint32_t flags)
{
	struct seccomp_notif_resp r = {.id = id, .error = error, .flags = flags};

	ioctl(w->listener, SECCOMP_IOCTL_NOTIF_SEND, &r);
}

/* Whatever name it asks for, this is the file that it gets, once, while it loads. */
static void give_model(struct warden *w, uint64_t id)
{
	struct seccomp_notif_addfd add = {.id = id,
					  .flags = SECCOMP_ADDFD_FLAG_SEND,
					  .srcfd = PB_FD_MODEL,
					  .newfd_flags = O_CLOEXEC};

	if (w->model_given) {
		answer(w, id, -ENOENT, 0);
		return;
	}
	w->model_given = true;
	if (ioctl(w->listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add) < 0)
		answer(w, id, -EIO, 0);
}

static void consider_fork(struct warden *w, const struct seccomp_notif *n)
{
	if ((pid_t)n->pid != w->template_pid || w->n_permits == 0) {
		/* A fork nobody asked for. */
		struct pb_msg_denied d = {.worker = -1, .text = "a fork that nobody asked for"};

		(void)!pb_send(PB_FD_WARDEN_CTL, PB_MSG_denied, &d, NULL, 0, NULL);
		kill((pid_t)n->pid, SIGSYS);
		answer(w, n->id, -EPERM, 0);
		return;
	}
	/* Registers only, nothing that could change after the look. */
	answer(w, n->id, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
}

/* explain: the call is named, then its maker dies as it would have without the question. */
static void explain(struct warden *w, const struct seccomp_notif *n)
{
	struct pb_msg_denied d = {.worker = -1};

	for (int i = 0; i < PB_WORKERS_MAX; i++)
		if (w->pid[i] == (pid_t)n->pid)
			d.worker = i;
	pb_confine_explain(&n->data, d.text, sizeof(d.text));
	(void)!pb_send(PB_FD_WARDEN_CTL, PB_MSG_denied, &d, NULL, 0, NULL);
	kill((pid_t)n->pid, SIGSYS);
	answer(w, n->id, -EPERM, 0);
}

static bool is_process_clone(const struct seccomp_data *d)
{
	return d->nr == SYS_clone && !(d->args[0] & 0x10000 /* CLONE_THREAD */);
}

static void on_listener(struct warden *w)
{
	struct seccomp_notif n;

	memset(&n, 0, sizeof(n));
	if (ioctl(w->listener, SECCOMP_IOCTL_NOTIF_RECV, &n) != 0)
		return;
	if (n.data.nr == SYS_openat && (pid_t)n.pid == w->template_pid && !w->model_given)
		give_model(w, n.id);
	else if (is_process_clone(&n.data))
		consider_fork(w, &n);
	else if (w->explain)
		explain(w, &n);
	else
		answer(w, n.id, -EPERM, 0);
}

/* ---- children ---- */

static void tell_death(struct warden *w, int worker, int status)
{
	struct pb_msg_worker_died m = {.worker = (uint64_t)worker, .wait_status = status};

	w->pid[worker] = 0;
	(void)!pb_send(PB_FD_WARDEN_CTL, PB_MSG_worker_died, &m, NULL, 0, NULL);
}

static void reap(struct warden *w)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0) {
		int worker = -1;

		if (pid == w->template_pid) {
			struct pb_msg_template_died m = {.wait_status = status};

			(void)!pb_send(PB_FD_WARDEN_CTL, PB_MSG_template_died, &m, NULL, 0, NULL);
			w->ends = true;
			continue;
		}
		for (int i = 0; i < PB_WORKERS_MAX; i++)
			if (w->pid[i] == pid)
				worker = i;
		if (worker >= 0)
			tell_death(w, worker, status);
		else if (w->n_unknown < PB_WORKERS_MAX)
			w->unknown[w->n_unknown++] = (struct death){pid, status};
	}
}

/* The template says which worker a child is. It may lie, about its own children only. */
static void on_link(struct warden *w)
{
	struct pb_forked f;
	ssize_t n = read(PB_FD_LINK_PEER, &f, sizeof(f));
	struct pb_msg_worker_started m;

	if (n == 0)
		w->ends = true; /* only the template held the other end, and workers inherit it */
	if (n != (ssize_t)sizeof(f) || f.worker >= PB_WORKERS_MAX || w->n_permits == 0 ||
	    (uint32_t)w->permits[0] != f.worker || w->pid[f.worker] != 0 || f.pid <= 1)
		return;
	memmove(w->permits, w->permits + 1, --w->n_permits * sizeof(w->permits[0]));
	w->pid[f.worker] = f.pid;
	m.worker = f.worker;
	(void)!pb_send(PB_FD_WARDEN_CTL, PB_MSG_worker_started, &m, NULL, 0, NULL);
	for (size_t i = 0; i < w->n_unknown; i++)
		if (w->unknown[i].pid == f.pid) {
			tell_death(w, (int)f.worker, w->unknown[i].status);
			w->unknown[i] = w->unknown[--w->n_unknown];
			break;
		}
}

static void on_broker(struct warden *w)
{
	pb_status st = pb_recv(PB_FD_WARDEN_CTL, PB_BROKER, PB_WARDEN, PB_STATE_ANY, true, &w->rx, NULL);
	uint64_t worker;

	if (st == PT2BOX_NOT_FOUND)
		return;
	if (st) {
		w->ends = true; /* the broker is gone: so is everything here */
		return;
	}
	switch ((enum pb_msg_id)w->rx.row->id) {
	case PB_MSG_permit_fork:
		if (w->n_permits <= PB_WORKERS_MAX)
			w->permits[w->n_permits++] = (int)w->rx.msg.permit_fork.worker;
		break;
	case PB_MSG_kill_worker:
		worker = w->rx.msg.kill_worker.worker;
		if (w->pid[worker] > 1)
			kill(w->pid[worker], SIGKILL);
		break;
	default:
		break;
	}
}

static void drain(int fd)
{
	struct signalfd_siginfo si;

	(void)!read(fd, &si, sizeof(si));
}

int pb_warden_run(const struct pb_worker_options *o, pid_t template_pid)
{
	static struct warden w;
	struct pollfd p[4];
	sigset_t chld;

	w.template_pid = template_pid;
	w.explain = o->explain;
	w.listener = -1;
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	w.sigfd = signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK);
	if (w.sigfd < 0 || pb_confine_warden())
		return 1;
	while (!w.ends) {
		p[0] = (struct pollfd){.fd = PB_FD_WARDEN_CTL, .events = POLLIN};
		p[1] = (struct pollfd){.fd = w.sigfd, .events = POLLIN};
		p[2] = (struct pollfd){.fd = PB_FD_LINK_PEER, .events = POLLIN};
		p[3] = (struct pollfd){.fd = w.listener, .events = POLLIN};
		if (poll(p, 4, -1) < 0 && errno != EINTR)
			return 1;
		if (p[3].revents & POLLIN)
			on_listener(&w);
		if (p[2].revents) {
			if (w.listener < 0)
				w.listener = pb_confine_receive_listener(PB_FD_LINK_PEER);
			else
				on_link(&w);
		}
		if (p[1].revents & POLLIN) {
			drain(w.sigfd);
			reap(&w);
		}
		if (p[0].revents)
			on_broker(&w);
	}
	return 0;
}
