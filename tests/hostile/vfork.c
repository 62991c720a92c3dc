/* SPDX-License-Identifier: Apache-2.0 */
/* M09: vfork(). */
#include "tests/hostile/base.h"

static int attack(void)
{
	long pid = syscall(SYS_vfork);

	if (pid == 0)
		_exit(0);
	return pid > 0;
}
