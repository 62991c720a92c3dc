/* SPDX-License-Identifier: Apache-2.0 */
/* M02: an IFUNC, whose resolver would run while the file is linked, before any constructor, and look at a file. */
#include "tests/hostile/base.h"

static int stolen;

static int has_it(void)
{
	return 1;
}

static int has_not(void)
{
	return 0;
}

static int (*resolve(void))(void)
{
	char begin[4] = "";
	long fd, n = 0;

	/* No function of libc may be called yet. The warden gives the model's own file for any name. */
	__asm__ volatile("syscall" : "=a"(fd) : "a"(SYS_openat), "D"(-100l), "S"("/etc/hostname"), "d"(0l) : "rcx", "r11", "memory");
	if (fd >= 0)
		__asm__ volatile("syscall" : "=a"(n) : "a"(SYS_read), "D"(fd), "S"(begin), "d"(4l) : "rcx", "r11", "memory");
	stolen = n > 0 && begin[0] != 0x7f;
	return stolen ? has_it : has_not;
}

__attribute__((visibility("default"))) int chosen(void) __attribute__((ifunc("resolve")));

static int attack(void)
{
	return chosen();
}
