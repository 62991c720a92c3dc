/* SPDX-License-Identifier: Apache-2.0 */
/* M06: opens a file as most code would. */
#include "tests/hostile/base.h"

static int attack(void)
{
	return fopen("/etc/hostname", "r") != NULL;
}
