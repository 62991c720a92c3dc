/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files whose every look, read or close may wait for a program of some user's, for as long as that likes. The broker takes
 * none of them, the client library hands over a copy. Header only.
 */
#ifndef PT2BOX_IPC_FILE_SYSTEM_H
#define PT2BOX_IPC_FILE_SYSTEM_H

#include <stdbool.h>
#include <sys/vfs.h>

/* As linux/magic.h has them, but for the first, which is FUSE_SUPER_MAGIC of the kernel's fs/fuse. */
#define PB_MAGIC_FUSE 0x65735546
#define PB_MAGIC_OVERLAY 0x794c7630 /* any user may lay one over FUSE, and its magic is not the lower one's */
#define PB_MAGIC_PROC 0x9fa0	    /* memory of processes, of which FUSE may have the pages */

static inline bool pb_file_system_may_wait(const struct statfs *fs)
{
	return fs->f_type == PB_MAGIC_FUSE || fs->f_type == PB_MAGIC_OVERLAY || fs->f_type == PB_MAGIC_PROC;
}

#endif
