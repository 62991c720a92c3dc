/* SPDX-License-Identifier: Apache-2.0 */
/* M11: reads the memory of its parent. */
#include "tests/hostile/base.h"

#include <sys/uio.h>

static int attack(void)
{
	char here[8];
	struct iovec local = {here, sizeof(here)}, remote = {(void *)&container, sizeof(here)};

	return process_vm_readv(getppid() > 0 ? getppid() : 1, &local, 1, &remote, 1, 0) > 0;
}
