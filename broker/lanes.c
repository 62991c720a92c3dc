/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes: their memory is made and sealed here, handed to both ends, and looked at for overruns. Of its contents the
 * broker believes only that a slot's numbers say something about that slot.
 */
#include <stdlib.h>
#include <string.h>

#include "broker/broker.h"

/* How often lanes are looked at while they are open: half of what a deadline may be late. */
#define WATCH_NS 20000000u
/* Descriptors of the broker's. */
#define LANE_FILES 4
#define SEGMENT_FILES 2

struct pb_lane_rec *pb_lanes_find(struct pb_client *c, uint64_t id)
{
	for (struct pb_model_rec *m = c->models; m; m = m->next)
		for (struct pb_lane_rec *l = m->lanes; l; l = l->next)
			if (l->id == id)
				return l;
	return NULL;
}

static void fail_request(struct pb_broker *b, struct pb_client *c, uint64_t request, pb_status st, const char *text)
{
	struct pt2box_error e;

	pb_error_set(&e, st, "%s", text);
	pb_client_fail(b, c, request, &e);
}

static uint64_t round_bytes(uint64_t want)
{
	uint64_t b = PB_LANE_BYTES_MIN;

	while (b < want)
		b <<= 1;
	return b;
}

/* @slots: each is a run that may be in flight. */
static pb_status charge(struct pb_tenant *t, uint64_t bytes, uint32_t files, uint32_t slots, struct pt2box_error *err)
{
	pb_status st = pb_tenant_charge(t, PB_LIMIT_LANES, bytes, err);

	if (st)
		return st;
	st = pb_tenant_charge(t, PB_LIMIT_FDS, files, err);
	if (!st) {
		st = pb_tenant_charge(t, PB_LIMIT_RUNS, slots, err);
		if (st)
			pb_tenant_discharge(t, PB_LIMIT_FDS, files);
	}
	if (st)
		pb_tenant_discharge(t, PB_LIMIT_LANES, bytes);
	return st;
}

static void discharge(struct pb_tenant *t, uint64_t bytes, uint32_t files, uint32_t slots)
{
	pb_tenant_discharge(t, PB_LIMIT_LANES, bytes);
	pb_tenant_discharge(t, PB_LIMIT_FDS, files);
	pb_tenant_discharge(t, PB_LIMIT_RUNS, slots);
}

/* As many as the tenant's runs in flight leave, so that a small limit does not need many lanes to be of use. */
static uint32_t slots_for(const struct pb_tenant *t)
{
	const uint64_t limit = t->limit[PB_LIMIT_RUNS], used = t->used[PB_LIMIT_RUNS];
	const uint64_t left = used < limit ? limit - used : 0;

	return left == 0 ? 1 : left < PB_LANE_SLOTS ? (uint32_t)left : PB_LANE_SLOTS;
}

/* Requests less those that wait: a worker can pretend to have answered, but not that it was asked. */
static uint64_t lane_done(const struct pb_lane_rec *l)
{
	uint64_t n = 0;

	for (uint32_t s = 0; s < l->lane.geo.slots; s++) {
		struct pb_lane_peek p;

		pb_lane_look(&l->lane, s, &p);
		n += p.seq - p.pending;
	}
	return n;
}

static void free_segment(struct pb_segment_rec *s)
{
	pb_close_fd(&s->fd_ro);
	pb_close_fd(&s->fd_rw);
	free(s);
}

void pb_lanes_free(struct pb_broker *b, struct pb_lane_rec *l)
{
	struct pb_model_rec *m = l->model;
	struct pb_msg_detach d = {.lane = l->id};
	struct pb_lane_rec **p = &m->lanes;
	uint32_t files = LANE_FILES;

	while (*p && *p != l)
		p = &(*p)->next;
	if (*p)
		*p = l->next;
	if (l->lane.up) {
		pb_isolate_lane_closes(l);
		m->closed_runs += lane_done(l);
	}
	if (m->state != PB_M_ENDING)
		pb_workers_send(b, m, l->session, PB_MSG_detach, &d, NULL, 0);
	while (l->segments) {
		struct pb_segment_rec *s = l->segments;

		l->segments = s->next;
		files += SEGMENT_FILES;
		free_segment(s);
	}
	discharge(m->tenant, l->bytes, files, l->slots);
	pb_lane_unmap(&l->lane);
	pb_close_fd(&l->up_rw);
	pb_close_fd(&l->up_ro);
	pb_close_fd(&l->down_rw);
	pb_close_fd(&l->down_ro);
	free(l);
}

