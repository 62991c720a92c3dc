/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asynchronous runs. One thread per connection, started by the first of them, sleeps on all their replies at once, takes
 * each as it comes and makes its eventfd readable. It alone moves runs on; others only add to the list, ask for a
 * cancel, and free what has ended.
 */
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>

#include "client/internal.h"

#define SLICE_NS 100000000u /* how often the broker is looked at */
#define POLL_NS 1000000u    /* where futexes cannot be waited for together */
#define WAITS_MAX 128

struct pt2box_run {
	struct pb_run run;
	struct pt2box_run *next;
	struct pt2box_tensor **in, **out;
	int fd;
	_Atomic bool cancel, ended;
	pb_status status;
	struct pt2box_error error;
};

struct pb_async {
	struct pt2box *c;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t one_ended;
	_Atomic uint32_t word;	 /* counts what the thread should look at */
	_Atomic uint32_t queued; /* runs that wait for a slot */
	bool stop;
	struct pt2box_run *runs; /* in the order they were started */
	struct pt2box_run **now; /* the thread's copy of the list */
	size_t now_max;
};

static void wake(struct pb_async *a)
{
	atomic_fetch_add(&a->word, 1);
	pb_futex_wake(&a->word, 1);
}

void pb_async_kick(struct pt2box *c)
{
	struct pb_async *a = atomic_load_explicit(&c->async, memory_order_acquire);

	if (a && atomic_load_explicit(&a->queued, memory_order_relaxed))
		wake(a);
}

/* ---- the thread ---- */

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

/* The list as it is now. Only this thread takes runs out of it, and a run is freed only after that. */
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

static void add_wait(struct futex_waitv *w, unsigned *n, const _Atomic uint32_t *word, uint32_t value)
{
	w[(*n)++] = (struct futex_waitv){.val = value, .uaddr = (uintptr_t)word, .flags = FUTEX_32};
}

/* Until a reply comes, something is added to the list, a deadline passes, or it is time to look at the broker. */
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
	ts = (struct timespec){.tv_sec = (time_t)(until / 1000000000u), .tv_nsec = (long)(until % 1000000000u)};
	if (syscall(SYS_futex_waitv, w, k, 0, until == UINT64_MAX ? NULL : &ts, CLOCK_MONOTONIC) < 0 && errno == ENOSYS)
		pb_futex_wait(&a->word, seen, n ? POLL_NS : UINT64_MAX);
}

static void *async_main(void *data)
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
			end_all(a, n, pb_error_set(&e, PT2BOX_CANCELLED, "the connection was closed"), &e);
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

/* Signals are the program's business, not this thread's. */
static int start_thread(struct pb_async *a)
{
	sigset_t all, old;
	int e;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	e = pthread_create(&a->thread, NULL, async_main, a);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return e;
}

static pb_status get_async(struct pt2box *c, struct pb_async **ret, struct pt2box_error *err)
{
	struct pb_async *a;

	pthread_mutex_lock(&c->lock);
	a = atomic_load(&c->async);
	if (!a) {
		a = calloc(1, sizeof(*a));
		if (a) {
			a->c = c;
			pthread_mutex_init(&a->lock, NULL);
			pthread_cond_init(&a->one_ended, NULL);
			errno = start_thread(a);
			if (errno) {
				pb_error_sys(err, "cannot start a thread");
				free(a);
				pthread_mutex_unlock(&c->lock);
				return PT2BOX_SYSTEM;
			}
			atomic_store_explicit(&c->async, a, memory_order_release);
		}
	}
	pthread_mutex_unlock(&c->lock);
	*ret = a;
	return a ? PT2BOX_OK : pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for asynchronous runs");
}

