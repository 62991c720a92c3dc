/* SPDX-License-Identifier: Apache-2.0 */
/* From a client's file to a model that can be started: who may load what, intake, the backend, memory that is shared. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "broker/broker.h"
#include "ipc/checked.h"
#include "ipc/file_system.h"
#include "ipc/manifest.h"

#define TEAM_MAX 1024
#define WAIT_CONSTANTS_NS (60ull * 1000000000u)
#define ASK_AGAIN_NS 2000000u
#define OPS_FILES 3	/* of an ops process, besides two a worker */
#define MODEL_FILES 16 /* of a model in the broker, besides one a worker */

/* ---- intake ---- */

static void intake_done(struct pb_broker *b, struct pb_model_rec *m, void *object, const struct pt2box_error *result);

static pb_status start_intake(struct pb_broker *b, struct pb_model_rec *m, struct pt2box_error *err)
{
	struct pb_msg_spawn_intake s = {.inspect = m->brief ? 2 : m->inspect_only, .max_bytes = PB_PACKAGE_BYTES_MAX};
	int fds[5];
	pb_status st;

	if (pb_memfd_unsealed("pt2box-model", &m->out_model, err) ||
	    pb_memfd_unsealed("pt2box-constants", &m->out_constants, err) ||
	    pb_memfd_unsealed("pt2box-manifest", &m->out_manifest, err))
		return PT2BOX_SYSTEM;
	snprintf(s.model, sizeof(s.model), "%s", m->opt.model);
	fds[0] = m->package_fd;
	fds[1] = m->out_model;
	fds[2] = m->out_constants;
	fds[3] = m->out_manifest;
	fds[4] = m->constants_fd;
	st = pb_job_start(b, m, PB_MSG_spawn_intake, &s, fds, m->constants_fd >= 0 ? 5 : 4,
			  "the package could not be read", intake_done, NULL, &m->job, err);
	if (!st)
		m->state = PB_M_INTAKE;
	return st;
}

/* Who asks for many starts at once waits for its own, and nobody else does. */
static pb_status start_in_turn(struct pb_broker *b, struct pb_model_rec *m, struct pt2box_error *err)
{
	if (pb_is_turn(b, m->uid, m->brief))
		return start_intake(b, m, err);
	m->state = PB_M_WAIT_TURN;
	m->deadline_ns = pb_now_ns() + ASK_AGAIN_NS;
	return PT2BOX_OK;
}

uint64_t pb_load_tick(struct pb_broker *b, struct pb_model_rec *m, uint64_t now)
{
	struct pt2box_error e = {.status = PT2BOX_OK};

	if (now >= m->deadline_ns && start_in_turn(b, m, &e)) {
		pb_model_load_failed(b, m, &e);
		return UINT64_MAX;
	}
	return m->state == PB_M_WAIT_TURN ? m->deadline_ns : UINT64_MAX;
}

/* The backend; and the plugin's part in it. One that nobody calls is not looked at. */
static pb_status choose_backend(struct pb_broker *b, struct pb_model_rec *m, const struct pb_manifest *mf,
				struct pt2box_error *err)
{
	pb_status st;

	if (!pb_calls_others(mf))
		pb_ops_free(b, m);
	st = pb_choose_backend(m->opt.backend, mf, m->ops != NULL, &b->config.torch, m->backend, err);
	if (!st && m->ops && strcmp(m->backend, "native") != 0)
		st = pb_error_set(err, PT2BOX_UNSUPPORTED,
				  "the package would run on backend torch, which takes no plugin (--ops) in this version");
	return st;
}

/* ---- memory ---- */

static pb_status seal_manifest(struct pb_model_rec *m, struct pt2box_error *err)
{
	int ro = -1;
	pb_status st = pb_memfd_seal(m->out_manifest, err);

	if (!st)
		st = pb_fd_readonly(m->out_manifest, &ro, err);
	if (st)
		return st;
	close(m->out_manifest);
	m->out_manifest = ro;
	return PT2BOX_OK;
}

/* The bytes of the package, by what it says of itself. */
static void set_code_key(struct pb_memory *code, const struct pb_manifest *mf)
{
	_Static_assert(sizeof(code->key) == sizeof(mf->so_sha256) + sizeof(mf->pkg_sha256), "key of code");
	memcpy(code->key, mf->so_sha256, sizeof(mf->so_sha256));
	memcpy(code->key + sizeof(mf->so_sha256), mf->pkg_sha256, sizeof(mf->pkg_sha256));
	code->has_key = true;
}

