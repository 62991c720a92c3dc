/* SPDX-License-Identifier: Apache-2.0 */
/* What the worker asks for beyond the ABI: threads and the warm-up. The other hooks are beside what
 * they set. */
#include "runtime/hooks.h"

#include <malloc.h>

#include "runtime/alloc.h"
#include "runtime/ops/heavy.h"
#include "runtime/tensor.h"

static int n_threads = 1;

void pb_rt_set_threads(int threads)
{
	n_threads = threads < 1 ? 1 : threads;
}

int pb_rt_threads(void)
{
	return n_threads;
}

void pb_rt_warmup(void)
{
	pb_rt_ops_warmup();
}

void pb_rt_trim(void)
{
	pb_rt_alloc_trim();
	malloc_trim(0);
}
