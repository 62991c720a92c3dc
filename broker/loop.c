/* SPDX-License-Identifier: Apache-2.0 */
/* The epoll loop: one event at a time, then the deadlines. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/broker.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

/* Messages of one control socket; a change of constants takes three. */
#define CONTROL_PER_SECOND 10000
#define SECOND_NS 1000000000u

pb_status pb_loop_add(struct pb_broker *b, struct pb_source *s, struct pt2box_error *err)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = s};

	if (epoll_ctl(b->epoll, EPOLL_CTL_ADD, s->fd, &ev) != 0)
		return pb_error_sys(err, "epoll");
	return PT2BOX_OK;
}

pb_status pb_loop_add_pair(struct pb_broker *b, struct pb_source *s, const int p_take[2],
			   void (*ready)(struct pb_broker *, struct pb_source *, uint32_t), void *object, int *ret_peer,
			   struct pt2box_error *err)
{
	pb_status st;

	*s = (struct pb_source){.fd = p_take[0], .ready = ready, .object = object};
	st = pb_loop_add(b, s, err);
	if (st) {
		close(p_take[0]);
		close(p_take[1]);
		s->fd = -1;
		return st;
	}
	*ret_peer = p_take[1];
	return PT2BOX_OK;
}

pb_status pb_loop_add_control(struct pb_broker *b, struct pb_source *s,
			      void (*ready)(struct pb_broker *, struct pb_source *, uint32_t), void *object,
			      int *ret_peer, struct pt2box_error *err)
{
	int p[2], no = 0;
	pb_status st = pb_socket_pair(p, err);

	if (st)
		return st;
	fcntl(p[0], F_SETFL, O_NONBLOCK);
	setsockopt(p[0], SOL_SOCKET, SO_PASSRIGHTS, &no, sizeof(no)); /* Linux 6.16; elsewhere the decoder refuses them */
	st = pb_loop_add_pair(b, s, p, ready, object, ret_peer, err);
	s->per_second = CONTROL_PER_SECOND;
	return st;
}

/* ---- whoever says too much ---- */

static void pause_source(struct pb_broker *b, struct pb_source *s)
{
	/* Not only no events: the end of a stream would still be one. */
	epoll_ctl(b->epoll, EPOLL_CTL_DEL, s->fd, NULL);
	s->next_paused = b->paused;
	b->paused = s;
}

static void unlink_paused(struct pb_broker *b, struct pb_source *s)
{
	struct pb_source **p = &b->paused;

	while (*p && *p != s)
		p = &(*p)->next_paused;
	if (*p)
		*p = s->next_paused;
	s->next_paused = NULL;
}

/*
 * A confined process that floods its socket or standard error is left with full buffers until its second is over: then it
 * waits, or loses what it writes, instead of having the broker work for it all the time.
 */
static bool may_speak(struct pb_broker *b, struct pb_source *s)
{
	uint64_t now;

	if (!s->per_second)
		return true;
	now = pb_now_ns();
	if (now - s->second_ns >= SECOND_NS) {
		s->second_ns = now;
		s->heard = 0;
	}
	if (s->heard++ < s->per_second)
		return true;
	pause_source(b, s);
	return false;
}

/* Listen again to those whose second is over; when is the next? */
static uint64_t tick_paused(struct pb_broker *b, uint64_t now)
{
	uint64_t next = UINT64_MAX;

	for (struct pb_source *s = b->paused, *after; s; s = after) {
		after = s->next_paused;
		if (now - s->second_ns < SECOND_NS || pb_loop_add(b, s, NULL)) {
			uint64_t then = s->second_ns + SECOND_NS;

			then = then > now ? then : now + SECOND_NS;
			next = next < then ? next : then;
			continue;
		}
		unlink_paused(b, s);
	}
	return next;
}

void pb_loop_remove(struct pb_broker *b, struct pb_source *s)
{
	if (s->fd < 0)
		return;
	unlink_paused(b, s);
	epoll_ctl(b->epoll, EPOLL_CTL_DEL, s->fd, NULL);
	close(s->fd);
	s->fd = -1;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Look at every deadline; when is the next? */
static uint64_t tick(struct pb_broker *b)
{
	uint64_t now = pb_now_ns(), next = b->paused ? tick_paused(b, now) : UINT64_MAX;

	for (struct pb_client *c = b->clients; c; c = c->next)
		for (struct pb_model_rec *m = c->models, *after; m; m = after) {
			after = m->next; /* a tick may end the model */
			next = earlier(next, pb_model_tick(b, m, now));
		}
	for (struct pb_model_rec *m = b->orphans, *after; m; m = after) {
		after = m->next;
		next = earlier(next, pb_model_tick(b, m, now));
	}
	for (struct pb_job *j = b->jobs; j; j = j->next)
		next = earlier(next, pb_job_tick(b, j, now));
	return earlier(next, pb_fair_tick(b, now));
}

static int timeout_ms(uint64_t next)
{
	uint64_t now = pb_now_ns();

	if (next == UINT64_MAX)
		return -1;
	if (next <= now)
		return 0;
	return (int)((next - now + 999999) / 1000000 > 60000 ? 60000 : (next - now + 999999) / 1000000);
}

void pb_loop_run(struct pb_broker *b)
{
	struct epoll_event ev;

	while (!b->stop) {
		int n = epoll_wait(b->epoll, &ev, 1, timeout_ms(tick(b)));

		if (n == 1) {
			struct pb_source *s = ev.data.ptr;

			if (may_speak(b, s))
				s->ready(b, s, ev.events);
		} else if (n < 0 && errno != EINTR) {
			pb_log(b, "epoll_wait failed");
			return;
		}
	}
}

void pb_log(const struct pb_broker *b, const char *fmt, ...)
{
	char raw[1024], line[1200];
	va_list ap;
	int n;

	if (!b->config.verbose)
		return;
	va_start(ap, fmt);
	n = vsnprintf(raw, sizeof(raw), fmt, ap);
	va_end(ap);
	pb_text_escape(line, sizeof(line), raw, n < 0 ? 0 : (size_t)n < sizeof(raw) ? (size_t)n : sizeof(raw) - 1);
	fprintf(stderr, "pt2boxd: %s\n", line);
}

void pb_log_words(struct pb_broker *b, struct pb_source *s, const char *who)
{
	char buf[400];
	ssize_t n = read(s->fd, buf, sizeof(buf));

	if (n > 0)
		pb_log(b, "%s says: %.*s", who, (int)n, buf);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		pb_loop_remove(b, s);
}
