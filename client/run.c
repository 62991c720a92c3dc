/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One run: inputs to where the worker can read them, a request into a slot, the reply. The same
 * steps serve pt2box_run() and the thread of the asynchronous runs.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/internal.h"

#define SLICE_NS 100000000u    /* how often a long wait looks whether the broker lives */
#define GRACE_NS 2000000000ull /* from a request to end a run to its end */
#define WINDOWS_MAX 4
#define DEATHS_MAX 2 /* of workers, by one input */

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* ---- begin ---- */

pb_status pb_run_init(struct pb_run *r, struct pt2box_model *m, struct pt2box_tensor *const *in,
		      size_t n_in, const struct pt2box_run_options *opt, struct pt2box_error *err)
{
	struct pt2box_run_options o = PT2BOX_RUN_OPTIONS_INIT;
	pb_status st = pb_model_check(m, err);

	if (st)
		return st;
	if (n_in != m->lane->n_in)
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "the package takes %u inputs, not %zu",
				    m->lane->n_in, n_in);
	for (size_t i = 0; i < n_in; i++)
		if (!in[i])
			return pb_error_set(err, PT2BOX_USAGE, "input %zu is NULL", i);
	if (opt)
		memcpy(&o, opt, min_u64(opt->struct_size, sizeof(o)));
	if (o.deadline_ms < -1)
		return pb_error_set(err, PT2BOX_USAGE, "a deadline of %lld ms",
				    (long long)o.deadline_ms);
	*r = (struct pb_run){.m = m,
			     .in = in,
			     .interrupted = o.interrupted,
			     .arg = o.arg,
			     .deadline_ns = UINT64_MAX,
			     .retries = o.retries,
			     .seeded = o.seed != NULL,
			     .seed = o.seed ? *o.seed : 0};
	if (o.deadline_ms > 0) {
		r->deadline_ms = min_u64((uint64_t)o.deadline_ms, INT64_MAX / 1000000);
		r->deadline_ns = pb_now_ns() + (uint64_t)r->deadline_ms * 1000000u;
	}
	return PT2BOX_OK;
}

/* About ten times a second. */
static bool is_interrupted(const struct pb_run *r)
{
	return !r->stopped && r->interrupted && r->interrupted(r->arg);
}

/* With the lock held: sleep until a slot may be free. */
static pb_status wait_for_slot(struct pb_run *r, struct pt2box_error *err)
{
	struct pb_lane_client *l = r->m->lane;
	uint64_t now = pb_now_ns(), until = min_u64(now + SLICE_NS / 2, r->deadline_ns);
	struct timespec ts = {.tv_sec = (time_t)(until / 1000000000u),
			      .tv_nsec = (long)(until % 1000000000u)};
	pb_status st = PT2BOX_OK;

	if (now >= r->deadline_ns)
		return pb_error_set(err, PT2BOX_MODEL_TIMEOUT, "all slots were taken for %lld ms",
				    (long long)r->deadline_ms);
	l->waiters++;
	pthread_cond_timedwait(&l->changed, &l->lock, &ts);
	l->waiters--;
	/* Also where slots come free all the time, and others take them. */
	if (pb_now_ns() < r->look_ns)
		return st;
	pthread_mutex_unlock(&l->lock);
	st = pb_connection_poll(r->m->c, err);
	if (!st && is_interrupted(r)) {
		r->stopped = PT2BOX_CANCELLED;
		st = pb_run_stopped_error(r, err);
	}
	pthread_mutex_lock(&l->lock);
	r->look_ns = pb_now_ns() + SLICE_NS / 2;
	return st;
}

static pb_status take_slot(struct pb_run *r, bool wait, struct pt2box_error *err)
{
	struct pb_lane_client *l = r->m->lane;
	pb_status st, slot_st;

	pthread_mutex_lock(&l->lock);
	r->look_ns = pb_now_ns() + SLICE_NS / 2;
	for (st = PT2BOX_OK; !st;) {
		r->slot = pb_lane_client_take_slot(l, &slot_st);
		if (r->slot)
			break;
		if (slot_st == PT2BOX_NO_MEMORY)
			st = pb_error_set(err, slot_st, "no memory for a run");
		else if (!wait)
			st = PT2BOX_NOT_FOUND;
		else
			st = wait_for_slot(r, err);
	}
	if (!st)
		r->slot->window = pb_arena_alloc(&l->down, l->window_bytes);
	pthread_mutex_unlock(&l->lock);
	return st;
}

