/* SPDX-License-Identifier: Apache-2.0 */
/* M17: makes memory executable: profile default allows it, for compiled kernels; strict does not. */
#include "tests/hostile/base.h"

static int attack(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED || (mprotect(p, 4096, PROT_READ | PROT_EXEC) != 0 && errno != EACCES);
}
