/* SPDX-License-Identifier: Apache-2.0 */
/* M09: fork() as libc makes it. */
#include "tests/hostile/base.h"

static int attack(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	return pid > 0;
}
