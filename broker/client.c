/* SPDX-License-Identifier: Apache-2.0 */
/* Connections: who a client is (the kernel says), what it may ask, how it is closed. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "broker/broker.h"

#define OVERFLOW_UID 65534u
#define CLOSING_PER_UID 256
#define STUCK_PER_UID 8
#define STUCK_NS 1000000000u

/* ---- descriptors that may not close ---- */

struct closing {
	struct closing *next;
	uid_t uid;
	int fd;
	uint64_t began_ns;
	_Atomic bool done;
};

static struct closing *closings;
static uid_t receiving_for; /* whose message is being handled */

/* More of a user's descriptors are being closed, or for longer, than files ever take. */
static bool do_not_close(uid_t uid)
{
	uint64_t now = pb_now_ns();
	unsigned n = 0, stuck = 0;

	for (struct closing **p = &closings, *c; (c = *p);) {
		if (atomic_load(&c->done)) {
			*p = c->next;
			free(c);
			continue;
		}
		n += c->uid == uid;
		stuck += c->uid == uid && now - c->began_ns > STUCK_NS;
		p = &c->next;
	}
	return n > CLOSING_PER_UID || stuck > STUCK_PER_UID;
}

static void *close_one(void *arg)
{
	struct closing *c = arg;

	close(c->fd);
	atomic_store(&c->done, true);
	return NULL;
}

/* On a thread of its own, which does nothing else: the one that serves never waits for a file. */
static void close_aside(int fd)
{
	struct closing *c = malloc(sizeof(*c));
	pthread_attr_t a;
	pthread_t t;
	bool ok;

	if (fcntl(fd, F_GET_SEALS) >= 0) { /* memory: no program serves it */
		close(fd);
		free(c);
		return;
	}
	if (!c)
		return; /* rather one descriptor less */
	*c = (struct closing){.next = closings, .uid = receiving_for, .fd = fd, .began_ns = pb_now_ns()};
	pthread_attr_init(&a);
	pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&a, 65536);
	ok = pthread_create(&t, &a, close_one, c) == 0;
	pthread_attr_destroy(&a);
	if (ok)
		closings = c;
	else
		free(c);
}

void pb_client_drop_fd(int *fd)
{
	struct pb_fds one = {{*fd}, 1};

	if (*fd >= 0)
		pb_fds_close(&one);
	*fd = -1;
}

void pb_client_drop_fd_of(uid_t uid, int *fd)
{
	const uid_t before = receiving_for;

	receiving_for = uid;
	pb_client_drop_fd(fd);
	receiving_for = before;
}

/* ---- connections ---- */

void pb_client_send(struct pb_client *c, enum pb_msg_id id, const void *msg, const int *fds, size_t n_fds)
{
	/* A client that lets its socket fill up, or has gone, is found by the next event on it. */
	if (c->source.fd >= 0 && pb_send(c->source.fd, id, msg, fds, n_fds, NULL))
		shutdown(c->source.fd, SHUT_RDWR);
}

void pb_client_fail(struct pb_broker *b, struct pb_client *c, uint64_t request, const struct pt2box_error *e)
{
	struct pb_msg_failed m = {.request = request,
				  .status = e->status,
				  .sys_errno = e->sys_errno,
				  .signal = e->signal};

	(void)b;
	pb_text_escape(m.text, sizeof(m.text), e->text, strlen(e->text));
	pb_client_send(c, PB_MSG_failed, &m, NULL, 0);
}

void pb_client_close(struct pb_broker *b, struct pb_client *c)
{
	struct pb_client **p = &b->clients;

	while (*p && *p != c)
		p = &(*p)->next;
	if (*p)
		*p = c->next;
	pb_log(b, "client %s (pid %d) closed", c->tenant->name, c->pid);
	while (c->models)
		pb_model_end(b, c->models);
	pb_loop_remove(b, &c->source);
	pb_close_fd(&c->pidfd);
	pb_tenant_discharge(c->tenant, PB_LIMIT_CONNECTIONS, 1);
	pb_tenant_unref(b, c->tenant);
	free(c);
	if (b->config.embedded_fd >= 0)
		b->stop = true;
}

