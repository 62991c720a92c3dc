/* SPDX-License-Identifier: Apache-2.0 */
/* From a client's file to a model that can be started: who may load what, intake, the backend, memory that is shared. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "broker/broker.h"
#include "ipc/checked.h"
#include "ipc/manifest.h"

#define TEAM_MAX 1024
#define WAIT_CONSTANTS_NS (60ull * 1000000000u)
#define ASK_AGAIN_NS 2000000u

/* ---- intake ---- */

static void intake_done(struct pb_broker *b, struct pb_model_rec *m, void *object, const struct pt2box_error *result);

static pb_status start_intake(struct pb_broker *b, struct pb_model_rec *m, struct pt2box_error *err)
{
	struct pb_msg_spawn_intake s = {.inspect = m->brief ? 2 : m->inspect_only,
					.max_bytes = m->reserved ? m->reserved : PB_PACKAGE_BYTES_MAX};
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

static pb_status start_from_repo(struct pb_broker *b, struct pb_model_rec *m, struct pt2box_error *err);

static uint64_t file_bytes(int fd)
{
	struct stat sb;

	return fd >= 0 && fstat(fd, &sb) == 0 && sb.st_size > 0 ? (uint64_t)sb.st_size : 0;
}

/* Memory that intake may make. Descriptions are small, and what is kept for everybody is nobody's. */
static pb_status reserve(struct pb_model_rec *m, struct pt2box_error *err)
{
	if (m->inspect_only || pb_repo_keeps(m) || m->reserved)
		return PT2BOX_OK;
	return pb_tenant_reserve(m->tenant, file_bytes(m->package_fd) + file_bytes(m->constants_fd),
				 PB_PACKAGE_BYTES_MAX, &m->reserved, err);
}

/* Who asks for many starts at once waits for its own, and nobody else does. */
static pb_status start_in_turn(struct pb_broker *b, struct pb_model_rec *m, struct pt2box_error *err)
{
	pb_status st = PT2BOX_NOT_FOUND;

	if (pb_is_turn(b, m->tenant, m->brief)) {
		if (pb_repo_take(m))
			return start_from_repo(b, m, err);
		st = reserve(m, err);
		if (!st)
			return start_intake(b, m, err);
	}
	if (st != PT2BOX_NOT_FOUND)
		return st;
	m->state = PB_M_WAIT_TURN;
	m->deadline_ns = pb_now_ns() + ASK_AGAIN_NS;
	return PT2BOX_OK;
}

uint64_t pb_load_tick(struct pb_broker *b, struct pb_model_rec *m, uint64_t now)
{
	struct pt2box_error e = {.status = PT2BOX_OK};

	if (now < m->deadline_ns)
		return m->deadline_ns;
	if (start_in_turn(b, m, &e))
		pb_model_load_failed(b, m, &e);
	return now + ASK_AGAIN_NS; /* @m may be gone, one that started too: it was only to be kept */
}

/* The backend; and the plugin's part in it. One that nobody calls is not looked at. */
static pb_status choose_backend(struct pb_broker *b, struct pb_model_rec *m, const struct pb_manifest *mf,
				struct pt2box_error *err)
{
	if (!pb_calls_others(mf))
		pb_ops_free(b, m);
	return pb_choose_backend(m->opt.backend, mf, m->ops != NULL, &b->config.torch, m->backend, err);
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
	struct pb_tenant *owner = pb_repo_keeps(m) ? NULL : m->tenant;
	struct pb_memory *constants = NULL;
	pb_status st = pb_memory_new(b, owner, PB_MEM_CODE, &m->out_model, &m->code, err);

	if (!st)
		st = pb_memory_new(b, owner, PB_MEM_CONSTANTS, &m->out_constants, &constants, err);
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

	pb_repo_keep(m);
	if (m->preload) {
		pb_log(b, "model %s of the repository is ready", m->repo->conf->name);
		pb_model_end(b, m);
		return;
	}
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
	m->stateful = mf->mutates && !m->opt.isolate;
	m->copy_inputs = m->stateful; /* a repeat after a fault would count twice */
	m->n_workers = m->stateful ? 1 : (uint32_t)m->opt.runners;
	m->run_deadline_ms = pb_deadline_of(m->opt.run_deadline_ms, b->config.run_deadline_ms);
	m->team = mf->openmp_threads < TEAM_MAX ? mf->openmp_threads : TEAM_MAX;
	m->lapack = mf->needs_lapack;
	snprintf(m->model_name, sizeof(m->model_name), "%s", mf->model_name);
	pb_admit_lower(m->tenant, &m->charges, m->n_workers, m->ops != NULL);
	pb_workers_init(m);
}

static pb_status read_manifest(struct pb_model_rec *m, struct pb_manifest **ret, struct pt2box_error *err)
{
	pb_status st = seal_manifest(m, err);

	if (!st)
		st = pb_tenant_charge(m->tenant, PB_LIMIT_CONSTANTS, file_bytes(m->out_manifest), err);
	if (st)
		return st;
	m->manifest_bytes = file_bytes(m->out_manifest);
	return pb_manifest_read(m->out_manifest, ret, err);
}

static void intake_done(struct pb_broker *b, struct pb_model_rec *m, void *object, const struct pt2box_error *result)
{
	struct pt2box_error e = *result;
	struct pb_msg_inspected r = {.request = m->request};
	struct pb_manifest *mf = NULL;
	pb_status st = result->status;

	(void)object;
	m->job = NULL;
	pb_tenant_unreserve(m->tenant, &m->reserved);
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

/* What intake has made of the same model before. */
static pb_status start_from_repo(struct pb_broker *b, struct pb_model_rec *m, struct pt2box_error *err)
{
	struct pb_manifest *mf = NULL;
	pb_status st = pb_manifest_read(m->out_manifest, &mf, err);

	pb_close_fd(&m->package_fd);
	pb_close_fd(&m->constants_fd);
	if (!st)
		st = choose_backend(b, m, mf, err);
	if (!st) {
		m->code = pb_memory_ref(m->repo->code);
		if (m->repo->constants)
			pb_buffer_set(b, &m->active, pb_memory_ref(m->repo->constants), 0);
		m->own_constants = !m->repo->constants && mf->const_source != PB_CONSTS_NONE;
		if (m->own_constants)
			pb_buffer_set(b, &m->active, pb_memory_ref(m->code), mf->const_file_offset);
		note_why_fixed(m, mf);
		take_facts(b, m, mf);
	}
	pb_manifest_free(mf);
	if (!st)
		start_processes(b, m);
	return st;
}

/* ---- requests ---- */

pb_status pb_check_file(const struct pb_broker *b, int fd, const char *what, struct pt2box_error *err)
{
	struct statx sx = {.stx_mode = 0};
	int flags = fcntl(fd, F_GETFL);
	/* What the kernel has in memory: nobody is asked. */
	bool known = statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &sx) == 0;

	if (known && S_ISDIR(sx.stx_mode))
		return pb_error_set(err, PT2BOX_BAD_FD, "%s is a directory: pack it into one .pt2 file", what);
	if (known && !S_ISREG(sx.stx_mode))
		return pb_error_set(err, PT2BOX_BAD_FD, "%s is not a regular file", what);
	/* The broker, the spawner and intake would wait for it for ever. An embedded broker is its only user's own. */
	if (b->config.embedded_fd < 0 && pb_file_may_wait(fd))
		return pb_error_set(err, PT2BOX_BAD_FD,
				    "%s lies on a file system that a program may serve (FUSE, overlay, proc): copy it", what);
	if (!known || flags < 0)
		return pb_error_sys(err, "%s", what);
	if ((flags & O_ACCMODE) == O_WRONLY || (flags & O_PATH))
		return pb_error_set(err, PT2BOX_BAD_FD, "%s is not open for reading", what);
	return PT2BOX_OK;
}

enum purpose { TO_LOAD, TO_INSPECT, TO_INSPECT_BRIEFLY, TO_PRELOAD };

/* Of a request: fds are the record's. @repo: the package is the operator's, and so may be its constants. */
static pb_status model_for(struct pb_broker *b, struct pb_client *c, const struct pb_msg_load *opt, enum purpose why,
			   struct pb_repo_model *repo, bool plugin, struct pb_model_rec **ret, struct pt2box_error *err)
{
	struct pb_charges charges;
	struct pb_model_rec *m;
	pb_status st = pb_admit_charge(b, c->tenant, opt, plugin, why == TO_LOAD, &charges, err);

	if (st)
		return st;
	m = pb_model_new(c, opt->request);
	if (!m) {
		pb_admit_discharge(c->tenant, &charges);
		return pb_error_set(err, PT2BOX_NO_MEMORY, "the broker has no memory for a model");
	}
	m->charges = charges;
	m->opt = *opt;
	m->repo = repo;
	m->inspect_only = why == TO_INSPECT || why == TO_INSPECT_BRIEFLY;
	m->brief = why == TO_INSPECT_BRIEFLY;
	m->preload = why == TO_PRELOAD;
	if (repo) {
		m->package_fd = fcntl(repo->fd, F_DUPFD_CLOEXEC, 3);
		if (repo->constants_fd >= 0 && !opt->constants)
			m->constants_fd = fcntl(repo->constants_fd, F_DUPFD_CLOEXEC, 3);
	}
	*ret = m;
	return PT2BOX_OK;
}

static void begin(struct pb_broker *b, struct pb_client *c, const struct pb_msg_load *opt, enum purpose why,
		  struct pb_repo_model *repo, int fd_take, int plugin_take)
{
	PB_CLEANUP(pb_client_drop_fd) int fd = fd_take;
	PB_CLEANUP(pb_client_drop_fd) int plugin = plugin_take;
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct pb_model_rec *m;

	if ((!repo && pb_check_file(b, fd, "the package", &e)) ||
	    (plugin >= 0 && pb_check_file(b, plugin, "the plugin", &e)) ||
	    model_for(b, c, opt, why, repo, plugin >= 0, &m, &e)) {
		if (why == TO_LOAD)
			pb_audit(b, c, NULL, "refused", NULL, &e);
		pb_client_fail(b, c, opt->request, &e);
		return;
	}
	if (why == TO_LOAD)
		pb_audit(b, c, m, "load", NULL, NULL);
	if (!repo)
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

pb_status pb_load_preload(struct pb_broker *b, struct pb_client *c, struct pb_repo_model *repo,
			  const struct pb_msg_load *opt, struct pt2box_error *err)
{
	struct pb_model_rec *m;
	pb_status st = model_for(b, c, opt, TO_PRELOAD, repo, false, &m, err);

	if (st)
		return st;
	st = start_in_turn(b, m, err);
	if (st)
		pb_model_end(b, m);
	return st;
}

void pb_load(struct pb_broker *b, struct pb_client *c, const struct pb_msg_load *m, struct pb_fds *fds)
{
	PB_CLEANUP(pb_client_drop_fd) int package = -1;
	PB_CLEANUP(pb_client_drop_fd) int plugin = -1;
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct pb_repo_model *repo = NULL;
	struct pb_msg_load opt = *m;
	const bool named = m->name[0];

	if (!named && fds->n > 0)
		package = pb_fds_take(fds, 0);
	if (fds->n > (named ? 0 : 1))
		plugin = pb_fds_take(fds, named ? 0 : 1);
	if (!named && package < 0)
		pb_error_set(&e, PT2BOX_USAGE, "a load needs a package, or the name of a model that is offered");
	/* First of all: who may not use a model learns nothing about it from what else is wrong. */
	if (e.status || (named && pb_repo_find(b, c->tenant, m->name, &repo, &e)) ||
	    pb_admit(b, c->tenant, repo, plugin >= 0, &opt, &e)) {
		pb_audit(b, c, NULL, "refused", NULL, &e);
		pb_client_fail(b, c, m->request, &e);
		return;
	}
	begin(b, c, &opt, TO_LOAD, repo, pb_take_fd(&package), pb_take_fd(&plugin));
}

void pb_load_inspect(struct pb_broker *b, struct pb_client *c, const struct pb_msg_inspect *m, int package_fd_take)
{
	PB_CLEANUP(pb_client_drop_fd) int fd = package_fd_take;
	struct pb_msg_load opt = {.request = m->request, .backend = "auto", .profile = "default", .runners = 1};
	struct pt2box_error e;

	snprintf(opt.model, sizeof(opt.model), "%s", m->model);
	if (!c->tenant->conf->upload) {
		pb_error_set(&e, PT2BOX_DENIED, "tenant %s may not bring packages", c->tenant->name);
		pb_client_fail(b, c, m->request, &e);
		return;
	}
	begin(b, c, &opt, m->brief ? TO_INSPECT_BRIEFLY : TO_INSPECT, NULL, pb_take_fd(&fd), -1);
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
