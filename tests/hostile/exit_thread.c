/* SPDX-License-Identifier: Apache-2.0 */
/* M28: ends only the thread it runs on, in the middle of the call. */
#include "tests/hostile/base.h"

static int attack(void)
{
	syscall(SYS_exit, 0);
	return 0;
}