static void hello(struct pb_broker *b, struct pb_client *c, const struct pb_msg_hello *m)
{
	struct pb_msg_hello_ok ok = {.version = PB_PROTOCOL_VERSION, .pid = (uint64_t)getpid()};
	struct pt2box_error e;

	(void)b;
	if (m->version != PB_PROTOCOL_VERSION) {
		pb_error_set(&e, PT2BOX_PROTOCOL, "the client speaks protocol %llu, this broker speaks %d",
			     (unsigned long long)m->version, PB_PROTOCOL_VERSION);
		pb_client_fail(b, c, 0, &e);
		return;
	}
	c->state = PB_STATE_READY;
	snprintf(c->program, sizeof(c->program), "%s", m->program);
	snprintf(ok.tenant, sizeof(ok.tenant), "%s", c->tenant->name);
	pb_client_send(c, PB_MSG_hello_ok, &ok, NULL, 0);
}

static void not_found(struct pb_broker *b, struct pb_client *c, uint64_t request, const char *what)
{
	struct pt2box_error e;

	pb_error_set(&e, PT2BOX_NOT_FOUND, "no such %s", what);
	pb_client_fail(b, c, request, &e);
}

static void unload(struct pb_broker *b, struct pb_client *c, const struct pb_msg_unload *m)
{
	struct pb_model_rec *model = pb_model_find(c, m->model);
	struct pb_msg_done done = {.request = m->request};

	if (!model) {
		not_found(b, c, m->request, "model");
		return;
	}
	pb_model_end(b, model);
	pb_client_send(c, PB_MSG_done, &done, NULL, 0);
}

static void describe(struct pb_broker *b, struct pb_client *c, const struct pb_msg_describe *m)
{
	struct pb_model_rec *model = pb_model_find(c, m->model);
	struct pb_msg_inspected r = {.request = m->request};

	/* Until intake has ended, it is written, and not sealed. */
	if (!model || model->state < PB_M_SHARING || model->out_manifest < 0)
		not_found(b, c, m->request, "model");
	else
		pb_client_send(c, PB_MSG_inspected, &r, &model->out_manifest, 1);
}

static void handle(struct pb_broker *b, struct pb_client *c)
{
	union pb_msg *m = &b->rx.msg;
	struct pb_lane_rec *lane;

	switch ((enum pb_msg_id)b->rx.row->id) {
	case PB_MSG_hello:
		hello(b, c, &m->hello);
		break;
	case PB_MSG_load:
		pb_load(b, c, &m->load, &b->rx.fds);
		break;
	case PB_MSG_constants:
		pb_load_give_constants(b, c, m->constants.request, pb_fds_take(&b->rx.fds, 0));
		break;
	case PB_MSG_inspect:
		pb_load_inspect(b, c, &m->inspect, pb_fds_take(&b->rx.fds, 0));
		break;
	case PB_MSG_lane_open:
		pb_lanes_open(b, c, &m->lane_open);
		break;
	case PB_MSG_lane_grow:
		pb_lanes_grow(b, c, &m->lane_grow);
		break;
	case PB_MSG_lane_close:
		lane = pb_lanes_find(c, m->lane_close.lane);
		if (lane)
			pb_lanes_free(b, lane);
		break;
	case PB_MSG_segment_close:
		pb_lanes_close_segment(b, c, &m->segment_close);
		break;
	case PB_MSG_unload:
		unload(b, c, &m->unload);
		break;
	case PB_MSG_cancel:
		pb_lanes_cancel(b, c, &m->cancel);
		break;
	case PB_MSG_doctor:
		pb_report_doctor(b, c, m->doctor.request);
		break;
	case PB_MSG_ps:
		pb_report_ps(b, c, m->ps.request);
		break;
	case PB_MSG_describe:
		describe(b, c, &m->describe);
		break;
	case PB_MSG_change_constants:
		pb_change_begin(b, c, &m->change_constants, b->rx.fds.n ? pb_fds_take(&b->rx.fds, 0) : -1);
		break;
	case PB_MSG_read_constants:
		pb_extract_begin(b, c, &m->read_constants);
		break;
	case PB_MSG_session_open:
		pb_session_open(b, c, &m->session_open);
		break;
	case PB_MSG_session_close:
		pb_session_close(b, c, &m->session_close);
		break;
	default:
		break;
	}
}