void pb_lanes_free_all(struct pb_broker *b, struct pb_model_rec *m, uint32_t session)
{
	for (struct pb_lane_rec *l = m->lanes, *after; l; l = after) {
		after = l->next;
		if (session == PB_ALL_SESSIONS || l->session == session)
			pb_lanes_free(b, l);
	}
}

/* Worker @w, if there is one, is one that serves the lane. */
static bool serves(const struct pb_lane_rec *l, uint32_t w)
{
	return w < PB_WORKERS_MAX && l->model->worker[w].session == l->session;
}

static struct pb_msg_attach attach_message(const struct pb_lane_rec *l)
{
	return (struct pb_msg_attach){.lane = l->id,
				      .slots = l->lane.geo.slots,
				      .slot_bytes = l->lane.geo.slot_bytes,
				      .up_bytes = l->lane.geo.up_bytes,
				      .down_bytes = l->lane.geo.down_bytes};
}

pb_status pb_lanes_attach_all(struct pb_model_rec *m, uint32_t w)
{
	struct pb_msg_copy_inputs copy = {.on = 1};
	int ctl = m->worker[w].ctl.fd;
	pb_status st = PT2BOX_OK;

	if (m->copy_inputs)
		st = pb_send(ctl, PB_MSG_copy_inputs, &copy, NULL, 0, NULL);
	for (struct pb_lane_rec *l = m->lanes; l && !st; l = l->next) {
		struct pb_msg_attach a = attach_message(l);
		int fds[2] = {l->up_ro, l->down_rw};

		if (!serves(l, w))
			continue;
		st = pb_send(ctl, PB_MSG_attach, &a, fds, 2, NULL);
		for (struct pb_segment_rec *s = l->segments; s && !st; s = s->next) {
			struct pb_msg_attach_segment as = {.lane = l->id, .segment = s->id, .down = s->down,
							   .bytes = s->bytes};

			st = pb_send(ctl, PB_MSG_attach_segment, &as, s->down ? &s->fd_rw : &s->fd_ro, 1, NULL);
		}
	}
	pb_board_ring(m);
	return st;
}

static pb_status make_lane(struct pb_lane_rec *l, const struct pb_lane_geometry *geo, struct pt2box_error *err)
{
	uint64_t up, down, control;
	pb_status st = pb_lane_sizes(geo, &up, &down, &control);

	if (st)
		return pb_error_set(err, st, "a lane of that size cannot be made");
	st = pb_memfd("pt2box-up", up, &l->up_rw, err);
	if (!st)
		st = pb_memfd("pt2box-down", down, &l->down_rw, err);
	if (!st)
		st = pb_fd_readonly(l->up_rw, &l->up_ro, err);
	if (!st)
		st = pb_fd_readonly(l->down_rw, &l->down_ro, err);
	if (!st)
		st = pb_lane_map(&l->lane, PB_LANE_BROKER, geo, l->up_rw, l->down_rw, err);
	return st;
}

static bool has_room(const struct pb_model_rec *m, uint32_t session)
{
	uint32_t all = 0, same = 0;

	for (const struct pb_lane_rec *l = m->lanes; l; l = l->next) {
		all++;
		same += l->session == session;
	}
	return all < PB_LANES_PER_MODEL && same < PB_LANES_PER_SESSION;
}

