/* SPDX-License-Identifier: Apache-2.0 */
/* M22: maps and touches, past the allocator, up to 4 GiB. */
#include "tests/hostile/base.h"

static int attack(void)
{
	for (int i = 0; i < 256; i++) {
		volatile char *p = mmap(NULL, 16u << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == (volatile char *)MAP_FAILED)
			abort();
		for (size_t k = 0; k < 16u << 20; k += 4096)
			p[k] = 1;
	}
	return 1;
}
