/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asynchronous runs. One thread per connection, started by the first of them. It alone moves runs
 * on; others only add to the list, ask for a cancel, and free what has ended.
 */
#ifndef PT2BOX_CLIENT_ASYNC_H
#define PT2BOX_CLIENT_ASYNC_H

#include "client/internal.h"

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

/* Have the thread look at its list. */
void pb_async_wake(struct pb_async *a);
/* The thread; @data: struct pb_async. */
void *pb_async_main(void *data);

#endif
