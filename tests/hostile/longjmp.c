/* SPDX-License-Identifier: Apache-2.0 */
/* M29: jumps to where nobody is any more. */
#include "tests/hostile/base.h"

#include <setjmp.h>

static jmp_buf gone;

__attribute__((noinline)) static int forget(void)
{
	volatile char frame[256];

	frame[0] = 0;
	return setjmp(gone) ? 2 : frame[0];
}

static int attack(void)
{
	if (forget() == 0)
		longjmp(gone, 1);
	return 0;
}
