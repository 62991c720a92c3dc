/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A change of a model's constants: update, swap, free, fold. One at a time for a model.
 *
 *	intake		(update only) a process builds the new memory and checks it; sealed here, shared if known
 *	template	makes the change, so that later forks have it; if it cannot, nothing has changed for anybody
 *	staging		every worker maps the memory, between two runs
 *	commit		the board's number: runs that are claimed from now on see the change
 *	applying	workers give back what they no longer need; then the client hears of it
 *
 * A worker that was forked before the template made the change is staged like all others, and waited for; one that is
 * forked after it has the change, and claims nothing before the commit. What a dead worker would have done is left out.
 * Of what intake says only the status counts: size and seals are the memory's own.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/broker.h"

#define CHANGE_FILES 6
#define ASK_AGAIN_NS 2000000u
#define LOOK_AGAIN_NS 20000000u

/* ---- the end ---- */

static void change_free(struct pb_broker *b, struct pb_model_rec *m)
{
	struct pb_change_rec *c = m->change;

	m->change = NULL;
	pb_job_give_up(b, c->job);
	pb_share_give_up(b, &c->share);
	pb_client_drop_fd_of(m->uid, &c->file_fd);
	pb_close_fd(&c->out_fd);
	pb_memory_unref(b, c->memory);
	pb_tenant_unreserve(m->tenant, &c->reserved);
	pb_tenant_discharge(m->tenant, PB_LIMIT_FDS, c->files);
	free(c);
}

static void fail(struct pb_broker *b, struct pb_model_rec *m, const struct pt2box_error *e)
{
	uint64_t request = m->change->msg.request;

	pb_log(b, "model %u: change %u: %s: %s", m->id, m->change->seq, pt2box_status_name(e->status), e->text);
	change_free(b, m);
	if (m->client)
		pb_client_fail(b, m->client, request, e);
	pb_workers_continue(b, m);
}

void pb_change_cancel(struct pb_broker *b, struct pb_model_rec *m, const struct pt2box_error *why)
{
	if (m->change)
		fail(b, m, why);
}

static void succeed(struct pb_broker *b, struct pb_model_rec *m)
{
	struct pb_msg_done done = {.request = m->change->msg.request};

	change_free(b, m);
	if (m->client)
		pb_client_send(m->client, PB_MSG_done, &done, NULL, 0);
	pb_workers_continue(b, m);
}

/* ---- workers ---- */

bool pb_change_holds_forks(const struct pb_model_rec *m)
{
	return m->change && m->change->state == PB_CH_TEMPLATE;
}

bool pb_change_holds_workers(const struct pb_model_rec *m)
{
	return m->change && m->change->state >= PB_CH_TEMPLATE;
}

static void stage(struct pb_broker *b, struct pb_model_rec *m)
{
	const struct pb_change_rec *c = m->change;
	struct pb_msg_constants_stage msg = {.change_seq = c->seq,
					     .change = c->msg.change,
					     .inactive = c->msg.inactive};
	bool any = false;

	for (uint32_t w = 0; w < m->top; w++) {
		struct pb_worker_rec *rec = &m->worker[w];

		if (rec->state != PB_W_READY || rec->seq >= c->seq || rec->asked)
			continue;
		rec->asked = true;
		any |= pb_worker_send(b, m, w, PB_MSG_constants_stage, &msg, c->memory ? &c->memory->fd : NULL,
				      c->memory ? 1 : 0);
	}
	if (any)
		pb_board_ring(m);
}

/* One that dies may still claim a run until it is dead. */
static bool is_staged(const struct pb_model_rec *m)
{
	for (uint32_t w = 0; w < m->top; w++)
		if (m->worker[w].state != PB_W_NONE && m->worker[w].seq < m->change->seq && !m->worker[w].staged)
			return false;
	return true;
}

static bool is_applied(const struct pb_model_rec *m)
{
	for (uint32_t w = 0; w < m->top; w++)
		if (m->worker[w].state != PB_W_NONE && m->worker[w].state != PB_W_DYING &&
		    m->worker[w].seq < m->change->seq)
			return false;
	return true;
}

