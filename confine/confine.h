/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Confinement: what the kernel is asked to enforce, in the order that docs/ARCHITECTURE.md gives. Each role has one
 * function that closes its sandbox; the small steps are in steps.h. Every step is recorded as a layer, on or not, so that
 * `pt2box doctor` can say what holds. A required layer that cannot be had is an error (LAYER_MISSING), never a silence.
 */
#ifndef PT2BOX_CONFINE_CONFINE_H
#define PT2BOX_CONFINE_CONFINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "ipc/status.h"

struct seccomp_data;

/* What a process is confined to. */
struct pb_confine_spec {
	uint32_t uid, gid;     /* 0: keep (a user namespace has only one) */
	uint64_t memory_bytes; /* RLIMIT_DATA; 0: none */
	uint32_t threads;      /* of the largest team in a worker */
	uint32_t tasks;	       /* template: processes and threads of its uid */
	bool strict;	       /* profile strict: fewer calls, no thread starts while serving */
	bool torch;	       /* the backend is PyTorch's library, which needs more */
	bool explain;	       /* denied calls are put to the warden, which names them, then kills */
	int link_fd;	       /* template: where the listener of the load filter goes */
};

/* ---- broker ---- */
/* Root was needed to start the spawner; from here on nothing is. @uid: who it becomes if it is root. */
PB_CHECK pb_status pb_confine_broker(uint32_t uid, struct pt2box_error *err);

/*
 * Before the first byte of a client is read, after all that is opened once: Landlock (of files, only /proc can be read) and
 * the broker's own filter.
 */
PB_CHECK pb_status pb_confine_broker_closed(struct pt2box_error *err);

/* ---- spawner ---- */
/* Root's rights that are needed, over all ids: without them the spawner makes a user namespace with one id. */
bool pb_confine_has_rights(void);
/*
 * Rights and empty namespaces for all that will be started. Root: IPC, UTS, network. Otherwise a user namespace too. Then
 * the filter that this process and all that it starts have in common.
 */
PB_CHECK pb_status pb_confine_spawner(struct pt2box_error *err);

/* ---- roles; each ends with its filter in force ---- */
/* Nothing but @fds is open. Needs /proc: first thing in a role, before anything opens files. */
PB_CHECK pb_status pb_confine_fds(const int *fds, size_t n, struct pt2box_error *err);
/* What pid 1 of a namespace does for all of it, before it forks: needs /proc. Intake does it by itself. */
void pb_confine_first(void);
PB_CHECK pb_status pb_confine_intake(const struct pb_confine_spec *s, struct pt2box_error *err);
/*
 * An ops process, first before its plugin is linked, then before any of it runs. Between the two nothing but the name of
 * a descriptor can be opened, and memory can become executable: the linker works on gated bytes.
 */
PB_CHECK pb_status pb_confine_ops(const struct pb_confine_spec *s, struct pt2box_error *err);
PB_CHECK pb_status pb_confine_ops_run(const struct pb_confine_spec *s, struct pt2box_error *err);
/* One whose host is an interpreter: nothing is linked after it, so there is one filter. */
PB_CHECK pb_status pb_confine_ops_python(const struct pb_confine_spec *s, struct pt2box_error *err);
/* Needs no /proc: the template may have emptied the mount namespace that they share. */
PB_CHECK pb_status pb_confine_warden(const struct pb_confine_spec *s, struct pt2box_error *err);
/* Everything up to the load filter; its listener is sent over s->link_fd. One thread may be left. */
PB_CHECK pb_status pb_confine_template(const struct pb_confine_spec *s, struct pt2box_error *err);
/*
 * The run filter: after it, and not before, may the model's code run. With explain the one filter of the template covers
 * both phases, and the warden must have been told that the second one begins.
 */
PB_CHECK pb_status pb_confine_run(const struct pb_confine_spec *s, struct pt2box_error *err);
/* Hygiene in a worker that serves: hostile code has run before it. */
PB_CHECK pb_status pb_confine_steady(const struct pb_confine_spec *s, struct pt2box_error *err);
/* The policies by name, as the warden needs them to decide in explain mode. */
const char *pb_confine_load_policy(const struct pb_confine_spec *s);
const char *pb_confine_run_policy(const struct pb_confine_spec *s);
const char *pb_confine_steady_policy(const struct pb_confine_spec *s);

/* The listener that a template sent; -1 if it did not come. */
int pb_confine_receive_listener(int sock);
/* Name a denied call, its arguments and the line of the policy that it fell through. */
void pb_confine_explain(const struct seccomp_data *d, const char *policy, char *dst, size_t cap);

/* ---- reports: lines "name\tstate\tdetail\n", state "on" or "off"; malloc'd ---- */
/* Steps taken by this process so far. */
char *pb_confine_report_text(void);
/*
 * What this machine can enforce, tried in a child. Needs no privileges. @uid: that a role would be given, 0: none.
 * @in_spawner: this is a child of the spawner, which has what pb_confine_spawner() gives.
 */
char *pb_confine_probe_text(uint32_t uid, bool in_spawner);

/* ---- control groups, where there are rights to them ---- */
struct pb_cgroup;
struct pb_cgroup_limits {
	uint64_t memory_bytes; /* 0: none */
	uint32_t pids;	       /* 0: none */
	uint32_t tenant;       /* whose share of the CPU it runs on; 0: nobody's */
	uint32_t cpu_weight;   /* of all that is the tenant's; 100: as every other */
	uint32_t cpu_max;      /* likewise, percent of one CPU; 0: no maximum */
};
/* Make the parent of all groups of this process, or record why there is none. */
void pb_cgroup_open(void);
/* Tenants have shares of the CPU. */
bool pb_cgroup_shares_cpu(void);
/* A child will join a group soon: the kernel's wait for that, 10 ms after a pause, begins now, in a process of its own. */
void pb_cgroup_expect(void);
/* A group for one child, which joins it. NULL where there are no control groups: not an error. */
struct pb_cgroup *pb_cgroup_new(uint32_t id, const struct pb_cgroup_limits *l, pid_t pid);
/* Kills for memory in it. */
uint32_t pb_cgroup_oom_kills(const struct pb_cgroup *c);
/* The same from the file that pb_cgroup_oom_file() has opened: also for processes that may not open it. */
int pb_cgroup_oom_file(const struct pb_cgroup *c);
uint32_t pb_cgroup_oom_kills_in(int fd);
/* Remove it; its processes must be gone. Accepts NULL, returns NULL. */
struct pb_cgroup *pb_cgroup_free(struct pb_cgroup *c);
/* Remove the parent of all groups of this process. */
void pb_cgroup_close(void);

#endif
