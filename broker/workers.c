/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workers of a model: forked one at a time, told about lanes, replaced when they die, killed when they overrun. There are
 * as many of the model's own as it was loaded with, one for each session, and for a while a fresh one that takes the place
 * of one that was forked before a change of the constants.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "broker/broker.h"

#define RETRY_NS 20000000u
#define FORK_AGAIN_NS 200000000u /* when descriptors may have become free */
#define STUCK_NS 10000000000u /* far beyond a fork or a death on a loaded machine */

void pb_board_ring(struct pb_model_rec *m)
{
	atomic_fetch_add(&m->board->bell, 1);
	pb_futex_wake(&m->board->bell, PB_WORKERS_MAX + 1); /* the ops process too */
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

	for (uint32_t w = 0; w < m->top; w++)
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

	m->started_us = (pb_now_ns() - m->begun_ns) / 1000;
	l.start_us = m->started_us;
	snprintf(l.backend, sizeof(l.backend), "%s", m->backend);
	m->announced = true;
	pb_audit(b, m->client, m, "loaded", NULL, NULL);
	pb_client_send(m->client, PB_MSG_loaded, &l, &m->out_manifest, 1);
}

/* One worker is enough to serve; the client hears of the model when all that it asked for are there. */
static void check_ready(struct pb_broker *b, struct pb_model_rec *m)
{
	for (uint32_t w = 0; w < m->top; w++)
		if (m->worker[w].used && m->worker[w].session == 0 && (int)w != m->fresh &&
		    m->worker[w].state != PB_W_READY)
			return;
	if (m->state == PB_M_LOADING) {
		m->state = PB_M_READY;
		m->phase = PB_PHASE_READY;
		m->deadline_ns = UINT64_MAX;
	}
	if (!m->announced && m->client)
		announce(b, m);
}

/* ---- indices ---- */

void pb_workers_init(struct pb_model_rec *m)
{
	for (uint32_t w = 0; w < m->n_workers; w++)
		pb_workers_want(m, w, 0);
}

int pb_workers_free_index(const struct pb_model_rec *m)
{
	for (int w = 0; w < PB_WORKERS_MAX; w++)
		if (!m->worker[w].used && m->worker[w].state == PB_W_NONE)
			return w;
	return -1;
}

void pb_workers_want(struct pb_model_rec *m, uint32_t w, uint32_t session)
{
	m->worker[w] = (struct pb_worker_rec){.used = true, .session = session, .ctl.fd = -1};
	if (m->top <= w)
		m->top = w + 1;
}

/* ---- messages ---- */

static void became_ready(struct pb_broker *b, struct pb_model_rec *m, uint32_t w)
{
	struct pb_worker_rec *rec = &m->worker[w];
	struct pb_msg_state_lost lost = {.text = ""};
	pb_status st = PT2BOX_OK;

	rec->state = PB_W_READY;
	rec->since_ns = pb_now_ns();
	m->forking = -1;
	if (rec->lost[0]) {
		snprintf(lost.text, sizeof(lost.text), "%s", rec->lost);
		rec->lost[0] = '\0';
		st = pb_send(rec->ctl.fd, PB_MSG_state_lost, &lost, NULL, 0, NULL);
	}
	if (!st && m->opt.isolate)
		st = pb_send(rec->ctl.fd, PB_MSG_one_run, &(struct pb_msg_one_run){}, NULL, 0, NULL);
	if (!st)
		st = pb_ops_open_lane(b, m, w);
	if (!st)
		st = pb_lanes_attach_all(m, w);
	if (st)
		pb_worker_kill(b, m, w, PT2BOX_INTERNAL);
	else if (rec->session)
		pb_session_ready(b, m, w);
	if (m->fresh == (int)w && rec->state == PB_W_READY)
		pb_roll_ready(m);
	pb_change_continue(b, m);
	pb_extract_continue(b, m);
	pb_workers_continue(b, m);
	check_ready(b, m);
}

