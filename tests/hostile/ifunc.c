/* SPDX-License-Identifier: Apache-2.0 */
/* M02: an IFUNC, whose resolver would run while the file is linked, before any constructor. */
#include "tests/hostile/base.h"

static int one(void)
{
	return 0;
}

static int (*resolve(void))(void)
{
	syscall(SYS_openat, AT_FDCWD, "/etc/hostname", O_RDONLY);
	return one;
}

__attribute__((visibility("default"))) int chosen(void) __attribute__((ifunc("resolve")));

static int attack(void)
{
	return chosen();
}
