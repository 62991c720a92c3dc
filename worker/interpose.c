/* SPDX-License-Identifier: Apache-2.0 */
/* See interpose.h. Exported by worker/exports.list. */
#include "worker/interpose.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ipc/fdmap.h"

/* What a model binds to. The rest of the worker is hidden. */
#define EXPORT __attribute__((visibility("default")))

static bool refused;
static void (*on_refusal)(void);

bool pb_interpose_refused(void)
{
	return refused;
}

void pb_interpose_clear_refused(void)
{
	refused = false;
}

void pb_interpose_on_refusal(void (*f)(void))
{
	on_refusal = f;
}

#if !defined(__SANITIZE_ADDRESS__)

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);

static void *remember(void *p)
{
	if (!p && !refused) {
		void (*f)(void) = on_refusal;

		refused = true;
		on_refusal = NULL;
		if (f)
			f();
	}
	return p;
}

EXPORT void *malloc(size_t n)
{
	return remember(__libc_malloc(n));
}

EXPORT void *calloc(size_t n, size_t size)
{
	return remember(__libc_calloc(n, size));
}

EXPORT void *realloc(void *p, size_t n)
{
	void *q = __libc_realloc(p, n);

	return n ? remember(q) : q;
}

EXPORT void *memalign(size_t align, size_t n)
{
	return remember(__libc_memalign(align, n));
}

EXPORT void *aligned_alloc(size_t align, size_t n)
{
	return remember(__libc_memalign(align, n));
}

EXPORT int posix_memalign(void **ret, size_t align, size_t n)
{
	void *p;

	if (align < sizeof(void *) || (align & (align - 1)))
		return EINVAL;
	p = remember(__libc_memalign(align, n));
	if (!p)
		return ENOMEM;
	*ret = p;
	return 0;
}

#endif

/*
 * A package with mmap'd weights opens the file it was loaded from. Once the sandbox is closed that descriptor is given
 * to it whatever the name: it is the only file that there is. Until then trusted libraries open what they like.
 */
static bool model_file_only, model_file_there;

void pb_interpose_model_file(bool there)
{
	model_file_only = true;
	model_file_there = there;
}

EXPORT int open(const char *path, int flags, ...)
{
	va_list ap;
	int mode;

	va_start(ap, flags);
	mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, int) : 0;
	va_end(ap);
	if (!model_file_only)
		return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
	if (model_file_there && (flags & O_ACCMODE) == O_RDONLY)
		return PB_FD_MODEL;
	errno = EACCES;
	return -1;
}
