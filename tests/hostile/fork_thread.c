/* SPDX-License-Identifier: Apache-2.0 */
/* M09: a thread of the template waits for the fork that the broker permits, to make it its own. */
#include "tests/hostile/base.h"

static void *forker(void *arg)
{
	for (int i = 0; i < 100; i++) {
		if (syscall(SYS_clone, 0x1208011, NULL, NULL, NULL, NULL) == 0)
			_exit(0);
		futex_sleep_ms(1);
	}
	return arg;
}

static int attack(void)
{
	pthread_t t;

	pthread_create(&t, NULL, forker, NULL);
	futex_sleep_ms(50);
	return 0;
}
