/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lanes that one process serves, with the board that says when control messages wait: claims in turn, bounded spinning,
 * sleep on all words at once. One thread.
 */
#ifndef PT2BOX_IPC_LANE_SET_H
#define PT2BOX_IPC_LANE_SET_H

#include "ipc/board.h"
#include "ipc/lane.h"

#define PB_LANE_SET_MAX 100 /* futex_waitv takes 128 words */

struct pb_served_lane {
	uint32_t id;
	uint32_t bell; /* when it was last scanned */
	struct pb_lane lane;
};

struct pb_lane_set {
	const struct pb_board *board;
	uint32_t server;     /* number of this process on the lanes */
	uint32_t board_bell; /* when control messages were last read */
	uint32_t max;
	struct pb_served_lane *lanes[PB_LANE_SET_MAX];
	uint32_t n;
	uint32_t first;	 /* where the next round begins: no lane starves another */
	uint32_t misses; /* spins in a row that did not pay */
};

/* @board is borrowed. At most @max lanes, up to PB_LANE_SET_MAX. */
void pb_lane_set_init(struct pb_lane_set *s, const struct pb_board *board, uint32_t server, uint32_t max);
/* NULL: none of that id. */
struct pb_lane *pb_lane_set_find(const struct pb_lane_set *s, uint64_t id);
/* Map a lane (fds borrowed) and serve it. LIMIT, NO_MEMORY, or as pb_lane_map(): then it is not served. */
PB_CHECK pb_status pb_lane_set_add(struct pb_lane_set *s, uint32_t id, const struct pb_lane_geometry *geo, int up_fd,
				   int down_fd);
/* Unmap it and forget it. Nothing if there is none of that id. */
void pb_lane_set_remove(struct pb_lane_set *s, uint64_t id);
/* The board's bell has rung since the last call: control messages wait. */
bool pb_lane_set_has_rung(struct pb_lane_set *s);
/* Claim a request, of each lane in turn; NULL: there is none. */
struct pb_lane *pb_lane_set_claim(struct pb_lane_set *s, uint32_t *ret_slot, uint32_t *ret_seq);
/* Until a bell rings: spin for a bounded time, then sleep. */
void pb_lane_set_wait(struct pb_lane_set *s);
/* What this process was woken for others may do: they sleep on the same words. */
void pb_lane_set_wake_others(const struct pb_lane_set *s);

#endif
