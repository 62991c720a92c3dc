/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control groups: memory and number of tasks of each child, and the share of the CPU that all children of a tenant have
 * together (cgroup_tenant.c), in a subtree pt2box-PID of the group that the spawner was started in. Version 1 (a hierarchy for each controller) and version 2. Without rights to them there are none: rlimits
 * hold then. Owns the directories that it makes.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "confine/cgroup_place.h"
#include "confine/cgroup_tenant.h"
#include "confine/confine.h"
#include "confine/layers.h"
#include "confine/test_layers.h"

#define PATH_MAX_BYTES PB_CGROUP_PATH_MAX
#define PREFIX "pt2box-"

enum controller { MEMORY, PIDS, N_CONTROLLERS };
static const char *const controller_name[] = {"memory", "pids"};
static const char *const layer_name[] = {"memory cgroup", "pids cgroup"};

/* Of this process. "": none. In version 2 both are one directory. */
static struct {
	char parent[N_CONTROLLERS][PATH_MAX_BYTES];
	char home[PATH_MAX_BYTES]; /* v2: where this process was before it moved into a leaf */
	char cpu_parent[PATH_MAX_BYTES]; /* of the tenants' groups; "": none. In version 2 the same again */
	bool v2;
} own;

struct pb_cgroup {
	char dir[N_CONTROLLERS][PATH_MAX_BYTES]; /* "": none */
	uint32_t tenant;			 /* in whose group it is; 0: in none */
};

/* ---- the parent of all groups ---- */

static void remove_below(const char *dir, int depth)
{
	char child[PATH_MAX_BYTES];
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d)) != NULL)
		if (e->d_type == DT_DIR && e->d_name[0] != '.' && depth < 2 &&
		    (size_t)snprintf(child, sizeof(child), "%s/%s", dir, e->d_name) < sizeof(child))
			remove_below(child, depth + 1);
	if (d)
		closedir(d);
	(void)rmdir(dir);
}

/* What a spawner left that was killed before it could clean up. */
static void sweep(const char *dir)
{
	DIR *d = opendir(dir);
	char path[PATH_MAX_BYTES];
	struct dirent *e;

	while (d && (e = readdir(d)) != NULL) {
		int pid = strncmp(e->d_name, PREFIX, strlen(PREFIX)) == 0 ? atoi(e->d_name + strlen(PREFIX)) : 0;

		if (pid > 0 && kill(pid, 0) != 0 && errno == ESRCH &&
		    (size_t)snprintf(path, sizeof(path), "%s/%s", dir, e->d_name) < sizeof(path))
			remove_below(path, 0);
	}
	if (d)
		closedir(d);
}

static bool make_parent(const char *dir, char *ret)
{
	sweep(dir);
	return (size_t)snprintf(ret, PATH_MAX_BYTES, "%s/" PREFIX "%d", dir, getpid()) < PATH_MAX_BYTES &&
	       (mkdir(ret, 0755) == 0 || errno == EEXIST);
}

static bool open_v1(enum controller c)
{
	char dir[PATH_MAX_BYTES - 64];

	if (!pb_cgroup_own_dir(controller_name[c], dir, sizeof(dir)))
		return false;
	if (!make_parent(dir, own.parent[c])) {
		own.parent[c][0] = '\0';
		pb_layer_off(layer_name[c], "%s", strerror(errno));
		return true;
	}
	pb_layer_on(layer_name[c], "version 1");
	return true;
}

/* Nobody but the broker (our parent) and this process is in the group: then it may be made a parent. */
static bool alone_in(const char *dir)
{
	char path[PATH_MAX_BYTES + 64];
	bool alone = true;
	FILE *f;
	int pid;

	snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
	f = fopen(path, "re");
	while (f && fscanf(f, "%d", &pid) == 1)
		alone &= pid == getpid() || pid == getppid();
	if (f)
		fclose(f);
	return f && alone;
}

/* A group with processes gives no controllers to groups below it: move into a leaf of our own. */
static bool move_to_leaf(const char *dir, const char *parent)
{
	char leaf[PATH_MAX_BYTES + 16];

	if (!alone_in(dir))
		return false;
	snprintf(leaf, sizeof(leaf), "%s/broker", parent);
	if (mkdir(leaf, 0755) != 0 || !pb_cgroup_put_number(leaf, "cgroup.procs", (unsigned)getppid()) ||
	    !pb_cgroup_put_number(leaf, "cgroup.procs", (unsigned)getpid()))
		return false;
	snprintf(own.home, sizeof(own.home), "%s", dir);
	return true;
}

