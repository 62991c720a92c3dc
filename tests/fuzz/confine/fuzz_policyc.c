/* SPDX-License-Identifier: Apache-2.0 */
/* ldflags: -Wl,--no-as-needed,-lseccomp,--as-needed */
/* The compiler of policies: a text is compiled or refused with its line, and what is compiled ends in a verdict. */
#include <ctype.h>
#include <errno.h>
#include <seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static jmp_buf refused;
static FILE *quiet;

static _Noreturn void leave(int status)
{
	(void)status;
	longjmp(refused, 1);
}

/* The compiler itself, which ends where it refuses. */
int policyc_main(int argc, char **argv);
#define exit leave
#define main policyc_main
#undef stderr
#define stderr quiet
#include "confine/policyc.c"
#undef exit
#undef main

#include "tests/fuzz/replay.h"

/* A refusal ends the compiler, and the memory of what it was about with it. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct policy pol;
	static char path[64];
	int fd = memfd_create("policy", MFD_CLOEXEC);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	if (!quiet)
		quiet = fopen("/dev/null", "we");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	memset(&pol, 0, sizeof(pol));
	if (setjmp(refused) == 0)
		read_policy(&pol, path, true);
	for (int i = 0; i < pol.n_lines; i++)
		free(pol.lines[i]);
	if (pol.ctx)
		seccomp_release(pol.ctx);
	close(fd);
	return 0;
}
