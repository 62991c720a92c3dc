/* SPDX-License-Identifier: Apache-2.0 */
/* The board of a template: one page that the broker writes and its workers read. */
#ifndef PT2BOX_IPC_BOARD_H
#define PT2BOX_IPC_BOARD_H

#include <stdatomic.h>
#include <stdint.h>

#define PB_BOARD_BYTES 4096

struct pb_board {
	_Atomic uint32_t bell;	    /* counts control messages to any worker of the template */
	_Atomic uint32_t committed; /* number of the last change of constants that is in force for runs claimed from now on */
	_Atomic uint64_t paused;    /* bit w: worker w claims nothing, since others wait for the CPU; the bell tells of changes */
};

#endif
