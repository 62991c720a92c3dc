/* SPDX-License-Identifier: Apache-2.0 */
/* M09: forks, and again when refused; bounded. */
#include "tests/hostile/base.h"

static int attack(void)
{
	for (int i = 0; i < 64; i++) {
		long pid = syscall(SYS_clone, 0x1208011, NULL, NULL, NULL, NULL);

		if (pid == 0)
			_exit(0);
		if (pid > 0)
			return 1;
	}
	return 0;
}
