/* SPDX-License-Identifier: Apache-2.0 */
/* Workers of a model: forked one at a time, told about lanes, replaced when they die, killed when they overrun. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "broker/broker.h"

#define QUICK_DEATH_NS 2000000000u
#define RETRY_NS 20000000u
#define STUCK_NS 10000000000u /* far beyond a fork or a death on a loaded machine */
#define DEAF_NS 3000000000u   /* beyond what lies between the end of a control socket and the news of the death */

void pb_board_ring(struct pb_model_rec *m)
{
	atomic_fetch_add(&m->board->bell, 1);
	pb_futex_wake(&m->board->bell, PB_WORKERS_MAX);
}

pb_status pb_death_status(int wait_status, bool refused, const char *denied, int *ret_signal, char *text, size_t cap)
{
	*ret_signal = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0;
	if (!WIFSIGNALED(wait_status)) {
		snprintf(text, cap, "the model ended its process with exit code %d", WEXITSTATUS(wait_status));
		return PT2BOX_MODEL_EXITED;
	}
	if (*ret_signal == SIGSYS) {
		if (denied && denied[0])
			snprintf(text, cap, "the model made a forbidden system call: %s", denied);
		else
			snprintf(text, cap, "the model made a forbidden system call (--explain names it)");
		return PT2BOX_MODEL_KILLED;
	}
	if (refused) {
		snprintf(text, cap, "the model was refused memory and died by signal %d (SIG%s)", *ret_signal,
			 sigabbrev_np(*ret_signal));
		return PT2BOX_MODEL_OOM;
	}
	snprintf(text, cap, "the model died by signal %d (SIG%s)", *ret_signal,
		 sigabbrev_np(*ret_signal) ? sigabbrev_np(*ret_signal) : "?");
	return PT2BOX_MODEL_CRASHED;
}

static struct pb_model_rec *model_of(struct pb_source *s, uint32_t *ret_w)
{
	struct pb_model_rec *m = s->object;

	for (uint32_t w = 0; w < PB_WORKERS_MAX; w++)
		if (&m->worker[w].ctl == s) {
			*ret_w = w;
			return m;
		}
	return NULL;
}

static void announce(struct pb_broker *b, struct pb_model_rec *m)
{
	struct pb_msg_loaded l = {.request = m->request,
				  .model = m->id,
				  .n_inputs = m->n_inputs,
				  .n_outputs = m->n_outputs,
				  .stateful = m->stateful,
				  .run_deadline_ms = m->run_deadline_ms};

	(void)b;
	m->started_us = (pb_now_ns() - m->begun_ns) / 1000;
	l.start_us = m->started_us;
	m->announced = true;
	pb_client_send(m->client, PB_MSG_loaded, &l, &m->out_manifest, 1);
}

/* One worker is enough to serve; the client hears of the model when all that it asked for are there. */
static void check_ready(struct pb_broker *b, struct pb_model_rec *m)
{
	for (uint32_t w = 0; w < m->n_workers; w++)
		if (m->worker[w].state != PB_W_READY)
			return;
	if (m->state == PB_M_LOADING) {
		m->state = PB_M_READY;
		m->phase = PB_PHASE_READY;
		m->deadline_ns = UINT64_MAX;
	}
	if (!m->announced && m->client)
		announce(b, m);
}

static void worker_message(struct pb_broker *b, struct pb_source *s, uint32_t events)
{
	uint32_t w = 0;
	struct pb_model_rec *m = model_of(s, &w);
	pb_status st = pb_recv(s->fd, PB_WORKER, PB_BROKER, PB_STATE_ANY, true, &b->rx, NULL);

	(void)events;
	if (st == PT2BOX_NOT_FOUND)
		return;
	if (st) {
		/* Its death comes from the warden. If none does, the model has closed the socket: it is of no use. */
		pb_loop_remove(b, s);
		if (st == PT2BOX_PROTOCOL) {
			pb_worker_kill(b, m, w, PT2BOX_MODEL_PROTOCOL);
		} else if (m->worker[w].state == PB_W_READY) {
			m->worker[w].state = PB_W_DYING;
			m->worker[w].since_ns = pb_now_ns();
		}
		return;
	}
	if (b->rx.row->id == PB_MSG_worker_ready && m->worker[w].state == PB_W_FORKING) {
		m->worker[w].state = PB_W_READY;
		m->worker[w].since_ns = pb_now_ns();
		m->forking = -1;
		if (pb_lanes_attach_all(m, w))
			pb_worker_kill(b, m, w, PT2BOX_INTERNAL);
		pb_workers_continue(b, m);
		check_ready(b, m);
	}
}

static pb_status fork_worker(struct pb_broker *b, struct pb_model_rec *m, uint32_t w)
{
	struct pb_msg_permit_fork permit = {.worker = w};
	struct pb_msg_fork order = {.worker = w};
	struct pb_worker_rec *rec = &m->worker[w];
	int peer;
	pb_status st = pb_loop_add_control(b, &rec->ctl, worker_message, m, &peer, NULL);

	if (st)
		return st;
	rec->kill_status = PT2BOX_OK;
	rec->denied[0] = '\0';
	st = pb_send(m->warden.fd, PB_MSG_permit_fork, &permit, NULL, 0, NULL);
	if (!st)
		st = pb_send(m->template_ctl.fd, PB_MSG_fork, &order, &peer, 1, NULL);
	close(peer);
	if (st) {
		pb_loop_remove(b, &rec->ctl);
		return st;
	}
	rec->state = PB_W_FORKING;
	rec->forked_ns = rec->since_ns = pb_now_ns();
	m->forking = (int)w;
	return PT2BOX_OK;
}

