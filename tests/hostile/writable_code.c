/* SPDX-License-Identifier: Apache-2.0 */
/* M03: one segment that is writable and executable. */
#include "tests/hostile/base.h"

__asm__(".section .mixed,\"awx\",@progbits\n"
	"mixed: ret\n"
	".previous\n");

static int attack(void)
{
	return 0;
}
