/* SPDX-License-Identifier: Apache-2.0 */
/* What a bad item of a batch can do; its second element says what. */
#include "tests/hostile/base.h"

static int attack(void)
{
	switch (now.in ? (int)now.in[1] : 0) {
	case 1: /* crash */
		*(volatile int *)8 = 1;
		break;
	case 2: /* hang */
		for (;;)
			__asm__ volatile("");
	case 3: /* end */
		_exit(7);
	case 4: /* be slow, as many milliseconds as the third says, and right */
		futex_sleep_ms((long)now.in[2]);
		break;
	default: /* say no */
		return 1;
	}
	return 0;
}