/* Its death comes from the warden. If none does, the model has closed the socket: it is of no use. */
static void lost_control(struct pb_broker *b, struct pb_model_rec *m, uint32_t w, pb_status st)
{
	pb_loop_remove(b, &m->worker[w].ctl);
	if (st == PT2BOX_PROTOCOL) {
		pb_worker_kill(b, m, w, PT2BOX_MODEL_PROTOCOL);
	} else if (m->worker[w].state == PB_W_READY) {
		m->worker[w].state = PB_W_DYING;
		m->worker[w].since_ns = pb_now_ns();
	}
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
		lost_control(b, m, w, st);
		return;
	}
	switch ((enum pb_msg_id)b->rx.row->id) {
	case PB_MSG_worker_ready:
		if (m->worker[w].state == PB_W_FORKING)
			became_ready(b, m, w);
		break;
	case PB_MSG_constants_staged:
		pb_change_worker_staged(b, m, w, b->rx.msg.constants_staged.change_seq);
		break;
	case PB_MSG_constants_applied:
		pb_change_worker_applied(b, m, w, &b->rx.msg.constants_applied);
		break;
	case PB_MSG_constants_extracted:
		pb_extract_done(b, m, w, &b->rx.msg.constants_extracted);
		break;
	default:
		break;
	}
}

/* ---- forks ---- */

pb_status pb_worker_fork(struct pb_broker *b, struct pb_model_rec *m, uint32_t w)
{
	struct pb_msg_permit_fork permit = {.worker = w};
	struct pb_msg_fork order = {.worker = w};
	struct pb_worker_rec *rec = &m->worker[w];
	int peer;
	pb_status st = pb_loop_add_control(b, &rec->ctl, worker_message, m, &peer, NULL);

	if (st)
		return PT2BOX_NO_MEMORY; /* ours */
	rec->kill_status = PT2BOX_OK;
	rec->denied[0] = '\0';
	rec->run = (struct pb_run_seen){.lane = 0};
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
	rec->done_at_fork = pb_lanes_done(m);
	rec->born_seq = rec->seq = m->template_seq; /* it takes orders in turn */
	rec->asked = rec->staged = rec->requeue = rec->retiring = rec->overdue = false;
	m->forking = (int)w;
	return PT2BOX_OK;
}

void pb_worker_not_forked(struct pb_broker *b, struct pb_model_rec *m, uint32_t w, pb_status st)
{
	if (st != PT2BOX_NO_MEMORY) {
		pb_template_deaf(b, m, st);
		return;
	}
	pb_log(b, "model %u worker %u: no descriptors are left for it", m->id, w);
	if (m->announced) {
		m->worker[w].retry_ns = pb_now_ns() + FORK_AGAIN_NS;
		return;
	}
	pb_template_note_failure(m, PT2BOX_LIMIT, "the broker has no descriptors left for another worker");
	pb_model_kill(b, m);
}

/* Fork the next worker that is missing; one fork is under way at a time. */
void pb_workers_continue(struct pb_broker *b, struct pb_model_rec *m)
{
	uint64_t now = pb_now_ns();

	if (!pb_template_forks(m) || m->forking >= 0 || m->state == PB_M_ENDING || pb_change_holds_forks(m))
		return;
	for (uint32_t w = 0; w < m->top; w++) {
		const struct pb_worker_rec *rec = &m->worker[w];
		pb_status st;

		if (!rec->used || rec->state != PB_W_NONE || rec->retry_ns > now)
			continue;
		st = pb_worker_fork(b, m, w);
		if (st)
			pb_worker_not_forked(b, m, w, st);
		return;
	}
	pb_roll_next(b, m, now);
}

