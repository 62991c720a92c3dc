/* SPDX-License-Identifier: Apache-2.0 */
/* fork() with the caller's parent as parent of the child. */
#ifndef PT2BOX_CONFINE_FORK_SIBLING_H
#define PT2BOX_CONFINE_FORK_SIBLING_H

#include <sys/types.h>

#include "ipc/status.h"

/* Find where this libc keeps a thread's id. In trusted code, before pb_fork_sibling(); UNSUPPORTED if it is not found. */
PB_CHECK pb_status pb_fork_sibling_prepare(struct pt2box_error *err);
/*
 * Returns as fork() does. clone with CLONE_PARENT | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD, the exact word
 * that policies name. A raw clone leaves glibc's cached thread id stale (mutexes that remember their owner would
 * remember the wrong one), so the child's id is stored where glibc keeps it, as fork does. One thread only; no atfork
 * handlers run.
 */
pid_t pb_fork_sibling(void);

#endif