void pb_lanes_open(struct pb_broker *b, struct pb_client *c, const struct pb_msg_lane_open *msg)
{
	struct pb_model_rec *m = pb_model_find(c, msg->model);
	struct pb_lane_geometry geo = {.slots = slots_for(c->tenant),
				       .up_bytes = round_bytes(msg->up_bytes),
				       .down_bytes = round_bytes(msg->down_bytes)};
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct pb_msg_attach a;
	struct pb_msg_lane r;
	struct pb_lane_rec *l;
	pb_status st;

	if (!m || !m->announced) {
		fail_request(b, c, msg->request, PT2BOX_NOT_FOUND, "no such model");
		return;
	}
	if (msg->session && !pb_session_find(m, msg->session)) {
		fail_request(b, c, msg->request, PT2BOX_NOT_FOUND, "no such session");
		return;
	}
	geo.slot_bytes = pb_lane_slot_bytes((uint32_t)m->n_inputs, (uint32_t)m->n_outputs);
	l = calloc(1, sizeof(*l));
	if (!l || !has_room(m, (uint32_t)msg->session))
		st = pb_error_set(&e, PT2BOX_LIMIT, "a model may have %d lanes", PB_LANES_PER_SESSION);
	else
		st = charge(c->tenant, geo.up_bytes + geo.down_bytes, LANE_FILES, geo.slots, &e);
	if (!l || st) {
		free(l);
		pb_client_fail(b, c, msg->request, &e);
		return;
	}
	l->model = m;
	l->id = c->next_lane++;
	l->session = (uint32_t)msg->session;
	l->up_rw = l->up_ro = l->down_rw = l->down_ro = -1;
	l->next_segment = 1;
	l->bytes = geo.up_bytes + geo.down_bytes;
	l->slots = geo.slots;
	l->next = m->lanes;
	m->lanes = l;
	if (make_lane(l, &geo, &e)) {
		pb_client_fail(b, c, msg->request, &e);
		pb_lanes_free(b, l);
		return;
	}
	a = attach_message(l);
	pb_workers_send(b, m, l->session, PB_MSG_attach, &a, (int[]){l->up_ro, l->down_rw}, 2);
	r = (struct pb_msg_lane){.request = msg->request,
				 .lane = l->id,
				 .slots = geo.slots,
				 .slot_bytes = geo.slot_bytes,
				 .up_bytes = geo.up_bytes,
				 .down_bytes = geo.down_bytes};
	pb_client_send(c, PB_MSG_lane, &r, (int[]){l->up_rw, l->down_ro}, 2);
}

void pb_lanes_grow(struct pb_broker *b, struct pb_client *c, const struct pb_msg_lane_grow *msg)
{
	struct pb_lane_rec *l = pb_lanes_find(c, msg->lane);
	struct pt2box_error e = {.status = PT2BOX_OK};
	uint64_t bytes = round_bytes(msg->bytes);
	struct pb_msg_attach_segment as;
	struct pb_msg_segment r;
	struct pb_segment_rec *s;
	uint32_t n = 0;
	pb_status st;

	if (!l) {
		fail_request(b, c, msg->request, PT2BOX_NOT_FOUND, "no such lane");
		return;
	}
	for (s = l->segments; s; s = s->next)
		n += s->down == (msg->down != 0);
	s = calloc(1, sizeof(*s));
	if (!s || n >= PB_LANE_SEGMENTS_MAX)
		st = pb_error_set(&e, PT2BOX_LIMIT, "the lane cannot grow further");
	else
		st = charge(c->tenant, bytes, SEGMENT_FILES, 0, &e);
	if (!s || st) {
		free(s);
		pb_client_fail(b, c, msg->request, &e);
		return;
	}
	s->fd_ro = s->fd_rw = -1;
	s->id = l->next_segment++;
	s->down = msg->down;
	s->bytes = bytes;
	l->bytes += bytes;
	s->next = l->segments;
	l->segments = s;
	if (pb_memfd("pt2box-segment", bytes, &s->fd_rw, &e) || pb_fd_readonly(s->fd_rw, &s->fd_ro, &e)) {
		pb_client_fail(b, c, msg->request, &e);
		l->segments = s->next;
		l->bytes -= bytes;
		discharge(c->tenant, bytes, SEGMENT_FILES, 0);
		free_segment(s);
		return;
	}
	as = (struct pb_msg_attach_segment){.lane = l->id, .segment = s->id, .down = s->down, .bytes = bytes};
	pb_workers_send(b, l->model, l->session, PB_MSG_attach_segment, &as, s->down ? &s->fd_rw : &s->fd_ro, 1);
	r = (struct pb_msg_segment){.request = msg->request, .lane = l->id, .segment = s->id, .down = s->down,
				    .bytes = bytes};
	pb_client_send(c, PB_MSG_segment, &r, s->down ? &s->fd_ro : &s->fd_rw, 1);
}

