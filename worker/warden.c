/* SPDX-License-Identifier: Apache-2.0 */
/* The warden: pid 1 of a template's namespace. Tiny, ours, and never runs or parses anything of a package. */
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "confine/confine.h"
#include "confine/policy.h"
#include "confine/test_layers.h"
#include "ipc/fdmap.h"
#include "ipc/lane.h"
#include "ipc/socket.h"
#include "worker/roles.h"

struct death {
	pid_t pid;
	int status;
};

/* Whose a thread is, when it is no worker's. */
enum { OWNER_TEMPLATE = -1, OWNER_UNKNOWN = -2 };

struct warden {
	pid_t template_pid;
	const struct pb_policy *load, *run, *steady; /* explain: what the phases allow */
	int listener;
	int sigfd;
	bool untrusted; /* the template has said that the model's own code begins */
	bool model_given;
	int permits[PB_WORKERS_MAX]; /* workers that may be forked, first first */
	size_t n_permits;
	size_t n_forked;	   /* of them, forks that were let through and not named yet */
	pid_t pid[PB_WORKERS_MAX]; /* of workers; 0 none */
	bool doomed[PB_WORKERS_MAX]; /* to be killed as soon as it has a pid */
	bool denied[PB_WORKERS_MAX], template_denied; /* killed for a call, as a filter would have done */
	struct death unknown[PB_WORKERS_MAX];	      /* died before the template said which worker they were */
	size_t n_unknown;
	bool link_ended; /* the template closed its end, or is dead: then SIGCHLD says how it died */
	bool ends;
	struct pb_rx rx;
};

/* ---- children ---- */

static void tell_death(struct warden *w, int worker, int status)
{
	struct pb_msg_worker_died m = {.worker = (uint64_t)worker, .wait_status = w->denied[worker] ? SIGSYS : status};

	w->pid[worker] = 0;
	w->denied[worker] = false;
	(void)!pb_send(PB_FD_WARDEN_CTL, PB_MSG_worker_died, &m, NULL, 0, NULL);
}

