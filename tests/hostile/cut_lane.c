/* SPDX-License-Identifier: Apache-2.0 */
/* M21: cuts whatever memory it has a descriptor of, so that others fault where they have it mapped. */
#include "tests/hostile/base.h"

static int attack(void)
{
	for (int fd = 3; fd < 32; fd++)
		if (ftruncate(fd, 0) == 0 || fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0)
			return 1;
	return 0;
}
