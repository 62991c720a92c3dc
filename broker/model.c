/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a loaded model: package in, intake, decision on the backend, template, ready; and how it ends. A model
 * that fails says why once, to the client that asked.
 */
#include <errno.h>
#include <fcntl.h>
#include <msgpack.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include "broker/broker.h"
#include "ipc/manifest.h"

#define RESTARTS_MAX 5
#define FUSE_MAGIC 0x65735546 /* linux/magic.h: FUSE_SUPER_MAGIC */
#define TEAM_MAX 1024
#define LAST_WORDS 256 /* messages of the dead that are read */
#define INTAKE_DEADLINE_NS (60ull * 1000000000u)
#define ASK_AGAIN_NS 2000000u
#define MODEL_FILES 12 /* of a model in the broker, besides one a worker */

static const char *const phase_names[] = {
	"starting the process", "closing the sandbox", "checking the code", "linking", "running constructors",
	"making the container", "setting constants",   "forking",	    "serving",
};

struct pb_model_rec *pb_model_find(struct pb_client *c, uint64_t id)
{
	for (struct pb_model_rec *m = c->models; m; m = m->next)
		if (m->id == id)
			return m;
	return NULL;
}

static struct pb_model_rec *find_spawn(struct pb_broker *b, uint64_t id)
{
	for (struct pb_client *c = b->clients; c; c = c->next)
		for (struct pb_model_rec *m = c->models; m; m = m->next)
			if (m->spawn_id == id)
				return m;
	for (struct pb_model_rec *m = b->orphans; m; m = m->next)
		if (m->spawn_id == id)
			return m;
	return NULL;
}

static struct pb_model_rec *model_new(struct pb_client *c, uint64_t request)
{
	struct pb_model_rec *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->client = c;
	m->uid = c->uid;
	m->id = c->next_model++;
	m->request = request;
	m->begun_ns = pb_now_ns();
	m->deadline_ns = UINT64_MAX;
	m->package_fd = m->constants_fd = m->out_model = m->out_constants = m->out_manifest = m->board_fd = -1;
	m->result.fd = m->errors.fd = m->warden.fd = m->template_ctl.fd = -1;
	m->forking = -1;
	for (int i = 0; i < PB_WORKERS_MAX; i++)
		m->worker[i].ctl.fd = -1;
	m->next = c->models;
	c->models = m;
	c->n_models++;
	return m;
}

static void unlink_model(struct pb_model_rec **list, struct pb_model_rec *m)
{
	while (*list && *list != m)
		list = &(*list)->next;
	if (*list)
		*list = m->next;
	m->next = NULL;
}

static void close_process_fds(struct pb_broker *b, struct pb_model_rec *m)
{
	pb_loop_remove(b, &m->result);
	pb_loop_remove(b, &m->errors);
	pb_loop_remove(b, &m->warden);
	pb_loop_remove(b, &m->template_ctl);
	for (int i = 0; i < PB_WORKERS_MAX; i++) {
		pb_loop_remove(b, &m->worker[i].ctl);
		m->worker[i].state = PB_W_NONE;
	}
	m->template_ready = false;
	m->forking = -1;
}

static void model_free(struct pb_broker *b, struct pb_model_rec *m)
{
	int *fds[] = {&m->package_fd,	 &m->constants_fd, &m->out_model, &m->out_constants,
		      &m->out_manifest, &m->board_fd};

	while (m->lanes)
		pb_lanes_free(b, m->lanes);
	close_process_fds(b, m);
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		pb_close_fd(fds[i]);
	if (m->board)
		munmap(m->board, PB_BOARD_BYTES);
	free(m->layers);
	free(m);
}

void pb_model_kill(struct pb_broker *b, struct pb_model_rec *m)
{
	struct pb_msg_spawn_kill k = {.id = m->spawn_id};

	/* The spawner may not read just now, and must not be waited for: a tick asks again. */
	if (m->spawn_id && !m->kill_sent)
		m->kill_sent = pb_send(b->spawner.fd, PB_MSG_spawn_kill, &k, NULL, 0, NULL) == PT2BOX_OK;
	m->kill_wanted = true;
}

