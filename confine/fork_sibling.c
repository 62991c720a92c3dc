/* SPDX-License-Identifier: Apache-2.0 */
/* See fork_sibling.h. Source of the word: sysdeps/unix/sysv/linux/arch-fork.h of glibc 2.36, plus CLONE_PARENT. */
#include "confine/fork_sibling.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FORK_FLAGS (CLONE_PARENT | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD)
_Static_assert(FORK_FLAGS == 0x1208011, "the policies name this word");

/* struct pthread, member tid: glibc 2.26 to 2.41 on x86-64. */
#define TID_OFFSET 720

static pid_t *cached_tid;

pb_status pb_fork_sibling_prepare(struct pt2box_error *err)
{
	pid_t *guess = (pid_t *)((char *)pthread_self() + TID_OFFSET), *told = NULL;

	/* The kernel knows: glibc gave it the address for the join. Not every kernel tells. */
	if (prctl(PR_GET_TID_ADDRESS, &told, 0, 0, 0) != 0 || !told)
		told = guess;
	if (*told != gettid() || (uintptr_t)told < pthread_self() || (uintptr_t)told >= pthread_self() + 4096)
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "this libc keeps thread ids where pt2box does not find them");
	cached_tid = told;
	return PT2BOX_OK;
}

pid_t pb_fork_sibling(void)
{
	return (pid_t)syscall(SYS_clone, FORK_FLAGS, NULL, NULL, cached_tid, NULL);
}
