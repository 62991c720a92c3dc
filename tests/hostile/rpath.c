/* SPDX-License-Identifier: Apache-2.0 */
/* M03: a path for the dynamic linker to look in. */
/* ldflags: -Wl,-rpath,/tmp */
#include "tests/hostile/base.h"

static int attack(void)
{
	return 0;
}
