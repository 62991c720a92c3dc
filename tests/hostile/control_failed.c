/* SPDX-License-Identifier: Apache-2.0 */
/* M31: load_failed (77) with a status that there is not, and a text for terminals. */
#include "tests/hostile/base.h"

static int attack(void)
{
	static const unsigned char failed[] = {0x93, 77, 0xcc, 250, 0xa8, 'b', 'a', 'd', 033, '[', '2', 'J', '\n'};

	(void)!write(3, failed, sizeof(failed));
	_exit(0);
}
