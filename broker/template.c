/* SPDX-License-Identifier: Apache-2.0 */
/* A model's warden and template: started with the constants that the model has, listened to, and what they may say. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "broker/broker.h"

#define LAST_WORDS 256	/* messages of the dead that are read */
#define TASKS_MANY 4096 /* for workers that may be opened later, not for threads without end */

static const char *const phase_names[] = {
	"starting the process", "closing the sandbox", "checking the code", "linking", "running constructors",
	"making the container", "setting constants",   "forking",	    "serving",
};

const char *pb_template_phase(const struct pb_model_rec *m)
{
	return phase_names[m->phase < PB_PHASE_READY ? m->phase : PB_PHASE_READY];
}

void pb_template_note_failure(struct pb_model_rec *m, pb_status st, const char *text)
{
	if (m->fail_status)
		return;
	m->fail_status = st;
	snprintf(m->fail_text, sizeof(m->fail_text), "%s", text);
}

static void end_deaf(struct pb_broker *b, struct pb_model_rec *m)
{
	pb_template_note_failure(m, PT2BOX_MODEL_PROTOCOL, "the template does not listen");
	pb_model_kill(b, m);
}

void pb_template_deaf(struct pb_broker *b, struct pb_model_rec *m, pb_status st)
{
	if (st != PT2BOX_BROKER_LOST)
		end_deaf(b, m);
}

uint64_t pb_template_tick(struct pb_broker *b, struct pb_model_rec *m, uint64_t now)
{
	if (!m->deaf_ns)
		return UINT64_MAX;
	if (now < m->deaf_ns)
		return m->deaf_ns;
	m->deaf_ns = 0;
	end_deaf(b, m);
	return UINT64_MAX;
}

/* ---- start ---- */

static void warden_message(struct pb_broker *b, struct pb_source *s, uint32_t events);
static void template_message(struct pb_broker *b, struct pb_source *s, uint32_t events);

static void read_errors(struct pb_broker *b, struct pb_source *s, uint32_t events)
{
	const struct pb_model_rec *m = s->object;
	char who[48];

	(void)events;
	snprintf(who, sizeof(who), "model %u", m->id);
	pb_log_words(b, s, who);
}

pb_status pb_board_make(struct pb_model_rec *m, struct pt2box_error *err)
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

/*
 * Warden, template and workers, each with a thread of its own for what must not run on the one that forks, and a team:
 * of as many threads as were asked for, or as the package's code asks for by itself. Sessions are opened later.
 */
static uint64_t tasks_of(const struct pb_model_rec *m, uint64_t threads)
{
	uint64_t team = (m->team > threads ? m->team : threads) + 2;
	uint64_t own = 4 + (m->n_workers + 2) * team, all = 4 + (PB_WORKERS_MAX + 1) * team;

	if (all > TASKS_MANY)
		all = TASKS_MANY;
	return own > all ? own : all;
}

/* The constants that the package does not have inside; what the template has no file for is given to it afterwards. */
static int begin_with(struct pb_broker *b, struct pb_model_rec *m)
{
	const struct pb_buffer *active = &m->active, *inactive = &m->inactive;

	m->replay = PB_REPLAY_NONE;
	if (!m->own_constants || inactive->memory != m->code) {
		if (inactive->memory)
			m->replay = PB_REPLAY_INACTIVE;
		return active->memory && active->memory != m->code ? active->memory->fd : b->empty_fd;
	}
	/* Its own are only there if it begins with them. */
	m->replay = PB_REPLAY_ACTIVE;
	return b->empty_fd;
}

static void note_started(struct pb_broker *b, struct pb_model_rec *m, uint64_t spawn_id)
{
	m->spawn_id = (uint32_t)spawn_id;
	m->kill_wanted = m->kill_sent = false;
	m->state = PB_M_LOADING;
	m->phase = PB_PHASE_SPAWN;
	m->fail_status = PT2BOX_OK;
	m->fail_signal = 0;
	m->fail_text[0] = m->denied[0] = '\0';
	m->template_ready = false;
	m->deaf_ns = 0;
	m->template_seq = atomic_load(&m->board->committed);
	m->deadline_ns = pb_now_ns() + (uint64_t)pb_load_deadline_ms(b, m) * 1000000u;
}

pb_status pb_template_start(struct pb_broker *b, struct pb_model_rec *m, struct pt2box_error *err)
{
	uint64_t threads = m->opt.threads ? m->opt.threads : 1;
	struct pb_msg_spawn_warden w = {.id = ++b->next_spawn,
					.threads = threads,
					.memory_bytes = m->opt.memory_bytes ? m->opt.memory_bytes :
									       b->config.memory_bytes,
					.runners = PB_WORKERS_MAX, /* with sessions */
					.tasks = tasks_of(m, threads),
					.explain = m->opt.explain,
					.device = m->opt.device,
					.lapack = m->lapack,
					.ops = m->ops != NULL,
					.tenant = pb_tenant_cpu(b, m->tenant),
					.cpu_weight = m->tenant->conf->cpu_weight,
					.cpu_max = m->tenant->conf->cpu_max};
	PB_CLEANUP(pb_close_fd) int err_w = -1;
	PB_CLEANUP(pb_close_fd) int warden = -1;
	PB_CLEANUP(pb_close_fd) int template_end = -1;
	PB_CLEANUP(pb_close_fd) int board_ro = -1;
	PB_CLEANUP(pb_close_fd) int model_ro = -1;
	int fds[7];
	pb_status st;

	free(m->layers);
	m->layers = NULL;
	st = pb_board_make(m, err);
	if (!st)
		st = pb_fd_readonly(m->board_fd, &board_ro, err);
	/* The linker reads at a file's position: a second template must not find it where the first left it. */
	if (!st)
		st = pb_fd_readonly(m->code->fd, &model_ro, err);
	if (!st)
		st = pb_make_pipe(b, &m->errors, m, read_errors, &err_w, err);
	if (!st)
		st = pb_loop_add_control(b, &m->warden, warden_message, m, &warden, err);
	if (!st)
		st = pb_loop_add_control(b, &m->template_ctl, template_message, m, &template_end, err);
	if (st)
		return st;
	snprintf(w.backend, sizeof(w.backend), "%s", m->backend);
	snprintf(w.profile, sizeof(w.profile), "%s", m->opt.profile);
	w.change_seq = atomic_load(&m->board->committed);
	fds[0] = err_w;
	fds[1] = warden;
	fds[2] = template_end;
	fds[3] = model_ro;
	fds[4] = begin_with(b, m);
	fds[5] = m->out_manifest;
	fds[6] = board_ro;
	st = pb_send(b->spawner.fd, PB_MSG_spawn_warden, &w, fds, 7, err);
	if (!st)
		note_started(b, m, w.id);
	return st;
}

