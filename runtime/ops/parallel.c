/* SPDX-License-Identifier: Apache-2.0 */
/* See parallel.h. Calls libgomp's entry points by hand: the build then needs no -fopenmp for this
 * folder. */
#include "runtime/ops/parallel.h"

#include "runtime/tensor.h"

void GOMP_parallel(void (*fn)(void *), void *data, unsigned int threads, unsigned int flags);
int omp_get_thread_num(void);
int omp_get_num_threads(void);

struct job {
	void (*fn)(void *arg, int part);
	void *arg;
	int parts;
};

/* The team may be smaller than asked for. */
static void member(void *data)
{
	const struct job *job = data;
	const int step = omp_get_num_threads();

	for (int i = omp_get_thread_num(); i < job->parts; i += step)
		job->fn(job->arg, i);
}

void pb_parallel(int parts, void (*fn)(void *arg, int part), void *arg)
{
	struct job job = {fn, arg, parts};

	if (parts == 1)
		fn(arg, 0);
	else
		GOMP_parallel(member, &job, parts, 0);
}

int pb_parallel_threads(double flops)
{
	int threads = pb_rt_threads();

	if (threads > PB_MAX_THREADS)
		threads = PB_MAX_THREADS;
	return threads > 1 && flops > 128.0 * 1024 * threads ? threads : 1;
}
