/* SPDX-License-Identifier: Apache-2.0 */
/* M06: open() of libc is the worker's own: refused without a system call. */
#include "tests/hostile/base.h"

static int attack(void)
{
	return open("/etc/hostname", O_RDONLY) >= 0 || errno != EACCES;
}