void pb_model_end(struct pb_broker *b, struct pb_model_rec *m)
{
	m->state = PB_M_ENDING;
	while (m->lanes) /* while the client is there that they were charged to */
		pb_lanes_free(b, m->lanes);
	if (m->client) {
		unlink_model(&m->client->models, m);
		m->client->n_models--;
		m->client->files -= m->files;
		m->client = NULL;
		m->next = b->orphans;
		b->orphans = m;
	}
	if (m->spawn_id) {
		pb_model_kill(b, m); /* the record goes when the process has */
		return;
	}
	unlink_model(&b->orphans, m);
	model_free(b, m);
}

/* The load has failed: say so and end. */
static void load_failed(struct pb_broker *b, struct pb_model_rec *m, const struct pt2box_error *e)
{
	pb_log(b, "model %u: %s: %s", m->id, pt2box_status_name(e->status), e->text);
	if (m->client)
		pb_client_fail(b, m->client, m->request, e);
	pb_model_end(b, m);
}

/* ---- intake ---- */

static void read_errors(struct pb_broker *b, struct pb_source *s, uint32_t events)
{
	struct pb_model_rec *m = s->object;
	char buf[4096], safe[512];
	ssize_t n = read(s->fd, buf, sizeof(buf));

	(void)events;
	if (n <= 0) {
		if (n == 0 || (errno != EAGAIN && errno != EINTR))
			pb_loop_remove(b, s);
		return;
	}
	pb_text_escape(safe, sizeof(safe), buf, n > 400 ? 400 : (size_t)n);
	snprintf(m->errors_tail, sizeof(m->errors_tail), "%s", safe);
	pb_log(b, "model %u says: %s", m->id, safe);
}

static void read_result(struct pb_broker *b, struct pb_source *s, uint32_t events)
{
	struct pb_model_rec *m = s->object;
	ssize_t n = read(s->fd, m->result_buf + m->result_len, sizeof(m->result_buf) - m->result_len);

	(void)events;
	if (n > 0)
		m->result_len += (size_t)n;
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		pb_loop_remove(b, s);
	if (m->result_len == sizeof(m->result_buf))
		pb_loop_remove(b, s); /* longer than any result can be: it will not decode */
}

/* A pipe whose read end is in the loop; *ret_write is for the child. */
static pb_status make_pipe(struct pb_broker *b, struct pb_source *s, struct pb_model_rec *m,
			   void (*ready)(struct pb_broker *, struct pb_source *, uint32_t), int *ret_write,
			   struct pt2box_error *err)
{
	int p[2];

	if (pipe2(p, O_CLOEXEC | O_NONBLOCK) != 0)
		return pb_error_sys(err, "pipe");
	return pb_loop_add_pair(b, s, p, ready, m, ret_write, err);
}

static pb_status start_intake(struct pb_broker *b, struct pb_model_rec *m, struct pt2box_error *err)
{
	struct pb_msg_spawn_intake s = {.id = ++b->next_spawn, .inspect = m->inspect_only,
					.max_bytes = PB_PACKAGE_BYTES_MAX};
	PB_CLEANUP(pb_close_fd) int err_w = -1;
	PB_CLEANUP(pb_close_fd) int res_w = -1;
	int fds[7];
	pb_status st;

	if (pb_memfd_unsealed("pt2box-model", &m->out_model, err) ||
	    pb_memfd_unsealed("pt2box-constants", &m->out_constants, err) ||
	    pb_memfd_unsealed("pt2box-manifest", &m->out_manifest, err))
		return PT2BOX_SYSTEM;
	st = make_pipe(b, &m->errors, m, read_errors, &err_w, err);
	if (!st)
		st = make_pipe(b, &m->result, m, read_result, &res_w, err);
	if (st)
		return st;
	snprintf(s.model, sizeof(s.model), "%s", m->opt.model);
	fds[0] = err_w;
	fds[1] = res_w;
	fds[2] = m->package_fd;
	fds[3] = m->out_model;
	fds[4] = m->out_constants;
	fds[5] = m->out_manifest;
	fds[6] = m->constants_fd;
	st = pb_send(b->spawner.fd, PB_MSG_spawn_intake, &s, fds, m->constants_fd >= 0 ? 7 : 6, err);
	if (st)
		return st;
	m->spawn_id = (uint32_t)s.id;
	m->kill_wanted = m->kill_sent = false;
	m->state = PB_M_INTAKE;
	m->deadline_ns = pb_now_ns() + INTAKE_DEADLINE_NS;
	return PT2BOX_OK;
}

