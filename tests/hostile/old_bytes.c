/* SPDX-License-Identifier: Apache-2.0 */
/* M36: looks into fresh memory, for anything that was somebody's before. */
#include "tests/hostile/base.h"

static int attack(void)
{
	const size_t bytes = 16u << 20;
	unsigned char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return 1;
	for (size_t i = 0; i < bytes; i++)
		if (p[i])
			return 1;
	return 0;
}
