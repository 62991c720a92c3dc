/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model's lane as its client sees it: the mapping, the arenas of both directions, growing and
 * giving back, the slots.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "client/internal.h"

#define WINDOW_FIRST 65536u	   /* of a model whose outputs are not known yet */
#define GROW_STEP_MAX (1ull << 30) /* doubling ends here */
#define TRIM_EVERY 16
#define TRIM_IDLE_NS 1000000000u

/* ---- making ---- */

/* What the broker sent must hold what it said, or a touch of the mapping is a SIGBUS. */
static pb_status check_size(int fd, uint64_t bytes, struct pt2box_error *err)
{
	struct stat sb;

	if (fstat(fd, &sb) != 0)
		return pb_error_sys(err, "fstat");
	if (!S_ISREG(sb.st_mode) || sb.st_size < 0 || (uint64_t)sb.st_size < bytes)
		return pb_error_set(err, PT2BOX_BAD_FD,
				    "the broker sent memory smaller than it said");
	return PT2BOX_OK;
}

static pb_status check_lane(const struct pb_lane_geometry *geo, const struct pb_msg_lane *m,
			    int up_fd, int down_fd, struct pt2box_error *err)
{
	uint64_t up, down, control;
	pb_status st;

	if (m->slots > PB_LANE_SLOTS_MAX || m->up_bytes < 4096 || m->down_bytes < 4096 ||
	    pb_lane_sizes(geo, &up, &down, &control))
		return pb_error_set(err, PT2BOX_PROTOCOL, "the broker made a lane that cannot be");
	st = check_size(up_fd, up, err);
	return st ? st : check_size(down_fd, down, err);
}

static void init_cond(pthread_cond_t *cond)
{
	pthread_condattr_t a;

	pthread_condattr_init(&a);
	pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &a);
	pthread_condattr_destroy(&a);
}

pb_status pb_lane_client_new(struct pt2box *c, const struct pb_msg_lane *m, int up_fd, int down_fd,
			     uint32_t n_in, uint32_t n_out, struct pb_lane_client **ret,
			     struct pt2box_error *err)
{
	struct pb_lane_geometry geo = {.slots = (uint32_t)m->slots,
				       .slot_bytes = (uint32_t)m->slot_bytes,
				       .up_bytes = m->up_bytes,
				       .down_bytes = m->down_bytes};
	struct pb_lane_client *l;
	pb_status st = check_lane(&geo, m, up_fd, down_fd, err);

	if (st)
		return st;
	l = calloc(1, sizeof(*l));
	if (!l)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a lane");
	st = pb_lane_map(&l->lane, PB_LANE_CLIENT, &geo, up_fd, down_fd, err);
	if (st) {
		free(l);
		return st;
	}
	l->refs = 1;
	l->c = c;
	atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	l->id = (uint32_t)m->lane;
	l->n_in = n_in;
	l->n_out = n_out;
	l->window_bytes = m->down_bytes < WINDOW_FIRST ? m->down_bytes : WINDOW_FIRST;
	l->free_slots = geo.slots == 64 ? UINT64_MAX : (1ull << geo.slots) - 1;
	for (uint32_t i = 0; i < geo.slots; i++)
		l->slot[i].index = i;
	pthread_mutex_init(&l->lock, NULL);
	init_cond(&l->changed);
	if (!pb_arena_add(&l->up, 0, l->lane.up_seg[0].base, geo.up_bytes) ||
	    !pb_arena_add(&l->down, 0, l->lane.down_seg[0].base, geo.down_bytes)) {
		pb_lane_client_unref(l);
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a lane");
	}
	*ret = l;
	return PT2BOX_OK;
}

pb_status pb_lane_client_open(struct pt2box *c, struct pb_msg_lane_open *m, uint32_t n_in,
			      uint32_t n_out, struct pb_lane_client **ret, struct pt2box_error *err)
{
	struct pb_call call;
	pb_status st;

	pb_call_begin(c, &call, PB_MSG_lane);
	m->request = call.request;
	st = pb_call_finish(c, &call, PB_MSG_lane_open, m, NULL, 0, err);
	if (st)
		return st;
	st = pb_lane_client_new(c, &call.msg.lane, call.fds.fd[0], call.fds.fd[1], n_in, n_out, ret,
				err);
	pb_fds_close(&call.fds);
	return st;
}