static void note_why_fixed(struct pb_model_rec *m, const struct pb_manifest *mf)
{
	const char *why = "";

	if (mf->const_source == PB_CONSTS_NONE)
		why = "the model has no constants";
	else if (mf->n_constants == 0 || mf->const_bytes == 0)
		why = "the package does not describe its constants, so they cannot be changed or read";
	else if (m->own_constants &&
		 !pb_span_fits(m->active.offset, mf->const_bytes, m->code->bytes))
		why = "the constants do not lie where the package says";
	snprintf(m->why_fixed, sizeof(m->why_fixed), "%s", why);
	m->const_bytes = mf->const_bytes;
	m->n_constants = mf->n_constants;
}

static pb_status take_memory(struct pb_broker *b, struct pb_model_rec *m, const struct pb_manifest *mf,
			     const char *result_text, struct pt2box_error *err)
{
	struct pb_memory *constants = NULL;
	pb_status st = pb_memory_new(b, m->uid, PB_MEM_CODE, &m->out_model, &m->code, err);

	if (!st)
		st = pb_memory_new(b, m->uid, PB_MEM_CONSTANTS, &m->out_constants, &constants, err);
	if (st)
		return st;
	set_code_key(m->code, mf);
	if (constants->bytes) {
		pb_memory_set_key_text(constants, result_text);
		pb_buffer_set(b, &m->active, constants, 0);
	} else {
		pb_memory_unref(b, constants);
		m->own_constants = mf->const_source != PB_CONSTS_NONE;
		if (m->own_constants)
			pb_buffer_set(b, &m->active, pb_memory_ref(m->code), mf->const_file_offset);
	}
	note_why_fixed(m, mf);
	return PT2BOX_OK;
}

void pb_load_continue(struct pb_broker *b, struct pb_model_rec *m)
{
	struct pt2box_error e = {.status = PT2BOX_OK};

	if (pb_template_start(b, m, &e))
		pb_model_load_failed(b, m, &e);
}

/* First whatever can refuse the package for want of an operator. */
static void start_processes(struct pb_broker *b, struct pb_model_rec *m)
{
	struct pt2box_error e = {.status = PT2BOX_OK};

	if (!m->ops) {
		pb_load_continue(b, m);
		return;
	}
	m->state = PB_M_OPS;
	if (pb_ops_start(b, m, &e))
		pb_model_load_failed(b, m, &e);
}

/* The two comparisons end in any order. */
static void shared(struct pb_broker *b, struct pb_model_rec *m)
{
	if (m->share[0].job || m->share[1].job)
		return;
	if (m->own_constants) /* they are where the code is now */
		pb_buffer_set(b, &m->active, pb_memory_ref(m->code), m->active.offset);
	start_processes(b, m);
}

static void share_or_start(struct pb_broker *b, struct pb_model_rec *m)
{
	bool any = false;

	if (pb_share_begin(b, m, &m->share[0], &m->code, shared))
		any = true;
	if (!m->own_constants && pb_share_begin(b, m, &m->share[1], &m->active.memory, shared))
		any = true;
	if (any)
		m->state = PB_M_SHARING;
	else
		start_processes(b, m);
}

/* ---- what intake found ---- */

static void take_facts(struct pb_broker *b, struct pb_model_rec *m, const struct pb_manifest *mf)
{
	m->stateful = mf->mutates;
	m->copy_inputs = m->stateful; /* a repeat after a fault would count twice */
	m->n_workers = m->stateful ? 1 : (uint32_t)m->opt.runners;
	m->run_deadline_ms = pb_deadline_of(m->opt.run_deadline_ms, b->config.run_deadline_ms);
	m->team = mf->openmp_threads < TEAM_MAX ? mf->openmp_threads : TEAM_MAX;
	m->lapack = mf->needs_lapack;
	snprintf(m->model_name, sizeof(m->model_name), "%s", mf->model_name);
	pb_workers_init(m);
}

static pb_status read_manifest(struct pb_model_rec *m, struct pb_manifest **ret, struct pt2box_error *err)
{
	pb_status st = seal_manifest(m, err);

	return st ? st : pb_manifest_read(m->out_manifest, ret, err);
}

