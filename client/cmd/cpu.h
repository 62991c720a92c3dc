/* SPDX-License-Identifier: Apache-2.0 */
/* Which features the CPU here has, by the names that compilers give them. */
#ifndef PT2BOX_CMD_CPU_H
#define PT2BOX_CMD_CPU_H

#include <stdbool.h>

/* The kernel's line of flags of the first processor. malloc'd; NULL: unknown. */
char *cmd_cpu_flags(void);
bool cmd_cpu_has(const char *flags, const char *feature);

#endif
