/* SPDX-License-Identifier: Apache-2.0 */
/* M13: calls that lead to much of the kernel: whichever is open is one too many. */
#include "tests/hostile/base.h"

static int attack(void)
{
	static char params[256], attr[128];

	return syscall(SYS_io_uring_setup, 4, params) >= 0 || syscall(SYS_userfaultfd, 0) >= 0 ||
	       syscall(SYS_bpf, 5, attr, sizeof(attr)) >= 0 || syscall(SYS_perf_event_open, attr, 0, -1, -1, 0) >= 0;
}