static void intake_done(struct pb_broker *b, struct pb_model_rec *m, void *object, const struct pt2box_error *result)
{
	struct pt2box_error e = *result;
	struct pb_msg_inspected r = {.request = m->request};
	struct pb_manifest *mf = NULL;
	pb_status st = result->status;

	(void)object;
	m->job = NULL;
	if (!st)
		st = read_manifest(m, &mf, &e);
	pb_close_fd(&m->package_fd);
	pb_close_fd(&m->constants_fd);
	if (!st && m->inspect_only) {
		pb_manifest_free(mf);
		pb_client_send(m->client, PB_MSG_inspected, &r, &m->out_manifest, 1);
		pb_model_end(b, m);
		return;
	}
	if (!st)
		st = choose_backend(b, m, mf, &e);
	if (!st)
		st = take_memory(b, m, mf, result->text, &e);
	if (!st)
		take_facts(b, m, mf);
	/* A few kilobytes of package become 100 MB of it: not kept. */
	pb_manifest_free(mf);
	if (st)
		pb_model_load_failed(b, m, &e);
	else
		share_or_start(b, m);
}

/* ---- requests ---- */

pb_status pb_check_file(const struct pb_broker *b, int fd, const char *what, struct pt2box_error *err)
{
	struct statfs fs;
	struct stat sb;
	int flags = fcntl(fd, F_GETFL);

	/*
	 * Answered by the kernel where the file system is not ours to use; no other question is. The broker, the spawner
	 * and intake would wait for it for ever.
	 */
	if (b->config.embedded_fd < 0 && (fstatfs(fd, &fs) != 0 || pb_file_system_may_wait(&fs)))
		return pb_error_set(err, PT2BOX_BAD_FD,
				    "%s lies on a file system that a program may serve (FUSE, overlay, proc): copy it", what);
	if (fstat(fd, &sb) != 0 || flags < 0)
		return pb_error_sys(err, "%s", what);
	if (S_ISDIR(sb.st_mode))
		return pb_error_set(err, PT2BOX_BAD_FD, "%s is a directory: pack it into one .pt2 file", what);
	if (!S_ISREG(sb.st_mode))
		return pb_error_set(err, PT2BOX_BAD_FD, "%s is not a regular file", what);
	if ((flags & O_ACCMODE) == O_WRONLY || (flags & O_PATH))
		return pb_error_set(err, PT2BOX_BAD_FD, "%s is not open for reading", what);
	return PT2BOX_OK;
}

static pb_status check_limits(struct pb_broker *b, struct pb_client *c, struct pt2box_error *err)
{
	unsigned starts, briefs;

	if (c->n_models >= PB_MODELS_PER_CLIENT)
		return pb_error_set(err, PT2BOX_LIMIT, "a connection may hold %d models", PB_MODELS_PER_CLIENT);
	if (pb_count_models(b, c->uid, &starts, &briefs) >= PB_MODELS_PER_UID)
		return pb_error_set(err, PT2BOX_LIMIT, "a user may hold %d models", PB_MODELS_PER_UID);
	return PT2BOX_OK;
}

enum purpose { TO_LOAD, TO_INSPECT, TO_INSPECT_BRIEFLY };

static void begin(struct pb_broker *b, struct pb_client *c, const struct pb_msg_load *opt, enum purpose why, int fd_take,
		  int plugin_take)
{
	PB_CLEANUP(pb_client_drop_fd) int fd = fd_take;
	PB_CLEANUP(pb_client_drop_fd) int plugin = plugin_take;
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct pb_model_rec *m;
	uint32_t files = MODEL_FILES + (uint32_t)opt->runners;

	if (plugin >= 0)
		files += OPS_FILES + 2 * (uint32_t)opt->runners;
	if (pb_check_file(b, fd, "the package", &e) || (plugin >= 0 && pb_check_file(b, plugin, "the plugin", &e)) || check_limits(b, c, &e) ||
	    pb_client_charge_files(b, c, files, &e)) {
		pb_client_fail(b, c, opt->request, &e);
		return;
	}
	m = pb_model_new(c, opt->request);
	if (!m) {
		c->files -= files;
		pb_error_set(&e, PT2BOX_NO_MEMORY, "the broker has no memory for a model");
		pb_client_fail(b, c, opt->request, &e);
		return;
	}
	m->files = files;
	m->opt = *opt;
	m->inspect_only = why != TO_LOAD;
	m->brief = why == TO_INSPECT_BRIEFLY;
	m->package_fd = pb_take_fd(&fd);
	if (plugin >= 0 && pb_ops_new(m, pb_take_fd(&plugin), &e)) {
		pb_model_load_failed(b, m, &e);
		return;
	}
	if (opt->constants) {
		m->state = PB_M_WAIT_CONSTANTS;
		m->deadline_ns = pb_now_ns() + WAIT_CONSTANTS_NS;
	} else if (start_in_turn(b, m, &e)) {
		pb_model_load_failed(b, m, &e);
	}
}

