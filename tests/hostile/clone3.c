/* SPDX-License-Identifier: Apache-2.0 */
/* M10: clone3 is not there: libc falls back to clone. */
#include "tests/hostile/base.h"

static int attack(void)
{
	return syscall(SYS_clone3, NULL, 0) != -1 || errno != ENOSYS;
}
