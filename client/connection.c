/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket. Whoever waits for an answer and finds nobody reading reads for all, one message at a time; answers
 * are matched by request number. When the socket ends, everybody who waits is told so.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "client/internal.h"

#define HELLO_MS 30000

/* ---- fork ---- */

/*
 * A page that the kernel clears in a forked child, however it was forked. In it: the number of this process among its
 * forefathers that used the library.
 */
static _Atomic uint32_t *fork_word;
static uint32_t processes;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void make_fork_word(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return;
	if (madvise(p, 4096, MADV_WIPEONFORK) != 0)
		munmap(p, 4096);
	else
		fork_word = p;
}

static uint32_t this_process(void)
{
	return fork_word ? atomic_load_explicit(fork_word, memory_order_relaxed) : (uint32_t)getpid();
}

static uint32_t enter_process(void)
{
	uint32_t none = 0;

	pthread_once(&fork_once, make_fork_word);
	if (fork_word && this_process() == 0)
		atomic_compare_exchange_strong(fork_word, &none, ++processes);
	return this_process();
}

bool pb_connection_is_ours(const struct pt2box *c)
{
	return this_process() == c->generation;
}

/* ---- the end of a connection ---- */

/* With the lock held. The first reason stays. */
static void lose(struct pt2box *c, const struct pt2box_error *why)
{
	if (!c->lost.status) {
		c->lost = *why;
		if (why->status == PT2BOX_BROKER_LOST)
			pb_embedded_explain(&c->broker, &c->lost);
		shutdown(c->sock, SHUT_RDWR);
	}
	pthread_cond_broadcast(&c->changed);
}

static pb_status lost_error(const struct pt2box *c, struct pt2box_error *err)
{
	if (err)
		*err = c->lost;
	return c->lost.status;
}

pb_status pb_connection_check(struct pt2box *c, struct pt2box_error *err)
{
	if (!pb_connection_is_ours(c))
		return pb_error_set(err, PT2BOX_USAGE, "the connection belongs to the parent process: open one here");
	if (c->sock < 0)
		return pb_error_set(err, PT2BOX_BROKER_LOST, "the connection is closed");
	return PT2BOX_OK;
}

/* ---- answers ---- */

static uint64_t request_of(const struct pb_rx *rx)
{
	switch (rx->row->id) {
	case PB_MSG_failed:
		return rx->msg.failed.request;
	case PB_MSG_loaded:
		return rx->msg.loaded.request;
	case PB_MSG_inspected:
		return rx->msg.inspected.request;
	case PB_MSG_lane:
		return rx->msg.lane.request;
	case PB_MSG_segment:
		return rx->msg.segment.request;
	case PB_MSG_done:
		return rx->msg.done.request;
	case PB_MSG_text:
		return rx->msg.text.request;
	default:
		return 0; /* hello_ok */
	}
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
			lose(c, &e); /* about the connection: no request has this number but hello */
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

pb_status pb_call_send(struct pt2box *c, struct pb_call *call, enum pb_msg_id id, const void *msg, const int *fds,
		       size_t n_fds, struct pt2box_error *err)
{
	pb_status st = pb_send(c->sock, id, msg, fds, n_fds, err);

	/* A broker that has closed may have said why: that is read first. */
	if (!st || st == PT2BOX_BROKER_LOST)
		return PT2BOX_OK;
	pthread_mutex_lock(&c->lock);
	take_call(c, call->request);
	pthread_mutex_unlock(&c->lock);
	return st;
}

pb_status pb_call_finish(struct pt2box *c, struct pb_call *call, enum pb_msg_id id, const void *msg, const int *fds,
			 size_t n_fds, struct pt2box_error *err)
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

/* ---- open and close ---- */

static pb_status hello(struct pt2box *c, struct pt2box_error *err)
{
	struct pb_msg_hello m = {.version = PB_PROTOCOL_VERSION};
	struct pollfd p = {.fd = c->sock, .events = POLLIN};
	struct pb_call call;
	int n;

	pb_text_escape(m.program, sizeof(m.program), program_invocation_short_name,
		       strlen(program_invocation_short_name));
	pb_call_begin(c, &call, PB_MSG_hello_ok);
	if (pb_send(c->sock, PB_MSG_hello, &m, NULL, 0, NULL) == PT2BOX_OK) {
		do
			n = poll(&p, 1, HELLO_MS);
		while (n < 0 && errno == EINTR);
		if (n == 0) {
			take_call(c, call.request);
			return pb_error_set(err, PT2BOX_BROKER_LOST, "the broker does not answer");
		}
	}
	return pb_call_await(c, &call, err);
}

pb_status pb_connection_new(int sock_take, struct pb_embedded broker_take, struct pt2box **ret,
			    struct pt2box_error *err)
{
	struct pt2box *c = calloc(1, sizeof(*c));
	pb_status st;

	if (!c) {
		close(sock_take);
		pb_embedded_end(&broker_take);
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a connection");
	}
	c->refs = 1;
	c->sock = sock_take;
	c->broker = broker_take;
	c->generation = enter_process();
	c->next_request = 1;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->changed, NULL);
	st = hello(c, err);
	if (st) {
		pt2box_close(c);
		return st;
	}
	*ret = c;
	return PT2BOX_OK;
}

static pb_status connect_to(const char *path, int *ret, struct pt2box_error *err)
{
	PB_CLEANUP(pb_close_fd) int fd = -1;
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(a.sun_path))
		return pb_error_set(err, PT2BOX_USAGE, "the socket's path is too long: %s", path);
	strcpy(a.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return pb_error_sys(err, "socket");
	while (connect(fd, (struct sockaddr *)&a, sizeof(a)) != 0) {
		pb_status st;

		if (errno == EINTR)
			continue;
		st = pb_error_sys(err, "cannot connect to the broker at %s", path);
		if (errno == ENOENT || errno == ECONNREFUSED || errno == ENOTSOCK || errno == EPROTOTYPE)
			st = PT2BOX_BROKER_LOST;
		else if (errno == EACCES || errno == EPERM)
			st = PT2BOX_DENIED;
		if (err)
			err->status = st;
		return st;
	}
	*ret = pb_take_fd(&fd);
	return PT2BOX_OK;
}

enum pt2box_status pt2box_open(const char *socket_path, struct pt2box **ret, struct pt2box_error *err)
{
	struct pb_embedded broker = {.pidfd = -1};
	int sock;
	pb_status st;

	pb_error_clear(err);
	st = socket_path ? connect_to(socket_path, &sock, err) : pb_embedded_start(&sock, &broker, err);
	if (st)
		return st;
	return pb_connection_new(sock, broker, ret, err);
}

void pt2box_close(struct pt2box *c)
{
	bool ours;

	if (!c)
		return;
	ours = pb_connection_is_ours(c);
	if (ours)
		pb_async_end(c);
	pb_close_fd(&c->sock);
	if (ours)
		pb_embedded_end(&c->broker);
	else
		pb_close_fd(&c->broker.pidfd); /* the parent's child, not ours */
	pb_connection_unref(c);
}

void pb_connection_unref(struct pt2box *c)
{
	if (atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
		return;
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->changed);
	free(c);
}
