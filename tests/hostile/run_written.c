/* SPDX-License-Identifier: Apache-2.0 */
/* M17: writes code into memory, makes it executable, and runs it. Only backend torch in profile default has a use for that. */
#include "tests/hostile/base.h"

static int attack(void)
{
	static const unsigned char code[] = {0x31, 0xc0, 0xc3}; /* xor eax, eax; ret */
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return 0;
	memcpy(p, code, sizeof(code));
	return mprotect(p, 4096, PROT_READ | PROT_EXEC) == 0 && ((int (*)(void))p)() == 0;
}
