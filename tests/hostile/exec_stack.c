/* SPDX-License-Identifier: Apache-2.0 */
/* M04: asks for an executable stack, as every real package does: taken out, and it loads. */
/* ldflags: -Wl,-z,execstack */
#include "tests/hostile/base.h"

static int attack(void)
{
	/* A jump to the stack must fault; the bytes are a return. */
	volatile unsigned char code[16] = {0xc3};

	((void (*)(void))(uintptr_t)code)();
	return 1;
}
