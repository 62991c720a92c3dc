/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fresh workers for old ones. A worker that made a change of the constants itself runs on them as they are; the template
 * has packed copies, which its forks share. So the workers of a stateless model are replaced after a change, one after the
 * other: the fresh one is there before an old one is told to end, and no run fails or waits for it. With all indices in
 * use nothing is done: the old ones serve as well.
 */
#include "broker/broker.h"

#define ROLL_NS 50000000u    /* after a change, if no other follows */
#define OVERDUE_NS 3000000000u
#define SHORT_OF_FILES_NS 1000000000u

static bool is_old(const struct pb_model_rec *m, uint32_t w)
{
	const struct pb_worker_rec *rec = &m->worker[w];

	return rec->used && rec->session == 0 && (int)w != m->fresh && rec->state == PB_W_READY &&
	       rec->born_seq < m->roll_seq;
}

void pb_roll(struct pb_model_rec *m, uint32_t seq)
{
	if (m->stateful)
		return; /* a fresh one would not have the state */
	m->roll_seq = seq;
	m->roll_ns = pb_now_ns() + ROLL_NS;
}

static void retire(struct pb_model_rec *m, uint32_t w)
{
	struct pb_msg_retire msg = {};
	struct pb_worker_rec *rec = &m->worker[w];

	rec->used = false;
	rec->retiring = true;
	rec->since_ns = pb_now_ns();
	if (rec->ctl.fd >= 0)
		(void)!pb_send(rec->ctl.fd, PB_MSG_retire, &msg, NULL, 0, NULL);
	pb_board_ring(m);
}

/* The fresh one is ready: there is one more than are wanted. */
void pb_roll_ready(struct pb_model_rec *m)
{
	struct pb_worker_rec *fresh = &m->worker[m->fresh];
	int victim = -1;

	for (uint32_t w = 0; w < m->top; w++) {
		struct pb_worker_rec *rec = &m->worker[w];

		if (!rec->used || rec->session || (int)w == m->fresh)
			continue;
		if (rec->state == PB_W_NONE || is_old(m, w))
			victim = (int)w;
		if (rec->state == PB_W_NONE)
			break; /* it has died, and need not be replaced */
	}
	if (victim < 0) { /* none is old any more */
		victim = m->fresh;
		fresh = NULL;
	}
	m->fresh = -1;
	if (fresh)
		fresh->deaths += m->worker[victim].deaths;
	if (m->worker[victim].state == PB_W_NONE)
		m->worker[victim].used = false;
	else
		retire(m, (uint32_t)victim);
}

/* One after the other: so that most of them serve at any time. */
void pb_roll_next(struct pb_broker *b, struct pb_model_rec *m, uint64_t now)
{
	bool old = false, ending = false;
	pb_status st;
	int w;

	if (!m->roll_seq || m->fresh >= 0 || m->state != PB_M_READY || now < m->roll_ns ||
	    pb_change_holds_workers(m))
		return;
	for (uint32_t i = 0; i < m->top; i++) {
		old |= is_old(m, i);
		ending |= m->worker[i].retiring;
	}
	w = pb_workers_free_index(m);
	if (!old || (w < 0 && !ending)) {
		m->roll_seq = 0;
		return;
	}
	if (w < 0)
		return;
	pb_workers_want(m, (uint32_t)w, 0);
	m->fresh = w;
	st = pb_worker_fork(b, m, (uint32_t)w);
	if (!st)
		return;
	if (st == PT2BOX_NO_MEMORY) { /* the old ones serve on */
		m->worker[w].used = false;
		m->fresh = -1;
		m->roll_ns = now + SHORT_OF_FILES_NS;
		return;
	}
	pb_worker_not_forked(b, m, (uint32_t)w, st);
}

/* A fresh one that dies ends the rolling: the old ones serve. */
void pb_roll_died(struct pb_model_rec *m, uint32_t w)
{
	if (m->fresh != (int)w)
		return;
	m->fresh = -1;
	m->roll_seq = 0;
	m->worker[w].used = false;
}

/* Told to end, and not in a run. */
bool pb_roll_is_overdue(const struct pb_model_rec *m, uint32_t w, uint64_t now)
{
	return m->worker[w].retiring && m->worker[w].state == PB_W_READY && now > m->worker[w].since_ns + OVERDUE_NS &&
	       !pb_lanes_busy(m, w);
}
