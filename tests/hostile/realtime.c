/* SPDX-License-Identifier: Apache-2.0 */
/* M41: wants the CPU for itself, and memory that is never given back. */
#include "tests/hostile/base.h"

#include <sched.h>
#include <sys/resource.h>

static int attack(void)
{
	struct sched_param p = {.sched_priority = 1};

	return sched_setscheduler(0, SCHED_FIFO, &p) == 0 || setpriority(PRIO_PROCESS, 0, -20) == 0 ||
	       mlockall(MCL_CURRENT) == 0;
}
