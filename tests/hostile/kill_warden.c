/* SPDX-License-Identifier: Apache-2.0 */
/* M12: signals the warden, pid 1. */
#include "tests/hostile/base.h"

static int attack(void)
{
	return syscall(SYS_tgkill, 1, 1, SIGKILL) == 0;
}