/* Fork the next worker that is missing; one fork is under way at a time. */
void pb_workers_continue(struct pb_broker *b, struct pb_model_rec *m)
{
	uint64_t now = pb_now_ns();

	if (!m->template_ready || m->forking >= 0 || m->state == PB_M_ENDING)
		return;
	for (uint32_t w = 0; w < m->n_workers; w++) {
		if (m->worker[w].state != PB_W_NONE || m->worker[w].retry_ns > now)
			continue;
		if (fork_worker(b, m, w))
			pb_model_kill(b, m);
		return;
	}
}

void pb_workers_start(struct pb_broker *b, struct pb_model_rec *m)
{
	pb_workers_continue(b, m);
}

void pb_workers_send(struct pb_broker *b, struct pb_model_rec *m, enum pb_msg_id id, const void *msg, const int *fds,
		     size_t n_fds)
{
	for (uint32_t w = 0; w < m->n_workers; w++) {
		if (m->worker[w].state != PB_W_READY || m->worker[w].ctl.fd < 0)
			continue;
		if (pb_send(m->worker[w].ctl.fd, id, msg, fds, n_fds, NULL))
			pb_worker_kill(b, m, w, PT2BOX_MODEL_PROTOCOL); /* it does not listen */
	}
	pb_board_ring(m);
}

void pb_worker_kill(struct pb_broker *b, struct pb_model_rec *m, uint32_t w, pb_status why)
{
	struct pb_msg_kill_worker k = {.worker = w};

	(void)b;
	if (m->worker[w].state == PB_W_NONE || m->worker[w].kill_status)
		return;
	m->worker[w].kill_status = why;
	m->worker[w].state = PB_W_DYING;
	m->worker[w].since_ns = pb_now_ns();
	if (m->warden.fd >= 0)
		(void)!pb_send(m->warden.fd, PB_MSG_kill_worker, &k, NULL, 0, NULL);
}

static void kill_text(const struct pb_model_rec *m, pb_status why, char *text, size_t cap)
{
	switch (why) {
	case PT2BOX_MODEL_TIMEOUT:
		snprintf(text, cap, "the run overran its deadline of %lld ms", (long long)m->run_deadline_ms);
		break;
	case PT2BOX_CANCELLED:
		snprintf(text, cap, "the run was cancelled");
		break;
	case PT2BOX_MODEL_PROTOCOL:
		snprintf(text, cap, "the model's worker did not serve, or sent something impossible");
		break;
	default:
		snprintf(text, cap, "%s", pt2box_status_text(why));
		break;
	}
}

/* The first deaths are replaced at once; a worker that keeps dying young waits longer and longer. */
static void back_off(struct pb_worker_rec *rec)
{
	uint64_t now = pb_now_ns();

	rec->quick_deaths = now - rec->forked_ns < QUICK_DEATH_NS ? rec->quick_deaths + 1 : 0;
	rec->retry_ns = 0;
	if (rec->quick_deaths > 8)
		rec->retry_ns = now + (1000000ull << (rec->quick_deaths > 20 ? 12 : rec->quick_deaths - 8));
}

void pb_worker_died(struct pb_broker *b, struct pb_model_rec *m, uint32_t w, int wait_status)
{
	struct pb_worker_rec *rec = &m->worker[w];
	bool segv = WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGSEGV;
	char text[480];
	int signal;
	pb_status st;

	if (rec->state == PB_W_NONE)
		return;
	st = pb_death_status(wait_status, pb_lanes_refused(m, w), rec->denied, &signal, text, sizeof(text));
	if (rec->kill_status) {
		st = rec->kill_status;
		signal = 0;
		kill_text(m, st, text, sizeof(text));
	}
	pb_log(b, "model %u worker %u: %s: %s", m->id, w, pt2box_status_name(st), text);
	pb_loop_remove(b, &rec->ctl);
	rec->state = PB_W_NONE;
	rec->deaths++;
	if (m->forking == (int)w)
		m->forking = -1;
	back_off(rec);
	if (m->stateful && m->announced) {
		char lost[480];

		snprintf(lost, sizeof(lost), "the state is lost: %.400s", text);
		pb_lanes_fail_all(m, PT2BOX_STATE_LOST, signal, lost);
	} else {
		pb_lanes_worker_died(b, m, w, st, signal, text, segv);
	}
	pb_workers_continue(b, m);
}

uint64_t pb_workers_tick(struct pb_broker *b, struct pb_model_rec *m, uint64_t now)
{
	uint64_t next = UINT64_MAX;

	for (uint32_t w = 0; w < m->n_workers; w++) {
		struct pb_worker_rec *rec = &m->worker[w];

		if (rec->state == PB_W_READY || !m->template_ready)
			continue;
		next = now + RETRY_NS;
		if (rec->state == PB_W_DYING && !rec->kill_status && now > rec->since_ns + DEAF_NS)
			pb_worker_kill(b, m, w, PT2BOX_MODEL_PROTOCOL);
		if (rec->state == PB_W_NONE && rec->retry_ns <= now)
			pb_workers_continue(b, m);
		/* A template that does not fork when told to, or a worker that does not die: end them all. */
		else if (rec->state != PB_W_NONE && now > rec->since_ns + STUCK_NS)
			pb_model_kill(b, m);
	}
	return next;
}
