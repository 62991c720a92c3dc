/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Functions of libc that a model binds to here first: the allocator, so that a refusal is remembered and a model that
 * dies of it is reported as out of memory; and open(), for packages that map their own file (no file can be opened in the
 * sandbox: they get the sealed model).
 */
#ifndef PT2BOX_WORKER_INTERPOSE_H
#define PT2BOX_WORKER_INTERPOSE_H

#include <stdbool.h>

bool pb_interpose_refused(void);
void pb_interpose_clear_refused(void);
/* Call @f once at the first refusal from now on (while loading: there is no lane to say it in). NULL: nothing. */
void pb_interpose_on_refusal(void (*f)(void));
/* From now on open() gives the sealed model file if @there, else an error. */
void pb_interpose_model_file(bool there);

#endif
