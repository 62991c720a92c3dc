/* SPDX-License-Identifier: Apache-2.0 */
/* M03: needs a library that no package needs. */
/* ldflags: -Wl,--no-as-needed -lzip */
#include "tests/hostile/base.h"

static int attack(void)
{
	return 0;
}
