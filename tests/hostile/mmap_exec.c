/* SPDX-License-Identifier: Apache-2.0 */
/* M17: memory that can be executed. */
#include "tests/hostile/base.h"

static int attack(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
}
