/* SPDX-License-Identifier: Apache-2.0 */
/* A model's record: made, ended, started again; what the spawner says of its process; its deadlines. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "broker/broker.h"
#include "confine/confine.h"

#define RESTARTS_MAX 5
#define RESTART_FORGIVEN_NS 60000000000u /* one for each minute that a template has lived */
#define ASK_AGAIN_NS 2000000u

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

struct pb_model_rec *pb_model_new(struct pb_client *c, uint64_t request)
{
	struct pb_model_rec *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->client = c;
	m->tenant = pb_tenant_ref(c->tenant);
	m->uid = c->uid;
	m->id = c->next_model++;
	m->serial = ++c->tenant->next_serial;
	m->request = request;
	m->begun_ns = pb_now_ns();
	m->deadline_ns = UINT64_MAX;
	m->package_fd = m->constants_fd = m->out_model = m->out_constants = m->out_manifest = m->board_fd = m->oom_fd = -1;
	m->errors.fd = m->warden.fd = m->template_ctl.fd = -1;
	m->forking = m->fresh = -1;
	m->next_session = m->next_extract = 1;
	for (int i = 0; i < PB_WORKERS_MAX; i++)
		m->worker[i].ctl.fd = -1;
	m->next = c->models;
	c->models = m;
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
	pb_loop_remove(b, &m->errors);
	pb_loop_remove(b, &m->warden);
	pb_loop_remove(b, &m->template_ctl);
	pb_close_fd(&m->oom_fd);
	m->deaf_ns = 0;
	pb_workers_forget(b, m);
	m->template_ready = false;
}

