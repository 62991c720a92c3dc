/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker's part in a change of the constants, which all workers of a model make as one: each gets ready and says so;
 * when all are, the broker writes the change's number to the board, and whatever is claimed from then on is run with it.
 */
#ifndef PT2BOX_WORKER_CHANGES_H
#define PT2BOX_WORKER_CHANGES_H

#include <stdbool.h>

#include "ipc/board.h"
#include "ipc/socket.h"
#include "worker/model.h"

struct pb_changes {
	struct pb_model *model;
	const struct pb_board *board;
	struct pb_constants_change staged;
	bool is_staged, cannot_stage;
	bool broken; /* a change could not be made: the worker waits to be replaced */
};

/* All of these end the process when the broker is gone; descriptors are borrowed. */

/* Get ready for a change. One that cannot be made is answered when it is due: until then the old constants serve. */
void pb_changes_stage(struct pb_changes *c, const struct pb_msg_constants_stage *order, const struct pb_fds *fds);
/*
 * Make the staged change if it is in force. Between a claim and its run, and when woken; never while anybody reads the old
 * constants.
 */
void pb_changes_make_due(struct pb_changes *c);
/* The constants are not those in force: the worker is younger than the change and older than its word, or is broken. */
bool pb_changes_must_wait(const struct pb_changes *c);
void pb_changes_extract(struct pb_changes *c, const struct pb_msg_constants_extract *order, const struct pb_fds *fds);

#endif
