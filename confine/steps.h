/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The steps that roles are made of. Internal to confine/. A step that returns a status is required: it is in force, or
 * the status is LAYER_MISSING. A step without one is optional. Either is recorded in layers.h.
 */
#ifndef PT2BOX_CONFINE_STEPS_H
#define PT2BOX_CONFINE_STEPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "ipc/status.h"

/* ---- process.c ---- */
/* Only one thread is left; threads that are ending get a moment. Needs /proc. */
PB_CHECK pb_status pb_step_one_thread(struct pt2box_error *err);
/* Dies with its parent, cannot be attached to, gains nothing by exec. After the last change of uid, which undoes it. */
PB_CHECK pb_status pb_step_sealed_process(struct pt2box_error *err);
/* A session keyring of its own, so that none is inherited. */
void pb_step_keyring(void);
/* First to go when memory runs out. Needs /proc. */
void pb_step_oom_score(void);
/* Memory that was ever writable never becomes executable. */
void pb_step_no_exec_gain(void);

/* ---- namespaces.c ---- */
/* Namespaces of this process and its later children: network, IPC, UTS; and a user namespace unless there are rights. */
PB_CHECK pb_status pb_step_spawner_namespaces(struct pt2box_error *err);
void pb_step_cgroup_namespace(void);
/* The pid and network namespaces that the spawner gave are what they should be. Needs /proc. */
PB_CHECK pb_status pb_step_check_namespaces(struct pt2box_error *err);
/* An empty read-only directory becomes / for every process of this mount namespace. */
PB_CHECK pb_status pb_step_empty_root(struct pt2box_error *err);

/* ---- identity.c ---- */
/* Ids (0: keep), no groups, no capabilities now or after exec. */
PB_CHECK pb_status pb_step_identity(uint32_t uid, uint32_t gid, struct pt2box_error *err);
/* The same in the broker, which may be anybody: @uid if it is root and may change, else its own, and no capabilities. */
PB_CHECK pb_status pb_step_no_rights(uint32_t uid, struct pt2box_error *err);
/* In the spawner with root's rights: drop the capabilities it never uses. */
void pb_step_spawner_capabilities(void);

/* ---- limits.c ---- */
struct pb_limits {
	uint64_t data_bytes; /* private writable memory; 0: none */
	uint64_t file_bytes; /* largest file it may write */
	uint32_t files;	     /* highest descriptor and one */
	uint32_t tasks;	     /* processes and threads of its uid */
};
PB_CHECK pb_status pb_step_limits(const struct pb_limits *l, struct pt2box_error *err);

/* ---- landlock.c ---- */
/* Deny all that this kernel's Landlock knows. @signals: may still signal processes outside the domain (the warden). */
void pb_step_landlock(bool signals);
/* The same for the broker, which reads /proc, and opens /dev/null. */
void pb_step_landlock_broker(void);

/* ---- filter.c ---- */
/* @ret_listener (may be NULL) receives the listener. @all_threads: also of threads that should not be there. */
PB_CHECK pb_status pb_step_filter(const char *layer, const char *policy, bool all_threads, int *ret_listener,
				  struct pt2box_error *err);

/* Send the listener to the warden. */
PB_CHECK pb_status pb_filter_send_listener(int sock, int listener, struct pt2box_error *err);

#endif