bool pb_worker_send(struct pb_broker *b, struct pb_model_rec *m, uint32_t w, enum pb_msg_id id, const void *msg,
		    const int *fds, size_t n_fds)
{
	const struct pb_worker_rec *rec = &m->worker[w];

	if (rec->ctl.fd >= 0 && !pb_send(rec->ctl.fd, id, msg, fds, n_fds, NULL))
		return true;
	if (!rec->retiring) /* else it has just gone, or will be seen not to */
		pb_worker_kill(b, m, w, PT2BOX_MODEL_PROTOCOL);
	return false;
}

void pb_workers_send(struct pb_broker *b, struct pb_model_rec *m, uint32_t session, enum pb_msg_id id, const void *msg,
		     const int *fds, size_t n_fds)
{
	for (uint32_t w = 0; w < m->top; w++)
		if (m->worker[w].state == PB_W_READY && m->worker[w].ctl.fd >= 0 &&
		    (session == PB_ALL_SESSIONS || m->worker[w].session == session))
			(void)pb_worker_send(b, m, w, id, msg, fds, n_fds);
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

/*
 * The first deaths are replaced at once; a worker that keeps dying young waits longer and longer. Not if runs were
 * answered in between: some inputs are bad, or somebody kills workers, but the model is of use.
 */
static void back_off(const struct pb_model_rec *m, struct pb_worker_rec *rec)
{
	uint64_t now = pb_now_ns();
	bool useless = (int64_t)(pb_lanes_done(m) - rec->done_at_fork) <= 0;

	rec->quick_deaths = useless && now - rec->forked_ns < PB_QUICK_DEATH_NS ? rec->quick_deaths + 1 : 0;
	rec->retry_ns = 0;
	if (rec->quick_deaths > PB_QUICK_DEATHS)
		rec->retry_ns = now + (1000000ull << (rec->quick_deaths > 20 ? 12 : rec->quick_deaths - PB_QUICK_DEATHS));
}

/* What waits is answered with it; if nothing waits, the next one to serve says it. */
static void lose_state(struct pb_model_rec *m, uint32_t w, const struct pt2box_error *why)
{
	struct pb_worker_rec *rec = &m->worker[w];
	struct pt2box_error e;

	pb_error_set(&e, PT2BOX_STATE_LOST, "the state is lost: %.400s", why->text);
	e.signal = why->signal;
	rec->lost[0] = '\0';
	if (pb_lanes_fail_all(m, rec->session, &e) == 0 && rec->used)
		snprintf(rec->lost, sizeof(rec->lost), "%.200s", e.text);
}

static void death_of(struct pb_model_rec *m, uint32_t w, int wait_status, struct pt2box_error *ret)
{
	const struct pb_worker_rec *rec = &m->worker[w];
	char text[480];
	int signal;
	pb_status st = pb_death_status(wait_status, pb_lanes_refused(m, w), rec->denied, &signal, text, sizeof(text));

	if (rec->kill_status) {
		st = rec->kill_status;
		signal = 0;
		kill_text(m, st, text, sizeof(text));
	} else if (signal == SIGKILL && pb_model_was_oom_killed(m)) {
		st = PT2BOX_MODEL_OOM;
		snprintf(text, sizeof(text), "the model used up its memory, and the kernel killed it");
	}
	pb_error_set(ret, st, "%s", text);
	ret->signal = signal;
}

void pb_worker_died(struct pb_broker *b, struct pb_model_rec *m, uint32_t w, int wait_status)
{
	struct pb_worker_rec *rec = &m->worker[w];
	bool segv = WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGSEGV;
	bool in_order = !rec->kill_status && wait_status == 0;
	bool was_told = rec->retiring && (rec->overdue || in_order);
	struct pt2box_error e;
	char what[24];

	if (rec->state == PB_W_NONE)
		return;
	/* Having answered one request, as it should. Who ends without that is one that dies young. */
	was_told |= m->opt.isolate && in_order && pb_isolate_has_served(m, w) && !pb_lanes_busy(m, w);
	death_of(m, w, wait_status, &e);
	pb_loop_remove(b, &rec->ctl);
	rec->state = PB_W_NONE;
	if (m->forking == (int)w)
		m->forking = -1;
	if (!was_told) {
		pb_log(b, "model %u worker %u: %s: %s", m->id, w, pt2box_status_name(e.status), e.text);
		rec->deaths++;
		back_off(m, rec);
		snprintf(what, sizeof(what), "worker %u", w);
		pb_health_note(b, m, what, rec->kill_status != PT2BOX_OK, &e);
	}
	pb_ops_close_lane(b, m, w);
	pb_roll_died(m, w);
	if (rec->session && rec->used && pb_session_failed(b, m, w, &e))
		rec->used = false;
	else if (m->stateful && m->announced && rec->used)
		lose_state(m, w, &e);
	else
		pb_lanes_worker_died(b, m, w, &e, segv, rec->requeue || was_told);
	rec->retiring = false;
	pb_extract_worker_died(b, m, w, was_told ? NULL : &e);
	pb_change_continue(b, m);
	pb_workers_continue(b, m);
}

void pb_workers_lost(struct pb_broker *b, struct pb_model_rec *m, const struct pt2box_error *why)
{
	for (uint32_t w = 0; w < m->top; w++) {
		struct pb_worker_rec *rec = &m->worker[w];

		if (rec->used && m->stateful && rec->state != PB_W_NONE)
			lose_state(m, w, why);
		if (rec->state != PB_W_NONE)
			pb_extract_worker_died(b, m, w, why);
	}
	if (!m->stateful)
		pb_lanes_fail_all(m, PB_ALL_SESSIONS, why);
}

void pb_workers_forget(struct pb_broker *b, struct pb_model_rec *m)
{
	for (uint32_t w = 0; w < m->top; w++) {
		pb_loop_remove(b, &m->worker[w].ctl);
		pb_ops_close_lane(b, m, w);
		m->worker[w].state = PB_W_NONE;
		m->worker[w].retiring = false;
	}
	m->forking = -1;
	if (m->fresh >= 0)
		m->worker[m->fresh].used = false;
	m->fresh = -1;
	m->roll_seq = 0;
}

/* Look at one; when again? */
static uint64_t tick_one(struct pb_broker *b, struct pb_model_rec *m, uint32_t w, uint64_t now)
{
	struct pb_worker_rec *rec = &m->worker[w];

	if (pb_roll_is_overdue(m, w, now)) {
		rec->overdue = true;
		pb_worker_kill(b, m, w, PT2BOX_MODEL_PROTOCOL);
	}
	if (rec->state == PB_W_READY)
		return rec->retiring ? now + RETRY_NS : UINT64_MAX;
	if (rec->state == PB_W_NONE && !rec->used)
		return UINT64_MAX;
	if (rec->state == PB_W_DYING && !rec->kill_status && now > rec->since_ns + PB_DEAF_NS)
		pb_worker_kill(b, m, w, PT2BOX_MODEL_PROTOCOL);
	if (rec->state == PB_W_NONE && rec->retry_ns <= now)
		pb_workers_continue(b, m);
	/* A template that does not fork when told to, or a worker that does not die: end them all. */
	else if (rec->state != PB_W_NONE && now > rec->since_ns + STUCK_NS)
		pb_model_kill(b, m);
	return now + RETRY_NS;
}

uint64_t pb_workers_tick(struct pb_broker *b, struct pb_model_rec *m, uint64_t now)
{
	uint64_t next = UINT64_MAX;

	if (!m->template_ready)
		return next;
	for (uint32_t w = 0; w < m->top; w++) {
		uint64_t one = tick_one(b, m, w, now);

		next = one < next ? one : next;
	}
	if (m->roll_seq && m->fresh < 0 && !pb_change_holds_workers(m)) {
		if (now >= m->roll_ns)
			pb_workers_continue(b, m);
		next = m->roll_seq && now + RETRY_NS < next ? now + RETRY_NS : next;
	}
	return next;
}
