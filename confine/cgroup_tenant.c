/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One group for all processes of a tenant: however many there are, together they have the CPU time of one. Made when a
 * tenant starts its first process, removed with its last.
 */
#include "confine/cgroup_tenant.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "confine/cgroup_place.h"

#define PERIOD_US 100000u

struct tenant_group {
	struct tenant_group *next;
	uint32_t tenant, refs;
	char dir[PB_CGROUP_PATH_MAX];
};

static struct tenant_group *groups;

bool pb_cgroup_put(const char *dir, const char *file, const char *text)
{
	char path[PB_CGROUP_PATH_MAX + 64];
	int fd, saved;
	bool ok;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	saved = errno;
	close(fd);
	errno = saved;
	return ok;
}

bool pb_cgroup_put_number(const char *dir, const char *file, unsigned long long n)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", n);
	return pb_cgroup_put(dir, file, text);
}

void pb_cgroup_remove(const char *dir)
{
	const struct timespec nap = {.tv_nsec = 1000000};

	for (int i = 0; *dir && rmdir(dir) != 0 && errno == EBUSY && i < 50; i++)
		nanosleep(&nap, NULL);
}

/* ---- tenants ---- */

static bool set_cpu(const char *dir, bool v2, const struct pb_cgroup_limits *l)
{
	const unsigned weight = l->cpu_weight ? l->cpu_weight : 100;
	char max[48];

	if (v2) {
		snprintf(max, sizeof(max), "%u %u", l->cpu_max * (PERIOD_US / 100), PERIOD_US);
		return pb_cgroup_put(dir, "cgroup.subtree_control", "+memory +pids") &&
		       pb_cgroup_put_number(dir, "cpu.weight", weight) &&
		       (!l->cpu_max || pb_cgroup_put(dir, "cpu.max", max));
	}
	return pb_cgroup_put_number(dir, "cpu.shares", weight * 1024 / 100 > 2 ? weight * 1024 / 100 : 2) &&
	       (!l->cpu_max || (pb_cgroup_put_number(dir, "cpu.cfs_period_us", PERIOD_US) &&
				pb_cgroup_put_number(dir, "cpu.cfs_quota_us", l->cpu_max * (PERIOD_US / 100))));
}

static struct tenant_group *make(const char *parent, bool v2, const struct pb_cgroup_limits *l)
{
	struct tenant_group *g = calloc(1, sizeof(*g));

	if (!g || (size_t)snprintf(g->dir, sizeof(g->dir), "%s/tenant-%u", parent, l->tenant) >= sizeof(g->dir) ||
	    (mkdir(g->dir, 0755) != 0 && errno != EEXIST)) {
		free(g);
		return NULL;
	}
	if (!set_cpu(g->dir, v2, l)) {
		(void)rmdir(g->dir);
		free(g);
		return NULL;
	}
	g->tenant = l->tenant;
	g->next = groups;
	groups = g;
	return g;
}

const char *pb_cgroup_tenant_get(const char *parent, bool v2, const struct pb_cgroup_limits *l)
{
	struct tenant_group *g = groups;

	while (g && g->tenant != l->tenant)
		g = g->next;
	if (!g)
		g = make(parent, v2, l);
	if (g)
		g->refs++;
	return g ? g->dir : NULL;
}

void pb_cgroup_tenant_put(uint32_t tenant)
{
	for (struct tenant_group **p = &groups, *g; (g = *p); p = &g->next) {
		if (g->tenant != tenant || --g->refs)
			continue;
		*p = g->next;
		pb_cgroup_remove(g->dir);
		free(g);
		return;
	}
}

void pb_cgroup_tenants_close(void)
{
	while (groups) {
		struct tenant_group *g = groups;

		groups = g->next;
		pb_cgroup_remove(g->dir);
		free(g);
	}
}