static void client_ready(struct pb_broker *b, struct pb_source *s, uint32_t events)
{
	struct pb_client *c = s->object;
	struct pt2box_error e = {.status = PT2BOX_OK};
	pb_status st;

	(void)events;
	receiving_for = c->uid;
	st = pb_recv(s->fd, PB_CLIENT, PB_BROKER, c->state, true, &b->rx, &e);
	if (st == PT2BOX_NOT_FOUND)
		return;
	if (st == PT2BOX_PROTOCOL)
		pb_client_fail(b, c, 0, &e); /* then it loses its connection, and only it */
	if (st) {
		pb_client_close(b, c);
		return;
	}
	handle(b, c);
	pb_fds_close(&b->rx.fds);
	if (do_not_close(c->uid))
		pb_client_close(b, c);
}

pb_status pb_client_new(struct pb_broker *b, int fd_take, struct pt2box_error *err)
{
	PB_CLEANUP(pb_close_fd) int fd = fd_take;
	struct ucred cred = {0};
	socklen_t len = sizeof(cred);
	struct pb_tenant *t;
	struct pb_client *c;
	pb_status st;

	/* The tenant comes from the kernel, never from bytes. */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0)
		return pb_error_sys(err, "peer credentials");
	if (b->config.embedded_fd < 0 && cred.uid == OVERFLOW_UID)
		return pb_error_set(err, PT2BOX_DENIED, "a peer without a uid of its own");
	if (b->config.embedded_fd < 0)
		pb_close_received = close_aside;
	if (do_not_close(cred.uid))
		return pb_error_set(err, PT2BOX_LIMIT, "files of uid %u do not close", cred.uid);
	st = pb_tenant_of_peer(b, fd, cred.uid, cred.gid, &t, err);
	if (st)
		return st;
	st = pb_tenant_charge(t, PB_LIMIT_CONNECTIONS, 1, err);
	if (st) {
		pb_tenant_unref(b, t);
		return st;
	}
	c = calloc(1, sizeof(*c));
	if (c) {
		*c = (struct pb_client){.state = PB_STATE_NEW, .tenant = t, .uid = cred.uid, .pid = cred.pid,
					.pidfd = pb_peer_pidfd(fd), .next_model = 1, .next_lane = 1};
		c->source = (struct pb_source){.fd = pb_take_fd(&fd), .ready = client_ready, .object = c};
		st = pb_loop_add(b, &c->source, err);
	} else {
		st = pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a client");
	}
	if (st) {
		if (c)
			pb_close_fd(&c->source.fd);
		if (c)
			pb_close_fd(&c->pidfd);
		free(c);
		pb_tenant_discharge(t, PB_LIMIT_CONNECTIONS, 1);
		pb_tenant_unref(b, t);
		return st;
	}
	c->next = b->clients;
	b->clients = c;
	return PT2BOX_OK;
}

struct pb_client *pb_client_internal(struct pb_broker *b)
{
	static struct pb_tenant_conf conf;
	struct pb_client *c = calloc(1, sizeof(*c));
	struct pb_tenant *t = NULL;

	pb_tenant_conf_init(&conf, "(repository)");
	if (c)
		t = pb_tenant_internal(b, &conf);
	if (!t) {
		free(c);
		return NULL;
	}
	*c = (struct pb_client){.source.fd = -1, .state = PB_STATE_READY, .tenant = t, .uid = (uid_t)-1, .pidfd = -1,
				.next_model = 1, .next_lane = 1, .next = b->clients};
	t->used[PB_LIMIT_CONNECTIONS] = 1;
	b->clients = c;
	return c;
}
