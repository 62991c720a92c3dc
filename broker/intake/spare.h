/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A spare intake waits for its job. It is a process like any other intake, with namespaces and addresses of its own; the job
 * comes from the spawner, before it confines itself and before it has seen any byte from outside, and it ends after it.
 */
#ifndef PT2BOX_BROKER_INTAKE_SPARE_H
#define PT2BOX_BROKER_INTAKE_SPARE_H

#include <stdbool.h>

#include "ipc/spare.h"

/* To be called with nothing else open. false: there is no job to come. @ret_argv: in static memory, ends with NULL. */
bool pb_spare_wait(int *ret_argc, char ***ret_argv);

#endif
