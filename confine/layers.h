/* SPDX-License-Identifier: Apache-2.0 */
/* The record of what is in force, step by step. Internal to confine/. */
#ifndef PT2BOX_CONFINE_LAYERS_H
#define PT2BOX_CONFINE_LAYERS_H

#include "ipc/status.h"

/* A later word about the same layer replaces the earlier. Names are static text. */
void pb_layer_on(const char *name, const char *detail, ...) PB_PRINTF(2, 3);
void pb_layer_off(const char *name, const char *detail, ...) PB_PRINTF(2, 3);
/* A required layer that cannot be had: recorded as off, and an error. errno is not looked at. */
PB_CHECK pb_status pb_layer_missing(struct pt2box_error *err, const char *name, const char *detail, ...)
	PB_PRINTF(3, 4);
/* The same for a system call that failed with errno. */
PB_CHECK pb_status pb_layer_failed(struct pt2box_error *err, const char *name, const char *call);

#endif