/* What the operator set is the most that a tenant gets; of an embedded broker the client is the operator. */
static bool is_too_much(const struct pb_broker *b, const struct pb_msg_load *m)
{
	return b->config.embedded_fd < 0 && m->memory_bytes > b->config.memory_bytes;
}

static bool one_of(const char *s, const char *const *list)
{
	for (; *list; list++)
		if (strcmp(s, *list) == 0)
			return true;
	return false;
}

static pb_status check_options(const struct pb_broker *b, const struct pb_msg_load *m, struct pt2box_error *err)
{
	static const char *const backends[] = {"auto", "native", "torch", NULL};
	static const char *const profiles[] = {"default", "strict", NULL};

	if (!one_of(m->backend, backends))
		return pb_error_set(err, PT2BOX_USAGE, "backend must be auto, native or torch");
	if (strcmp(m->backend, "torch") == 0 && !b->config.torch.path[0])
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "backend torch: %s", b->config.torch.text);
	if (!one_of(m->profile, profiles))
		return pb_error_set(err, PT2BOX_USAGE, "profile must be default or strict");
	if (m->runners < 1)
		return pb_error_set(err, PT2BOX_USAGE, "runners must be 1 to %d", PB_WORKERS_MAX);
	if (m->load_deadline_ms < 0 || m->run_deadline_ms < -1)
		return pb_error_set(err, PT2BOX_USAGE, "a deadline must be positive");
	if (is_too_much(b, m))
		return pb_error_set(err, PT2BOX_LIMIT, "a worker may have at most %llu bytes here",
				    (unsigned long long)b->config.memory_bytes);
	return PT2BOX_OK;
}

void pb_load(struct pb_broker *b, struct pb_client *c, const struct pb_msg_load *m, int package_fd_take,
	     int plugin_fd_take)
{
	struct pt2box_error e = {.status = PT2BOX_OK};

	if (check_options(b, m, &e)) {
		pb_client_drop_fd(&package_fd_take);
		pb_client_drop_fd(&plugin_fd_take);
		pb_client_fail(b, c, m->request, &e);
		return;
	}
	begin(b, c, m, TO_LOAD, package_fd_take, plugin_fd_take);
}

void pb_load_inspect(struct pb_broker *b, struct pb_client *c, const struct pb_msg_inspect *m, int package_fd_take)
{
	struct pb_msg_load opt = {.request = m->request, .runners = 1};

	snprintf(opt.model, sizeof(opt.model), "%s", m->model);
	begin(b, c, &opt, m->brief ? TO_INSPECT_BRIEFLY : TO_INSPECT, package_fd_take, -1);
}

void pb_load_give_constants(struct pb_broker *b, struct pb_client *c, uint64_t request, int fd_take)
{
	PB_CLEANUP(pb_client_drop_fd) int fd = fd_take;
	struct pt2box_error e = {.status = PT2BOX_OK};

	for (struct pb_model_rec *m = c->models; m; m = m->next) {
		if (m->request != request || m->state != PB_M_WAIT_CONSTANTS)
			continue;
		if (!pb_check_file(b, fd, "the constants file", &e)) {
			m->constants_fd = pb_take_fd(&fd);
			(void)!start_in_turn(b, m, &e);
		}
		if (e.status)
			pb_model_load_failed(b, m, &e);
		return;
	}
	pb_error_set(&e, PT2BOX_NOT_FOUND, "no load waits for constants");
	pb_client_fail(b, c, request, &e);
}
