/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two roles of pt2box-worker before any worker exists: the warden, pid 1 of the namespace, and the template, its
 * child. The warden holds the listener of the template's load filter: it opens the one file that the template may have,
 * and lets the template fork when, and only when, the broker asked for a worker.
 */
#ifndef PT2BOX_WORKER_ROLES_H
#define PT2BOX_WORKER_ROLES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "confine/confine.h"

struct pb_worker_options {
	const char *backend; /* "native" */
	const char *profile; /* "default" or "strict" */
	const char *runtime; /* path of the backend's library */
	uint32_t threads;
	uint32_t tasks; /* processes and threads of all its processes together */
	uint64_t memory_bytes;
	uint32_t change_seq; /* last change of the constants: the template's number to begin with */
	bool explain;
	bool ops;    /* there will be an ops process for what the backend lacks */
	bool lapack; /* the model needs it: load it with the runtime */
	uint32_t uid, gid; /* 0: keep */
};

/* What the template tells the warden over their link, besides the listener: the pid of a worker that it forked; once, with
 * PB_UNTRUSTED as worker, that the model's own code begins. */
struct pb_forked {
	uint32_t worker;
	int32_t pid;
};
#define PB_UNTRUSTED UINT32_MAX

/* @team: threads of the largest team in a worker. */
struct pb_confine_spec pb_worker_confinement(const struct pb_worker_options *o, uint32_t team);

/* Wait for children, answer the load filter, obey the broker; returns when the broker is gone or the template is. */
int pb_warden_run(const struct pb_worker_options *o, pid_t template_pid);
/* Never returns: exits, or serves. */
_Noreturn void pb_template_run(const struct pb_worker_options *o);

#endif