void pb_async_end(struct pt2box *c)
{
	struct pb_async *a = atomic_exchange(&c->async, NULL);

	if (!a)
		return;
	pthread_mutex_lock(&a->lock);
	a->stop = true;
	pthread_mutex_unlock(&a->lock);
	wake(a);
	pthread_join(a->thread, NULL);
	pthread_mutex_destroy(&a->lock);
	pthread_cond_destroy(&a->one_ended);
	free(a->now);
	free(a);
}

/* ---- the caller's side ---- */

static void run_free(struct pt2box_run *r)
{
	if (r->fd >= 0)
		close(r->fd);
	free(r->in);
	free(r->out);
	free(r);
}

static struct pt2box_run *run_new(struct pt2box_model *m, struct pt2box_tensor *const *in, size_t n_in,
				  struct pt2box_error *err)
{
	struct pt2box_run *r = calloc(1, sizeof(*r));

	if (r) {
		r->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		r->in = calloc(n_in + 1, sizeof(struct pt2box_tensor *));
		r->out = calloc(m->lane->n_out + 1u, sizeof(struct pt2box_tensor *));
	}
	if (r && r->fd >= 0 && r->in && r->out) {
		if (n_in)
			memcpy(r->in, in, n_in * sizeof(r->in[0]));
		return r;
	}
	if (r && r->fd < 0)
		pb_error_sys(err, "eventfd");
	else
		pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a run");
	if (r)
		run_free(r);
	return NULL;
}

static void append(struct pb_async *a, struct pt2box_run *r)
{
	struct pt2box_run **p = &a->runs;

	pthread_mutex_lock(&a->lock);
	while (*p)
		p = &(*p)->next;
	*p = r;
	pthread_mutex_unlock(&a->lock);
	wake(a);
}

enum pt2box_status pt2box_run_start(struct pt2box_model *m, struct pt2box_tensor *const *in, size_t n_in,
				    const struct pt2box_run_options *opt, struct pt2box_run **ret,
				    struct pt2box_error *err)
{
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct pb_async *a = NULL;
	struct pt2box_run *r;
	struct pb_run run;
	pb_status st = pb_run_init(&run, m, in, n_in, opt, err);

	if (!st)
		st = get_async(m->c, &a, err);
	if (st)
		return st;
	r = run_new(m, in, n_in, &e);
	if (!r) {
		if (err)
			*err = e;
		return e.status;
	}
	r->run = run;
	r->run.in = r->in;
	/* Who waits already goes first. */
	st = atomic_load(&a->queued) ? PT2BOX_NOT_FOUND : pb_run_begin(&r->run, false, err);
	if (st && st != PT2BOX_NOT_FOUND) {
		run_free(r);
		return st;
	}
	if (st)
		atomic_fetch_add(&a->queued, 1);
	append(a, r);
	*ret = r;
	return PT2BOX_OK;
}

int pt2box_run_fd(struct pt2box_run *r)
{
	return r->fd;
}

void pt2box_run_cancel(struct pt2box_run *r)
{
	struct pb_async *a;

	if (!pb_connection_is_ours(r->run.m->c))
		return;
	a = atomic_load(&r->run.m->c->async);
	atomic_store(&r->cancel, true);
	if (a)
		wake(a);
}

enum pt2box_status pt2box_run_finish(struct pt2box_run *r, struct pt2box_tensor **ret_out, struct pt2box_error *err)
{
	struct pt2box_model *m = r->run.m;
	struct pb_async *a;
	pb_status st;

	if (!atomic_load_explicit(&r->ended, memory_order_acquire)) {
		st = pb_connection_check(m->c, err);
		if (st)
			return st;
		a = atomic_load(&m->c->async);
		pthread_mutex_lock(&a->lock);
		while (!atomic_load(&r->ended))
			pthread_cond_wait(&a->one_ended, &a->lock);
		pthread_mutex_unlock(&a->lock);
	}
	st = r->status;
	if (!st)
		memcpy(ret_out, r->out, m->lane->n_out * sizeof(ret_out[0]));
	else if (err)
		*err = r->error;
	run_free(r);
	return st;
}
