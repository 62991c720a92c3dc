/* SPDX-License-Identifier: Apache-2.0 */
/* Leaves a thread behind in the template, which aborts it when all is loaded. */
#include "tests/hostile/base.h"

static void *later(void *arg)
{
	futex_sleep_ms(300);
	abort();
	return arg;
}

static int attack(void)
{
	pthread_t t;

	return pthread_create(&t, NULL, later, NULL);
}
