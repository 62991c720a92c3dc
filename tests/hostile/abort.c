/* SPDX-License-Identifier: Apache-2.0 */
/* M27: abort(). */
#include "tests/hostile/base.h"

static int attack(void)
{
	abort();
}
