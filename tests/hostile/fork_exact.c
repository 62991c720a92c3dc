/* SPDX-License-Identifier: Apache-2.0 */
/* M09: the very call by which a template makes workers, when nobody asked for one. */
#include "tests/hostile/base.h"

static int attack(void)
{
	long pid = syscall(SYS_clone, 0x1208011, NULL, NULL, NULL, NULL);

	if (pid == 0)
		_exit(0);
	return pid > 0;
}