void pb_lanes_close_segment(struct pb_broker *b, struct pb_client *c, const struct pb_msg_segment_close *msg)
{
	struct pb_lane_rec *l = pb_lanes_find(c, msg->lane);
	struct pb_msg_detach_segment d = {.lane = msg->lane, .segment = msg->segment};

	for (struct pb_segment_rec **p = l ? &l->segments : NULL; p && *p; p = &(*p)->next) {
		struct pb_segment_rec *s = *p;

		if (s->id != msg->segment)
			continue;
		*p = s->next;
		l->bytes -= s->bytes;
		discharge(c->tenant, s->bytes, SEGMENT_FILES, 0);
		free_segment(s);
		pb_workers_send(b, l->model, l->session, PB_MSG_detach_segment, &d, NULL, 0);
		return;
	}
}

bool pb_lanes_refused(const struct pb_model_rec *m, uint32_t w)
{
	for (const struct pb_lane_rec *l = m->lanes; l; l = l->next)
		for (uint32_t s = 0; serves(l, w) && s < l->lane.geo.slots; s++) {
			struct pb_lane_peek p;

			pb_lane_look(&l->lane, s, &p);
			if (p.claimed && p.worker == w && p.refused)
				return true;
		}
	return false;
}

/* It stored into an input: from now on this package gets copies, and the run is repeated from intact inputs. */
static void mark_writes_inputs(struct pb_broker *b, struct pb_model_rec *m)
{
	struct pb_msg_copy_inputs copy = {.on = 1};

	pb_log(b, "model %u writes its inputs: it gets copies", m->id);
	m->copy_inputs = true;
	pb_workers_send(b, m, PB_ALL_SESSIONS, PB_MSG_copy_inputs, &copy, NULL, 0);
}

/* By its own word, or because it was the last to be seen with it and the claim is gone: it took it back and died. */
static bool was_held_by(const struct pb_slot_watch *watch, const struct pb_lane_peek *p, uint32_t w)
{
	if (p->claimed)
		return p->worker == w;
	return p->pending && watch->seq == p->seq && watch->claimed_ns && watch->worker == w;
}

bool pb_lanes_busy(const struct pb_model_rec *m, uint32_t w)
{
	for (const struct pb_lane_rec *l = m->lanes; l; l = l->next)
		for (uint32_t s = 0; serves(l, w) && s < l->lane.geo.slots; s++) {
			struct pb_lane_peek p;

			pb_lane_look(&l->lane, s, &p);
			if (was_held_by(&l->watch[s], &p, w))
				return true;
		}
	return false;
}

uint64_t pb_lanes_done(const struct pb_model_rec *m)
{
	uint64_t n = m->closed_runs;

	for (const struct pb_lane_rec *l = m->lanes; l; l = l->next)
		n += lane_done(l);
	return n - m->lost_runs;
}

/* One run that it held. */
static void lost_run(struct pb_broker *b, struct pb_lane_rec *l, uint32_t slot, const struct pb_lane_peek *p,
		     const struct pt2box_error *e, bool segv, bool requeue)
{
	if (segv && p->fault && !l->model->copy_inputs)
		mark_writes_inputs(b, l->model);
	else if (!requeue) {
		l->model->lost_runs++;
		pb_lane_fail(&l->lane, slot, p->seq, e->status, e->signal, e->text);
		return;
	}
	l->watch[slot].seq = 0; /* its time begins anew */
	pb_lane_requeue(&l->lane, slot, p->seq);
}

