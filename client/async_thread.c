/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread of a connection's asynchronous runs: it sleeps on all their replies at once, takes
 * each as it comes and makes its eventfd readable. See async.h.
 */
#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>

#include "client/async.h"

#define SLICE_NS 100000000u /* how often the broker is looked at */
#define POLL_NS 1000000u    /* where futexes cannot be waited for together */
#define WAITS_MAX 128

static void end(struct pb_async *a, struct pt2box_run *r, pb_status st)
{
	struct pt2box_run **p = &a->runs;
	uint64_t one = 1;

	r->status = st;
	pthread_mutex_lock(&a->lock);
	while (*p != r)
		p = &(*p)->next;
	*p = r->next;
	(void)!write(r->fd, &one, sizeof(one));
	/* From here on the run may be freed by its owner. */
	atomic_store_explicit(&r->ended, true, memory_order_release);
	pthread_cond_broadcast(&a->one_ended);
	pthread_mutex_unlock(&a->lock);
}

/* A run without a slot. Returns whether it has moved. */
static bool advance_queued(struct pb_async *a, struct pt2box_run *r, uint64_t now)
{
	pb_status st;

	if (atomic_load(&r->cancel)) {
		r->run.stopped = PT2BOX_CANCELLED;
		st = pb_run_stopped_error(&r->run, &r->error);
	} else if (now >= r->run.deadline_ns) {
		r->run.stopped = PT2BOX_MODEL_TIMEOUT;
		st = pb_run_stopped_error(&r->run, &r->error);
	} else {
		st = pb_run_begin(&r->run, false, &r->error);
		if (st == PT2BOX_NOT_FOUND)
			return false;
	}
	atomic_fetch_sub(&a->queued, 1);
	if (st)
		end(a, r, st);
	return true;
}

static bool advance_submitted(struct pb_async *a, struct pt2box_run *r, uint64_t now)
{
	struct pb_lane *l = &r->run.m->lane->lane;
	pb_status st;

	if (pb_lane_is_done(l, r->run.slot->index, r->run.slot->seq)) {
		if (pb_run_step(&r->run, r->out, &st, &r->error))
			end(a, r, st);
		return true;
	}
	if (!r->run.stopped && atomic_load(&r->cancel))
		pb_run_stop(&r->run, PT2BOX_CANCELLED);
	else if (!r->run.stopped && now >= r->run.deadline_ns)
		pb_run_stop(&r->run, PT2BOX_MODEL_TIMEOUT);
	if (!r->run.stopped || now < r->run.grace_ns)
		return false;
	st = pb_run_stopped_error(&r->run, &r->error);
	pb_run_abandon(&r->run);
	end(a, r, st);
	return true;
}

/* The list as it is now. Only this thread takes runs out of it, and a run is freed only after that.
 */
static size_t copy_list(struct pb_async *a, bool *ret_stop)
{
	size_t n = 0;

	pthread_mutex_lock(&a->lock);
	for (struct pt2box_run *r = a->runs; r; r = r->next) {
		if (n == a->now_max) {
			size_t max = a->now_max ? a->now_max * 2 : 64;
			struct pt2box_run **grown = realloc(a->now, max * sizeof(*grown));

			if (!grown)
				break; /* the others in the next round */
			a->now = grown;
			a->now_max = max;
		}
		a->now[n++] = r;
	}
	*ret_stop = a->stop;
	pthread_mutex_unlock(&a->lock);
	return n;
}

/* One look at every run; returns whether any has moved, then the copy is out of date. */
static bool advance_all(struct pb_async *a, size_t n)
{
	uint64_t now = pb_now_ns();
	bool moved = false;

	for (size_t i = 0; i < n; i++) {
		struct pt2box_run *r = a->now[i];

		moved |= r->run.slot ? advance_submitted(a, r, now) : advance_queued(a, r, now);
	}
	return moved;
}

static void end_all(struct pb_async *a, size_t n, pb_status st, const struct pt2box_error *e)
{
	for (size_t i = 0; i < n; i++) {
		struct pt2box_run *r = a->now[i];

		if (r->run.slot)
			pb_run_abandon(&r->run);
		else
			atomic_fetch_sub(&a->queued, 1);
		r->error = *e;
		end(a, r, st);
	}
}

static void add_wait(struct futex_waitv *w, unsigned *n, const _Atomic uint32_t *word,
		     uint32_t value)
{
	w[(*n)++] = (struct futex_waitv){.val = value, .uaddr = (uintptr_t)word, .flags = FUTEX_32};
}

/* Until a reply comes, something is added to the list, a deadline passes, or it is time to look at
 * the broker. */
static void sleep_on_all(struct pb_async *a, size_t n, uint32_t seen)
{
	uint64_t now = pb_now_ns(), until = n ? now + SLICE_NS : UINT64_MAX;
	struct futex_waitv w[WAITS_MAX];
	struct timespec ts;
	unsigned k = 0;

	add_wait(w, &k, &a->word, seen);
	for (size_t i = 0; i < n; i++) {
		const struct pb_run *r = &a->now[i]->run;
		uint64_t limit = r->stopped ? r->grace_ns : r->deadline_ns;
		const _Atomic uint32_t *word;
		uint32_t value;

		until = limit < until ? limit : until;
		if (!r->slot)
			continue;
		if (k == WAITS_MAX) {
			until = now + POLL_NS < until ? now + POLL_NS : until;
			break;
		}
		word = pb_lane_arm(&r->m->lane->lane, r->slot->index, r->slot->seq, &value);
		if (value == r->slot->seq)
			return;
		add_wait(w, &k, word, value);
	}
	ts = (struct timespec){.tv_sec = (time_t)(until / 1000000000u),
			       .tv_nsec = (long)(until % 1000000000u)};
	if (syscall(SYS_futex_waitv, w, k, 0, until == UINT64_MAX ? NULL : &ts, CLOCK_MONOTONIC) <
		    0 &&
	    errno == ENOSYS)
		pb_futex_wait(&a->word, seen, n ? POLL_NS : UINT64_MAX);
}

void *pb_async_main(void *data)
{
	struct pb_async *a = data;
	struct pt2box_error e;
	uint64_t looked = 0;
	bool stop;

	for (;;) {
		uint32_t seen = atomic_load(&a->word);
		size_t n = copy_list(a, &stop);
		pb_status st = PT2BOX_OK;

		if (stop) {
			end_all(a, n,
				pb_error_set(&e, PT2BOX_CANCELLED, "the connection was closed"),
				&e);
			return NULL;
		}
		if (n && advance_all(a, n))
			continue;
		if (n && pb_now_ns() - looked >= SLICE_NS) {
			st = pb_connection_poll(a->c, &e);
			looked = pb_now_ns();
		}
		if (st)
			end_all(a, n, st, &e);
		else
			sleep_on_all(a, n, seen);
	}
}
