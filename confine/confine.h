/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Confinement: what the kernel is asked to enforce, in the order that docs/ARCHITECTURE.md gives. Each role has one
 * function that closes its sandbox; the small steps are static. Every step is recorded as a layer, on or not, so that
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
	uint32_t threads;
	bool strict; /* profile strict: no executable memory after loading, fewer calls */
	bool explain;
	int link_fd; /* template: where the listener of the load filter goes */
};

/* ---- spawner ---- */
/* Rights and empty namespaces for all that will be started. Root: IPC, UTS, network. Otherwise a user namespace too. */
PB_CHECK pb_status pb_confine_spawner(struct pt2box_error *err);

/* ---- roles; each ends with its filter in force ---- */
PB_CHECK pb_status pb_confine_intake(const struct pb_confine_spec *s, struct pt2box_error *err);
/* Needs the mount namespace that the template empties: call it any time. */
PB_CHECK pb_status pb_confine_warden(const struct pb_confine_spec *s, struct pt2box_error *err);
/* Everything up to the load filter; its listener is sent over s->link_fd. One thread may be left. */
PB_CHECK pb_status pb_confine_template(const struct pb_confine_spec *s, struct pt2box_error *err);
/* The run filter: after it, and not before, may the model's code run. */
PB_CHECK pb_status pb_confine_run(const struct pb_confine_spec *s, struct pt2box_error *err);
/* Hygiene in a worker that serves: hostile code has run before it. */
PB_CHECK pb_status pb_confine_steady(const struct pb_confine_spec *s, struct pt2box_error *err);

/* The listener that a template sent; -1 if it did not come. */
int pb_confine_receive_listener(int sock);
/* Name a denied call, its arguments and the policy it fell through. */
void pb_confine_explain(const struct seccomp_data *d, char *dst, size_t cap);

/* ---- reports: lines "name\tstate\tdetail\n"; malloc'd ---- */
/* Steps taken by this process so far. */
char *pb_confine_report_text(void);
/* What this machine can enforce, tried in a child. */
char *pb_confine_probe_text(void);

/* ---- control groups, where there are rights to them ---- */
struct pb_cgroup;
struct pb_cgroup_limits {
	uint64_t memory_bytes; /* 0: none */
	uint32_t pids;	       /* 0: none */
};
/* A group for one child, which joins it. NULL where there are no control groups: not an error. */
struct pb_cgroup *pb_cgroup_new(uint32_t id, const struct pb_cgroup_limits *l, pid_t pid);
/* Kills for memory in it. */
uint32_t pb_cgroup_oom_kills(const struct pb_cgroup *c);
/* Remove it; its processes must be gone. Accepts NULL, returns NULL. */
struct pb_cgroup *pb_cgroup_free(struct pb_cgroup *c);
/* Remove the parent of all groups of this process. */
void pb_cgroup_close(void);

#endif
