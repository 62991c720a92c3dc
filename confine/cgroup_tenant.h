/* SPDX-License-Identifier: Apache-2.0 */
/* The groups of tenants, for confine/cgroup.c; and how files of control groups are written. */
#ifndef PT2BOX_CONFINE_CGROUP_TENANT_H
#define PT2BOX_CONFINE_CGROUP_TENANT_H

#include <stdbool.h>

#include "confine/confine.h"

/* Sets errno. */
bool pb_cgroup_put(const char *dir, const char *file, const char *text);
bool pb_cgroup_put_number(const char *dir, const char *file, unsigned long long n);
/* One that has just lost its last process may be busy for a moment. "": does nothing. */
void pb_cgroup_remove(const char *dir);

/*
 * The group of a tenant below @parent, with its share of the CPU; made for the first that asks. NULL: there can be none. In
 * version 2 the groups of processes lie below it.
 */
const char *pb_cgroup_tenant_get(const char *parent, bool v2, const struct pb_cgroup_limits *l);
/* Goes with the last. */
void pb_cgroup_tenant_put(uint32_t tenant);
void pb_cgroup_tenants_close(void);

#endif
