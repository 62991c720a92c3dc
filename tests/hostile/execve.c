/* SPDX-License-Identifier: Apache-2.0 */
/* M09: becomes another program. */
#include "tests/hostile/base.h"

static int attack(void)
{
	char *argv[] = {"true", NULL}, *envp[] = {NULL};

	execve("/bin/true", argv, envp);
	return 0;
}
