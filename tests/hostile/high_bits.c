/* SPDX-License-Identifier: Apache-2.0 */
/* M15: an allowed call whose argument has garbage above 32 bits. */
#include "tests/hostile/base.h"

static int attack(void)
{
	return syscall(SYS_mmap, NULL, 4096, 1l << 32 | PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != -1;
}
