/* SPDX-License-Identifier: Apache-2.0 */
/* M27: an instruction that there is not. */
#include "tests/hostile/base.h"

static int attack(void)
{
	__asm__ volatile("ud2");
	return 0;
}
