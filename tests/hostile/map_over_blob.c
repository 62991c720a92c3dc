/* SPDX-License-Identifier: Apache-2.0 */
/* M19: maps its own page over the constants: only this process sees it. */
#define CONSTANTS_BLOB
#include "tests/hostile/base.h"

static int attack(void)
{
	void *page = (void *)((uintptr_t)weights & ~4095ul);

	if (weights && mmap(page, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page)
		weights[3] = 99;
	_exit(9);
}