static void end_slot(struct pb_run *r)
{
	struct pb_lane_client *l = r->m->lane;

	pthread_mutex_lock(&l->lock);
	pb_lane_client_put_slot(l, r->slot);
	pthread_mutex_unlock(&l->lock);
	r->slot = NULL;
	pb_async_kick(r->m->c);
}

/* With the lock held: the callers' tensors may be freed from now on. */
static void own_inputs(const struct pb_lane_client *l, struct pb_slot *s)
{
	for (uint32_t i = 0; i < l->n_in; i++)
		if (s->in_block[i] && s->in_lent[i]) {
			s->in_block[i]->refs++;
			s->in_lent[i] = false;
		}
}

void pb_run_abandon(struct pb_run *r)
{
	struct pb_lane_client *l = r->m->lane;

	pthread_mutex_lock(&l->lock);
	own_inputs(l, r->slot);
	r->slot->abandoned = true;
	pthread_mutex_unlock(&l->lock);
	r->slot = NULL;
}

static void free_tensors(struct pt2box_tensor **t, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		pt2box_tensor_free(t[i]);
		t[i] = NULL;
	}
}

/* All is placed: the slot keeps what lies in the lane, nobody needs the tensors. */
static void unbox_inputs(struct pb_run *r)
{
	struct pb_lane_client *l = r->m->lane;

	pthread_mutex_lock(&l->lock);
	own_inputs(l, r->slot);
	pthread_mutex_unlock(&l->lock);
	free_tensors(r->boxed, l->n_in);
	r->in = NULL;
}

static pb_status submit(struct pb_run *r, struct pt2box_error *err)
{
	struct pb_lane_client *l = r->m->lane;
	struct pb_slot *s = r->slot;
	struct pb_lane_request q = {.window_segment = s->window->seg->id,
				    .window_offset = s->window->offset,
				    .window_bytes = s->window->bytes,
				    .fetch = r->fetch,
				    .n_inputs = l->n_in,
				    .inputs = s->in,
				    .seeded = r->seeded,
				    .seed = r->seed};
	uint32_t len = pb_lane_encode_request(&q, s->buf, l->lane.geo.slot_bytes);

	if (!len)
		return pb_error_set(err, PT2BOX_LIMIT, "%u inputs do not fit into one request",
				    l->n_in);
	if (++s->seq == 0)
		s->seq = 1;
	pb_lane_submit(&l->lane, s->index, s->seq, s->buf, len);
	return PT2BOX_OK;
}

pb_status pb_run_begin(struct pb_run *r, bool wait, struct pt2box_error *err)
{
	struct pb_lane_client *l = r->m->lane;
	pb_status st = take_slot(r, wait, err);

	if (st)
		return st;
	if (!r->slot->window)
		st = pb_lane_client_alloc(l, true, l->window_bytes, &r->slot->window, err);
	for (uint32_t i = 0; i < l->n_in && !st; i++)
		st = pb_run_place_input(r, i, err);
	if (!st && r->boxed)
		unbox_inputs(r);
	if (!st)
		st = submit(r, err);
	if (st)
		end_slot(r);
	return st;
}

/* ---- the reply ---- */

/* What a worker, or the broker in a dead worker's place, may say of a run. */
static bool is_run_status(uint32_t st)
{
	switch (st) {
	case PT2BOX_OK:
	case PT2BOX_INTERNAL:
	case PT2BOX_LIMIT:
	case PT2BOX_BAD_TENSOR:
	case PT2BOX_CANCELLED:
	case PT2BOX_LAYER_MISSING:
	case PT2BOX_UNSUPPORTED:
	case PT2BOX_PKG_REJECTED:
	case PT2BOX_MODEL_KILLED:
	case PT2BOX_MODEL_CRASHED:
	case PT2BOX_MODEL_EXITED:
	case PT2BOX_MODEL_TIMEOUT:
	case PT2BOX_MODEL_OOM:
	case PT2BOX_MODEL_PROTOCOL:
	case PT2BOX_MODEL_ERROR:
	case PT2BOX_STATE_LOST:
	case PT2BOX_OP_DENIED:
	case PT2BOX_OP_TIMEOUT:
	case PT2BOX_OP_CRASHED:
		return true;
	default:
		return false;
	}
}

