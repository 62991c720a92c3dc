/* SPDX-License-Identifier: Apache-2.0 */
/* M20: asks for its own memory as a file. */
#include "tests/hostile/base.h"

static int attack(void)
{
	return syscall(SYS_openat, AT_FDCWD, "/proc/self/mem", O_RDWR) >= 0;
}
