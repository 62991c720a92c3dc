/* SPDX-License-Identifier: Apache-2.0 */
/* M25: never comes back, on three threads. */
#include "tests/hostile/base.h"

static void *spin(void *arg)
{
	for (;;)
		__asm__ volatile("");
	return arg;
}

static int attack(void)
{
	pthread_t t;

	for (int i = 0; i < 2; i++)
		pthread_create(&t, NULL, spin, NULL);
	spin(NULL);
	return 0;
}