/* From here on it is in force, whatever dies. */
static void commit(struct pb_broker *b, struct pb_model_rec *m)
{
	struct pb_change_rec *c = m->change;
	struct pb_buffer old = m->active;

	switch ((enum pb_change)c->msg.change) {
	case PB_CHANGE_UPDATE:
		pb_buffer_set(b, c->msg.inactive ? &m->inactive : &m->active, c->memory, 0);
		c->memory = NULL;
		break;
	case PB_CHANGE_SWAP:
		m->active = m->inactive;
		m->inactive = old;
		break;
	case PB_CHANGE_FREE_INACTIVE:
		pb_buffer_set(b, &m->inactive, NULL, 0);
		break;
	case PB_CHANGE_FOLD:
		break;
	}
	if (c->msg.change == PB_CHANGE_SWAP || (c->msg.change == PB_CHANGE_UPDATE && !c->msg.inactive))
		pb_roll(m, c->seq);
	c->state = PB_CH_APPLYING;
	atomic_store(&m->board->committed, c->seq);
	pb_board_ring(m);
}

/* ---- the template ---- */

static void begin_template(struct pb_broker *b, struct pb_model_rec *m)
{
	struct pb_change_rec *c = m->change;
	struct pb_msg_constants_apply msg = {.change_seq = c->seq = ++m->change_seq,
					     .change = c->msg.change,
					     .inactive = c->msg.inactive};

	c->state = PB_CH_TEMPLATE;
	for (uint32_t w = 0; w < m->top; w++)
		m->worker[w].asked = m->worker[w].staged = false;
	if (!pb_template_apply(b, m, &msg, c->memory))
		c->deadline_ns = pb_now_ns() + PB_DEAF_NS;
}

void pb_change_template_done(struct pb_broker *b, struct pb_model_rec *m, const struct pb_msg_constants_done *msg)
{
	struct pb_change_rec *c = m->change;
	struct pt2box_error e;

	if (!c || c->state != PB_CH_TEMPLATE || msg->change_seq != c->seq) {
		pb_template_note_failure(m, PT2BOX_MODEL_PROTOCOL, "the template sent something impossible");
		pb_model_kill(b, m);
		return;
	}
	/* It was refused memory, and managed without. */
	if (m->fail_status == PT2BOX_MODEL_OOM && !m->kill_wanted)
		m->fail_status = PT2BOX_OK;
	if (msg->status) {
		pb_error_set(&e, pb_believed(msg->status), "%s", msg->text);
		fail(b, m, &e);
		return;
	}
	m->template_seq = c->seq;
	c->state = PB_CH_STAGING;
	pb_workers_continue(b, m);
	pb_change_continue(b, m);
}

void pb_change_template_lost(struct pb_broker *b, struct pb_model_rec *m, const struct pt2box_error *why)
{
	struct pb_change_rec *c = m->change;

	if (!c)
		return;
	if (c->state == PB_CH_APPLYING)
		succeed(b, m); /* the next one begins with it */
	else if (c->state >= PB_CH_TEMPLATE)
		fail(b, m, why);
}

/* ---- what it waits for ---- */

void pb_change_continue(struct pb_broker *b, struct pb_model_rec *m)
{
	struct pb_change_rec *c = m->change;
	struct pt2box_error e = {.status = m->fail_status, .signal = m->fail_signal};

	if (c && m->state == PB_M_BROKEN) {
		snprintf(e.text, sizeof(e.text), "%s", m->fail_text);
		fail(b, m, &e);
		return;
	}
	if (c && c->state == PB_CH_WAIT_TEMPLATE && pb_template_forks(m))
		begin_template(b, m);
	if (c && c->state == PB_CH_STAGING) {
		stage(b, m);
		if (is_staged(m))
			commit(b, m);
	}
	if (c && c->state == PB_CH_APPLYING && is_applied(m))
		succeed(b, m);
}

void pb_change_worker_staged(struct pb_broker *b, struct pb_model_rec *m, uint32_t w, uint64_t seq)
{
	struct pb_worker_rec *rec = &m->worker[w];

	/* It may have been told of a change that was then given up with the template; but then it is dead as well. */
	if (!m->change || !rec->asked || seq != m->change->seq) {
		pb_worker_kill(b, m, w, PT2BOX_MODEL_PROTOCOL);
		return;
	}
	rec->staged = true;
	pb_change_continue(b, m);
}

void pb_change_worker_applied(struct pb_broker *b, struct pb_model_rec *m, uint32_t w,
			      const struct pb_msg_constants_applied *msg)
{
	struct pb_worker_rec *rec = &m->worker[w];
	struct pb_change_rec *c = m->change;

	if (!c || !rec->asked || msg->change_seq != c->seq || rec->seq >= c->seq ||
	    (!msg->status && (c->state != PB_CH_APPLYING || !rec->staged))) {
		pb_worker_kill(b, m, w, PT2BOX_MODEL_PROTOCOL);
		return;
	}
	if (msg->status) { /* the template could: so can the one that takes its place */
		pb_log(b, "model %u worker %u could not change its constants", m->id, w);
		rec->requeue = !m->stateful;
		pb_worker_kill(b, m, w, PT2BOX_MODEL_ERROR);
	} else {
		rec->seq = c->seq;
	}
	pb_change_continue(b, m);
}

