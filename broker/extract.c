/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values of constants for a client. A worker writes them into memory that is made here, between two runs, and unmaps it;
 * the memory is sealed, which fails as long as anybody can write, and handed out to be read.
 */
#include <fcntl.h>
#include <stdlib.h>

#include "broker/broker.h"

#define EXTRACT_FILES 2
#define EXTRACTS_PER_MODEL 4
#define LOOK_AGAIN_NS 20000000u

static void extract_free(struct pb_model_rec *m, struct pb_extract_rec *x)
{
	struct pb_extract_rec **p = &m->extracts;

	while (*p && *p != x)
		p = &(*p)->next;
	if (*p)
		*p = x->next;
	pb_tenant_discharge(m->tenant, PB_LIMIT_FDS, EXTRACT_FILES);
	pb_tenant_discharge(m->tenant, PB_LIMIT_CONSTANTS, x->bytes);
	pb_close_fd(&x->fd);
	free(x);
}

static void fail(struct pb_broker *b, struct pb_model_rec *m, struct pb_extract_rec *x, const struct pt2box_error *e)
{
	if (m->client)
		pb_client_fail(b, m->client, x->request, e);
	extract_free(m, x);
}

/* Of the right size for ever, but not sealed against writing yet. */
static pb_status make_memory(const struct pb_model_rec *m, int *ret_fd, struct pt2box_error *err)
{
	PB_CLEANUP(pb_close_fd) int fd = -1;
	pb_status st = pb_memfd_unsealed("pt2box-values", &fd, err);

	if (st)
		return st;
	if (ftruncate(fd, (off_t)(m->const_bytes + m->n_constants)) != 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)
		return pb_error_sys(err, "memory for constants");
	*ret_fd = pb_take_fd(&fd);
	return PT2BOX_OK;
}

static void hand_out(struct pb_broker *b, struct pb_model_rec *m, struct pb_extract_rec *x)
{
	struct pb_msg_constants_values r = {.request = x->request};
	PB_CLEANUP(pb_close_fd) int ro = -1;
	struct pt2box_error e;

	if (pb_fd_readonly(x->fd, &ro, &e)) {
		fail(b, m, x, &e);
		return;
	}
	if (m->client)
		pb_client_send(m->client, PB_MSG_constants_values, &r, &ro, 1);
	extract_free(m, x);
}

static pb_status check(struct pb_model_rec *m, const struct pb_msg_read_constants *msg,
		       struct pt2box_error *err)
{
	unsigned n = 0;

	if (!m || !m->announced)
		return pb_error_set(err, PT2BOX_NOT_FOUND, "no such model");
	if (msg->session && !pb_session_find(m, msg->session))
		return pb_error_set(err, PT2BOX_NOT_FOUND, "no such session");
	if (m->why_fixed[0])
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "%s", m->why_fixed);
	if (m->state == PB_M_BROKEN)
		return pb_error_set(err, m->fail_status, "%s", m->fail_text);
	for (const struct pb_extract_rec *x = m->extracts; x; x = x->next)
		n++;
	if (n >= EXTRACTS_PER_MODEL)
		return pb_error_set(err, PT2BOX_LIMIT, "constants of a model may be read %d times at once",
				    EXTRACTS_PER_MODEL);
	return PT2BOX_OK;
}

/* The memory is the client's to keep afterwards: the charge is for what is made at a time. */
static pb_status charge(struct pb_tenant *t, uint64_t bytes, struct pt2box_error *err)
{
	pb_status st = pb_tenant_charge(t, PB_LIMIT_CONSTANTS, bytes, err);

	if (st)
		return st;
	st = pb_tenant_charge(t, PB_LIMIT_FDS, EXTRACT_FILES, err);
	if (st)
		pb_tenant_discharge(t, PB_LIMIT_CONSTANTS, bytes);
	return st;
}

void pb_extract_begin(struct pb_broker *b, struct pb_client *c, const struct pb_msg_read_constants *msg)
{
	struct pb_model_rec *m = pb_model_find(c, msg->model);
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct pb_extract_rec *x = NULL;

	if (check(m, msg, &e) || charge(c->tenant, m->const_bytes + m->n_constants, &e)) {
		pb_client_fail(b, c, msg->request, &e);
		return;
	}
	x = calloc(1, sizeof(*x));
	if (!x) {
		pb_tenant_discharge(c->tenant, PB_LIMIT_FDS, EXTRACT_FILES);
		pb_tenant_discharge(c->tenant, PB_LIMIT_CONSTANTS, m->const_bytes + m->n_constants);
		pb_error_set(&e, PT2BOX_NO_MEMORY, "the broker has no memory for a record");
		pb_client_fail(b, c, msg->request, &e);
		return;
	}
	*x = (struct pb_extract_rec){.next = m->extracts,
				     .id = m->next_extract++,
				     .request = msg->request,
				     .session = (uint32_t)msg->session,
				     .inactive = msg->inactive,
				     .worker = -1,
				     .deadline_ns = pb_now_ns() + (uint64_t)pb_load_deadline_ms(b, m) * 1000000u,
				     .bytes = m->const_bytes + m->n_constants,
				     .fd = -1};
	m->extracts = x;
	if (make_memory(m, &x->fd, &e))
		fail(b, m, x, &e);
	else if (msg->inactive && !m->inactive.memory && pb_memfd_seal(x->fd, &e))
		fail(b, m, x, &e);
	else if (msg->inactive && !m->inactive.memory)
		hand_out(b, m, x); /* nothing is there */
	else
		pb_extract_continue(b, m);
}

