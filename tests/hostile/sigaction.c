/* SPDX-License-Identifier: Apache-2.0 */
/* M39: wants to hide its violations behind a handler. */
#include "tests/hostile/base.h"

static int attack(void)
{
	struct sigaction sa = {.sa_handler = SIG_IGN};

	return sigaction(SIGSYS, &sa, NULL) == 0;
}