/* ---- intake ---- */

static void wait_template(struct pb_broker *b, struct pb_model_rec *m)
{
	m->change->state = PB_CH_WAIT_TEMPLATE;
	pb_change_continue(b, m);
}

static void intake_done(struct pb_broker *b, struct pb_model_rec *m, void *object, const struct pt2box_error *result)
{
	struct pb_change_rec *c = m->change;
	struct pt2box_error e = *result;
	pb_status st = result->status;

	(void)object;
	c->job = NULL;
	pb_close_fd(&c->file_fd);
	pb_tenant_unreserve(m->tenant, &c->reserved);
	if (!st)
		st = pb_memory_new(b, m->tenant, PB_MEM_CONSTANTS, &c->out_fd, &c->memory, &e);
	if (!st && c->memory->bytes != m->const_bytes + m->n_constants)
		st = pb_error_set(&e, PT2BOX_INTERNAL, "intake made %llu bytes of constants, not %llu",
				  (unsigned long long)c->memory->bytes,
				  (unsigned long long)(m->const_bytes + m->n_constants));
	if (st) {
		fail(b, m, &e);
		return;
	}
	pb_memory_set_key_text(c->memory, result->text);
	if (!pb_share_begin(b, m, &c->share, &c->memory, wait_template))
		wait_template(b, m);
}

static pb_status start_intake(struct pb_broker *b, struct pb_model_rec *m, struct pt2box_error *err)
{
	struct pb_change_rec *c = m->change;
	const struct pb_buffer *base = &m->active;
	const struct pb_buffer *parameters = c->msg.inactive && m->inactive.memory ? &m->inactive : base;
	struct pb_msg_spawn_constants msg = {.base_offset = base->offset,
					     .parameters_offset = parameters->offset,
					     .full = c->msg.full,
					     .names = c->msg.names,
					     .max_bytes = m->const_bytes + m->n_constants};
	int fds[5];
	pb_status st = pb_memfd_unsealed("pt2box-constants", &c->out_fd, err);

	if (st)
		return st;
	fds[0] = m->out_manifest;
	fds[1] = c->file_fd;
	fds[2] = c->out_fd;
	fds[3] = base->memory->fd;
	fds[4] = parameters->memory->fd;
	c->state = PB_CH_INTAKE;
	return pb_job_start(b, m, PB_MSG_spawn_constants, &msg, fds, 5, "the constants could not be read", intake_done,
			    NULL, &c->job, err);
}

static void start_in_turn(struct pb_broker *b, struct pb_model_rec *m)
{
	struct pt2box_error e;

	if (pb_is_turn(b, m->tenant, false) && start_intake(b, m, &e))
		fail(b, m, &e);
}

/* ---- the request ---- */

static pb_status check(struct pb_broker *b, const struct pb_model_rec *m,
		       const struct pb_msg_change_constants *msg, int fd, struct pt2box_error *err)
{
	bool update = msg->change == PB_CHANGE_UPDATE;
	bool empty = msg->change == PB_CHANGE_SWAP || (msg->change == PB_CHANGE_FOLD && msg->inactive);

	if (!m || !m->announced)
		return pb_error_set(err, PT2BOX_NOT_FOUND, "no such model");
	if (m->state == PB_M_BROKEN)
		return pb_error_set(err, m->fail_status, "%s", m->fail_text);
	if (m->why_fixed[0])
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "%s", m->why_fixed);
	if (update != (fd >= 0))
		return pb_error_set(err, PT2BOX_USAGE, update ? "an update needs a file of constants" :
								"only an update takes a file");
	if (m->change)
		return pb_error_set(err, PT2BOX_LIMIT, "another change of the model's constants is under way");
	if (empty && !m->inactive.memory)
		return pb_error_set(err, PT2BOX_USAGE, "the inactive buffer of constants is empty");
	if (m->change_seq >= UINT32_MAX - 2)
		return pb_error_set(err, PT2BOX_LIMIT, "the model's constants have been changed too often: load it again");
	if (!update)
		return PT2BOX_OK;
	return pb_check_file(b, fd, "the constants file", err);
}

