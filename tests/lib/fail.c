/* SPDX-License-Identifier: Apache-2.0 */
/* Calls that fail on demand, see check.h. Linked only into tests that ask for --wrap. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include "tests/lib/check.h"

static long countdown; /* calls until one fails, 0: none will */
static bool armed, failed;

bool check_fail_at(long n)
{
	if (n > 0 && armed && !failed) {
		armed = false;
		countdown = 0;
		return false;
	}
	armed = n > 0;
	failed = false;
	countdown = n;
	return true;
}

bool check_failed(void)
{
	return failed;
}

void check_disarm(void)
{
	countdown = 0;
}

static bool fails_now(int error)
{
	if (countdown == 0 || --countdown > 0)
		return false;
	failed = true;
	errno = error;
	return true;
}

/* A weak original: a test wraps only what it names. */
#define WRAP(type, name, bad, error, args, call)                                                   \
	type __real_##name args __attribute__((weak));                                             \
	type __wrap_##name args;                                                                   \
	type __wrap_##name args                                                                    \
	{                                                                                          \
		return fails_now(error) ? bad : __real_##name call;                                \
	}

WRAP(void *, malloc, NULL, ENOMEM, (size_t n), (n))
WRAP(void *, calloc, NULL, ENOMEM, (size_t n, size_t size), (n, size))
WRAP(void *, realloc, NULL, ENOMEM, (void *p, size_t n), (p, n))
WRAP(void *, mmap, MAP_FAILED, ENOMEM,
     (void *at, size_t n, int prot, int flags, int fd, off_t off), (at, n, prot, flags, fd, off))
WRAP(ssize_t, recvmsg, -1, EIO, (int fd, struct msghdr *h, int flags), (fd, h, flags))
WRAP(ssize_t, sendmsg, -1, EIO, (int fd, const struct msghdr *h, int flags), (fd, h, flags))
WRAP(int, memfd_create, -1, EMFILE, (const char *name, unsigned flags), (name, flags))
WRAP(int, ftruncate, -1, EIO, (int fd, off_t n), (fd, n))
WRAP(ssize_t, pread, -1, EIO, (int fd, void *buf, size_t n, off_t at), (fd, buf, n, at))
WRAP(ssize_t, write, -1, EIO, (int fd, const void *buf, size_t n), (fd, buf, n))

int __real_fcntl(int fd, int cmd, ...) __attribute__((weak));
int __wrap_fcntl(int fd, int cmd, ...);
int __wrap_fcntl(int fd, int cmd, ...)
{
	va_list ap;
	long arg;

	va_start(ap, cmd);
	arg = va_arg(ap, long);
	va_end(ap);
	return fails_now(EPERM) ? -1 : __real_fcntl(fd, cmd, arg);
}
