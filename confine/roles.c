/* SPDX-License-Identifier: Apache-2.0 */
/* What each role puts on, in order. See confine.h; the reasons for the order are in docs/ARCHITECTURE.md. */
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "confine/confine.h"
#include "confine/layers.h"
#include "confine/steps.h"
#include "ipc/fdmap.h"

/* Descriptors of a worker are few: its fixed ones, and what a message carries until it is mapped. */
#define WORKER_FILES 32
#define WARDEN_DATA_BYTES (64ull << 20)
/* Intake writes a model and its constants; the broker bounds the package at 16 GiB, inflated entries add to it. */
#define INTAKE_FILE_BYTES (64ull << 30)
/* A user namespace has one id for all models, so its limit only keeps the machine alive. */
#define SHARED_ID_TASKS 4096

pb_status pb_confine_broker(uint32_t uid, struct pt2box_error *err)
{
	const struct rlimit none = {0, 0};
	pb_status st = pb_step_no_rights(uid, err);

	if (st)
		return st;
	if (setrlimit(RLIMIT_CORE, &none) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
	    prctl(PR_SET_DUMPABLE, 0) != 0)
		return pb_layer_failed(err, "no_new_privs", "the broker's limits");
	return PT2BOX_OK;
}

pb_status pb_confine_broker_closed(struct pt2box_error *err)
{
	pb_layer_on("no_new_privs", "exec gives no rights");
	pb_step_landlock_broker();
	return pb_step_filter("filter", "broker", true, NULL, err);
}

pb_status pb_confine_spawner(struct pt2box_error *err)
{
	bool rights = pb_confine_has_rights();
	pb_status st;

	/* Before the user namespace, which would hide whose the groups are. */
	pb_cgroup_open();
	pb_cgroup_expect();
	st = pb_step_spawner_namespaces(err);
	if (st)
		return st;
	if (rights)
		pb_step_spawner_capabilities();
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return pb_layer_failed(err, "no_new_privs", "prctl");
	pb_layer_on("no_new_privs", "also for everything that is started");
	return pb_step_filter("spawner's filter", "spawner", true, NULL, err);
}

void pb_confine_first(void)
{
	pb_step_cgroup_namespace();
	pb_step_oom_score();
	pb_step_keyring();
}

/* The walls that every role has, in the order that each needs the rights of: root, limits, ids, the rest. */
static pb_status walls(const struct pb_confine_spec *s, const struct pb_limits *l, bool own_root, struct pt2box_error *err)
{
	pb_status st = own_root ? pb_step_empty_root(err) : PT2BOX_OK;

	if (!st)
		st = pb_step_limits(l, err);
	if (!st)
		st = pb_step_identity(s->uid, s->gid, err);
	if (!st)
		st = pb_step_sealed_process(err);
	return st;
}

/* A process that was started with exactly @fds and forks nothing: all that there is, up to the filter @policy. */
static pb_status confine_alone(const struct pb_confine_spec *s, const int *fds, size_t n_fds, const struct pb_limits *l,
			       const char *layer, const char *policy, struct pt2box_error *err)
{
	pb_status st = pb_confine_fds(fds, n_fds, err);

	if (!st)
		st = pb_step_one_thread(err);
	if (!st)
		st = pb_step_check_namespaces(err);
	if (st)
		return st;
	pb_confine_first();
	st = walls(s, l, true, err);
	if (st)
		return st;
	pb_step_no_exec_gain();
	pb_step_landlock(false);
	return pb_step_filter(layer, policy, false, NULL, err);
}

pb_status pb_confine_intake(const struct pb_confine_spec *s, struct pt2box_error *err)
{
	/* Of a package; its other jobs have the same numbers or fewer. */
	static const int fds[] = {0, 1, PB_FD_STDERR, PB_FD_RESULT, PB_FD_PACKAGE, PB_FD_OUT_MODEL, PB_FD_OUT_CONSTANTS,
				  PB_FD_OUT_MANIFEST, PB_FD_CONSTANTS_FILE};
	const struct pb_limits l = {.data_bytes = s->memory_bytes,
				    .file_bytes = INTAKE_FILE_BYTES,
				    .files = WORKER_FILES,
				    .tasks = s->uid ? 2 : SHARED_ID_TASKS};

	return confine_alone(s, fds, sizeof(fds) / sizeof(fds[0]), &l, "filter", "intake", err);
}

pb_status pb_confine_ops(const struct pb_confine_spec *s, struct pt2box_error *err)
{
	static const int fds[] = {0, 1, PB_FD_STDERR, PB_FD_OPS_CTL, PB_FD_OPS_MANIFEST, PB_FD_OPS_BOARD, PB_FD_OPS_COPY,
				  PB_FD_OPS_NAMES};
	const struct pb_limits l = {.data_bytes = s->memory_bytes,
				    .files = WORKER_FILES,
				    .tasks = s->uid ? 2 : SHARED_ID_TASKS};

	return confine_alone(s, fds, sizeof(fds) / sizeof(fds[0]), &l, "load filter",
			     s->torch ? "ops-load-torch" : "ops-load", err);
}