static pb_status reply_error(const struct pb_run *r, const struct pb_lane_reply *p,
			     struct pt2box_error *err)
{
	if (!is_run_status(p->status))
		return pb_error_set(err, PT2BOX_MODEL_PROTOCOL,
				    "the model's worker answered with status %u", p->status);
	if (r->stopped && p->status == PT2BOX_CANCELLED)
		return pb_run_stopped_error(r, err);
	pb_error_set(err, (pb_status)p->status, "%s",
		     p->text[0] ? p->text : pt2box_status_text((pb_status)p->status));
	if (err)
		err->signal = p->signal;
	return (pb_status)p->status;
}

/*
 * The worker died, and another one could do the run. One that was killed from outside (no model can send SIGKILL: its filter
 * lets abort() through and no other signal) says nothing of the input; any other death does, and an input of which two
 * workers died is not tried on a third.
 */
static bool may_retry(struct pb_run *r, const struct pb_lane_reply *p)
{
	bool died = p->status == PT2BOX_MODEL_CRASHED || p->status == PT2BOX_MODEL_KILLED ||
		    p->status == PT2BOX_MODEL_EXITED || p->status == PT2BOX_MODEL_OOM ||
		    p->status == PT2BOX_MODEL_TIMEOUT;

	if (!died || !r->retries)
		return false;
	if (p->status == PT2BOX_MODEL_CRASHED && p->signal == SIGKILL)
		return true;
	return ++r->deaths < DEATHS_MAX;
}

static void drop_old_window(struct pb_run *r)
{
	if (r->slot->old_window)
		pb_lane_client_unref_block(r->m->lane, true, r->slot->old_window);
	r->slot->old_window = NULL;
}

/* A larger window; the worker keeps the outputs for us, so that the model need not run again. */
static pb_status widen(struct pb_run *r, uint64_t needed, struct pt2box_error *err)
{
	struct pb_lane_client *l = r->m->lane;
	struct pb_slot *s = r->slot;
	uint64_t want = (needed + needed / 8 + 4095) & ~4095ull;
	struct pb_block *b;
	pb_status st;

	if (needed <= s->window->bytes || ++r->windows > WINDOWS_MAX)
		return pb_error_set(err, PT2BOX_MODEL_PROTOCOL,
				    "the model's worker asked for a window that it has");
	st = pb_lane_client_alloc(l, true, want, &b, err);
	if (st)
		return st;
	/* Outputs may lie in the old window until they have been fetched. */
	drop_old_window(r);
	s->old_window = s->window;
	s->window = b;
	r->fetch = s->seq;
	pthread_mutex_lock(&l->lock);
	if (l->window_bytes < want)
		l->window_bytes = want;
	pthread_mutex_unlock(&l->lock);
	return submit(r, err);
}

/* OK: submitted again. Anything else: the run has ended with it, NOT_FOUND standing for "no, it has
 * not failed yet". */
static bool goes_on(struct pb_run *r, const struct pb_lane_reply *p, pb_status *ret,
		    struct pt2box_error *err)
{
	if (r->stopped)
		return false;
	if (p->status == PT2BOX_WINDOW) {
		*ret = widen(r, p->needed_bytes, err);
		return true;
	}
	/* Another worker answered: it has no outputs to fetch. */
	if ((p->status == PT2BOX_NOT_FOUND && r->fetch) || may_retry(r, p)) {
		if (p->status == PT2BOX_NOT_FOUND && ++r->windows > WINDOWS_MAX)
			return false;
		r->retries -= p->status != PT2BOX_NOT_FOUND;
		r->fetch = 0;
		drop_old_window(r);
		*ret = submit(r, err);
		return true;
	}
	return false;
}

bool pb_run_step(struct pb_run *r, struct pt2box_tensor **ret_out, pb_status *ret_status,
		 struct pt2box_error *err)
{
	struct pb_lane_client *l = r->m->lane;
	struct pb_slot *s = r->slot;
	uint32_t len = pb_lane_take_reply(&l->lane, s->index, s->buf, l->lane.geo.slot_bytes);
	const struct pb_lane_reply *p;
	pb_status st;

