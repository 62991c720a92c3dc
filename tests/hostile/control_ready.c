/* SPDX-License-Identifier: Apache-2.0 */
/* M31: a template that says it is ready before it is, with counts of its own. */
#include "tests/hostile/base.h"

static int attack(void)
{
	static const unsigned char ready[] = {0x94, 76, 0xcd, 0xff, 0xff, 0xcd, 0xff, 0xff, 0};

	(void)!write(3, ready, sizeof(ready));
	return 0;
}
