/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model's ops process: runs the operators that the native runtime does not have, from a file that the client brought.
 * One for each model. It is started before the template, which waits for it, and again whenever it dies; of the calls
 * then waiting only the one in hand fails. Each worker has a lane to it; deadlines of calls are kept here.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/broker.h"
#include "ipc/ops_call.h"

#define WATCH_NS 20000000u
#define SLOT 0u
#define QUICK_DEATH_NS 2000000000u
#define RETRY_NS 20000000u
#define LAST_WORDS 16

/* A worker's lane, and what was seen in it. */
struct ops_lane {
	uint32_t id; /* 0: there is none */
	struct pb_lane lane;
	int up_rw, up_ro, down_rw, down_ro;
	uint32_t seq;	  /* last seen to wait */
	uint64_t seen_ns; /* since when it counts */
};

struct pb_ops_rec {
	int plugin_fd;
	bool ready;
	uint32_t spawn_id; /* 0: no process */
	pid_t pid;
	bool kill_wanted, kill_sent;
	pb_status kill_status; /* why */
	struct pb_source ctl, errors;
	uint64_t started_ns, deadline_ns, retry_ns, deaf_ns;
	uint32_t deaths, quick_deaths;
	pb_status fail_status; /* its own word, while it starts */
	char fail_text[480];
	char host[16]; /* that runs the operators' file, as far as is known */
	bool other_host; /* its file is for another one, which @host is now */
	uint32_t next_lane;
	uint32_t first; /* worker whose calls the next process looks at first: not those of the one that it died of */
	struct ops_lane lane[PB_WORKERS_MAX];
};

pb_status pb_ops_new(struct pb_model_rec *m, int plugin_fd_take, struct pt2box_error *err)
{
	PB_CLEANUP(pb_client_drop_fd) int fd = plugin_fd_take;

	m->ops = calloc(1, sizeof(*m->ops));
	if (!m->ops)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "the broker has no memory for operators");
	m->ops->plugin_fd = pb_take_fd(&fd);
	m->ops->ctl.fd = m->ops->errors.fd = -1;
	m->ops->next_lane = 1;
	strcpy(m->ops->host, "plugin");
	return PT2BOX_OK;
}

/* ---- lanes ---- */

static void close_lane(struct ops_lane *l)
{
	if (!l->id)
		return;
	pb_lane_unmap(&l->lane);
	pb_close_fd(&l->up_rw);
	pb_close_fd(&l->up_ro);
	pb_close_fd(&l->down_rw);
	pb_close_fd(&l->down_ro);
	l->id = 0;
}

static pb_status make_lane(struct ops_lane *l, uint32_t id, struct pt2box_error *err)
{
	static const struct pb_lane_geometry geo = {.slots = 1,
						    .slot_bytes = PB_OPS_SLOT_BYTES,
						    .up_bytes = PB_OPS_LANE_BYTES,
						    .down_bytes = PB_OPS_LANE_BYTES};
	uint64_t up, down, control;
	pb_status st = pb_lane_sizes(&geo, &up, &down, &control);

	*l = (struct ops_lane){.id = id, .up_rw = -1, .up_ro = -1, .down_rw = -1, .down_ro = -1};
	if (!st)
		st = pb_memfd("pt2box-ops-up", up, &l->up_rw, err);
	if (!st)
		st = pb_memfd("pt2box-ops-down", down, &l->down_rw, err);
	if (!st)
		st = pb_fd_readonly(l->up_rw, &l->up_ro, err);
	if (!st)
		st = pb_fd_readonly(l->down_rw, &l->down_ro, err);
	if (!st)
		st = pb_lane_map(&l->lane, PB_LANE_BROKER, &geo, l->up_rw, l->down_rw, err);
	if (st)
		close_lane(l);
	return st;
}

/* One that does not listen is ended; the next one hears of all lanes. */
static void tell(struct pb_broker *b, struct pb_model_rec *m, enum pb_msg_id id, const void *msg, const int *fds,
		 size_t n_fds)
{
	struct pb_ops_rec *o = m->ops;

	if (!o->ready || o->ctl.fd < 0)
		return;
	if (pb_send(o->ctl.fd, id, msg, fds, n_fds, NULL))
		pb_ops_kill(b, m, PT2BOX_OP_CRASHED);
	pb_board_ring(m);
}

