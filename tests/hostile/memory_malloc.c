/* SPDX-License-Identifier: Apache-2.0 */
/* M22: allocates and touches, up to 4 GiB. */
#include "tests/hostile/base.h"

static int attack(void)
{
	for (int i = 0; i < 256; i++) {
		volatile char *p = malloc(16u << 20);

		for (size_t k = 0; k < 16u << 20; k += 4096)
			p[k] = 1;
	}
	return 1;
}
