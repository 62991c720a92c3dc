/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions: a worker of a model whose state is one user's alone. It is forked like any other, at an index of its own, and
 * serves only lanes that were opened with the session's id. Ids are never used again in the life of a model.
 */
#include <stdlib.h>

#include "broker/broker.h"
#include "ipc/ops_call.h"

#define SESSION_FILES 4 /* the worker's control socket, both ends for a moment; its lane to an ops process */

/* Its worker, its descriptors and its lane to an ops process. */
static pb_status charge(struct pb_model_rec *m, struct pt2box_error *err)
{
	const uint64_t ops = m->ops ? 2 * PB_OPS_LANE_BYTES : 0;
	pb_status st = pb_tenant_charge(m->tenant, PB_LIMIT_WORKERS, 1, err);

	if (st)
		return st;
	st = pb_tenant_charge(m->tenant, PB_LIMIT_FDS, SESSION_FILES, err);
	if (!st) {
		st = pb_tenant_charge(m->tenant, PB_LIMIT_LANES, ops, err);
		if (st)
			pb_tenant_discharge(m->tenant, PB_LIMIT_FDS, SESSION_FILES);
	}
	if (st)
		pb_tenant_discharge(m->tenant, PB_LIMIT_WORKERS, 1);
	return st;
}

static void discharge(struct pb_model_rec *m)
{
	pb_tenant_discharge(m->tenant, PB_LIMIT_WORKERS, 1);
	pb_tenant_discharge(m->tenant, PB_LIMIT_FDS, SESSION_FILES);
	pb_tenant_discharge(m->tenant, PB_LIMIT_LANES, m->ops ? 2 * PB_OPS_LANE_BYTES : 0);
}

static struct pb_session_rec *find_any(struct pb_model_rec *m, uint64_t id)
{
	for (struct pb_session_rec *s = m->sessions; s; s = s->next)
		if (s->id == id)
			return s;
	return NULL;
}

struct pb_session_rec *pb_session_find(struct pb_model_rec *m, uint64_t id)
{
	struct pb_session_rec *s = find_any(m, id);

	return s && s->announced ? s : NULL;
}

static pb_status check(struct pb_model_rec *m, struct pt2box_error *err)
{
	if (!m || !m->announced)
		return pb_error_set(err, PT2BOX_NOT_FOUND, "no such model");
	if (m->state == PB_M_BROKEN)
		return pb_error_set(err, m->fail_status, "%s", m->fail_text);
	if (m->opt.isolate)
		return pb_error_set(err, PT2BOX_USAGE, "runs of this model have nothing in common (isolate=request): a session would be empty");
	if (pb_workers_free_index(m) < 0 || m->next_session == PB_ALL_SESSIONS)
		return pb_error_set(err, PT2BOX_LIMIT, "a model may have %d workers, with those of its sessions",
				    PB_WORKERS_MAX);
	return charge(m, err);
}

void pb_session_open(struct pb_broker *b, struct pb_client *c, const struct pb_msg_session_open *msg)
{
	struct pb_model_rec *m = pb_model_find(c, msg->model);
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct pb_session_rec *s;

	if (check(m, &e)) {
		pb_client_fail(b, c, msg->request, &e);
		return;
	}
	s = calloc(1, sizeof(*s));
	if (!s) {
		discharge(m);
		pb_error_set(&e, PT2BOX_NO_MEMORY, "the broker has no memory for a session");
		pb_client_fail(b, c, msg->request, &e);
		return;
	}
	*s = (struct pb_session_rec){.next = m->sessions,
				     .id = m->next_session++,
				     .worker = (uint32_t)pb_workers_free_index(m),
				     .request = msg->request};
	m->sessions = s;
	pb_workers_want(m, s->worker, s->id);
	pb_workers_continue(b, m);
}

static void session_free(struct pb_model_rec *m, struct pb_session_rec *s)
{
	struct pb_session_rec **p = &m->sessions;

	while (*p && *p != s)
		p = &(*p)->next;
	if (*p)
		*p = s->next;
	discharge(m);
	free(s);
}

static void end_session(struct pb_broker *b, struct pb_model_rec *m, struct pb_session_rec *s)
{
	static const struct pt2box_error gone = {.status = PT2BOX_CANCELLED, .text = "the session is closed"};

	pb_extract_fail(b, m, s->id, &gone);
	pb_lanes_free_all(b, m, s->id);
	m->worker[s->worker].used = false;
	pb_worker_kill(b, m, s->worker, PT2BOX_CANCELLED);
	session_free(m, s);
}

void pb_session_close(struct pb_broker *b, struct pb_client *c, const struct pb_msg_session_close *msg)
{
	struct pb_model_rec *m = pb_model_find(c, msg->model);
	struct pb_session_rec *s = m ? find_any(m, msg->session) : NULL;

	if (s)
		end_session(b, m, s);
}

void pb_session_ready(struct pb_broker *b, struct pb_model_rec *m, uint32_t w)
{
	struct pb_session_rec *s = find_any(m, m->worker[w].session);
	struct pb_msg_session r;

	(void)b;
	if (!s || s->announced || !m->client)
		return;
	s->announced = true;
	r = (struct pb_msg_session){.request = s->request, .session = s->id};
	pb_client_send(m->client, PB_MSG_session, &r, NULL, 0);
}

static void say_failed(struct pb_broker *b, struct pb_model_rec *m, struct pb_session_rec *s,
		       const struct pt2box_error *e)
{
	if (m->client)
		pb_client_fail(b, m->client, s->request, e);
	end_session(b, m, s);
}

bool pb_session_failed(struct pb_broker *b, struct pb_model_rec *m, uint32_t w, const struct pt2box_error *e)
{
	struct pb_session_rec *s = find_any(m, m->worker[w].session);

	if (!s || s->announced)
		return false;
	say_failed(b, m, s, e);
	return true;
}

void pb_sessions_fail(struct pb_broker *b, struct pb_model_rec *m, const struct pt2box_error *e)
{
	for (struct pb_session_rec *s = m->sessions, *after; s; s = after) {
		after = s->next;
		if (!s->announced)
			say_failed(b, m, s, e);
	}
}

void pb_sessions_free(struct pb_model_rec *m)
{
	while (m->sessions)
		session_free(m, m->sessions);
}
