/* SPDX-License-Identifier: Apache-2.0 */
/* Asynchronous runs as their caller sees them. The thread that moves them on is in async_thread.c.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "client/async.h"

void pb_async_wake(struct pb_async *a)
{
	atomic_fetch_add(&a->word, 1);
	pb_futex_wake(&a->word, 1);
}

void pb_async_kick(struct pt2box *c)
{
	struct pb_async *a = atomic_load_explicit(&c->async, memory_order_acquire);

	if (a && atomic_load_explicit(&a->queued, memory_order_relaxed))
		pb_async_wake(a);
}

/* Signals are the program's business, not this thread's. */
static int start_thread(struct pb_async *a)
{
	sigset_t all, old;
	int e;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	e = pthread_create(&a->thread, NULL, pb_async_main, a);
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
	return a ? PT2BOX_OK
		 : pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for asynchronous runs");
}

void pb_async_end(struct pt2box *c)
{
	struct pb_async *a = atomic_exchange(&c->async, NULL);

	if (!a)
		return;
	pthread_mutex_lock(&a->lock);
	a->stop = true;
	pthread_mutex_unlock(&a->lock);
	pb_async_wake(a);
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

static struct pt2box_run *run_new(struct pt2box_model *m, struct pt2box_tensor *const *in,
				  size_t n_in, struct pt2box_error *err)
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
	pb_async_wake(a);
}

enum pt2box_status pt2box_run_start(struct pt2box_model *m, struct pt2box_tensor *const *in,
				    size_t n_in, const struct pt2box_run_options *opt,
				    struct pt2box_run **ret, struct pt2box_error *err)
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
	if (atomic_load(&a->queued) >= PT2BOX_QUEUED_RUNS_MAX)
		st = pb_error_set(err, PT2BOX_LIMIT, "%d runs of this connection wait already", PT2BOX_QUEUED_RUNS_MAX);
	else
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
		pb_async_wake(a);
}

enum pt2box_status pt2box_run_finish(struct pt2box_run *r, struct pt2box_tensor **ret_out,
				     struct pt2box_error *err)
{
	struct pt2box_model *m = r->run.m;
	struct pb_async *a;
	pb_status st;

	if (!atomic_load_explicit(&r->ended, memory_order_acquire)) {
		/* Also over a lost connection: the thread ends the run, and only then it may be freed. */
		if (!pb_connection_is_ours(m->c))
			return pb_connection_check(m->c, err);
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
