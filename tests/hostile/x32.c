/* SPDX-License-Identifier: Apache-2.0 */
/* M14: an x32 number (getpid there). */
#include "tests/hostile/base.h"

static int attack(void)
{
	return syscall(0x40000000 | SYS_getpid) > 0;
}
