/* SPDX-License-Identifier: Apache-2.0 */
/* M23: a file in memory. */
#include "tests/hostile/base.h"

static int attack(void)
{
	return syscall(SYS_memfd_create, "x", 0) >= 0;
}
