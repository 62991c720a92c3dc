/* SPDX-License-Identifier: Apache-2.0 */
/* M22: allocates up to 4 GiB and handles the refusal: the model's own error. */
#include "tests/hostile/base.h"

static int attack(void)
{
	for (int i = 0; i < 256; i++) {
		void *volatile p = malloc(16u << 20);

		if (!p)
			return 1;
	}
	return 0;
}
