/* SPDX-License-Identifier: Apache-2.0 */
/* M05: exports what the host calls in libc. It loads, and nobody calls these. */
#include "tests/hostile/base.h"

__attribute__((visibility("default"))) ssize_t write(int fd, const void *p, size_t n)
{
	(void)fd;
	(void)p;
	(void)n;
	abort();
}

__attribute__((visibility("default"))) void *dlsym(void *h, const char *name)
{
	(void)h;
	(void)name;
	abort();
}

static int attack(void)
{
	return 0;
}