void pb_lanes_worker_died(struct pb_broker *b, struct pb_model_rec *m, uint32_t w, const struct pt2box_error *e,
			  bool segv, bool requeue)
{
	for (struct pb_lane_rec *l = m->lanes; l; l = l->next) {
		if (!serves(l, w))
			continue;
		for (uint32_t s = 0; s < l->lane.geo.slots; s++) {
			struct pb_lane_peek p;

			pb_lane_look(&l->lane, s, &p);
			if (was_held_by(&l->watch[s], &p, w))
				lost_run(b, l, s, &p, e, segv, requeue);
		}
		pb_lane_rouse(&l->lane);
	}
}

unsigned pb_lanes_fail_all(struct pb_model_rec *m, uint32_t session, const struct pt2box_error *e)
{
	unsigned n = 0;

	for (struct pb_lane_rec *l = m->lanes; l; l = l->next) {
		if (session != PB_ALL_SESSIONS && l->session != session)
			continue;
		for (uint32_t s = 0; s < l->lane.geo.slots; s++) {
			struct pb_lane_peek p;

			pb_lane_look(&l->lane, s, &p);
			if (!p.pending)
				continue;
			pb_lane_fail(&l->lane, s, p.seq, e->status, e->signal, e->text);
			n++;
		}
	}
	return n;
}

void pb_lanes_cancel(struct pb_broker *b, struct pb_client *c, const struct pb_msg_cancel *msg)
{
	struct pb_lane_rec *l = pb_lanes_find(c, msg->lane);
	struct pb_lane_peek p;

	if (!l || msg->slot >= l->lane.geo.slots)
		return;
	pb_lane_look(&l->lane, (uint32_t)msg->slot, &p);
	if (!p.pending || p.seq != msg->seq)
		return;
	if (pb_lane_claim_unserved(&l->lane, (uint32_t)msg->slot, p.seq)) {
		pb_lane_fail(&l->lane, (uint32_t)msg->slot, p.seq, PT2BOX_CANCELLED, 0, "the run was cancelled");
		return;
	}
	pb_lane_look(&l->lane, (uint32_t)msg->slot, &p);
	if (p.pending && p.claimed && serves(l, p.worker))
		pb_worker_kill(b, l->model, p.worker, PT2BOX_CANCELLED);
}

/* The run in this slot has overstayed: end the worker that was last seen with it. */
static void overrun(struct pb_broker *b, struct pb_lane_rec *l, uint32_t slot, uint32_t seq)
{
	struct pb_model_rec *m = l->model;
	uint32_t w = l->watch[slot].worker;

	/* A claim by a worker that does not live, or serves others, is a lie of one that does: answer it, so that it cannot
	 * hang anyone. */
	if (serves(l, w) && m->worker[w].state == PB_W_READY)
		pb_worker_kill(b, m, w, PT2BOX_MODEL_TIMEOUT);
	else if (!serves(l, w) || m->worker[w].state == PB_W_NONE)
		pb_lane_fail(&l->lane, slot, seq, PT2BOX_MODEL_TIMEOUT, 0, "the run overran its deadline");
}

/* Waits, and nobody has claimed it for a whole deadline. */
static bool is_stalled(const struct pb_lane_rec *l, const struct pb_slot_watch *w, uint64_t now)
{
	int64_t limit = l->model->run_deadline_ms;
	/* Nobody is blamed for the time in which he was told to wait. */
	uint64_t since = w->seen_ns > l->model->paused_ns ? w->seen_ns : l->model->paused_ns;

	return w->waits && !w->claimed_ns && limit >= 0 && now >= since + (uint64_t)limit * 1000000u;
}

/*
 * First sight of a claimed slot starts its clock, and nothing that a worker writes stops it but the answer: a claim that
 * is moved about or taken back runs on, and so does one whose answer is taken back. Returns whether the slot waits and nobody has ever claimed it.
 */
