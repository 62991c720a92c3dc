/* SPDX-License-Identifier: Apache-2.0 */
/* M11: traces its parent. */
#include "tests/hostile/base.h"

#include <sys/ptrace.h>

static int attack(void)
{
	return ptrace(PTRACE_ATTACH, 1, NULL, NULL) == 0;
}
