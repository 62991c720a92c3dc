/* SPDX-License-Identifier: Apache-2.0 */
/* Stores over the requests of the client, which lie before its inputs: read-only here, and no input to be copied. */
#include "tests/hostile/base.h"

static int attack(void)
{
	memset((void *)(((uintptr_t)now.in & ~4095ul) - 4096), 0xff, 4096);
	return 1;
}
