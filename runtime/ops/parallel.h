/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parts of one operator on several threads. Uses libgomp's team, which models use too, so that
 * there is one pool of threads; with one part nothing of libgomp is touched. Parts must not call
 * the allocator (it is single-threaded).
 */
#ifndef PT2BOX_RUNTIME_OPS_PARALLEL_H
#define PT2BOX_RUNTIME_OPS_PARALLEL_H

#define PB_MAX_THREADS 64

/* fn(arg, part) for part in 0 .. parts - 1; parts <= PB_MAX_THREADS. */
void pb_parallel(int parts, void (*fn)(void *arg, int part), void *arg);
/* Threads worth using for this many floating point operations: 1 .. pb_rt_threads(). */
int pb_parallel_threads(double flops);

#endif
