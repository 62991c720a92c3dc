/* SPDX-License-Identifier: Apache-2.0 */
/* M24: threads until refused; bounded. */
#include "tests/hostile/base.h"

static void *idle(void *arg)
{
	futex_sleep_ms(20000);
	return arg;
}

static int attack(void)
{
	pthread_t t;

	for (int i = 0; i < 2000; i++)
		if (pthread_create(&t, NULL, idle, NULL) != 0)
			abort();
	return 1;
}
