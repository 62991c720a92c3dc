/* SPDX-License-Identifier: Apache-2.0 */
/* M26: sleeps for ever. */
#include "tests/hostile/base.h"

static int attack(void)
{
	pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;

	pthread_mutex_lock(&m);
	pthread_mutex_lock(&m);
	return 0;
}
