/* SPDX-License-Identifier: Apache-2.0 */
/* M05: exports what the host calls, to be called in its place. */
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

__attribute__((visibility("default"))) void aoti_torch_check(bool cond, const char *f, const char *file, uint32_t line,
							     const char *msg)
{
	(void)cond;
	(void)f;
	(void)file;
	(void)line;
	(void)msg;
	abort();
}

static int attack(void)
{
	return 0;
}
