/* SPDX-License-Identifier: Apache-2.0 */
/* Turns the worker's own allocator hooks against it: recursion in malloc's place. */
#include "tests/hostile/base.h"

static int attack(void)
{
	for (int i = 0; i < 100000; i++) {
		void *p = malloc((size_t)i * 17 % 70000);

		if (p)
			memset(p, 0xff, (size_t)i * 17 % 70000);
		free(p);
	}
	return 0;
}