static void tell_attach(struct pb_broker *b, struct pb_model_rec *m, const struct ops_lane *l)
{
	struct pb_msg_ops_attach a = {.lane = l->id,
				      .slots = l->lane.geo.slots,
				      .slot_bytes = l->lane.geo.slot_bytes,
				      .up_bytes = l->lane.geo.up_bytes,
				      .down_bytes = l->lane.geo.down_bytes};

	tell(b, m, PB_MSG_ops_attach, &a, (int[]){l->up_ro, l->down_rw}, 2);
}

pb_status pb_ops_open_lane(struct pb_broker *b, struct pb_model_rec *m, uint32_t w)
{
	struct pb_msg_ops_lane msg;
	struct ops_lane *l;
	pb_status st;

	if (!m->ops)
		return PT2BOX_OK;
	pb_ops_close_lane(b, m, w);
	l = &m->ops->lane[w];
	st = make_lane(l, m->ops->next_lane++, NULL);
	if (st)
		return st;
	tell_attach(b, m, l);
	msg = (struct pb_msg_ops_lane){.slots = l->lane.geo.slots,
				       .slot_bytes = l->lane.geo.slot_bytes,
				       .up_bytes = l->lane.geo.up_bytes,
				       .down_bytes = l->lane.geo.down_bytes};
	st = pb_send(m->worker[w].ctl.fd, PB_MSG_ops_lane, &msg, (int[]){l->up_rw, l->down_ro}, 2, NULL);
	pb_close_fd(&l->up_rw); /* the others are for the next ops process */
	pb_close_fd(&l->down_ro);
	return st;
}

void pb_ops_close_lane(struct pb_broker *b, struct pb_model_rec *m, uint32_t w)
{
	struct ops_lane *l = m->ops ? &m->ops->lane[w] : NULL;
	struct pb_msg_ops_detach d;
	struct pb_lane_peek p;

	if (!l || !l->id)
		return;
	d.lane = l->id;
	pb_lane_look(&l->lane, SLOT, &p);
	/* Nobody waits for that any more, and others do. */
	if (p.pending && p.claimed)
		pb_ops_kill(b, m, PT2BOX_CANCELLED);
	else
		tell(b, m, PB_MSG_ops_detach, &d, NULL, 0);
	close_lane(l);
}

/* ---- start ---- */

static void read_errors(struct pb_broker *b, struct pb_source *s, uint32_t events)
{
	const struct pb_model_rec *m = s->object;
	char who[48];

	(void)events;
	snprintf(who, sizeof(who), "model %u, its plugin", m->id);
	pb_log_words(b, s, who);
}

static void became_ready(struct pb_broker *b, struct pb_model_rec *m)
{
	struct pb_ops_rec *o = m->ops;

	if (o->ready || o->fail_status || o->other_host) /* it has said that it is of no use: its end is awaited */
		return;
	o->ready = true;
	o->deadline_ns = UINT64_MAX;
	for (uint32_t i = 0; i < PB_WORKERS_MAX; i++) {
		struct ops_lane *l = &o->lane[(o->first + i) % PB_WORKERS_MAX];

		l->seq = 0; /* what has waited for it counts from now on */
		if (l->id)
			tell_attach(b, m, l);
	}
	if (m->state == PB_M_OPS)
		pb_load_continue(b, m);
}

/* Its last words, or it asks for another host: once, and the next process is started with that. */
static void ops_failed(struct pb_broker *b, const struct pb_model_rec *m, const struct pb_msg_ops_failed *f)
{
	struct pb_ops_rec *o = m->ops;
	struct pt2box_error e;

	if (o->ready || o->fail_status || o->other_host)
		return;
	if (f->wants[0] && strcmp(o->host, "plugin") == 0) {
		if (pb_ops_host_for(&b->config, m->tenant, f->wants, &e) == PT2BOX_OK) {
			snprintf(o->host, sizeof(o->host), "%s", f->wants);
			o->other_host = true;
			return;
		}
	} else {
		pb_error_set(&e, (pb_status)f->status, "%s", f->text);
	}
	o->fail_status = e.status;
	snprintf(o->fail_text, sizeof(o->fail_text), "%s", e.text);
}

static void message(struct pb_broker *b, struct pb_source *s, uint32_t events)
{
	struct pb_model_rec *m = s->object;
	struct pb_ops_rec *o = m->ops;
	pb_status st = pb_recv(s->fd, PB_OPS, PB_BROKER, PB_STATE_ANY, true, &b->rx, NULL);

	(void)events;
	if (st == PT2BOX_NOT_FOUND)
		return;
	if (st) {
		/* Its end comes from the spawner. If none does, the plugin has closed the socket. */
		pb_loop_remove(b, s);
		o->deaf_ns = pb_now_ns() + PB_DEAF_NS;
		if (st == PT2BOX_PROTOCOL)
			pb_ops_kill(b, m, PT2BOX_OP_CRASHED);
		return;
	}
	if (b->rx.row->id == PB_MSG_ops_ready)
		became_ready(b, m);
	else if (b->rx.row->id == PB_MSG_ops_failed)
		ops_failed(b, m, &b->rx.msg.ops_failed);
}

