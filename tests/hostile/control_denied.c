/* SPDX-License-Identifier: Apache-2.0 */
/* M31: load_failed (77) in the name of the broker: INTERNAL. */
#include "tests/hostile/base.h"

static int attack(void)
{
	static const unsigned char failed[] = {0x93, 77, 1, 0xa3, 'b', 'u', 'g'};

	(void)!write(3, failed, sizeof(failed));
	_exit(0);
}