static void leave_leaf(const char *parent)
{
	char leaf[PATH_MAX_BYTES + 16];

	if (!own.home[0])
		return;
	(void)pb_cgroup_put(own.home, "cgroup.subtree_control", "-memory -pids");
	(void)pb_cgroup_put(own.home, "cgroup.subtree_control", "-cpu");
	snprintf(leaf, sizeof(leaf), "%s/broker", parent);
	(void)pb_cgroup_put_number(own.home, "cgroup.procs", (unsigned)getpid());
	pb_cgroup_remove(leaf);
	own.home[0] = '\0';
}

static void open_v2(void)
{
	static const char want[] = "+memory +pids", cpu[] = "+cpu";
	char dir[PATH_MAX_BYTES - 64], *parent = own.parent[MEMORY];
	bool ok;

	if (!pb_cgroup_own_dir("", dir, sizeof(dir))) {
		pb_layer_off(layer_name[MEMORY], "no control groups");
		pb_layer_off(layer_name[PIDS], "no control groups");
		return;
	}
	ok = make_parent(dir, parent) &&
	     (pb_cgroup_put(dir, "cgroup.subtree_control", want) ||
	      (errno == EBUSY && move_to_leaf(dir, parent) && pb_cgroup_put(dir, "cgroup.subtree_control", want))) &&
	     pb_cgroup_put(parent, "cgroup.subtree_control", want);
	if (!ok) {
		pb_layer_off(layer_name[MEMORY], "version 2: %s", strerror(errno));
		pb_layer_off(layer_name[PIDS], "version 2: %s", strerror(errno));
		leave_leaf(parent);
		(void)rmdir(parent);
		parent[0] = '\0';
		return;
	}
	own.v2 = true;
	memcpy(own.parent[PIDS], parent, PATH_MAX_BYTES);
	if (pb_cgroup_put(dir, "cgroup.subtree_control", cpu) && pb_cgroup_put(parent, "cgroup.subtree_control", cpu))
		memcpy(own.cpu_parent, parent, PATH_MAX_BYTES);
	pb_layer_on(layer_name[MEMORY], "version 2");
	pb_layer_on(layer_name[PIDS], "version 2");
}

static void open_cpu_v1(void)
{
	char dir[PATH_MAX_BYTES - 64];

	if (!pb_cgroup_own_dir("cpu", dir, sizeof(dir)))
		errno = ENOENT;
	else if (make_parent(dir, own.cpu_parent))
		return;
	own.cpu_parent[0] = '\0';
}

void pb_cgroup_open(void)
{
	bool memory, pids;

	if (pb_test_layer_off("cgroups"))
		return;
	memory = open_v1(MEMORY);
	pids = open_v1(PIDS);
	if (!memory && !pids)
		open_v2();
	else if (!memory || !pids)
		pb_layer_off(layer_name[memory ? PIDS : MEMORY], "no such controller");
	if (!own.v2)
		open_cpu_v1();
	if (own.cpu_parent[0])
		pb_layer_on("cpu cgroup", "version %d, shared out between tenants", own.v2 ? 2 : 1);
	else
		pb_layer_off("cpu cgroup", "%s", strerror(errno));
}

bool pb_cgroup_shares_cpu(void)
{
	return own.cpu_parent[0];
}

void pb_cgroup_expect(void)
{
	/* Any write to cgroup.procs takes a lock that makes the kernel wait for all CPUs (an RCU grace period), and that stays
	 * cheap to take for about as long again. */
	if (!own.parent[MEMORY][0] && !own.parent[PIDS][0])
		return;
	if (fork() == 0) {
		(void)pb_cgroup_put(own.parent[own.parent[MEMORY][0] ? MEMORY : PIDS], "cgroup.procs", "0");
		_exit(0);
	}
}

void pb_cgroup_close(void)
{
	pb_cgroup_tenants_close();
	if (!own.v2)
		pb_cgroup_remove(own.cpu_parent);
	own.cpu_parent[0] = '\0';
	for (int c = 0; c < N_CONTROLLERS; c++) {
		if (own.v2)
			leave_leaf(own.parent[c]);
		pb_cgroup_remove(own.parent[c]);
		own.parent[c][0] = '\0';
	}
	own.v2 = false;
}