static void reap(struct warden *w)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0) {
		int worker = -1;

		if (pid == w->template_pid) {
			struct pb_msg_template_died m = {.wait_status = w->template_denied ? SIGSYS : status};

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
static void name_worker(struct warden *w, const struct pb_forked *f)
{
	struct pb_msg_worker_started m = {.worker = f->worker};

	if (f->worker >= PB_WORKERS_MAX || w->n_forked == 0 || (uint32_t)w->permits[0] != f->worker ||
	    w->pid[f->worker] != 0 || f->pid <= 1 || f->pid == w->template_pid)
		return;
	memmove(w->permits, w->permits + 1, --w->n_permits * sizeof(w->permits[0]));
	w->n_forked--;
	w->pid[f->worker] = f->pid;
	(void)!pb_send(PB_FD_WARDEN_CTL, PB_MSG_worker_started, &m, NULL, 0, NULL);
	if (w->doomed[f->worker])
		kill(f->pid, SIGKILL);
	for (size_t i = 0; i < w->n_unknown; i++)
		if (w->unknown[i].pid == f->pid) {
			tell_death(w, (int)f->worker, w->unknown[i].status);
			w->unknown[i] = w->unknown[--w->n_unknown];
			break;
		}
}

/* One message of the template; false if there is none. */
static bool on_link(struct warden *w)
{
	struct pb_forked f;
	ssize_t n = recv(PB_FD_LINK_PEER, &f, sizeof(f), MSG_DONTWAIT);

	if (n == 0)
		w->link_ended = true;
	if (n != (ssize_t)sizeof(f))
		return n > 0;
	if (f.worker == PB_UNTRUSTED)
		w->untrusted = true;
	else
		name_worker(w, &f);
	return true;
}

static void drain_link(struct warden *w)
{
	if (w->listener < 0)
		w->listener = pb_confine_receive_listener(PB_FD_LINK_PEER);
	else
		while (on_link(w))
			;
}

/* ---- the broker's orders ---- */

/* One message of the broker; false if there is none. */
static bool on_broker(struct warden *w)
{
	pb_status st = pb_recv(PB_FD_WARDEN_CTL, PB_BROKER, PB_WARDEN, PB_STATE_ANY, true, &w->rx, NULL);
	uint64_t worker;

	if (st == PT2BOX_NOT_FOUND)
		return false;
	if (st) {
		w->ends = true; /* the broker is gone: so is everything here */
		return false;
	}
	switch ((enum pb_msg_id)w->rx.row->id) {
	case PB_MSG_permit_fork:
		worker = w->rx.msg.permit_fork.worker;
		if (w->n_permits < PB_WORKERS_MAX)
			w->permits[w->n_permits++] = (int)worker;
		w->doomed[worker] = false;
		break;
	case PB_MSG_kill_worker:
		worker = w->rx.msg.kill_worker.worker;
		if (w->pid[worker] > 1)
			kill(w->pid[worker], SIGKILL);
		else
			w->doomed[worker] = true; /* the template has not named it yet */
		break;
	default:
		break;
	}
	return true;
}

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

	if (w->untrusted && pb_test_layer_off("filters")) {
		answer(w, id, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
		return;
	}
	if (w->model_given || w->untrusted) {
		answer(w, id, -ENOENT, 0);
		return;
	}
	w->model_given = true;
	if (ioctl(w->listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add) < 0)
		answer(w, id, -EIO, 0);
	close(PB_FD_MODEL);
}

/* The process that a thread is of. */
static int owner_of(const struct warden *w, pid_t tid)
{
	if (syscall(SYS_tgkill, w->template_pid, tid, 0) == 0)
		return OWNER_TEMPLATE;
	for (int i = 0; i < PB_WORKERS_MAX; i++)
		if (w->pid[i] && syscall(SYS_tgkill, w->pid[i], tid, 0) == 0)
			return i;
	return OWNER_UNKNOWN;
}

/* As a filter would have: the call is not made and its maker dies, whatever signals it blocks. No answer is needed. */
static void deny(struct warden *w, const struct seccomp_notif *n, int owner, const char *text)
{
	struct pb_msg_denied d = {.worker = owner >= 0 ? owner : -1};

	snprintf(d.text, sizeof(d.text), "%s", text);
	(void)!pb_send(PB_FD_WARDEN_CTL, PB_MSG_denied, &d, NULL, 0, NULL);
	if (owner >= 0)
		w->denied[owner] = true;
	else if (owner == OWNER_TEMPLATE)
		w->template_denied = true;
	kill((pid_t)n->pid, SIGKILL);
}

static void consider_fork(struct warden *w, const struct seccomp_notif *n)
{
	/* The broker gives the permit before it gives the order: it has come if there is one. */
	while (on_broker(w))
		;
	if (pb_test_layer_off("warden") && w->n_forked >= w->n_permits) {
		answer(w, n->id, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
		return;
	}
	if ((pid_t)n->pid != w->template_pid || w->n_forked >= w->n_permits) {
		deny(w, n, owner_of(w, (pid_t)n->pid), "clone: a fork that nobody asked for");
		return;
	}
	w->n_forked++;
	/* Registers only, nothing that could change after the look. */
	answer(w, n->id, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
}

/* explain: what the filters of the caller's phase would have said, and the policy that said it. */
static uint32_t verdict(const struct warden *w, const struct seccomp_data *d, int owner, const struct pb_policy **ret)
{
	const struct pb_policy *phase[] = {w->load, w->untrusted ? w->run : NULL, owner >= 0 ? w->steady : NULL};
	uint32_t all = SECCOMP_RET_ALLOW;

	for (size_t i = 0; i < sizeof(phase) / sizeof(phase[0]); i++) {
		uint32_t one = phase[i] ? pb_policy_eval(phase[i], d) : SECCOMP_RET_ALLOW;

		/* Of two that deny, the later phase is the one to name. */
		if (phase[i] && pb_policy_stricter(one, all) == one) {
			all = one;
			*ret = phase[i];
		}
	}
	return all;
}

/* A worker may be faster than the template's word about it. */
static int owner_in_time(struct warden *w, pid_t tid)
{
	int owner = owner_of(w, tid);

	for (int i = 0; i < 100 && owner == OWNER_UNKNOWN && w->n_forked > 0 && !w->ends; i++) {
		struct pollfd p = {.fd = PB_FD_LINK_PEER, .events = POLLIN};

		poll(&p, 1, 1);
		drain_link(w);
		owner = owner_of(w, tid);
	}
	return owner;
}

/* A call that the filter in force leaves to the warden: as the policies say, but what is denied is named. */
static void decide(struct warden *w, const struct seccomp_notif *n)
{
	int owner = owner_in_time(w, (pid_t)n->pid);
	const struct pb_policy *policy = w->run;
	uint32_t v = verdict(w, &n->data, owner, &policy);
	char text[400];

	switch (v & SECCOMP_RET_ACTION_FULL) {
	case SECCOMP_RET_ALLOW:
		/* Policies look at registers only, so what was looked at is what happens. */
		answer(w, n->id, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
		break;
	case SECCOMP_RET_ERRNO:
		answer(w, n->id, -(int)(v & SECCOMP_RET_DATA), 0);
		break;
	case SECCOMP_RET_USER_NOTIF:
		if (n->data.nr == SYS_openat)
			give_model(w, n->id);
		else
			consider_fork(w, n);
		break;
	default:
		pb_confine_explain(&n->data, policy->name, text, sizeof(text));
		deny(w, n, owner, text);
		break;
	}
}

static void on_listener(struct warden *w)
{
	struct seccomp_notif n;

	memset(&n, 0, sizeof(n));
	if (ioctl(w->listener, SECCOMP_IOCTL_NOTIF_RECV, &n) != 0)
		return;
	/* What the template said before it made this call comes first. */
	drain_link(w);
	if (w->load)
		decide(w, &n);
	else if (n.data.nr == SYS_openat)
		give_model(w, n.id);
	else
		consider_fork(w, &n);
}

static void drain(int fd)
{
	struct signalfd_siginfo si;

	(void)!read(fd, &si, sizeof(si));
}

int pb_warden_run(const struct pb_worker_options *o, pid_t template_pid)
{
	static struct warden w;
	const struct pb_confine_spec spec = pb_worker_confinement(o, o->threads);
	struct pt2box_error e;
	struct pollfd p[4];
	sigset_t chld;

	w.template_pid = template_pid;
	w.listener = -1;
	if (o->explain) {
		w.load = pb_policy_find(pb_confine_load_policy(&spec));
		w.run = pb_policy_find(pb_confine_run_policy(&spec));
		w.steady = pb_policy_find(pb_confine_steady_policy(&spec));
	}
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	w.sigfd = signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK);
	if (w.sigfd < 0)
		return 1;
	if (pb_confine_warden(&spec, &e)) {
		fprintf(stderr, "%s\n", e.text);
		return 1;
	}
	while (!w.ends) {
		p[0] = (struct pollfd){.fd = PB_FD_WARDEN_CTL, .events = POLLIN};
		p[1] = (struct pollfd){.fd = w.sigfd, .events = POLLIN};
		p[2] = (struct pollfd){.fd = w.link_ended ? -1 : PB_FD_LINK_PEER, .events = POLLIN};
		p[3] = (struct pollfd){.fd = w.listener, .events = POLLIN};
		if (poll(p, 4, -1) < 0 && errno != EINTR)
			return 1;
		if (p[2].revents)
			drain_link(&w);
		if (p[3].revents & POLLIN)
			on_listener(&w);
		if (p[1].revents & POLLIN) {
			drain(w.sigfd);
			reap(&w);
		}
		if (p[0].revents)
			(void)on_broker(&w);
	}
	return 0;
}
