/* SPDX-License-Identifier: Apache-2.0 */
/* M06: opens a file, by the system call itself. */
#include "tests/hostile/base.h"

static int attack(void)
{
	return syscall(SYS_openat, AT_FDCWD, "/etc/hostname", O_RDONLY) >= 0;
}
