/* SPDX-License-Identifier: Apache-2.0 */
/* M31: garbage and lies on the link to the warden: workers that are none. */
#include "tests/hostile/base.h"

static int attack(void)
{
	struct {
		uint32_t worker;
		int32_t pid;
	} lie[] = {{0, 1}, {63, 2}, {0, -1}, {0xffffffff, 7}, {0, 12345}};

	for (size_t i = 0; i < sizeof(lie) / sizeof(lie[0]); i++)
		(void)!write(5, &lie[i], sizeof(lie[i]));
	(void)!write(5, lie, sizeof(lie));
	(void)!write(5, lie, 3);
	return 0;
}