static void model_free(struct pb_broker *b, struct pb_model_rec *m)
{
	int *fds[] = {&m->package_fd,	 &m->constants_fd, &m->out_model, &m->out_constants,
		      &m->out_manifest, &m->board_fd};

	close_process_fds(b, m);
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		pb_close_fd(fds[i]);
	pb_ops_free(b, m);
	pb_buffer_set(b, &m->active, NULL, 0);
	pb_buffer_set(b, &m->inactive, NULL, 0);
	pb_memory_unref(b, m->code);
	if (m->board)
		munmap(m->board, PB_BOARD_BYTES);
	pb_tenant_discharge(m->tenant, PB_LIMIT_CONSTANTS, m->manifest_bytes);
	pb_tenant_unref(b, m->tenant);
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

/* What was under way for the client, while the client is there that it was charged to. It may wait for the answers. */
static void drop_work(struct pb_broker *b, struct pb_model_rec *m)
{
	static const struct pt2box_error gone = {.status = PT2BOX_CANCELLED, .text = "the model was unloaded"};

	m->job = pb_job_give_up(b, m->job);
	for (int i = 0; i < 2; i++)
		pb_share_give_up(b, &m->share[i]);
	pb_change_cancel(b, m, &gone);
	pb_extract_fail(b, m, PB_ALL_SESSIONS, &gone);
	pb_sessions_fail(b, m, &gone);
	pb_lanes_free_all(b, m, PB_ALL_SESSIONS);
	pb_sessions_free(m);
}

void pb_model_end(struct pb_broker *b, struct pb_model_rec *m)
{
	m->state = PB_M_ENDING;
	if (m->client) {
		if (m->announced)
			pb_audit(b, m->client, m, "unload", NULL, NULL);
		drop_work(b, m);
		unlink_model(&m->client->models, m);
		pb_admit_discharge(m->tenant, &m->charges);
		pb_tenant_unreserve(m->tenant, &m->reserved);
		m->tenant->ending++;
		m->client = NULL;
		m->next = b->orphans;
		b->orphans = m;
	}
	pb_ops_kill(b, m, PT2BOX_CANCELLED);
	if (m->spawn_id)
		pb_model_kill(b, m);
	if (m->spawn_id || pb_ops_lives(m))
		return; /* the record goes when the processes have */
	unlink_model(&b->orphans, m);
	m->tenant->ending--;
	model_free(b, m);
}

void pb_model_load_failed(struct pb_broker *b, struct pb_model_rec *m, const struct pt2box_error *e)
{
	pb_log(b, "model %u: %s: %s", m->id, pt2box_status_name(e->status), e->text);
	if (m->client) {
		if (!m->inspect_only)
			pb_audit(b, m->client, m, "refused", NULL, e);
		pb_client_fail(b, m->client, m->request, e);
	}
	pb_model_end(b, m);
}

int64_t pb_deadline_of(int64_t asked, int64_t fallback)
{
	return asked == 0 ? fallback : asked;
}

int64_t pb_load_deadline_ms(const struct pb_broker *b, const struct pb_model_rec *m)
{
	return pb_deadline_of(m->opt.load_deadline_ms, b->config.load_deadline_ms);
}

/* ---- from the spawner ---- */

void pb_model_spawned(struct pb_broker *b, const struct pb_msg_spawned *msg, int oom_fd_take)
{
	PB_CLEANUP(pb_close_fd) int oom_fd = oom_fd_take;
	struct pb_model_rec *m = find_spawn(b, msg->id);

	if (pb_ops_spawned(b, msg) || !m)
		return;
	m->pid = (pid_t)msg->pid;
	m->oom_kills = 0;
	pb_close_fd(&m->oom_fd);
	m->oom_fd = pb_take_fd(&oom_fd);
}

bool pb_model_was_oom_killed(struct pb_model_rec *m)
{
	if (pb_cgroup_oom_kills_in(m->oom_fd) <= m->oom_kills)
		return false;
	m->oom_kills++;
	return true;
}

/* It is not started again: whoever waits for something of it hears why, now and later. */
static void break_model(struct pb_broker *b, struct pb_model_rec *m, const struct pt2box_error *why)
{
	m->state = PB_M_BROKEN;
	pb_ops_kill(b, m, PT2BOX_CANCELLED);
	snprintf(m->fail_text, sizeof(m->fail_text), "%s", why->text);
	m->fail_status = why->status;
	m->fail_signal = why->signal;
	pb_change_continue(b, m);
	pb_extract_fail(b, m, PB_ALL_SESSIONS, why);
	pb_sessions_fail(b, m, why);
	pb_health_check(b, m, why);
}

/* The template of a model that served is gone: load it again, a few times in a row. */
static void restart(struct pb_broker *b, struct pb_model_rec *m, const struct pt2box_error *why)
{
	struct pt2box_error e = {.status = PT2BOX_OK};
	uint64_t now = pb_now_ns(), forgiven = (now - m->restarted_ns) / RESTART_FORGIVEN_NS;

	m->restarts_in_a_row -= forgiven < m->restarts_in_a_row ? (uint32_t)forgiven : m->restarts_in_a_row;
	m->restarted_ns = now;
	m->restarts++;
	if (++m->restarts_in_a_row > RESTARTS_MAX || pb_template_start(b, m, &e))
		break_model(b, m, why);
}

static void process_ended(struct pb_broker *b, struct pb_model_rec *m, const struct pb_msg_exited *msg)
{
	struct pt2box_error e = {.status = PT2BOX_OK};

	/* Messages of the dead may still wait in their sockets. */
	pb_template_last_words(b, m);
	if (msg->oom_kills > m->oom_kills) /* more than the deaths of workers that are known */
		pb_error_set(&e, PT2BOX_MODEL_OOM, "the model used up its memory while %s", pb_template_phase(m));
	else if (m->fail_status)
		pb_error_set(&e, m->fail_status, "%s", m->fail_text);
	else
		pb_error_set(&e, PT2BOX_INTERNAL, "the warden ended (status 0x%x)", (unsigned)msg->wait_status);
	e.signal = m->fail_signal;
	if (!m->announced) {
		pb_model_load_failed(b, m, &e);
		return;
	}
	pb_health_note(b, m, "template", e.status == PT2BOX_MODEL_TIMEOUT || e.status == PT2BOX_MODEL_PROTOCOL, &e);
	pb_workers_lost(b, m, &e);
	close_process_fds(b, m);
	pb_change_template_lost(b, m, &e);
	restart(b, m, &e);
}

void pb_model_exited(struct pb_broker *b, const struct pb_msg_exited *msg)
{
	struct pb_model_rec *m;

	if (pb_job_exited(b, msg) || pb_ops_exited(b, msg))
		return;
	m = find_spawn(b, msg->id);
	if (!m)
		return;
	m->spawn_id = 0;
	m->pid = 0;
	if (m->client)
		process_ended(b, m, msg);
	else
		pb_model_end(b, m);
}

void pb_model_spawn_failed(struct pb_broker *b, const struct pb_msg_spawn_failed *msg)
{
	struct pb_model_rec *m;
	struct pt2box_error e;

	if (pb_job_spawn_failed(b, msg) || pb_ops_spawn_failed(b, msg))
		return;
	m = find_spawn(b, msg->id);
	if (!m)
		return;
	m->spawn_id = 0;
	pb_error_set(&e, (pb_status)msg->status, "%s", msg->text);
	if (m->client && m->announced) {
		close_process_fds(b, m);
		pb_health_note(b, m, "template", false, &e);
		break_model(b, m, &e);
	} else if (m->client) {
		pb_model_load_failed(b, m, &e);
	} else {
		pb_model_end(b, m);
	}
}

/* ---- deadlines ---- */

static void overrun(struct pb_broker *b, struct pb_model_rec *m)
{
	struct pt2box_error e;
	char text[200];

	if (m->state == PB_M_WAIT_CONSTANTS) {
		pb_error_set(&e, PT2BOX_MODEL_TIMEOUT, "the constants did not come");
		pb_model_load_failed(b, m, &e);
		return;
	}
	snprintf(text, sizeof(text), "loading overran its deadline of %lld ms while %s",
		 (long long)pb_load_deadline_ms(b, m), pb_template_phase(m));
	m->fail_status = PT2BOX_OK;
	pb_template_note_failure(m, PT2BOX_MODEL_TIMEOUT, text);
	m->deadline_ns = UINT64_MAX;
	pb_model_kill(b, m);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t tick_broken(struct pb_model_rec *m, uint64_t now)
{
	struct pt2box_error e = {.status = m->fail_status, .signal = m->fail_signal};

	if (!m->lanes)
		return UINT64_MAX;
	if (now >= m->look_ns) {
		snprintf(e.text, sizeof(e.text), "%s", m->fail_text);
		pb_lanes_fail_all(m, PB_ALL_SESSIONS, &e);
		m->look_ns = now + 20000000u;
	}
	return m->look_ns;
}

static uint64_t tick_served(struct pb_broker *b, struct pb_model_rec *m, uint64_t now)
{
	uint64_t next = earlier(pb_lanes_tick(b, m, now), pb_workers_tick(b, m, now));

	return earlier(next, earlier(pb_change_tick(b, m, now), pb_extract_tick(b, m, now)));
}

static uint64_t tick_model(struct pb_broker *b, struct pb_model_rec *m, uint64_t now)
{
	if (m->spawn_id && m->kill_wanted && !m->kill_sent) {
		pb_model_kill(b, m);
		return now + ASK_AGAIN_NS;
	}
	switch (m->state) {
	case PB_M_WAIT_TURN:
		return pb_load_tick(b, m, now);
	case PB_M_BROKEN:
		return tick_broken(m, now);
	case PB_M_WAIT_CONSTANTS:
	case PB_M_LOADING:
		if (now >= m->deadline_ns) {
			overrun(b, m);
			return now + 1000000u;
		}
		return earlier(m->deadline_ns, m->announced ? tick_served(b, m, now) : UINT64_MAX);
	case PB_M_READY:
		return tick_served(b, m, now);
	default:
		return UINT64_MAX;
	}
}

uint64_t pb_model_tick(struct pb_broker *b, struct pb_model_rec *m, uint64_t now)
{
	const uint64_t ops = pb_ops_tick(b, m, now), template = pb_template_tick(b, m, now);

	return earlier(earlier(ops, template), tick_model(b, m, now));
}