pb_status pb_ops_start(struct pb_broker *b, struct pb_model_rec *m, struct pt2box_error *err)
{
	struct pb_ops_rec *o = m->ops;
	struct pb_msg_spawn_ops s = {.id = ++b->next_spawn,
				     .memory_bytes = m->opt.memory_bytes ? m->opt.memory_bytes : b->config.memory_bytes,
				     .result_bytes = PB_OPS_LANE_BYTES,
				     .some = strcmp(m->backend, "torch") == 0,
				     .tenant = pb_tenant_cpu(b, m->tenant),
				     .cpu_weight = m->tenant->conf->cpu_weight,
				     .cpu_max = m->tenant->conf->cpu_max};
	PB_CLEANUP(pb_close_fd) int err_w = -1;
	PB_CLEANUP(pb_close_fd) int ctl = -1;
	PB_CLEANUP(pb_close_fd) int board_ro = -1;
	pb_status st = pb_board_make(m, err);

	strcpy(s.host, o->host);
	pb_loop_remove(b, &o->ctl);
	pb_loop_remove(b, &o->errors);
	if (!st)
		st = pb_fd_readonly(m->board_fd, &board_ro, err);
	if (!st)
		st = pb_make_pipe(b, &o->errors, m, read_errors, &err_w, err);
	if (!st)
		st = pb_loop_add_control(b, &o->ctl, message, m, &ctl, err);
	if (!st)
		st = pb_send(b->spawner.fd, PB_MSG_spawn_ops, &s,
			     (int[]){err_w, ctl, m->out_manifest, board_ro, o->plugin_fd}, 5, err);
	if (st)
		return st;
	o->spawn_id = (uint32_t)s.id;
	o->pid = 0;
	o->ready = o->other_host = o->kill_wanted = o->kill_sent = false;
	o->kill_status = o->fail_status = PT2BOX_OK;
	o->fail_text[0] = '\0';
	o->started_ns = pb_now_ns();
	o->deaf_ns = UINT64_MAX;
	o->deadline_ns = o->started_ns + (uint64_t)pb_load_deadline_ms(b, m) * 1000000u;
	return PT2BOX_OK;
}

/* ---- end ---- */

bool pb_ops_lives(const struct pb_model_rec *m)
{
	return m->ops && m->ops->spawn_id;
}

pid_t pb_ops_pid(const struct pb_model_rec *m, uint32_t *ret_deaths)
{
	*ret_deaths = m->ops->deaths;
	return m->ops->pid;
}

void pb_ops_kill(struct pb_broker *b, struct pb_model_rec *m, pb_status why)
{
	struct pb_ops_rec *o = m->ops;
	struct pb_msg_spawn_kill k;

	if (!pb_ops_lives(m))
		return;
	k.id = o->spawn_id;
	if (!o->kill_wanted)
		o->kill_status = why;
	o->kill_wanted = true;
	/* The spawner may not read just now, and must not be waited for: a tick asks again. */
	if (!o->kill_sent)
		o->kill_sent = pb_send(b->spawner.fd, PB_MSG_spawn_kill, &k, NULL, 0, NULL) == PT2BOX_OK;
}

void pb_ops_free(struct pb_broker *b, struct pb_model_rec *m)
{
	struct pb_ops_rec *o = m->ops;

	if (!o)
		return;
	pb_loop_remove(b, &o->ctl);
	pb_loop_remove(b, &o->errors);
	for (uint32_t w = 0; w < PB_WORKERS_MAX; w++)
		close_lane(&o->lane[w]);
	pb_client_drop_fd_of(m->uid, &o->plugin_fd);
	free(o);
	m->ops = NULL;
}

static int64_t limit_ms(const struct pb_broker *b, const struct pb_model_rec *m)
{
	/* Within the run's, so that the call fails and not its worker. */
	return m->run_deadline_ms >= 0 && m->run_deadline_ms / 2 < b->config.op_deadline_ms ? m->run_deadline_ms / 2 :
											       b->config.op_deadline_ms;
}