static void free_slot(struct pb_slot *s)
{
	pb_lane_decoder_free(s->decoder);
	free(s->buf);
	free(s->in);
	free(s->in_block);
	free(s->in_lent);
	free(s->in_same);
	free(s->places);
}

void pb_lane_client_unref(struct pb_lane_client *l)
{
	if (!l || atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (uint32_t i = 0; i < PB_LANE_SLOTS_MAX; i++)
		free_slot(&l->slot[i]);
	pb_arena_deinit(&l->up);
	pb_arena_deinit(&l->down);
	pb_lane_unmap(&l->lane);
	pthread_mutex_destroy(&l->lock);
	pthread_cond_destroy(&l->changed);
	pb_connection_unref(l->c);
	free(l);
}

/* ---- memory ---- */

static pb_status ask_segment(struct pb_lane_client *l, bool down, uint64_t bytes,
			     struct pb_call *call, struct pt2box_error *err)
{
	struct pb_msg_lane_grow m = {.lane = l->id, .down = down, .bytes = bytes};

	pb_call_begin(l->c, call, PB_MSG_segment);
	m.request = call->request;
	return pb_call_finish(l->c, call, PB_MSG_lane_grow, &m, NULL, 0, err);
}

static bool knows_segment(const struct pb_arena *a, uint64_t id)
{
	for (const struct pb_arena_segment *s = a->segments; s; s = s->next)
		if (s->id == id)
			return true;
	return false;
}

/* With the lock held. */
static pb_status add_segment(struct pb_lane_client *l, bool down, uint64_t at_least,
			     const struct pb_msg_segment *m, int fd, struct pt2box_error *err)
{
	uint32_t id = (uint32_t)m->segment;
	pb_status st;

	/* An id is of one segment in either direction. */
	if (m->lane != l->id || m->down != down || m->bytes < at_least ||
	    knows_segment(&l->up, id) || knows_segment(&l->down, id))
		return pb_error_set(err, PT2BOX_PROTOCOL,
				    "the broker sent a segment that was not asked for");
	st = check_size(fd, m->bytes, err);
	if (!st)
		st = pb_lane_map_segment(&l->lane, PB_LANE_CLIENT, down, id, m->bytes, fd, err);
	if (st)
		return st;
	if (pb_arena_add(down ? &l->down : &l->up, id,
			 pb_lane_span(&l->lane, down, id, 0, m->bytes), m->bytes))
		return PT2BOX_OK;
	pb_lane_unmap_segment(&l->lane, id);
	return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a segment");
}

/* With the lock held, which is released while the broker is asked. */
static pb_status grow(struct pb_lane_client *l, bool down, uint64_t bytes, struct pt2box_error *err)
{
	struct pb_arena *a = down ? &l->down : &l->up;
	uint64_t want = a->bytes < GROW_STEP_MAX ? a->bytes : GROW_STEP_MAX;
	struct pb_call call = {.fds = PB_FDS_INIT};
	pb_status st;

	if (want < bytes)
		want = bytes;
	if (a->n_segments > PB_LANE_SEGMENTS_MAX)
		pb_lane_client_trim(l, 0);
	l->growing = true;
	pthread_mutex_unlock(&l->lock);
	st = ask_segment(l, down, want, &call, err);
	if (st == PT2BOX_LIMIT && want > bytes)
		st = ask_segment(l, down, bytes, &call, err);
	pthread_mutex_lock(&l->lock);
	l->growing = false;
	if (!st)
		st = add_segment(l, down, bytes, &call.msg.segment, call.fds.fd[0], err);
	pb_fds_close(&call.fds);
	pthread_cond_broadcast(&l->changed);
	return st;
}

pb_status pb_lane_client_alloc(struct pb_lane_client *l, bool down, uint64_t bytes,
			       struct pb_block **ret, struct pt2box_error *err)
{
	struct pb_arena *a = down ? &l->down : &l->up;
	pb_status st = PT2BOX_OK;

	if (bytes > 1ull << 39)
		return pb_error_set(err, PT2BOX_LIMIT, "a tensor of %llu bytes",
				    (unsigned long long)bytes);
	pthread_mutex_lock(&l->lock);
	while (!st) {
		if (!pb_arena_reserve(a, 1)) /* growing would be no help */
			st = pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a tensor");
		else if ((*ret = pb_arena_alloc(a, bytes)))
			break;
		else if (l->growing)
			pthread_cond_wait(&l->changed, &l->lock);
		else if (l->dead)
			st = pb_error_set(err, PT2BOX_USAGE, "the model is unloaded");
		else
			st = grow(l, down, bytes, err);
	}
	pthread_mutex_unlock(&l->lock);
	return st;
}

void pb_lane_client_unref_block(struct pb_lane_client *l, bool down, struct pb_block *b)
{
	pthread_mutex_lock(&l->lock);
	pb_arena_unref(down ? &l->down : &l->up, b);
	pthread_mutex_unlock(&l->lock);
}

static void trim_arena(struct pb_lane_client *l, struct pb_arena *a, uint64_t before_ns)
{
	struct pb_arena_segment *next;

	for (struct pb_arena_segment *s = a->segments; s; s = next) {
		struct pb_msg_segment_close m = {.lane = l->id, .segment = s->id};

		next = s->next;
		if (s->id == 0 || s->used || s->empty_since_ns > before_ns ||
		    !pb_arena_remove(a, (uint32_t)m.segment))
			continue;
		pb_lane_unmap_segment(&l->lane, (uint32_t)m.segment);
		if (!l->dead)
			pb_tell(l->c, PB_MSG_segment_close, &m);
	}
}

void pb_lane_client_trim(struct pb_lane_client *l, uint64_t min_idle_ns)
{
	uint64_t now = pb_now_ns();

	trim_arena(l, &l->up, now - min_idle_ns);
	trim_arena(l, &l->down, now - min_idle_ns);
}

/* ---- slots ---- */

static bool make_slot(struct pb_lane_client *l, struct pb_slot *s)
{
	uint32_t most = l->n_in > l->n_out ? l->n_in : l->n_out;

	s->decoder = pb_lane_decoder_new(most);
	s->buf = malloc(l->lane.geo.slot_bytes);
	s->in = calloc(l->n_in + 1, sizeof(*s->in));
	s->in_block = calloc(l->n_in + 1, sizeof(struct pb_block *));
	s->in_lent = calloc(l->n_in + 1, sizeof(bool));
	s->in_same = calloc(l->n_in + 1, sizeof(uint64_t));
	s->places = calloc(l->n_out + 1, sizeof(*s->places));
	s->made = s->decoder && s->buf && s->in && s->in_block && s->in_lent && s->in_same &&
		  s->places;
	if (!s->made) {
		free_slot(s);
		*s = (struct pb_slot){.index = s->index};
	}
	return s->made;
}

/* Slots whose callers went away, and whose workers have answered since. */
static void reap_abandoned(struct pb_lane_client *l)
{
	for (uint32_t i = 0; i < l->lane.geo.slots; i++) {
		struct pb_slot *s = &l->slot[i];

		if (s->abandoned && pb_lane_is_done(&l->lane, i, s->seq))
			pb_lane_client_put_slot(l, s);
	}
}

struct pb_slot *pb_lane_client_take_slot(struct pb_lane_client *l, pb_status *ret_status)
{
	struct pb_slot *s;

	if (!l->free_slots)
		reap_abandoned(l);
	*ret_status = PT2BOX_NOT_FOUND;
	if (!l->free_slots)
		return NULL;
	s = &l->slot[__builtin_ctzll(l->free_slots)];
	*ret_status = PT2BOX_NO_MEMORY;
	if (!s->made && !make_slot(l, s))
		return NULL;
	*ret_status = PT2BOX_OK;
	l->free_slots &= l->free_slots - 1; /* the lowest one: its memory is warm */
	return s;
}

void pb_lane_client_put_slot(struct pb_lane_client *l, struct pb_slot *s)
{
	for (uint32_t i = 0; i < l->n_in; i++) {
		if (s->in_block[i] && !s->in_lent[i])
			pb_arena_unref(&l->up, s->in_block[i]);
		s->in_block[i] = NULL;
	}
	if (s->window)
		pb_arena_unref(&l->down, s->window);
	if (s->old_window)
		pb_arena_unref(&l->down, s->old_window);
	while (s->leftover) {
		struct pb_block *b = s->leftover;

		s->leftover = b->bin_next;
		pb_arena_unref(&l->down, b);
	}
	s->window = s->old_window = NULL;
	s->abandoned = false;
	l->free_slots |= 1ull << s->index;
	if (++l->runs % TRIM_EVERY == 0 && l->up.n_segments + l->down.n_segments > 2)
		pb_lane_client_trim(l, TRIM_IDLE_NS);
	if (l->waiters)
		pthread_cond_signal(&l->changed);
}
