/* SPDX-License-Identifier: Apache-2.0 */
/* See lane_set.h. */
#include "ipc/lane_set.h"

#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SPIN_NS 20000u

void pb_lane_set_init(struct pb_lane_set *s, const struct pb_board *board, uint32_t server, uint32_t max)
{
	*s = (struct pb_lane_set){.board = board, .server = server, .max = max, .board_bell = atomic_load(&board->bell)};
}

/* ---- members ---- */

static bool find(const struct pb_lane_set *s, uint64_t id, uint32_t *ret_index)
{
	for (uint32_t i = 0; i < s->n; i++)
		if (s->lanes[i]->id == id) {
			*ret_index = i;
			return true;
		}
	return false;
}

struct pb_lane *pb_lane_set_find(const struct pb_lane_set *s, uint64_t id)
{
	uint32_t i;

	return find(s, id, &i) ? &s->lanes[i]->lane : NULL;
}

pb_status pb_lane_set_add(struct pb_lane_set *s, uint32_t id, const struct pb_lane_geometry *geo, int up_fd, int down_fd)
{
	struct pb_served_lane *l;
	pb_status st;

	if (s->n == s->max)
		return PT2BOX_LIMIT;
	l = calloc(1, sizeof(*l));
	if (!l)
		return PT2BOX_NO_MEMORY;
	l->id = id;
	st = pb_lane_map(&l->lane, PB_LANE_WORKER, geo, up_fd, down_fd, NULL);
	if (st) {
		free(l);
		return st;
	}
	/* One that died asleep left its mark. */
	pb_lane_mark_sleeping(&l->lane, s->server, false);
	l->bell = pb_lane_bell(&l->lane) - 1; /* look at it once: requests may wait in it */
	s->lanes[s->n++] = l;
	return PT2BOX_OK;
}

void pb_lane_set_remove(struct pb_lane_set *s, uint64_t id)
{
	uint32_t i;

	if (!find(s, id, &i))
		return;
	pb_lane_unmap(&s->lanes[i]->lane);
	free(s->lanes[i]);
	s->lanes[i] = s->lanes[--s->n];
}

/* ---- work ---- */

bool pb_lane_set_has_rung(struct pb_lane_set *s)
{
	uint32_t bell = atomic_load_explicit(&s->board->bell, memory_order_acquire);

	if (bell == s->board_bell)
		return false;
	s->board_bell = bell;
	return true;
}

struct pb_lane *pb_lane_set_claim(struct pb_lane_set *s, uint32_t *ret_slot, uint32_t *ret_seq)
{
	for (uint32_t i = 0; i < s->n; i++) {
		struct pb_served_lane *l = s->lanes[(s->first + i) % s->n];
		uint32_t bell = pb_lane_bell(&l->lane);

		if (bell == l->bell)
			continue;
		if (pb_lane_claim(&l->lane, s->server, ret_slot, ret_seq)) {
			s->first = (s->first + i + 1) % s->n;
			return &l->lane; /* the next lane's turn; this one's bell stays unread */
		}
		l->bell = bell;
	}
	return NULL;
}

/* ---- waiting ---- */

static bool anything_new(const struct pb_lane_set *s)
{
	if (atomic_load_explicit(&s->board->bell, memory_order_relaxed) != s->board_bell)
		return true;
	for (uint32_t i = 0; i < s->n; i++)
		if (atomic_load_explicit(pb_lane_bell_word(&s->lanes[i]->lane), memory_order_relaxed) !=
		    s->lanes[i]->bell)
			return true;
	return false;
}

static bool spin(struct pb_lane_set *s)
{
	uint64_t until = pb_now_ns() + (s->misses > 16 ? 2000 : SPIN_NS);

	do {
		for (int i = 0; i < 32; i++) {
			if (anything_new(s)) {
				s->misses = 0;
				return true;
			}
			__builtin_ia32_pause();
		}
	} while (pb_now_ns() < until);
	s->misses++;
	return false;
}

static void mark_all(struct pb_lane_set *s, bool sleeping)
{
	for (uint32_t i = 0; i < s->n; i++)
		pb_lane_mark_sleeping(&s->lanes[i]->lane, s->server, sleeping);
}

static void sleep_on_all(struct pb_lane_set *s)
{
	struct futex_waitv w[PB_LANE_SET_MAX + 1];

	mark_all(s, true);
	if (!anything_new(s)) {
		memset(w, 0, (s->n + 1) * sizeof(w[0]));
		w[0].val = s->board_bell;
		w[0].uaddr = (uintptr_t)&s->board->bell;
		w[0].flags = FUTEX_32;
		for (uint32_t i = 0; i < s->n; i++) {
			w[i + 1].val = s->lanes[i]->bell;
			w[i + 1].uaddr = (uintptr_t)pb_lane_bell_word(&s->lanes[i]->lane);
			w[i + 1].flags = FUTEX_32;
		}
		syscall(SYS_futex_waitv, w, s->n + 1, 0, NULL, CLOCK_MONOTONIC);
	}
	mark_all(s, false);
}

void pb_lane_set_wait(struct pb_lane_set *s)
{
	if (!spin(s))
		sleep_on_all(s);
}

void pb_lane_set_wake_others(const struct pb_lane_set *s)
{
	for (uint32_t i = 0; i < s->n; i++)
		pb_futex_wake(pb_lane_bell_word(&s->lanes[i]->lane), PB_WORKERS_MAX);
}
