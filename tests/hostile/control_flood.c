/* SPDX-License-Identifier: Apache-2.0 */
/* M31: well-formed messages, very many: phase (75) from a template, worker_ready (85) from a worker. */
#include "tests/hostile/base.h"

static int attack(void)
{
	static const unsigned char phase[] = {0x92, 75, 16}, ready[] = {0x92, 85, 63};

	for (int i = 0; i < 20000; i++) {
		if (AT == AT_RUN)
			(void)!write(4, ready, sizeof(ready));
		else
			(void)!write(3, phase, sizeof(phase));
	}
	return 0;
}
