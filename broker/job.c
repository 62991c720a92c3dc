/* SPDX-License-Identifier: Apache-2.0 */
/* Processes of intake: ordered from the spawner, their result read, their end waited for, killed when they overrun. */
#include <errno.h>
#include <fcntl.h>
#include <msgpack.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "broker/broker.h"

#define JOB_DEADLINE_NS (60ull * 1000000000u)
#define ASK_AGAIN_NS 2000000u
#define PIPE_PER_SECOND 200 /* reads of what a process says on standard error: 80 kB, beyond which it is lost */
/* Of the descriptors that a message can have, two are stderr and the result. */
#define JOB_FDS_MAX (PB_FDS_MAX - 2)

pb_status pb_make_pipe(struct pb_broker *b, struct pb_source *s, void *object,
		       void (*ready)(struct pb_broker *, struct pb_source *, uint32_t), int *ret_write,
		       struct pt2box_error *err)
{
	int p[2];
	pb_status st;

	if (pipe2(p, O_CLOEXEC | O_NONBLOCK) != 0)
		return pb_error_sys(err, "pipe");
	st = pb_loop_add_pair(b, s, p, ready, object, ret_write, err);
	s->per_second = PIPE_PER_SECOND;
	return st;
}

static void read_errors(struct pb_broker *b, struct pb_source *s, uint32_t events)
{
	(void)events;
	pb_log_words(b, s, "intake");
}

static void take_result(struct pb_broker *b, struct pb_job *j)
{
	ssize_t n = read(j->result.fd, j->result_buf + j->result_len, sizeof(j->result_buf) - j->result_len);

	if (n > 0)
		j->result_len += (size_t)n;
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		pb_loop_remove(b, &j->result);
	if (j->result_len == sizeof(j->result_buf))
		pb_loop_remove(b, &j->result); /* longer than any result can be: it will not decode */
}

static void answer_early(struct pb_broker *b, struct pb_job *j);

static void on_result(struct pb_broker *b, struct pb_source *s, uint32_t events)
{
	struct pb_job *j = s->object;

	(void)events;
	take_result(b, j);
	if (j->brief && !j->kill_wanted)
		answer_early(b, j);
}

/* ---- turns ---- */

unsigned pb_count_ending(const struct pb_broker *b, const struct pb_tenant *t)
{
	unsigned n = t->ending;

	for (const struct pb_job *j = b->jobs; j; j = j->next)
		n += j->tenant == t && !j->model;
	return n;
}

/* Those that the spawner is busy with; brief ones apart. */
static unsigned count_starts(const struct pb_broker *b, const struct pb_tenant *t, unsigned *ret_briefs)
{
	unsigned starts = 0, briefs = 0;

	for (const struct pb_client *c = b->clients; c; c = c->next)
		for (const struct pb_model_rec *m = c->tenant == t ? c->models : NULL; m; m = m->next)
			starts += m->state == PB_M_LOADING || m->state == PB_M_OPS;
	for (const struct pb_job *j = b->jobs; j; j = j->next) {
		starts += j->tenant == t && !j->brief;
		briefs += j->tenant == t && j->brief;
	}
	*ret_briefs = briefs;
	return starts;
}

/* Well below what its socket holds: there is room for what follows an intake, and for kills. */
static bool spawner_listens(const struct pb_broker *b)
{
	struct pollfd p = {.fd = b->spawner.fd, .events = POLLOUT};

	return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT);
}

bool pb_is_turn(const struct pb_broker *b, const struct pb_tenant *t, bool brief)
{
	unsigned briefs, starts = count_starts(b, t, &briefs);

	return (brief ? briefs < PB_BRIEFS_PER_TENANT : starts < PB_STARTS_PER_TENANT) && spawner_listens(b);
}

/* ---- life ---- */

static void job_free(struct pb_broker *b, struct pb_job *j)
{
	struct pb_job **p = &b->jobs;

	while (*p && *p != j)
		p = &(*p)->next;
	if (*p)
		*p = j->next;
	pb_loop_remove(b, &j->result);
	pb_loop_remove(b, &j->errors);
	pb_tenant_unref(b, j->tenant);
	free(j);
}

pb_status pb_job_start(struct pb_broker *b, struct pb_model_rec *m, enum pb_msg_id id, void *msg, const int *fds,
		       size_t n_fds, const char *what,
		       void (*done)(struct pb_broker *, struct pb_model_rec *, void *, const struct pt2box_error *),
		       void *object, struct pb_job **ret, struct pt2box_error *err)
{
	PB_CLEANUP(pb_close_fd) int err_w = -1;
	PB_CLEANUP(pb_close_fd) int res_w = -1;
	struct pb_job *j = n_fds > JOB_FDS_MAX ? NULL : calloc(1, sizeof(*j));
	uint64_t spawn_id = ++b->next_spawn;
	int all[PB_FDS_MAX];
	pb_status st;

	if (!j)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "the broker has no memory for an intake");
	*j = (struct pb_job){.next = b->jobs,
			     .model = m,
			     .object = object,
			     .done = done,
			     .tenant = pb_tenant_ref(m->tenant),
			     .brief = m->brief,
			     .spawn_id = (uint32_t)spawn_id,
			     .deadline_ns = pb_now_ns() + JOB_DEADLINE_NS,
			     .what = what,
			     .result.fd = -1,
			     .errors.fd = -1};
	b->jobs = j;
	st = pb_make_pipe(b, &j->errors, j, read_errors, &err_w, err);
	if (!st)
		st = pb_make_pipe(b, &j->result, j, on_result, &res_w, err);
	if (!st) {
		memcpy(msg, &spawn_id, sizeof(spawn_id)); /* the first field of all messages that start something */
		all[0] = err_w;
		all[1] = res_w;
		memcpy(all + 2, fds, n_fds * sizeof(fds[0]));
		st = pb_send(b->spawner.fd, id, msg, all, n_fds + 2, err);
	}
	if (st) {
		job_free(b, j);
		return st;
	}
	*ret = j;
	return PT2BOX_OK;
}

