/* SPDX-License-Identifier: Apache-2.0 */
/* M42: prints on standard output, buffered. */
#include "tests/hostile/base.h"

static int attack(void)
{
	printf("a line\n");
	fflush(stdout);
	return 0;
}