pb_status pb_confine_ops_run(const struct pb_confine_spec *s, struct pt2box_error *err)
{
	return pb_step_filter("run filter", s->torch ? "ops-torch" : "ops", true, NULL, err);
}

pb_status pb_confine_ops_python(const struct pb_confine_spec *s, struct pt2box_error *err)
{
	static const int fds[] = {0, 1, PB_FD_STDERR, PB_FD_OPS_CTL};
	const struct pb_limits l = {.data_bytes = s->memory_bytes,
				    .files = WORKER_FILES,
				    .tasks = s->uid ? 2 : SHARED_ID_TASKS};

	return confine_alone(s, fds, sizeof(fds) / sizeof(fds[0]), &l, "filter", "ops-python", err);
}

pb_status pb_confine_warden(const struct pb_confine_spec *s, struct pt2box_error *err)
{
	/* The warden starts nobody: the template was there before this. */
	const struct pb_limits l = {.data_bytes = WARDEN_DATA_BYTES, .files = WORKER_FILES, .tasks = 0};
	pb_status st = walls(s, &l, false, err);

	if (st)
		return st;
	pb_step_no_exec_gain();
	pb_step_landlock(true); /* it must reach the template, which has another domain */
	return pb_step_filter("filter", "warden", false, NULL, err);
}

/* oneDNN, inside PyTorch's library, makes machine code as it runs. */
static bool compiles(const struct pb_confine_spec *s)
{
	return s->torch && !s->strict;
}

pb_status pb_confine_template(const struct pb_confine_spec *s, struct pt2box_error *err)
{
	static const int fds[] = {0, 1, PB_FD_STDERR, PB_FD_TEMPLATE_CTL, PB_FD_WARDEN_LINK, PB_FD_MODEL,
				  PB_FD_CONSTANTS, PB_FD_MANIFEST};
	const struct pb_limits l = {.data_bytes = s->memory_bytes,
				    .files = WORKER_FILES,
				    .tasks = s->uid ? s->tasks : SHARED_ID_TASKS};
	int listener;
	pb_status st = pb_step_one_thread(err); /* first: a thread that ends still opens the unwinder's library */

	if (!st)
		st = pb_confine_fds(fds, sizeof(fds) / sizeof(fds[0]), err);
	if (!st)
		st = pb_step_check_namespaces(err);
	if (!st)
		st = walls(s, &l, true, err);
	if (st)
		return st;
	if (compiles(s))
		pb_layer_off("no executable memory gained", "backend torch compiles kernels; profile strict does without");
	else
		pb_step_no_exec_gain();
	pb_step_landlock(false);
	st = pb_step_filter("load filter", s->explain ? "worker-explain" : pb_confine_load_policy(s), false, &listener, err);
	if (st)
		return st;
	st = pb_filter_send_listener(s->link_fd, listener, err);
	close(listener);
	return st;
}

const char *pb_confine_load_policy(const struct pb_confine_spec *s)
{
	return !s->torch ? "worker-load" : s->strict ? "worker-load-torch-strict" : "worker-load-torch";
}

const char *pb_confine_run_policy(const struct pb_confine_spec *s)
{
	if (s->torch)
		return s->strict ? "worker-run-torch-strict" : "worker-run-torch";
	return s->strict ? "worker-run-strict" : "worker-run";
}

const char *pb_confine_steady_policy(const struct pb_confine_spec *s)
{
	if (s->torch)
		return s->strict ? "worker-steady-torch-strict" : "worker-steady-torch";
	/* libgomp ends and restarts threads when teams of several sizes above two follow each other. */
	return s->strict && s->threads <= 2 ? "worker-steady-strict" : "worker-steady";
}

pb_status pb_confine_run(const struct pb_confine_spec *s, struct pt2box_error *err)
{
	if (s->explain) {
		pb_layer_on("run filter", "%s, asked by the warden (explain)", pb_confine_run_policy(s));
		return PT2BOX_OK;
	}
	/* One thread was left before the load filter, and nothing since could start one; all the same, all of them. */
	return pb_step_filter("run filter", pb_confine_run_policy(s), true, NULL, err);
}

pb_status pb_confine_steady(const struct pb_confine_spec *s, struct pt2box_error *err)
{
	if (s->explain)
		return PT2BOX_OK; /* the warden asks this policy too */
	return pb_step_filter("steady filter", pb_confine_steady_policy(s), false, NULL, err);
}
