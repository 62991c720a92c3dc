/* SPDX-License-Identifier: Apache-2.0 */
/* Stores all over what the client wrote: it is read-only here. */
#include "tests/hostile/base.h"

static int attack(void)
{
	memset((void *)((uintptr_t)now.in & ~4095ul), 0xff, 4096);
	return 1;
}
