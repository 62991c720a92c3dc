/* SPDX-License-Identifier: Apache-2.0 */
/* CPU features that a package's code uses, from what it says about its compilation; and whether this CPU has them. */
#ifndef PT2BOX_BROKER_INTAKE_CPU_H
#define PT2BOX_BROKER_INTAKE_CPU_H

#include <stdbool.h>
#include <stddef.h>

#include "ipc/status.h"

/* Names separated by spaces, "avx2 fma f16c". @isa: AOTI_CPU_ISA; @command: compiler flags; @tiles: the code uses AMX, which
 * flags alone do not mean. -march=native tells nothing: then only the vector extension in @isa is known. */
void pb_cpu_needs(const char *isa, const char *command, bool tiles, char *dst, size_t cap);
/* UNSUPPORTED naming what this CPU (or its kernel) lacks. */
PB_CHECK pb_status pb_cpu_check(const char *needs, struct pt2box_error *err);

#endif