static void job_kill(struct pb_broker *b, struct pb_job *j)
{
	struct pb_msg_spawn_kill k = {.id = j->spawn_id};

	/* The spawner may not read just now, and must not be waited for: a tick asks again. */
	j->kill_wanted = true;
	if (!j->kill_sent)
		j->kill_sent = pb_send(b->spawner.fd, PB_MSG_spawn_kill, &k, NULL, 0, NULL) == PT2BOX_OK;
}

struct pb_job *pb_job_give_up(struct pb_broker *b, struct pb_job *j)
{
	if (!j)
		return NULL;
	j->model = NULL;
	pb_loop_remove(b, &j->result);
	pb_loop_remove(b, &j->errors);
	job_kill(b, j);
	return NULL;
}

uint64_t pb_job_tick(struct pb_broker *b, struct pb_job *j, uint64_t now)
{
	if (!j->kill_wanted && now < j->deadline_ns)
		return j->deadline_ns;
	if (!j->kill_wanted)
		pb_error_set(&j->failure, PT2BOX_MODEL_TIMEOUT, "%s in time", j->what);
	if (!j->kill_sent)
		job_kill(b, j);
	return j->kill_sent ? UINT64_MAX : now + ASK_AGAIN_NS;
}

/* ---- the end ---- */

/* [status, text] from intake, a few bytes that a hostile package may have had a hand in. */
static void decode_result(const struct pb_job *j, struct pt2box_error *ret)
{
	msgpack_unpacked u;
	size_t off = 0;

	pb_error_set(ret, PT2BOX_PKG_REJECTED, j->result_len ? "intake gave no readable result" :
							       "intake ended without a result");
	if (pb_msgpack_scan(j->result_buf, j->result_len, 3))
		return;
	msgpack_unpacked_init(&u);
	if (msgpack_unpack_next(&u, (const char *)j->result_buf, j->result_len, &off) == MSGPACK_UNPACK_SUCCESS &&
	    u.data.type == MSGPACK_OBJECT_ARRAY && u.data.via.array.size == 2 &&
	    u.data.via.array.ptr[0].type == MSGPACK_OBJECT_POSITIVE_INTEGER &&
	    u.data.via.array.ptr[0].via.u64 <= 255 && u.data.via.array.ptr[1].type == MSGPACK_OBJECT_STR) {
		ret->status = (pb_status)u.data.via.array.ptr[0].via.u64;
		pb_text_escape(ret->text, sizeof(ret->text), u.data.via.array.ptr[1].via.str.ptr,
			       u.data.via.array.ptr[1].via.str.size);
	}
	msgpack_unpacked_destroy(&u);
}

/*
 * The result is the last that it writes, and its memory is sealed before anybody looks: the answer need not wait for the
 * end of its namespaces, which takes half a millisecond.
 */
static void answer_early(struct pb_broker *b, struct pb_job *j)
{
	struct pb_model_rec *m = j->model;
	struct pt2box_error e = {.status = PT2BOX_OK};

	if (pb_msgpack_scan(j->result_buf, j->result_len, 3))
		return; /* not all of it yet, or never */
	decode_result(j, &e);
	pb_job_give_up(b, j);
	j->done(b, m, j->object, &e);
}

static void ended(struct pb_broker *b, struct pb_job *j, const struct pt2box_error *e)
{
	struct pb_model_rec *m = j->model;
	void (*done)(struct pb_broker *, struct pb_model_rec *, void *, const struct pt2box_error *) = j->done;
	void *object = j->object;

	job_free(b, j);
	if (m)
		done(b, m, object, e);
}

static struct pb_job *find(const struct pb_broker *b, uint64_t id)
{
	struct pb_job *j = b->jobs;

	while (j && j->spawn_id != id)
		j = j->next;
	return j;
}

bool pb_job_exited(struct pb_broker *b, const struct pb_msg_exited *msg)
{
	struct pb_job *j = find(b, msg->id);
	struct pt2box_error e = {.status = PT2BOX_OK};
	int status = (int)msg->wait_status;

	if (!j)
		return false;
	while (j->result.fd >= 0) { /* what was written before the exit is in the pipe */
		size_t before = j->result_len;

		take_result(b, j);
		if (j->result_len == before)
			break;
	}
	if (j->failure.status)
		e = j->failure;
	else if (WIFSIGNALED(status))
		pb_error_set(&e, PT2BOX_PKG_REJECTED, "intake died by signal %d: %s", WTERMSIG(status), j->what);
	else
		decode_result(j, &e);
	ended(b, j, &e);
	return true;
}

bool pb_job_spawn_failed(struct pb_broker *b, const struct pb_msg_spawn_failed *msg)
{
	struct pb_job *j = find(b, msg->id);
	struct pt2box_error e;

	if (!j)
		return false;
	pb_error_set(&e, msg->status ? (pb_status)msg->status : PT2BOX_INTERNAL, "%s", msg->text);
	ended(b, j, &e);
	return true;
}