static void cause_of(const struct pb_broker *b, const struct pb_model_rec *m, int wait_status, struct pt2box_error *ret)
{
	const struct pb_ops_rec *o = m->ops;
	const int sig = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0;

	if (o->kill_status == PT2BOX_OP_TIMEOUT)
		pb_error_set(ret, PT2BOX_OP_TIMEOUT, "the operator overran its deadline of %lld ms",
			     (long long)limit_ms(b, m));
	else if (o->fail_status)
		pb_error_set(ret, o->fail_status, "%s", o->fail_text);
	else if (o->kill_status)
		pb_error_set(ret, PT2BOX_OP_CRASHED, "the ops process had to be ended");
	else if (sig == SIGSYS)
		pb_error_set(ret, PT2BOX_OP_CRASHED, "the operator made a forbidden system call");
	else if (sig)
		pb_error_set(ret, PT2BOX_OP_CRASHED, "the operator died by signal %d (SIG%s)", sig,
			     sigabbrev_np(sig) ? sigabbrev_np(sig) : "?");
	else
		pb_error_set(ret, PT2BOX_OP_CRASHED, "the operator ended its process with exit code %d",
			     WEXITSTATUS(wait_status));
	ret->signal = o->kill_status ? 0 : sig;
}

/* What it had begun fails; what waits, waits for the next one. */
static void fail_calls(struct pb_ops_rec *o, const struct pt2box_error *e)
{
	for (uint32_t w = 0; w < PB_WORKERS_MAX; w++) {
		struct ops_lane *l = &o->lane[w];
		struct pb_lane_peek p;

		if (!l->id)
			continue;
		pb_lane_look(&l->lane, SLOT, &p);
		if (p.pending && p.claimed) {
			pb_lane_fail(&l->lane, SLOT, p.seq, e->status, e->signal, e->text);
			o->first = w + 1;
		}
		pb_lane_rouse(&l->lane);
		l->seq = 0; /* its time begins anew */
	}
}

static void back_off(struct pb_ops_rec *o)
{
	uint64_t now = pb_now_ns();

	o->deaths++;
	o->quick_deaths = now - o->started_ns < QUICK_DEATH_NS ? o->quick_deaths + 1 : 0;
	o->retry_ns = now;
	if (o->quick_deaths > 8)
		o->retry_ns += 1000000ull << (o->quick_deaths > 20 ? 12 : o->quick_deaths - 8);
}

static void restart(struct pb_broker *b, struct pb_model_rec *m)
{
	struct pt2box_error e;

	if (pb_ops_start(b, m, &e)) {
		if (m->state == PB_M_OPS) {
			pb_model_load_failed(b, m, &e);
			return;
		}
		pb_log(b, "model %u: %s", m->id, e.text);
		m->ops->retry_ns = pb_now_ns() + RETRY_NS;
	}
}

static void ended(struct pb_broker *b, struct pb_model_rec *m, const struct pt2box_error *e)
{
	struct pb_ops_rec *o = m->ops;

	o->spawn_id = 0;
	o->pid = 0;
	o->ready = false;
	if (!m->client) {
		pb_model_end(b, m);
		return;
	}
	if (o->other_host && m->state != PB_M_BROKEN) {
		restart(b, m);
		return;
	}
	pb_log(b, "model %u, its ops process: %s: %s", m->id, pt2box_status_name(e->status), e->text);
	if (m->state == PB_M_OPS) {
		pb_model_load_failed(b, m, e);
		return;
	}
	fail_calls(o, e);
	back_off(o);
	pb_health_note(b, m, "ops process", e->status == PT2BOX_OP_TIMEOUT, e);
	if (m->state != PB_M_BROKEN && o->quick_deaths <= 8)
		restart(b, m);
}

static struct pb_model_rec *find(const struct pb_broker *b, uint64_t id)
{
	for (const struct pb_client *c = b->clients; c; c = c->next)
		for (struct pb_model_rec *m = c->models; m; m = m->next)
			if (m->ops && m->ops->spawn_id == id)
				return m;
	for (struct pb_model_rec *m = b->orphans; m; m = m->next)
		if (m->ops && m->ops->spawn_id == id)
			return m;
	return NULL;
}

bool pb_ops_spawned(struct pb_broker *b, const struct pb_msg_spawned *msg)
{
	struct pb_model_rec *m = find(b, msg->id);

	if (m)
		m->ops->pid = (pid_t)msg->pid;
	return m != NULL;
}