static pb_status change_new(struct pb_broker *b, struct pb_model_rec *m,
			    const struct pb_msg_change_constants *msg, struct pt2box_error *err)
{
	/* Of an update the size is known: room is kept for its memory. */
	const uint64_t bytes = msg->change == PB_CHANGE_UPDATE ? m->const_bytes + m->n_constants : 0;
	pb_status st = pb_tenant_charge(m->tenant, PB_LIMIT_CONSTANTS, bytes, err);

	if (st)
		return st;
	pb_tenant_discharge(m->tenant, PB_LIMIT_CONSTANTS, bytes);
	st = pb_tenant_charge(m->tenant, PB_LIMIT_FDS, CHANGE_FILES, err);
	if (st)
		return st;
	m->change = calloc(1, sizeof(*m->change));
	if (!m->change) {
		pb_tenant_discharge(m->tenant, PB_LIMIT_FDS, CHANGE_FILES);
		return pb_error_set(err, PT2BOX_NO_MEMORY, "the broker has no memory for a change");
	}
	*m->change = (struct pb_change_rec){.state = PB_CH_WAIT_TURN,
					    .msg = *msg,
					    .deadline_ns = pb_now_ns() +
							   (uint64_t)pb_load_deadline_ms(b, m) * 1000000u,
					    .files = CHANGE_FILES,
					    .reserved = bytes,
					    .file_fd = -1,
					    .out_fd = -1};
	m->tenant->reserved += bytes;
	return PT2BOX_OK;
}

void pb_change_begin(struct pb_broker *b, struct pb_client *c, const struct pb_msg_change_constants *msg, int fd_take)
{
	PB_CLEANUP(pb_client_drop_fd) int fd = fd_take;
	struct pb_model_rec *m = pb_model_find(c, msg->model);
	struct pb_msg_done done = {.request = msg->request};
	struct pt2box_error e = {.status = PT2BOX_OK};
	pb_status st = check(b, m, msg, fd, &e);

	if (!st && msg->change == PB_CHANGE_FREE_INACTIVE && !m->inactive.memory) {
		pb_client_send(c, PB_MSG_done, &done, NULL, 0);
		return;
	}
	if (!st)
		st = change_new(b, m, msg, &e);
	if (st) {
		pb_client_fail(b, c, msg->request, &e);
		return;
	}
	m->change->file_fd = pb_take_fd(&fd);
	if (msg->change == PB_CHANGE_UPDATE)
		start_in_turn(b, m);
	else
		wait_template(b, m);
}

/* ---- deadlines ---- */

/* Workers that have not answered, and are not in a run, which has a deadline of its own. */
static void kill_late(struct pb_broker *b, struct pb_model_rec *m)
{
	const struct pb_change_rec *c = m->change;

	for (uint32_t w = 0; w < m->top; w++) {
		const struct pb_worker_rec *rec = &m->worker[w];

		if (rec->state != PB_W_READY || rec->seq >= c->seq ||
		    (c->state == PB_CH_STAGING && rec->staged) || pb_lanes_busy(m, w))
			continue;
		pb_worker_kill(b, m, w, PT2BOX_MODEL_PROTOCOL);
	}
}

static uint64_t overrun(struct pb_broker *b, struct pb_model_rec *m, uint64_t now)
{
	struct pb_change_rec *c = m->change;
	struct pt2box_error e;

	if (c->state >= PB_CH_STAGING) {
		kill_late(b, m);
		return now + LOOK_AGAIN_NS;
	}
	pb_error_set(&e, PT2BOX_MODEL_TIMEOUT, "the change of constants overran its deadline of %lld ms",
		     (long long)pb_load_deadline_ms(b, m));
	if (c->state != PB_CH_TEMPLATE) {
		fail(b, m, &e);
		return UINT64_MAX;
	}
	/* It cannot be told to stop: fails when the process has ended. */
	m->fail_status = PT2BOX_OK;
	pb_template_note_failure(m, e.status, e.text);
	c->deadline_ns = UINT64_MAX;
	pb_model_kill(b, m);
	return UINT64_MAX;
}

uint64_t pb_change_tick(struct pb_broker *b, struct pb_model_rec *m, uint64_t now)
{
	if (!m->change)
		return UINT64_MAX;
	if (now >= m->change->deadline_ns)
		return overrun(b, m, now);
	if (m->change->state == PB_CH_WAIT_TURN) {
		start_in_turn(b, m);
		return m->change && m->change->state == PB_CH_WAIT_TURN ? now + ASK_AGAIN_NS : UINT64_MAX;
	}
	return m->change->deadline_ns;
}