	if (!len || pb_lane_decode_reply(s->decoder, s->buf, len, &p)) {
		st = pb_error_set(err, PT2BOX_MODEL_PROTOCOL,
				  "the model's worker sent a reply that cannot be read");
	} else if (p->status == PT2BOX_OK) {
		st = pb_outputs_make(l, s, p, r->in, ret_out, err);
	} else if (goes_on(r, p, &st, err)) {
		if (!st)
			return false;
	} else if (r->stopped && p->status == PT2BOX_WINDOW) {
		st = pb_run_stopped_error(r, err);
	} else {
		st = reply_error(r, p, err);
	}
	end_slot(r);
	*ret_status = st;
	return true;
}

/* ---- waiting, and giving up ---- */

void pb_run_stop(struct pb_run *r, pb_status why)
{
	struct pb_msg_cancel m = {
		.lane = r->m->lane->id, .slot = r->slot->index, .seq = r->slot->seq};

	r->stopped = why;
	r->grace_ns = pb_now_ns() + GRACE_NS;
	pb_lane_cancel(&r->m->lane->lane, r->slot->index, r->slot->seq);
	pb_tell(r->m->c, PB_MSG_cancel, &m);
}

pb_status pb_run_stopped_error(const struct pb_run *r, struct pt2box_error *err)
{
	if (r->stopped == PT2BOX_MODEL_TIMEOUT)
		return pb_error_set(err, r->stopped, "the run did not end within %lld ms",
				    (long long)r->deadline_ms);
	return pb_error_set(err, r->stopped, "%s", pt2box_status_text(r->stopped));
}

/* OK: the reply is there. Anything else: the slot is left behind. */
static pb_status await_reply(struct pb_run *r, struct pt2box_error *err)
{
	/* Only the first slice is measured and paced: what takes longer gains nothing by it. */
	struct pb_lane_pace later = {.misses = 1u << 31}, *pace = &r->slot->pace;

	for (;;) {
		uint64_t limit = r->stopped ? r->grace_ns : r->deadline_ns,
			 slice = pb_now_ns() + SLICE_NS;
		pb_status st;

		if (pb_lane_wait(&r->m->lane->lane, r->slot->index, r->slot->seq, pace,
				 min_u64(slice, limit)))
			return PT2BOX_OK;
		pace = &later;
		st = pb_connection_poll(r->m->c, err);
		if (!st && is_interrupted(r)) {
			pb_run_stop(r, PT2BOX_CANCELLED);
			continue;
		}
		if (!st && pb_now_ns() < limit)
			continue;
		if (!st && !r->stopped) {
			pb_run_stop(r, PT2BOX_MODEL_TIMEOUT);
			continue;
		}
		if (!st)
			st = pb_run_stopped_error(r, err);
		pb_run_abandon(r);
		return st;
	}
}

static pb_status run(struct pb_run *r, struct pt2box_tensor **ret_out, struct pt2box_error *err)
{
	pb_status st = pb_run_begin(r, true, err);

	while (!st) {
		st = await_reply(r, err);
		if (!st && pb_run_step(r, ret_out, &st, err))
			break;
	}
	if (r->stopped != PT2BOX_CANCELLED)
		return st;
	/* Who interrupts does not ask whether the model was faster. */
	if (!st)
		free_tensors(ret_out, r->m->lane->n_out);
	return pb_run_stopped_error(r, err);
}

enum pt2box_status pt2box_run(struct pt2box_model *m, struct pt2box_tensor *const *in, size_t n_in,
			      const struct pt2box_run_options *opt, struct pt2box_tensor **ret_out,
			      struct pt2box_error *err)
{
	struct pb_run r;
	pb_status st = pb_run_init(&r, m, in, n_in, opt, err);

	return st ? st : run(&r, ret_out, err);
}

enum pt2box_status pt2box_boxed_run(struct pt2box_model *m, struct pt2box_tensor **in, size_t n_in,
				    const struct pt2box_run_options *opt,
				    struct pt2box_tensor **ret_out, struct pt2box_error *err)
{
	struct pb_run r;
	pb_status st = pb_run_init(&r, m, in, n_in, opt, err);

	if (!st) {
		r.boxed = in;
		st = run(&r, ret_out, err);
	}
	free_tensors(in, n_in); /* those of a run that has not begun */
	return st;
}