/* ---- the constants that it could not begin with ---- */

bool pb_template_forks(const struct pb_model_rec *m)
{
	return m->template_ready && m->template_ctl.fd >= 0 && m->replay == PB_REPLAY_NONE;
}

bool pb_template_apply(struct pb_broker *b, struct pb_model_rec *m, const struct pb_msg_constants_apply *msg,
		       const struct pb_memory *mem)
{
	int fd = m->template_ctl.fd;
	pb_status st = fd < 0 ? PT2BOX_BROKER_LOST :
				pb_send(fd, PB_MSG_constants_apply, msg, mem ? &mem->fd : NULL, mem ? 1 : 0, NULL);

	if (!st)
		return true;
	pb_template_deaf(b, m, st);
	return false;
}

/* No worker is there yet: what the template has made is in force. */
static void replay(struct pb_broker *b, struct pb_model_rec *m)
{
	struct pb_msg_constants_apply a = {.change_seq = ++m->change_seq,
					   .change = m->replay == PB_REPLAY_SWAP ? PB_CHANGE_SWAP : PB_CHANGE_UPDATE,
					   .inactive = m->replay != PB_REPLAY_SWAP};
	const struct pb_memory *mem = m->replay == PB_REPLAY_ACTIVE ? m->active.memory : m->inactive.memory;

	(void)pb_template_apply(b, m, &a, m->replay == PB_REPLAY_SWAP ? NULL : mem);
}

static void replayed(struct pb_broker *b, struct pb_model_rec *m, const struct pb_msg_constants_done *msg)
{
	if (msg->change_seq != m->change_seq) {
		pb_template_note_failure(m, PT2BOX_MODEL_PROTOCOL, "the template sent something impossible");
		pb_model_kill(b, m);
		return;
	}
	if (msg->status) {
		pb_template_note_failure(m, pb_believed(msg->status), msg->text);
		pb_model_kill(b, m);
		return;
	}
	m->template_seq = m->change_seq;
	atomic_store(&m->board->committed, m->change_seq);
	m->replay = m->replay == PB_REPLAY_ACTIVE ? PB_REPLAY_SWAP : PB_REPLAY_NONE;
	if (m->replay)
		replay(b, m);
	else
		pb_workers_continue(b, m);
	pb_change_continue(b, m);
}

/* ---- messages ---- */

/* A peer of ours that breaks the protocol, or is gone: its whole namespace ends, and exited will follow. */
static void process_lost(struct pb_broker *b, struct pb_model_rec *m, struct pb_source *s, pb_status st)
{
	if (st == PT2BOX_PROTOCOL)
		pb_template_note_failure(m, PT2BOX_MODEL_PROTOCOL, "the template sent something impossible");
	pb_loop_remove(b, s);
	if (s == &m->warden || st == PT2BOX_PROTOCOL)
		pb_model_kill(b, m);
	else
		m->deaf_ns = pb_now_ns() + PB_DEAF_NS;
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

		snprintf(full, sizeof(full), "%.300s while %s", text, pb_template_phase(m));
		pb_template_note_failure(m, st, full);
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

pb_status pb_believed(uint64_t status)
{
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

static void ready(struct pb_broker *b, struct pb_model_rec *m, const struct pb_msg_ready *msg)
{
	if (m->template_ready)
		return;
	m->template_ready = true;
	/* It was refused memory, and managed without. */
	if (m->fail_status == PT2BOX_MODEL_OOM && !m->kill_wanted)
		m->fail_status = PT2BOX_OK;
	m->n_inputs = msg->n_inputs;
	m->n_outputs = msg->n_outputs;
	if (m->replay)
		replay(b, m);
	else
		pb_workers_continue(b, m);
	pb_change_continue(b, m);
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
		ready(b, m, &msg->ready);
		break;
	case PB_MSG_layers:
		keep_layers(m, &msg->layers.report);
		break;
	case PB_MSG_load_failed:
		pb_template_note_failure(m,
					 m->phase < PB_PHASE_CONSTRUCTORS ? (pb_status)msg->load_failed.status :
									    pb_believed(msg->load_failed.status),
					 msg->load_failed.text);
		break;
	case PB_MSG_constants_done:
		if (m->replay)
			replayed(b, m, &msg->constants_done);
		else
			pb_change_template_done(b, m, &msg->constants_done);
		break;
	default:
		break;
	}
}

void pb_template_last_words(struct pb_broker *b, struct pb_model_rec *m)
{
	for (int i = 0; i < LAST_WORDS && m->warden.fd >= 0; i++)
		warden_message(b, &m->warden, 0);
	for (int i = 0; i < LAST_WORDS && m->template_ctl.fd >= 0; i++)
		template_message(b, &m->template_ctl, 0);
}
