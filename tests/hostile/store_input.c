/* SPDX-License-Identifier: Apache-2.0 */
/* Writes its input, as some packages do: it gets copies, and the caller sees what was written. */
#include "tests/hostile/base.h"

static int attack(void)
{
	if (now.in)
		now.in[1] = -7;
	return 0;
}