/* Models of a user; *ret_starts: those that the spawner is busy with. */
static unsigned count_models(const struct pb_broker *b, uid_t uid, unsigned *ret_starts)
{
	unsigned n = 0;

	*ret_starts = 0;
	for (const struct pb_client *c = b->clients; c; c = c->next)
		for (const struct pb_model_rec *m = c->uid == uid ? c->models : NULL; m; m = m->next) {
			n++;
			*ret_starts += m->state == PB_M_INTAKE || m->state == PB_M_LOADING;
		}
	for (const struct pb_model_rec *m = b->orphans; m; m = m->next)
		n += m->uid == uid;
	return n;
}

/* Well below what its socket holds: there is room for what follows an intake, and for kills. */
static bool spawner_listens(const struct pb_broker *b)
{
	struct pollfd p = {.fd = b->spawner.fd, .events = POLLOUT};

	return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT);
}

/* Who asks for many starts at once waits for its own, and nobody else does. */
static pb_status start_in_turn(struct pb_broker *b, struct pb_model_rec *m, struct pt2box_error *err)
{
	unsigned starts;

	(void)count_models(b, m->uid, &starts);
	if (starts < PB_STARTS_PER_UID && spawner_listens(b))
		return start_intake(b, m, err);
	m->state = PB_M_WAIT_TURN;
	m->deadline_ns = pb_now_ns() + ASK_AGAIN_NS;
	return PT2BOX_OK;
}