/* ---- workers ---- */

static bool is_asked(const struct pb_model_rec *m, uint32_t w)
{
	for (const struct pb_extract_rec *x = m->extracts; x; x = x->next)
		if (x->worker == (int)w)
			return true;
	return false;
}

static int choose(const struct pb_model_rec *m, uint32_t session)
{
	int some = -1;

	for (uint32_t w = 0; w < m->top; w++) {
		const struct pb_worker_rec *rec = &m->worker[w];

		if (rec->state != PB_W_READY || rec->session != session || rec->retiring || is_asked(m, w))
			continue;
		if (some < 0 || !pb_lanes_busy(m, w))
			some = (int)w;
		if (!pb_lanes_busy(m, w))
			break;
	}
	return some;
}

void pb_extract_continue(struct pb_broker *b, struct pb_model_rec *m)
{
	for (struct pb_extract_rec *x = m->extracts; x; x = x->next) {
		struct pb_msg_constants_extract msg = {.id = x->id, .inactive = x->inactive};
		int w = x->worker < 0 ? choose(m, x->session) : -1;

		if (w < 0)
			continue;
		x->worker = w;
		if (pb_worker_send(b, m, (uint32_t)w, PB_MSG_constants_extract, &msg, &x->fd, 1))
			pb_board_ring(m);
	}
}

void pb_extract_done(struct pb_broker *b, struct pb_model_rec *m, uint32_t w,
		     const struct pb_msg_constants_extracted *msg)
{
	struct pb_extract_rec *x = m->extracts;
	struct pt2box_error e;

	while (x && (x->id != msg->id || x->worker != (int)w))
		x = x->next;
	if (!x)
		return; /* given up meanwhile */
	if (msg->status) {
		pb_error_set(&e, pb_believed(msg->status), "the constants could not be read: %s",
			     pt2box_status_text(pb_believed(msg->status)));
		fail(b, m, x, &e);
	} else if (pb_memfd_seal(x->fd, &e)) {
		pb_error_set(&e, PT2BOX_MODEL_PROTOCOL, "the model's worker holds on to memory that it gave back");
		fail(b, m, x, &e);
		pb_worker_kill(b, m, w, PT2BOX_MODEL_PROTOCOL);
	} else {
		hand_out(b, m, x);
	}
	pb_extract_continue(b, m);
}

void pb_extract_worker_died(struct pb_broker *b, struct pb_model_rec *m, uint32_t w, const struct pt2box_error *e)
{
	struct pt2box_error lost;

	for (struct pb_extract_rec *x = m->extracts, *after; x; x = after) {
		after = x->next;
		if (x->worker != (int)w)
			continue;
		x->worker = -1;
		if (!e)
			continue;
		lost = *e;
		if (m->stateful) {
			pb_error_set(&lost, PT2BOX_STATE_LOST, "the state is lost: %.400s", e->text);
			lost.signal = e->signal;
		}
		fail(b, m, x, &lost);
	}
	pb_extract_continue(b, m);
}

void pb_extract_fail(struct pb_broker *b, struct pb_model_rec *m, uint32_t session, const struct pt2box_error *e)
{
	for (struct pb_extract_rec *x = m->extracts, *after; x; x = after) {
		after = x->next;
		if (session == PB_ALL_SESSIONS || x->session == session)
			fail(b, m, x, e);
	}
}

uint64_t pb_extract_tick(struct pb_broker *b, struct pb_model_rec *m, uint64_t now)
{
	uint64_t next = UINT64_MAX;
	struct pt2box_error e;

	for (struct pb_extract_rec *x = m->extracts, *after; x; x = after) {
		after = x->next;
		if (now < x->deadline_ns) {
			next = x->deadline_ns < next ? x->deadline_ns : next;
			continue;
		}
		if (x->worker >= 0 && pb_lanes_busy(m, (uint32_t)x->worker)) {
			next = now + LOOK_AGAIN_NS; /* the run has a deadline of its own */
			continue;
		}
		if (x->worker >= 0)
			pb_worker_kill(b, m, (uint32_t)x->worker, PT2BOX_MODEL_PROTOCOL);
		pb_error_set(&e, PT2BOX_MODEL_TIMEOUT, "the constants could not be read in time");
		fail(b, m, x, &e);
	}
	return next;
}
