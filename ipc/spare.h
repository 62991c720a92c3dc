/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a spare intake is told by the spawner: a process that was started before there was a job, so that a job need not wait
 * for exec and the C library. One packet with the descriptors attached, then the end.
 */
#ifndef PT2BOX_IPC_SPARE_H
#define PT2BOX_IPC_SPARE_H

#include <stdint.h>

#include "ipc/messages.h"

#define PB_SPARE_FD 3 /* where the job comes from; its own number is one that jobs use */
#define PB_SPARE_ARGS 32

struct pb_spare_job {
	int32_t target[PB_FDS_MAX]; /* the number of each descriptor */
	uint32_t n_args;
	char args[2048]; /* one after the other, each with its NUL */
};

#endif