bool pb_ops_exited(struct pb_broker *b, const struct pb_msg_exited *msg)
{
	struct pb_model_rec *m = find(b, msg->id);
	struct pt2box_error e;

	if (!m)
		return false;
	for (int i = 0; i < LAST_WORDS && m->client && m->ops->ctl.fd >= 0 && !m->ops->ready; i++)
		message(b, &m->ops->ctl, 0);
	cause_of(b, m, (int)msg->wait_status, &e);
	ended(b, m, &e);
	return true;
}

bool pb_ops_spawn_failed(struct pb_broker *b, const struct pb_msg_spawn_failed *msg)
{
	struct pb_model_rec *m = find(b, msg->id);
	struct pt2box_error e;

	if (!m)
		return false;
	pb_error_set(&e, (pb_status)msg->status, "%s", msg->text);
	ended(b, m, &e);
	return true;
}

/* ---- deadlines ---- */

/* A call counts from when it is first seen to be in hand; nothing that the process writes stops it but the answer. */
static bool overran(struct ops_lane *l, uint64_t limit_ns, uint64_t now, bool *ret_busy)
{
	struct pb_lane_peek p;

	pb_lane_look(&l->lane, SLOT, &p);
	if (!p.pending) {
		l->seq = 0;
		return false;
	}
	if (l->seq != p.seq) {
		l->seq = p.seq;
		l->seen_ns = now;
	}
	*ret_busy |= p.claimed;
	return now - l->seen_ns >= limit_ns;
}

/* How long a call may wait for a process that starts: an interpreter may take longer for that than an operator may. */
static int64_t start_limit_ms(const struct pb_broker *b, const struct pb_model_rec *m)
{
	const int64_t most = m->run_deadline_ms >= 0 ? m->run_deadline_ms / 4 * 3 : pb_load_deadline_ms(b, m);

	return most > limit_ms(b, m) ? most : limit_ms(b, m);
}

static void end_overdue(struct pb_broker *b, struct pb_model_rec *m, uint64_t now)
{
	struct pb_ops_rec *o = m->ops;
	const uint64_t limit_ns = (uint64_t)(o->ready || !o->spawn_id ? limit_ms(b, m) : start_limit_ms(b, m)) * 1000000u;
	bool late[PB_WORKERS_MAX] = {false}, busy = false;

	for (uint32_t w = 0; w < PB_WORKERS_MAX; w++)
		late[w] = o->lane[w].id && overran(&o->lane[w], limit_ns, now, &busy);
	for (uint32_t w = 0; w < PB_WORKERS_MAX; w++) {
		struct ops_lane *l = &o->lane[w];
		struct pb_lane_peek p;

		if (!late[w])
			continue;
		pb_lane_look(&l->lane, SLOT, &p);
		if (o->ready && (p.claimed || !busy)) /* in hand, or it serves nobody */
			pb_ops_kill(b, m, PT2BOX_OP_TIMEOUT);
		else if (o->ready) /* waits behind others */
			l->seen_ns = now;
		if ((!o->ready || !p.claimed) && !busy && p.pending)
			pb_lane_fail(&l->lane, SLOT, p.seq, PT2BOX_OP_TIMEOUT, 0, "no ops process took the call in time");
	}
}

uint64_t pb_ops_tick(struct pb_broker *b, struct pb_model_rec *m, uint64_t now)
{
	struct pb_ops_rec *o = m->ops;

	if (!o)
		return UINT64_MAX;
	if (o->kill_wanted && !o->kill_sent && o->spawn_id)
		pb_ops_kill(b, m, o->kill_status);
	if (!m->client)
		return o->spawn_id && !o->kill_sent ? now + RETRY_NS : UINT64_MAX;
	if (o->spawn_id && !o->ready && now >= o->deadline_ns) {
		snprintf(o->fail_text, sizeof(o->fail_text), "the plugin was not ready within %lld ms",
			 (long long)pb_load_deadline_ms(b, m));
		o->fail_status = PT2BOX_OP_TIMEOUT;
		o->deadline_ns = UINT64_MAX;
		pb_ops_kill(b, m, PT2BOX_CANCELLED);
	}
	if (now >= o->deaf_ns)
		pb_ops_kill(b, m, PT2BOX_OP_CRASHED);
	if (m->state == PB_M_OPS)
		return now + RETRY_NS;
	if (!o->spawn_id && now >= o->retry_ns && m->state != PB_M_BROKEN && m->state != PB_M_ENDING && m->announced)
		restart(b, m);
	end_overdue(b, m, now);
	return now + WATCH_NS;
}
