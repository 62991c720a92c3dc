/* SPDX-License-Identifier: Apache-2.0 */
/* M10: a user namespace. */
#include "tests/hostile/base.h"

#include <sched.h>

static int attack(void)
{
	return unshare(CLONE_NEWUSER) == 0;
}
