/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket. Whoever waits for an answer and finds nobody reading reads for all, one
 * message at a time; answers are matched by request number. When the socket ends, everybody who
 * waits is told so.
 */
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "client/internal.h"

/* ---- the end of a connection ---- */

/* With the lock held. The first reason stays. */
static void lose(struct pt2box *c, const struct pt2box_error *why)
{
	if (!c->lost.status) {
		c->lost = *why;
		if (why->status == PT2BOX_BROKER_LOST)
			pb_embedded_explain(&c->broker, &c->lost);
		shutdown(c->sock, SHUT_RDWR);
		atomic_store(&c->is_lost, true);
	}
	pthread_cond_broadcast(&c->changed);
}

static pb_status lost_error(const struct pt2box *c, struct pt2box_error *err)
{
	if (err)
		*err = c->lost;
	return c->lost.status;
}

/* ---- answers ---- */

/* The first field of every answer, but that to hello. */
static uint64_t request_of(const struct pb_rx *rx)
{
	const struct pb_field *f = rx->row->fields;
	uint64_t request;

	if (!rx->row->n_fields || strcmp(f->name, "request") != 0)
		return 0;
	memcpy(&request, (const char *)&rx->msg + f->offset, sizeof(request));
	return request;
}

static void failure(const struct pb_msg_failed *m, struct pt2box_error *err)
{
	pb_status st = (pb_status)m->status;

	/* A failure without a status that we know is one all the same. */
	if (st == PT2BOX_OK || pt2box_status_name(st)[0] == '?')
		st = PT2BOX_PROTOCOL;
	pb_error_clear(err);
	err->status = st;
	err->sys_errno = (int)m->sys_errno;
	err->signal = (int)m->signal;
	pb_text_escape(err->text, sizeof(err->text), m->text, strlen(m->text));
}

static struct pb_call *take_call(struct pt2box *c, uint64_t request)
{
	for (struct pb_call **p = &c->calls; *p; p = &(*p)->next) {
		struct pb_call *call = *p;

		if (call->request != request)
			continue;
		*p = call->next;
		return call;
	}
	return NULL;
}

/* With the lock held. */
static void dispatch(struct pt2box *c)
{
	struct pb_rx *rx = &c->rx;
	uint64_t request = request_of(rx);
	struct pb_call *call = take_call(c, request);
	struct pt2box_error e;

	if (call && rx->row->id == call->expect) {
		call->msg = rx->msg;
		call->fds = rx->fds;
		rx->fds = (struct pb_fds)PB_FDS_INIT;
		call->done = true;
	} else if (rx->row->id == PB_MSG_failed) {
		failure(&rx->msg.failed, &e);
		if (call) {
			call->error = e;
			call->done = true;
		}
		if (request == 0)
			lose(c,
			     &e); /* about the connection: no request has this number but hello */
	} else if (call) {
		pb_error_set(&e, PT2BOX_PROTOCOL, "the broker answered with \"%s\"", rx->row->name);
		call->error = e;
		call->done = true;
		lose(c, &e);
	}
	pb_fds_close(&rx->fds);
}

/* With the lock held, which is released meanwhile: receive one message for whomever it is. */
static void read_one(struct pt2box *c)
{
	struct pt2box_error e = {.status = PT2BOX_OK};
	pb_status st;

	c->reading = true;
	pthread_mutex_unlock(&c->lock);
	st = pb_recv(c->sock, PB_BROKER, PB_CLIENT, PB_STATE_ANY, false, &c->rx, &e);
	pthread_mutex_lock(&c->lock);
	c->reading = false;
	if (st == PT2BOX_BROKER_LOST)
		pb_error_set(&e, st, "the broker is gone");
	if (st)
		lose(c, &e);
	else
		dispatch(c);
	pthread_cond_broadcast(&c->changed);
}

/* ---- calls ---- */

void pb_call_end(struct pt2box *c, const struct pb_call *call)
{
	pthread_mutex_lock(&c->lock);
	take_call(c, call->request);
	pthread_mutex_unlock(&c->lock);
}

void pb_call_begin(struct pt2box *c, struct pb_call *call, enum pb_msg_id expect)
{
	memset(call, 0, offsetof(struct pb_call, msg));
	call->fds = (struct pb_fds)PB_FDS_INIT;
	call->expect = expect;
	pthread_mutex_lock(&c->lock);
	call->request = expect == PB_MSG_hello_ok ? 0 : c->next_request++;
	call->next = c->calls;
	c->calls = call;
	pthread_mutex_unlock(&c->lock);
}

pb_status pb_call_await(struct pt2box *c, struct pb_call *call, struct pt2box_error *err)
{
	pb_status st = PT2BOX_OK;

	pthread_mutex_lock(&c->lock);
	while (!call->done && !c->lost.status) {
		if (c->reading)
			pthread_cond_wait(&c->changed, &c->lock);
		else
			read_one(c);
	}
	if (!call->done) {
		take_call(c, call->request);
		st = lost_error(c, err);
	}
	pthread_mutex_unlock(&c->lock);
	if (!st && call->error.status) {
		if (err)
			*err = call->error;
		return call->error.status;
	}
	return st;
}

pb_status pb_call_send(struct pt2box *c, struct pb_call *call, enum pb_msg_id id, const void *msg,
		       const int *fds, size_t n_fds, struct pt2box_error *err)
{
	pb_status st = pb_send(c->sock, id, msg, fds, n_fds, err);

	/* A broker that has closed may have said why: that is read first. */
	if (!st || st == PT2BOX_BROKER_LOST)
		return PT2BOX_OK;
	pb_call_end(c, call);
	return st;
}

pb_status pb_call_finish(struct pt2box *c, struct pb_call *call, enum pb_msg_id id, const void *msg,
			 const int *fds, size_t n_fds, struct pt2box_error *err)
{
	pb_status st = pb_call_send(c, call, id, msg, fds, n_fds, err);

	return st ? st : pb_call_await(c, call, err);
}

void pb_tell(struct pt2box *c, enum pb_msg_id id, const void *msg)
{
	if (c->sock >= 0)
		(void)!pb_send(c->sock, id, msg, NULL, 0, NULL);
}

pb_status pb_connection_poll(struct pt2box *c, struct pt2box_error *err)
{
	struct pollfd p = {.fd = c->sock, .events = POLLRDHUP};
	pb_status st;

	if (poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLRDHUP | POLLERR | POLLNVAL))) {
		pthread_mutex_lock(&c->lock);
		while (!c->lost.status && !c->reading)
			read_one(c); /* what it said last, then the end */
		pthread_mutex_unlock(&c->lock);
	}
	pthread_mutex_lock(&c->lock);
	st = c->lost.status ? lost_error(c, err) : PT2BOX_OK;
	pthread_mutex_unlock(&c->lock);
	return st;
}