/* What a client may hand in: a regular file or memfd, readable. */
static pb_status check_file(const struct pb_broker *b, int fd, const char *what, struct pt2box_error *err)
{
	struct statfs fs;
	struct stat sb;
	int flags = fcntl(fd, F_GETFL);

	/* Answered by the kernel where the file system is not ours to use. Spawner and intake would wait for it for ever. */
	if (b->config.embedded_fd < 0 && (fstatfs(fd, &fs) != 0 || fs.f_type == FUSE_MAGIC))
		return pb_error_set(err, PT2BOX_BAD_FD, "%s lies on a file system that a program serves (FUSE): copy it", what);
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

static void begin(struct pb_broker *b, struct pb_client *c, const struct pb_msg_load *opt, bool inspect, int fd_take)
{
	PB_CLEANUP(pb_client_drop_fd) int fd = fd_take;
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct pb_model_rec *m;
	uint32_t files = MODEL_FILES + (uint32_t)opt->runners;
	unsigned starts;

	if (check_file(b, fd, "the package", &e)) {
		pb_client_fail(b, c, opt->request, &e);
		return;
	}
	if (c->n_models >= PB_MODELS_PER_CLIENT) {
		pb_error_set(&e, PT2BOX_LIMIT, "a connection may hold %d models", PB_MODELS_PER_CLIENT);
		pb_client_fail(b, c, opt->request, &e);
		return;
	}
	if (count_models(b, c->uid, &starts) >= PB_MODELS_PER_UID) {
		pb_error_set(&e, PT2BOX_LIMIT, "a user may hold %d models", PB_MODELS_PER_UID);
		pb_client_fail(b, c, opt->request, &e);
		return;
	}
	if (pb_client_charge_files(b, c, files, &e)) {
		pb_client_fail(b, c, opt->request, &e);
		return;
	}
	m = model_new(c, opt->request);
	if (!m) {
		c->files -= files;
		pb_error_set(&e, PT2BOX_NO_MEMORY, "the broker has no memory for a model");
		pb_client_fail(b, c, opt->request, &e);
		return;
	}
	m->files = files;
	m->opt = *opt;
	m->inspect_only = inspect;
	m->package_fd = pb_take_fd(&fd);
	if (opt->constants) {
		m->state = PB_M_WAIT_CONSTANTS;
		m->deadline_ns = pb_now_ns() + INTAKE_DEADLINE_NS;
	} else if (start_in_turn(b, m, &e)) {
		load_failed(b, m, &e);
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
	if (strcmp(m->backend, "torch") == 0)
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "the torch backend is not in this version");
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

void pb_model_load(struct pb_broker *b, struct pb_client *c, const struct pb_msg_load *m, int package_fd_take)
{
	struct pt2box_error e = {.status = PT2BOX_OK};

	if (check_options(b, m, &e)) {
		pb_client_drop_fd(&package_fd_take);
		pb_client_fail(b, c, m->request, &e);
		return;
	}
	begin(b, c, m, false, package_fd_take);
}

void pb_model_inspect(struct pb_broker *b, struct pb_client *c, const struct pb_msg_inspect *m, int package_fd_take)
{
	struct pb_msg_load opt = {.request = m->request, .runners = 1};

	snprintf(opt.model, sizeof(opt.model), "%s", m->model);
	begin(b, c, &opt, true, package_fd_take);
}

void pb_model_give_constants(struct pb_broker *b, struct pb_client *c, uint64_t request, int fd_take)
{
	PB_CLEANUP(pb_client_drop_fd) int fd = fd_take;
	struct pt2box_error e = {.status = PT2BOX_OK};

	for (struct pb_model_rec *m = c->models; m; m = m->next) {
		if (m->request != request || m->state != PB_M_WAIT_CONSTANTS)
			continue;
		if (!check_file(b, fd, "the constants file", &e)) {
			m->constants_fd = pb_take_fd(&fd);
			(void)!start_in_turn(b, m, &e);
		}
		if (e.status)
			load_failed(b, m, &e);
		return;
	}
	pb_error_set(&e, PT2BOX_NOT_FOUND, "no load waits for constants");
	pb_client_fail(b, c, request, &e);
}

/* [status, text] from intake, a few bytes that a hostile package may have had a hand in. */
static pb_status decode_result(const struct pb_model_rec *m, struct pt2box_error *err)
{
	msgpack_unpacked u;
	pb_status st = PT2BOX_PKG_REJECTED;
	size_t off = 0;

	if (m->result_len == 0 || pb_msgpack_scan(m->result_buf, m->result_len, 3))
		return pb_error_set(err, PT2BOX_PKG_REJECTED, "intake ended without a result");
	msgpack_unpacked_init(&u);
	if (msgpack_unpack_next(&u, (const char *)m->result_buf, m->result_len, &off) == MSGPACK_UNPACK_SUCCESS &&
	    u.data.type == MSGPACK_OBJECT_ARRAY && u.data.via.array.size == 2 &&
	    u.data.via.array.ptr[0].type == MSGPACK_OBJECT_POSITIVE_INTEGER &&
	    u.data.via.array.ptr[0].via.u64 <= 255 && u.data.via.array.ptr[1].type == MSGPACK_OBJECT_STR) {
		char text[480];

		pb_text_escape(text, sizeof(text), u.data.via.array.ptr[1].via.str.ptr,
			       u.data.via.array.ptr[1].via.str.size);
		st = (pb_status)u.data.via.array.ptr[0].via.u64;
		if (st)
			pb_error_set(err, st, "%s", text);
	} else {
		pb_error_set(err, PT2BOX_PKG_REJECTED, "intake gave no readable result");
	}
	msgpack_unpacked_destroy(&u);
	return st;
}

/* Native wants every import; what is absent is named. */
static pb_status choose_backend(struct pb_model_rec *m, const struct pb_manifest *mf, struct pt2box_error *err)
{
	char list[360] = "";
	uint32_t n = 0;

	snprintf(m->backend, sizeof(m->backend), "native");
	for (uint32_t i = 0; i < mf->n_imports; i++) {
		size_t used = strlen(list);

		if (mf->imports[i].state != PB_SHIM_IS_ABSENT && mf->imports[i].state != PB_SHIM_IS_PROXIED)
			continue;
		n++;
		snprintf(list + used, sizeof(list) - used, "%s%s%s%s", used ? "; " : "", mf->imports[i].name,
			 mf->imports[i].note[0] ? ": " : "", mf->imports[i].note);
	}
	if (n)
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "the native runtime lacks %u function%s: %s", n,
				    n == 1 ? "" : "s", list);
	return PT2BOX_OK;
}

/* ---- template ---- */

static void warden_message(struct pb_broker *b, struct pb_source *s, uint32_t events);
static void template_message(struct pb_broker *b, struct pb_source *s, uint32_t events);

static pb_status make_board(struct pb_model_rec *m, struct pt2box_error *err)
{
	void *p;
	pb_status st;

	if (m->board)
		return PT2BOX_OK;
	st = pb_memfd("pt2box-board", PB_BOARD_BYTES, &m->board_fd, err);
	if (st)
		return st;
	p = mmap(NULL, PB_BOARD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, m->board_fd, 0);
	if (p == MAP_FAILED)
		return pb_error_sys(err, "board");
	m->board = p;
	return PT2BOX_OK;
}

static int64_t deadline_of(int64_t asked, int64_t fallback)
{
	return asked == 0 ? fallback : asked;
}

/*
 * Warden, template and workers, each with a thread of its own for what must not run on the one that forks, and a team:
 * of as many threads as were asked for, or as the package's code asks for by itself.
 */
static uint64_t tasks_of(const struct pb_model_rec *m, uint64_t threads)
{
	uint64_t team = m->team > threads ? m->team : threads;

	return 4 + (m->n_workers + 1) * (team + 2);
}

static pb_status start_template(struct pb_broker *b, struct pb_model_rec *m, struct pt2box_error *err)
{
	struct pb_msg_spawn_warden w = {.id = ++b->next_spawn,
					.threads = m->opt.threads ? m->opt.threads : 1,
					.memory_bytes = m->opt.memory_bytes ? m->opt.memory_bytes :
									       b->config.memory_bytes,
					.runners = m->n_workers,
					.tasks = tasks_of(m, m->opt.threads ? m->opt.threads : 1),
					.explain = m->opt.explain,
					.device = m->opt.device};
	PB_CLEANUP(pb_close_fd) int err_w = -1;
	PB_CLEANUP(pb_close_fd) int warden = -1;
	PB_CLEANUP(pb_close_fd) int template_end = -1;
	PB_CLEANUP(pb_close_fd) int board_ro = -1;
	PB_CLEANUP(pb_close_fd) int model_ro = -1;
	int fds[7];
	pb_status st;

	free(m->layers);
	m->layers = NULL;
	st = make_board(m, err);
	if (!st)
		st = pb_fd_readonly(m->board_fd, &board_ro, err);
	/* The linker reads at a file's position: a second template must not find it where the first left it. */
	if (!st)
		st = pb_fd_readonly(m->out_model, &model_ro, err);
	if (!st)
		st = make_pipe(b, &m->errors, m, read_errors, &err_w, err);
	if (!st)
		st = pb_loop_add_control(b, &m->warden, warden_message, m, &warden, err);
	if (!st)
		st = pb_loop_add_control(b, &m->template_ctl, template_message, m, &template_end, err);
	if (st)
		return st;
	snprintf(w.backend, sizeof(w.backend), "%s", m->backend);
	snprintf(w.profile, sizeof(w.profile), "%s", m->opt.profile);
	fds[0] = err_w;
	fds[1] = warden;
	fds[2] = template_end;
	fds[3] = model_ro;
	fds[4] = m->out_constants;
	fds[5] = m->out_manifest;
	fds[6] = board_ro;
	st = pb_send(b->spawner.fd, PB_MSG_spawn_warden, &w, fds, 7, err);
	if (st)
		return st;
	m->spawn_id = (uint32_t)w.id;
	m->kill_wanted = m->kill_sent = false;
	m->state = PB_M_LOADING;
	m->phase = PB_PHASE_SPAWN;
	m->fail_status = PT2BOX_OK;
	m->fail_text[0] = m->denied[0] = '\0';
	m->deadline_ns = pb_now_ns() +
			 (uint64_t)deadline_of(m->opt.load_deadline_ms, b->config.load_deadline_ms) * 1000000u;
	return PT2BOX_OK;
}

static pb_status seal_outputs(struct pb_model_rec *m, struct pt2box_error *err)
{
	int *fds[] = {&m->out_model, &m->out_constants, &m->out_manifest};

	for (int i = 0; i < 3; i++) {
		pb_status st = pb_memfd_seal(*fds[i], err);
		int ro = -1;

		if (!st)
			st = pb_fd_readonly(*fds[i], &ro, err);
		if (st)
			return st;
		close(*fds[i]);
		*fds[i] = ro;
	}
	return PT2BOX_OK;
}

static void intake_done(struct pb_broker *b, struct pb_model_rec *m, int wait_status)
{
	PB_CLEANUP(pb_close_fd) int unused = -1;
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct pb_msg_inspected r = {.request = m->request};
	struct pb_manifest *mf = NULL;
	uint8_t *data = NULL;
	size_t bytes;
	pb_status st;

	while (m->result.fd >= 0) { /* what was written before the exit is in the pipe */
		size_t before = m->result_len;

		read_result(b, &m->result, 0);
		if (m->result_len == before)
			break;
	}
	close_process_fds(b, m);
	if (m->fail_status)
		st = pb_error_set(&e, m->fail_status, "%s", m->fail_text);
	else if (WIFSIGNALED(wait_status))
		st = pb_error_set(&e, PT2BOX_PKG_REJECTED, "intake died by signal %d while it read the package",
				  WTERMSIG(wait_status));
	else
		st = decode_result(m, &e);
	if (!st)
		st = seal_outputs(m, &e);
	if (!st)
		st = pb_fd_slurp(m->out_manifest, PB_MANIFEST_MAX_BYTES, &data, &bytes, &e);
	if (!st)
		st = pb_manifest_decode(data, bytes, &mf, &e);
	free(data);
	pb_close_fd(&m->package_fd);
	pb_close_fd(&m->constants_fd);
	if (!st && m->inspect_only) {
		pb_manifest_free(mf);
		pb_client_send(m->client, PB_MSG_inspected, &r, &m->out_manifest, 1);
		pb_model_end(b, m);
		return;
	}
	if (!st)
		st = choose_backend(m, mf, &e);
	if (!st) {
		m->stateful = mf->const_source == PB_CONSTS_EMBEDDED_RW;
		m->copy_inputs = m->stateful; /* a repeat after a fault would count twice */
		m->n_workers = m->stateful ? 1 : (uint32_t)m->opt.runners;
		m->run_deadline_ms = deadline_of(m->opt.run_deadline_ms, b->config.run_deadline_ms);
		m->team = mf->openmp_threads < TEAM_MAX ? mf->openmp_threads : TEAM_MAX;
		snprintf(m->model_name, sizeof(m->model_name), "%s", mf->model_name);
		st = start_template(b, m, &e);
	}
	/* A few kilobytes of package become 100 MB of it: not kept. */
	pb_manifest_free(mf);
	if (st)
		load_failed(b, m, &e);
}

/* ---- messages of warden and template ---- */

static void note_failure(struct pb_model_rec *m, pb_status st, const char *text)
{
	if (m->fail_status)
		return;
	m->fail_status = st;
	snprintf(m->fail_text, sizeof(m->fail_text), "%s", text);
}

/* A peer of ours that breaks the protocol, or is gone: its whole namespace ends, and exited will follow. */
static void process_lost(struct pb_broker *b, struct pb_model_rec *m, struct pb_source *s, pb_status st)
{
	if (st == PT2BOX_PROTOCOL)
		note_failure(m, PT2BOX_MODEL_PROTOCOL, "the template sent something impossible");
	pb_loop_remove(b, s);
	if (s == &m->warden || st == PT2BOX_PROTOCOL)
		pb_model_kill(b, m);
}

/* The first word counts: what comes later may be the model's. */
static void keep_layers(struct pb_model_rec *m, const struct pb_bytes *report)
{
	if (m->layers)
		return;
	m->layers = strndup((const char *)report->data, report->len);
}

static void template_died(struct pb_broker *b, struct pb_model_rec *m, int wait_status)
{
	char text[480];
	int signal = 0;
	pb_status st = pb_death_status(wait_status, false, m->denied, &signal, text, sizeof(text));

	/* Its last words may still wait in its socket: that it was refused memory, above all. */
	for (int i = 0; i < LAST_WORDS && m->template_ctl.fd >= 0; i++)
		template_message(b, &m->template_ctl, 0);
	if (!m->fail_status) {
		char full[480];

		snprintf(full, sizeof(full), "%.300s while %s", text,
			 phase_names[m->phase < PB_PHASE_READY ? m->phase : PB_PHASE_READY]);
		note_failure(m, st, full);
		m->fail_signal = signal;
	} else if (m->fail_status == PT2BOX_MODEL_OOM) {
		m->fail_signal = signal;
	}
	pb_model_kill(b, m);
}

static void warden_message(struct pb_broker *b, struct pb_source *s, uint32_t events)
{
	struct pb_model_rec *m = s->object;
	union pb_msg *msg = &b->rx.msg;
	pb_status st = pb_recv(s->fd, PB_WARDEN, PB_BROKER, PB_STATE_ANY, true, &b->rx, NULL);

	(void)events;
	if (st == PT2BOX_NOT_FOUND)
		return;
	if (st) {
		process_lost(b, m, s, st);
		return;
	}
	switch ((enum pb_msg_id)b->rx.row->id) {
	case PB_MSG_worker_started:
		break;
	case PB_MSG_worker_died:
		pb_worker_died(b, m, (uint32_t)msg->worker_died.worker, (int)msg->worker_died.wait_status);
		break;
	case PB_MSG_template_died:
		template_died(b, m, (int)msg->template_died.wait_status);
		break;
	case PB_MSG_denied:
		snprintf(msg->denied.worker < 0 ? m->denied : m->worker[msg->denied.worker].denied, sizeof(m->denied),
			 "%s", msg->denied.text);
		break;
	default:
		break;
	}
}

/* What a template may say of its failure once untrusted code has run in it: only what is about itself. */
static pb_status believed(const struct pb_model_rec *m, uint64_t status)
{
	if (m->phase < PB_PHASE_CONSTRUCTORS)
		return (pb_status)status;
	switch ((pb_status)status) {
	case PT2BOX_MODEL_ERROR:
	case PT2BOX_MODEL_EXITED:
	case PT2BOX_MODEL_OOM:
	case PT2BOX_PKG_REJECTED:
	case PT2BOX_UNSUPPORTED:
	case PT2BOX_NOT_FOUND:
		return (pb_status)status;
	default:
		return PT2BOX_MODEL_PROTOCOL;
	}
}

static void template_message(struct pb_broker *b, struct pb_source *s, uint32_t events)
{
	struct pb_model_rec *m = s->object;
	union pb_msg *msg = &b->rx.msg;
	pb_status st = pb_recv(s->fd, PB_TEMPLATE, PB_BROKER, PB_STATE_ANY, true, &b->rx, NULL);

	(void)events;
	if (st == PT2BOX_NOT_FOUND)
		return;
	if (st) {
		process_lost(b, m, s, st);
		return;
	}
	switch ((enum pb_msg_id)b->rx.row->id) {
	case PB_MSG_phase:
		if (msg->phase.phase > m->phase)
			m->phase = (unsigned)msg->phase.phase;
		break;
	case PB_MSG_ready:
		if (m->template_ready)
			break;
		m->template_ready = true;
		/* It was refused memory, and managed without. */
		if (m->fail_status == PT2BOX_MODEL_OOM && !m->kill_wanted)
			m->fail_status = PT2BOX_OK;
		m->n_inputs = msg->ready.n_inputs;
		m->n_outputs = msg->ready.n_outputs;
		pb_workers_start(b, m);
		break;
	case PB_MSG_layers:
		keep_layers(m, &msg->layers.report);
		break;
	case PB_MSG_load_failed:
		note_failure(m, believed(m, msg->load_failed.status), msg->load_failed.text);
		break;
	default:
		break;
	}
}

/* ---- from the spawner ---- */

void pb_model_spawned(struct pb_broker *b, const struct pb_msg_spawned *msg)
{
	struct pb_model_rec *m = find_spawn(b, msg->id);

	if (m)
		m->pid = (pid_t)msg->pid;
}

/* The template of a model that served is gone: load it again, a few times. */
static void restart(struct pb_broker *b, struct pb_model_rec *m, const struct pt2box_error *why)
{
	struct pt2box_error e = {.status = PT2BOX_OK};

	pb_lanes_fail_all(m, m->stateful ? PT2BOX_STATE_LOST : why->status, why->signal, why->text);
	if (++m->restarts <= RESTARTS_MAX && start_template(b, m, &e) == PT2BOX_OK)
		return;
	m->state = PB_M_BROKEN;
	snprintf(m->fail_text, sizeof(m->fail_text), "%s", why->text);
	m->fail_status = why->status;
	m->fail_signal = why->signal;
}

void pb_model_exited(struct pb_broker *b, const struct pb_msg_exited *msg)
{
	struct pb_model_rec *m = find_spawn(b, msg->id);
	struct pt2box_error e = {.status = PT2BOX_OK};
	bool was_intake;

	if (!m)
		return;
	was_intake = m->state == PB_M_INTAKE;
	m->spawn_id = 0;
	m->pid = 0;
	if (!m->client) {
		unlink_model(&b->orphans, m);
		model_free(b, m);
		return;
	}
	if (was_intake) {
		intake_done(b, m, (int)msg->wait_status);
		return;
	}
	/* Messages of the dead may still wait in their sockets. */
	for (int i = 0; i < LAST_WORDS && m->warden.fd >= 0; i++)
		warden_message(b, &m->warden, 0);
	for (int i = 0; i < LAST_WORDS && m->template_ctl.fd >= 0; i++)
		template_message(b, &m->template_ctl, 0);
	close_process_fds(b, m);
	if (msg->oom_kills)
		pb_error_set(&e, PT2BOX_MODEL_OOM, "the model used up its memory while %s",
			     phase_names[m->phase < PB_PHASE_READY ? m->phase : PB_PHASE_READY]);
	else if (m->fail_status)
		pb_error_set(&e, m->fail_status, "%s", m->fail_text);
	else
		pb_error_set(&e, PT2BOX_INTERNAL, "the warden ended (status 0x%x)", (unsigned)msg->wait_status);
	e.signal = m->fail_signal;
	if (m->announced)
		restart(b, m, &e);
	else
		load_failed(b, m, &e);
}

void pb_model_spawn_failed(struct pb_broker *b, const struct pb_msg_spawn_failed *msg)
{
	struct pb_model_rec *m = find_spawn(b, msg->id);
	struct pt2box_error e;

	if (!m)
		return;
	m->spawn_id = 0;
	pb_error_set(&e, (pb_status)msg->status, "%s", msg->text);
	if (m->client)
		load_failed(b, m, &e);
	else
		pb_model_end(b, m);
}

/* ---- deadlines ---- */

static void overrun(struct pb_broker *b, struct pb_model_rec *m)
{
	struct pt2box_error e;
	char text[200];

	if (m->state == PB_M_WAIT_CONSTANTS) {
		pb_error_set(&e, PT2BOX_MODEL_TIMEOUT, "the constants did not come");
		load_failed(b, m, &e);
		return;
	}
	if (m->state == PB_M_INTAKE)
		snprintf(text, sizeof(text), "the package could not be read in time");
	else
		snprintf(text, sizeof(text), "loading overran its deadline of %lld ms while %s",
			 (long long)deadline_of(m->opt.load_deadline_ms, b->config.load_deadline_ms),
			 phase_names[m->phase < PB_PHASE_READY ? m->phase : PB_PHASE_READY]);
	m->fail_status = PT2BOX_OK;
	note_failure(m, PT2BOX_MODEL_TIMEOUT, text);
	m->deadline_ns = UINT64_MAX;
	pb_model_kill(b, m);
}

uint64_t pb_model_tick(struct pb_broker *b, struct pb_model_rec *m, uint64_t now)
{
	bool waits = m->state == PB_M_WAIT_CONSTANTS || m->state == PB_M_INTAKE || m->state == PB_M_LOADING;
	struct pt2box_error e = {.status = PT2BOX_OK};

	if (m->spawn_id && m->kill_wanted && !m->kill_sent) {
		pb_model_kill(b, m);
		return now + ASK_AGAIN_NS;
	}
	if (m->state == PB_M_WAIT_TURN) {
		if (now >= m->deadline_ns && start_in_turn(b, m, &e)) {
			load_failed(b, m, &e);
			return UINT64_MAX;
		}
		return m->deadline_ns;
	}
	if (m->state == PB_M_BROKEN) {
		if (m->lanes && now >= m->look_ns) {
			pb_lanes_fail_all(m, m->fail_status, m->fail_signal, m->fail_text);
			m->look_ns = now + 20000000u;
		}
		return m->lanes ? m->look_ns : UINT64_MAX;
	}
	if (waits && now >= m->deadline_ns) {
		overrun(b, m);
		return now + 1000000u;
	}
	if (waits)
		return m->deadline_ns;
	if (m->state == PB_M_READY) {
		uint64_t lanes = pb_lanes_tick(b, m, now), workers = pb_workers_tick(b, m, now);

		return lanes < workers ? lanes : workers;
	}
	return UINT64_MAX;
}
