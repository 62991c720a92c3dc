/* SPDX-License-Identifier: Apache-2.0 */
/* Where in the file system the control group of this process is. Internal to confine/. */
#ifndef PT2BOX_CONFINE_CGROUP_PLACE_H
#define PT2BOX_CONFINE_CGROUP_PLACE_H

#include <stdbool.h>
#include <stddef.h>

#define PB_CGROUP_PATH_MAX 2048

/* Its directory in the hierarchy of controller @name, or of version 2 with name ""; false if there is none. */
bool pb_cgroup_own_dir(const char *name, char *ret, size_t cap);

#endif