static bool watch_slot(struct pb_broker *b, struct pb_lane_rec *l, uint32_t slot, uint64_t now, bool *ret_busy)
{
	struct pb_slot_watch *w = &l->watch[slot];
	int64_t limit = l->model->run_deadline_ms;
	struct pb_lane_peek p;

	pb_lane_look(&l->lane, slot, &p);
	if (p.pending || p.seq != w->last)
		l->model->tenant->active_ns = now;
	w->last = p.seq;
	w->waits = p.pending;
	if (!p.pending)
		return false;
	if (w->seq != p.seq)
		*w = (struct pb_slot_watch){.seq = p.seq, .last = p.seq, .served = w->served, .waits = true, .seen_ns = now};
	if (p.claimed) {
		w->worker = p.worker;
		if (!w->claimed_ns)
			w->claimed_ns = now;
		if (pb_isolate_is_second_run(l, slot, &p))
			pb_worker_kill(b, l->model, p.worker, PT2BOX_MODEL_PROTOCOL);
	}
	if (!w->claimed_ns)
		return is_stalled(l, w, now);
	*ret_busy = true;
	if (limit >= 0 && now - w->claimed_ns >= (uint64_t)limit * 1000000u)
		overrun(b, l, slot, p.seq);
	return false;
}

/* Of a session's lanes, has any a run under way? */
static bool is_busy(const struct pb_model_rec *m, uint32_t session)
{
	for (const struct pb_lane_rec *l = m->lanes; l; l = l->next)
		if (l->session == session && l->busy)
			return true;
	return false;
}

/*
 * Requests have waited for a whole deadline, and no worker was at work: these workers do not serve. false if one of them
 * is too young to be blamed, or there is none.
 */
static bool kill_idlers(struct pb_broker *b, struct pb_model_rec *m, uint32_t session, uint64_t now)
{
	uint64_t limit = (uint64_t)m->run_deadline_ms * 1000000u;
	bool any = false;

	for (uint32_t w = 0; w < m->top; w++) {
		if (m->worker[w].state != PB_W_READY || m->worker[w].session != session || m->worker[w].retiring)
			continue;
		if (now < m->worker[w].since_ns + limit)
			return false;
		any = true;
	}
	for (uint32_t w = 0; w < m->top; w++)
		if (m->worker[w].state == PB_W_READY && m->worker[w].session == session)
			pb_worker_kill(b, m, w, PT2BOX_MODEL_PROTOCOL);
	return any;
}

/* The next workers would do no better with them: a model may hide its claim, and so its part in the delay. */
static void fail_stalled(struct pb_model_rec *m, uint32_t session, uint64_t now)
{
	for (struct pb_lane_rec *l = m->lanes; l; l = l->next) {
		if (l->session != session)
			continue;
		l->stalled = false;
		for (uint32_t s = 0; s < l->lane.geo.slots; s++)
			if (is_stalled(l, &l->watch[s], now))
				pb_lane_fail(&l->lane, s, l->watch[s].seq, PT2BOX_MODEL_PROTOCOL, 0,
					     "no worker of the model took the request within its deadline");
	}
}

uint64_t pb_lanes_tick(struct pb_broker *b, struct pb_model_rec *m, uint64_t now)
{
	if (!m->lanes)
		return UINT64_MAX;
	/* This is called after every event of anybody's: a thousand lanes must not be looked at that often. */
	if (now < m->look_ns)
		return m->look_ns;
	m->look_ns = now + WATCH_NS;
	for (struct pb_lane_rec *l = m->lanes; l; l = l->next) {
		l->busy = l->stalled = false;
		for (uint32_t s = 0; s < l->lane.geo.slots; s++)
			l->stalled |= watch_slot(b, l, s, now, &l->busy);
	}
	for (struct pb_lane_rec *l = m->lanes; l; l = l->next)
		if (l->stalled && !is_busy(m, l->session) && kill_idlers(b, m, l->session, now))
			fail_stalled(m, l->session, now);
	return m->look_ns;
}