/* ---- groups ---- */

static bool set_limit(enum controller c, const char *dir, const struct pb_cgroup_limits *l)
{
	if (c == PIDS)
		return !l->pids || pb_cgroup_put_number(dir, "pids.max", l->pids);
	if (!l->memory_bytes)
		return true;
	if (!pb_cgroup_put_number(dir, own.v2 ? "memory.max" : "memory.limit_in_bytes", l->memory_bytes))
		return false;
	/* Swap is no way around it; kernels without swap accounting have no such file. */
	if (own.v2)
		(void)pb_cgroup_put(dir, "memory.swap.max", "0");
	else
		(void)pb_cgroup_put_number(dir, "memory.memsw.limit_in_bytes", l->memory_bytes);
	return true;
}

/* @parent: of version 2, where the tenant's group is above the child's. */
static bool join(struct pb_cgroup *g, enum controller c, const char *parent, uint32_t id, const struct pb_cgroup_limits *l,
		 pid_t pid)
{
	char *dir = g->dir[c];

	if (!parent)
		parent = own.parent[c];
	if (!parent[0] ||
	    (size_t)snprintf(dir, PATH_MAX_BYTES, "%s/%u", parent, id) >= PATH_MAX_BYTES ||
	    (mkdir(dir, 0755) != 0 && errno != EEXIST)) {
		dir[0] = '\0';
		return false;
	}
	if (set_limit(c, dir, l) && pb_cgroup_put_number(dir, "cgroup.procs", (unsigned)pid))
		return true;
	pb_cgroup_remove(dir);
	dir[0] = '\0';
	return false;
}

struct pb_cgroup *pb_cgroup_new(uint32_t id, const struct pb_cgroup_limits *l, pid_t pid)
{
	const char *tenant = NULL;
	struct pb_cgroup *g;
	bool any = false;

	if ((!own.parent[MEMORY][0] && !own.parent[PIDS][0] && !own.cpu_parent[0]) ||
	    (!l->memory_bytes && !l->pids && !l->tenant))
		return NULL;
	g = calloc(1, sizeof(*g));
	if (!g)
		return NULL;
	if (l->tenant && own.cpu_parent[0])
		tenant = pb_cgroup_tenant_get(own.cpu_parent, own.v2, l);
	if (tenant)
		g->tenant = l->tenant;
	if (tenant && !own.v2)
		any = pb_cgroup_put_number(tenant, "cgroup.procs", (unsigned)pid);
	for (int c = 0; c < N_CONTROLLERS; c++)
		any |= join(g, c, own.v2 ? tenant : NULL, id, l, pid);
	return any ? g : pb_cgroup_free(g);
}

int pb_cgroup_oom_file(const struct pb_cgroup *g)
{
	char path[PATH_MAX_BYTES + 64];

	if (!g || !g->dir[MEMORY][0])
		return -1;
	snprintf(path, sizeof(path), "%s/%s", g->dir[MEMORY], own.v2 ? "memory.events" : "memory.oom_control");
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* A line "oom_kill N" in either version. */
uint32_t pb_cgroup_oom_kills_in(int fd)
{
	char text[512];
	ssize_t n = fd < 0 ? 0 : pread(fd, text, sizeof(text) - 1, 0);
	const char *at;
	unsigned kills = 0;

	text[n > 0 ? n : 0] = '\0';
	at = strstr(text, "oom_kill ");
	if (at)
		(void)sscanf(at, "oom_kill %u", &kills);
	return kills;
}

uint32_t pb_cgroup_oom_kills(const struct pb_cgroup *g)
{
	int fd = pb_cgroup_oom_file(g);
	uint32_t kills = pb_cgroup_oom_kills_in(fd);

	if (fd >= 0)
		close(fd);
	return kills;
}

struct pb_cgroup *pb_cgroup_free(struct pb_cgroup *g)
{
	for (int c = 0; g && c < N_CONTROLLERS; c++)
		pb_cgroup_remove(g->dir[c]);
	if (g && g->tenant)
		pb_cgroup_tenant_put(g->tenant);
	free(g);
	return NULL;
}
