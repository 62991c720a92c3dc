/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Models with state: it survives runs, not crashes, which are told once; it is one session's, one
 * model's, one client's. In the fixtures the second output of a run counts the runs.
 */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "ipc/socket.h"
#include "tests/lib/broker.h"
#include "tests/lib/loaded.h"
#include "tests/lib/tensors.h"

static const char *const stateful[] = {"mutbuf", "extmut", "blobmut"};
#define N_STATEFUL (sizeof(stateful) / sizeof(stateful[0]))
#define LOST (-1)

/* One run: what its counter says; LOST: STATE_LOST. */
static int count(struct loaded *l, struct pt2box_model *m)
{
	enum pt2box_status st = loaded_run(l, m);
	int n;

	if (st == PT2BOX_STATE_LOST) {
		assert_true(test_error.text[0]);
		return LOST;
	}
	if (st)
		fail_msg("%s: %s", pt2box_status_name(st), test_error.text);
	n = (int)fixture_at(pt2box_tensor_get_info(l->out[1]), 0);
	loaded_free(l);
	return n;
}

static struct pt2box_model *session(struct loaded *l)
{
	struct pt2box_model *s;

	OK(pt2box_session_open(l->m, &s, &test_error));
	return s;
}

/* Pids of the workers of the first model that live. */
static size_t workers(struct pt2box *c, pid_t *ret, size_t max)
{
	json_t *o = test_ps(c);
	const json_t *w,
		*list = json_object_get(json_array_get(json_object_get(o, "models"), 0), "workers");
	size_t i, n = 0;

	json_array_foreach(list, i,
			   w) if (json_integer_value(json_object_get(w, "pid")) > 0 && n < max)
		ret[n++] = (pid_t)json_integer_value(json_object_get(w, "pid"));
	json_decref(o);
	return n;
}

/* The one worker that is there now and was not before. */
static pid_t newest(struct pt2box *c, const pid_t *before, size_t n_before)
{
	pid_t now[64];
	size_t n = workers(c, now, 64);

	for (size_t i = 0; i < n; i++) {
		bool old = false;

		for (size_t k = 0; k < n_before; k++)
			old |= before[k] == now[i];
		if (!old)
			return now[i];
	}
	return 0;
}

static pid_t session_with_pid(struct loaded *l, struct pt2box_model **ret)
{
	pid_t before[64], pid;
	size_t n = workers(l->c, before, 64);

	*ret = session(l);
	pid = newest(l->c, before, n);
	assert_true(pid > 0);
	return pid;
}

static void wait_gone(struct pt2box *c, pid_t pid)
{
	const long until = test_now_ms() + 5000;
	pid_t now[64];

	for (bool there = true; there; usleep(2000)) {
		size_t n = workers(c, now, 64);

		there = false;
		for (size_t i = 0; i < n; i++)
			there |= now[i] == pid;
		assert_true(test_now_ms() < until);
	}
}

/* ---- state is kept, and kept apart ---- */

static void check_survives_runs(const char *name)
{
	struct pt2box_model *a, *b;
	struct loaded l;

	loaded_open(&l, NULL, name, 1);
	assert_true(pt2box_model_is_stateful(l.m));
	for (int i = 1; i <= 3; i++)
		assert_int_equal(count(&l, l.m), i);
	a = session(&l);
	b = session(&l);
	assert_true(pt2box_model_is_stateful(a));
	assert_int_equal(pt2box_model_n_outputs(a), l.n_out);
	for (int i = 1; i <= 5; i++) {
		assert_int_equal(count(&l, a), i);
		assert_int_equal(count(&l, l.m), i + 3);
		if (i > 2)
			assert_int_equal(count(&l, b), i - 2);
	}
	pt2box_unload(a);
	/* A new one is not the old one. */
	a = session(&l);
	assert_int_equal(count(&l, a), 1);
	assert_int_equal(count(&l, b), 4);
	assert_int_equal(count(&l, l.m), 9);
	pt2box_unload(b);
	pt2box_unload(a);
	assert_int_equal(count(&l, l.m), 10);
	loaded_close(&l);
}

static void test_survives_runs(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_STATEFUL; i++)
		check_survives_runs(stateful[i]);
}

/* What torch computes, run after run, on a session as on the model. */
static void test_sequence(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_STATEFUL; i++) {
		struct pt2box_model *s;
		struct loaded l;

		loaded_open(&l, NULL, stateful[i], 1);
		s = session(&l);
		for (size_t k = 0; k < l.f.n_cases; k++) {
			loaded_gives(&l, s, l.f.cases[k].out);
			loaded_gives(&l, l.m, l.f.cases[k].out);
		}
		pt2box_unload(s);
		loaded_close(&l);
	}
}

struct counter {
	pthread_t thread;
	struct loaded *of;
	struct pt2box_model *m;
	int from, runs;
	bool ok;
};

static void *count_thread(void *data)
{
	struct counter *k = data;
	struct pt2box_tensor *out[TEST_ARRAYS_MAX];
	struct pt2box_error e;

	k->ok = true;
	for (int i = 1; i <= k->runs && k->ok; i++) {
		k->ok = pt2box_run(k->m, k->of->t, k->of->in.n, NULL, out, &e) == PT2BOX_OK;
		if (!k->ok)
			break;
		k->ok = (int)fixture_at(pt2box_tensor_get_info(out[1]), 0) == k->from + i;
		for (size_t o = 0; o < k->of->n_out; o++)
			pt2box_tensor_free(out[o]);
	}
	return NULL;
}

/* Sessions at the same time, each on its worker. */
static void test_sessions_at_once(void **state)
{
	struct counter k[6];
	struct loaded l;

	(void)state;
	loaded_open(&l, NULL, "extmut", 1);
	for (int i = 0; i < 6; i++) {
		k[i] = (struct counter){.of = &l, .m = i ? session(&l) : l.m, .runs = 200 + 50 * i};
		assert_int_equal(pthread_create(&k[i].thread, NULL, count_thread, &k[i]), 0);
	}
	for (int i = 0; i < 6; i++) {
		pthread_join(k[i].thread, NULL);
		assert_true(k[i].ok);
		if (i)
			pt2box_unload(k[i].m);
	}
	loaded_close(&l);
}

/* ---- crashes ---- */

static void check_crash_idle(const char *name)
{
	struct pt2box_model *a, *b;
	struct loaded l;
	pid_t pid;

	loaded_open(&l, NULL, name, 1);
	b = session(&l);
	pid = session_with_pid(&l, &a);
	for (int i = 1; i <= 3; i++) {
		assert_int_equal(count(&l, a), i);
		assert_int_equal(count(&l, b), i);
		assert_int_equal(count(&l, l.m), i);
	}
	for (int i = 0; i < 2; i++) {
		pid_t before[64];
		size_t n = workers(l.c, before, 64);

		assert_int_equal(kill(pid, SIGKILL), 0);
		wait_gone(l.c, pid);
		/* Told once, then a fresh state. */
		assert_int_equal(count(&l, a), LOST);
		assert_int_equal(count(&l, a), 1);
		assert_int_equal(count(&l, a), 2);
		pid = newest(l.c, before, n);
		assert_true(pid > 0);
	}
	/* The model's own. */
	assert_int_equal(count(&l, l.m), 4);
	test_kill_and_wait(l.c, "worker", 0);
	assert_int_equal(count(&l, l.m), LOST);
	assert_int_equal(count(&l, l.m), 1);
	assert_int_equal(count(&l, a), 3);
	assert_int_equal(count(&l, b), 4);
	pt2box_unload(a);
	pt2box_unload(b);
	loaded_close(&l);
}

static void test_crash_idle(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_STATEFUL; i++)
		check_crash_idle(stateful[i]);
}

/* The template's death takes every state with it. */
static void test_template_dies(void **state)
{
	struct pt2box_model *a;
	struct loaded l;
	int told[2];

	(void)state;
	loaded_open(&l, NULL, "extmut", 1);
	a = session(&l);
	assert_int_equal(count(&l, a), 1);
	assert_int_equal(count(&l, l.m), 1);
	assert_int_equal(count(&l, l.m), 2);
	test_kill_and_wait(l.c, "template", 0);
	told[0] = count(&l, l.m);
	told[1] = count(&l, a);
	/* Either they live on, or they say so; never a state that is neither. */
	assert_true(told[0] == LOST || told[0] == 3);
	assert_true(told[1] == LOST || told[1] == 2);
	assert_int_equal(count(&l, l.m), told[0] == LOST ? 1 : 4);
	assert_int_equal(count(&l, a), told[1] == LOST ? 1 : 3);
	pt2box_unload(a);
	loaded_close(&l);
}

struct killer {
	pthread_t thread;
	struct pt2box *c;
	int times;
	atomic_int kills;
	atomic_bool failed, ended;
};

static void *kill_thread(void *data)
{
	struct killer *k = data;
	uint64_t seed = 3;

	for (int i = 0; i < k->times && !k->failed; i++) {
		pid_t pid[2] = {0}, was;

		usleep((useconds_t)(2000 + check_rand(&seed) % 20000));
		if (workers(k->c, pid, 2) != 1 || kill(pid[0], SIGKILL) != 0)
			k->failed = true;
		k->kills++;
		was = pid[0];
		for (long until = test_now_ms() + 5000; test_now_ms() < until; usleep(1000))
			if (workers(k->c, pid, 2) == 1 && pid[0] != was)
				break;
	}
	k->ended = true;
	return NULL;
}

/* Deaths at any moment, runs on their way as a rule: every one is told, exactly once, and what
 * follows counts from one. */
static void test_crash_running(void **state)
{
	struct killer k = {.times = 20};
	struct loaded l;
	int last = 0, lost = 0;

	(void)state;
	loaded_open(&l, NULL, "mutbuf", 1);
	k.c = l.c;
	assert_int_equal(pthread_create(&k.thread, NULL, kill_thread, &k), 0);
	while (!k.ended) {
		int now = count(&l, l.m);

		if (now == LOST) {
			lost++;
			last = 0;
			continue;
		}
		if (now != last + 1) {
			k.failed = true;
			pthread_join(k.thread, NULL);
			fail_msg("run %d came after %d", now, last);
		}
		last = now;
	}
	pthread_join(k.thread, NULL);
	assert_false(k.failed);
	/* The last one may not have been told yet. */
	if (count(&l, l.m) == LOST)
		lost++;
	assert_int_equal(lost, k.kills);
	loaded_close(&l);
}

/* A retry would run on another state. */
static void test_no_retries(void **state)
{
	struct pt2box_run_options opt = PT2BOX_RUN_OPTIONS_INIT;
	struct loaded l;

	(void)state;
	loaded_open(&l, NULL, "mutbuf", 1);
	opt.retries = 5;
	assert_int_equal(count(&l, l.m), 1);
	test_kill_and_wait(l.c, "worker", 0);
	REFUSED(pt2box_run(l.m, l.t, l.in.n, &opt, l.out, &test_error), PT2BOX_STATE_LOST, "");
	assert_int_equal(count(&l, l.m), 1);
	loaded_close(&l);
}

/* ---- sessions and constants ---- */

static double read_count(struct pt2box_model *m)
{
	struct pt2box_constant *list;
	double v;
	size_t n;

	OK(pt2box_extract_constants(m, 0, &list, &n, &test_error));
	v = fixture_at(pt2box_tensor_get_info(test_constants_find(list, n, "count")), 0);
	pt2box_free_constants(list, n);
	return v;
}

static void test_extract(void **state)
{
	struct pt2box_model *a;
	struct loaded l;

	(void)state;
	loaded_open(&l, NULL, "extmut", 1);
	a = session(&l);
	for (int i = 0; i < 4; i++)
		count(&l, a);
	count(&l, l.m);
	assert_true(read_count(a) == 4);
	assert_true(read_count(l.m) == 1);
	assert_int_equal(count(&l, a), 5);
	pt2box_unload(a);
	loaded_close(&l);
}

/* New weights come to sessions too; their state stays. */
static void check_update(const char *name)
{
	struct test_update partial;
	struct pt2box_model *a, *b;
	struct test_constants k;
	struct loaded l;

	assert_true(test_update_get(name, 1, &partial));
	test_constants_read(&k, partial.constants);
	loaded_open(&l, NULL, name, 1);
	a = session(&l);
	for (int i = 0; i < partial.runs_before; i++) {
		count(&l, a);
		count(&l, l.m);
	}
	OK(pt2box_load_constants(l.m, k.list, k.n, 0, &test_error));
	loaded_gives(&l, a, partial.out);
	loaded_gives(&l, l.m, partial.out);
	/* One that is opened now has the new weights, and a fresh state. */
	b = session(&l);
	for (int i = 0; i < partial.runs_before; i++)
		assert_int_equal(count(&l, b), i + 1);
	loaded_gives(&l, b, partial.out);
	pt2box_unload(a);
	pt2box_unload(b);
	test_constants_free(&k);
	loaded_close(&l);
}

static void test_update(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_STATEFUL; i++)
		check_update(stateful[i]);
}

/* After a crash: the weights that were given, the state of the beginning. */
static void test_update_and_crash(void **state)
{
	struct test_update partial;
	struct test_constants k;
	struct loaded l;

	(void)state;
	assert_true(test_update_get("extmut", 1, &partial));
	test_constants_read(&k, partial.constants);
	loaded_open(&l, NULL, "extmut", 1);
	OK(pt2box_load_constants(l.m, k.list, k.n, 0, &test_error));
	assert_int_equal(count(&l, l.m), 1);
	for (int i = 0; i < 2; i++) {
		test_kill_and_wait(l.c, i ? "template" : "worker", 0);
		assert_int_equal(count(&l, l.m), LOST);
		for (int r = 1; r <= partial.runs_before; r++)
			assert_int_equal(count(&l, l.m), r);
		loaded_gives(&l, l.m, partial.out);
	}
	test_constants_free(&k);
	loaded_close(&l);
}

/* ---- limits and the end ---- */

static void test_limit(void **state)
{
	struct pt2box_model *s[80], *again;
	struct loaded l;
	pid_t pids[64];
	size_t n = 0, before;

	(void)state;
	loaded_open(&l, NULL, "mutbuf", 1);
	before = workers(l.c, pids, 64);
	while (n < 80 && pt2box_session_open(l.m, &s[n], &test_error) == PT2BOX_OK)
		n++;
	assert_in_range(n, 8, 79);
	assert_int_equal(test_error.status, PT2BOX_LIMIT);
	assert_int_equal(workers(l.c, pids, 64), before + n);
	for (size_t i = 0; i < n; i++)
		for (size_t r = 0; r <= i % 3; r++)
			assert_int_equal(count(&l, s[i]), r + 1);
	pt2box_unload(s[n / 2]);
	for (long until = test_now_ms() + 5000;
	     pt2box_session_open(l.m, &again, &test_error) != PT2BOX_OK;) {
		assert_true(test_now_ms() < until);
		usleep(5000);
	}
	s[n / 2] = again;
	assert_int_equal(count(&l, again), 1);
	for (size_t i = 0; i < n; i++)
		pt2box_unload(s[i]);
	for (long until = test_now_ms() + 5000; workers(l.c, pids, 64) > before; usleep(5000))
		assert_true(test_now_ms() < until);
	assert_int_equal(count(&l, l.m), 1);
	loaded_close(&l);
}

static void test_usage(void **state)
{
	struct pt2box_model *a, *b;
	struct loaded l;
	pid_t pid;

	(void)state;
	loaded_open(&l, NULL, "mutbuf", 1);
	pid = session_with_pid(&l, &a);
	REFUSED(pt2box_session_open(a, &b, &test_error), PT2BOX_USAGE, "");
	assert_int_equal(count(&l, a), 1);
	pt2box_unload(a);
	wait_gone(l.c, pid);
	loaded_close(&l);
	/* Without state a session is a worker of one's own. */
	loaded_open(&l, NULL, "mlp", 2);
	pid = session_with_pid(&l, &a);
	loaded_gives(&l, a, l.f.cases[0].out);
	loaded_gives(&l, l.m, l.f.cases[0].out);
	pt2box_unload(a);
	wait_gone(l.c, pid);
	loaded_close(&l);
}

/* The model goes first, or all of the connection: runs on what is left of a session fail, nothing
 * hangs. */
static void test_closed_first(void **state)
{
	struct pt2box_model *a;
	struct pt2box *c;
	struct loaded l;

	(void)state;
	OK(pt2box_open(NULL, &c, &test_error));
	loaded_open(&l, c, "mutbuf", 1);
	a = session(&l);
	assert_int_equal(count(&l, a), 1);
	pt2box_close(c);
	assert_int_not_equal(loaded_run(&l, a), PT2BOX_OK);
	pt2box_unload(a);
	loaded_close(&l);
}

/* ---- clients ---- */

static struct test_broker broker;
static struct pb_rx rx;

static int raw_client(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct pb_msg_hello hello = {.version = PB_PROTOCOL_VERSION, .program = "test"};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(a.sun_path, broker.socket);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(pb_send(fd, PB_MSG_hello, &hello, NULL, 0, NULL), PT2BOX_OK);
	assert_int_equal(pb_recv(fd, PB_BROKER, PB_CLIENT, PB_STATE_ANY, false, &rx, NULL),
			 PT2BOX_OK);
	return fd;
}

/* The answer's id. */
static int ask(int fd, int id, const void *msg)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	assert_int_equal(pb_send(fd, id, msg, NULL, 0, NULL), PT2BOX_OK);
	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_int_equal(pb_recv(fd, PB_BROKER, PB_CLIENT, PB_STATE_ANY, false, &rx, NULL),
			 PT2BOX_OK);
	pb_fds_close(&rx.fds);
	return rx.row->id;
}

/* Ids of another client's model and session are nobody's here. */
static void check_foreign_ids(void)
{
	int fd = raw_client();

	for (uint64_t model = 0; model < 4; model++)
		for (uint64_t s = 0; s < 4; s++) {
			struct pb_msg_lane_open lane = {1, model, s, 4096, 4096};
			struct pb_msg_read_constants values = {2, model, s, 0};
			struct pb_msg_session_open open = {3, model};
			struct pb_msg_session_close close_it = {model, s};
			struct pb_msg_change_constants change = {
				.request = 4, .model = model, .change = PB_CHANGE_SWAP};

			assert_int_equal(ask(fd, PB_MSG_lane_open, &lane), PB_MSG_failed);
			assert_int_equal(ask(fd, PB_MSG_read_constants, &values), PB_MSG_failed);
			assert_int_equal(ask(fd, PB_MSG_session_open, &open), PB_MSG_failed);
			assert_int_equal(ask(fd, PB_MSG_change_constants, &change), PB_MSG_failed);
			assert_int_equal(rx.msg.failed.status, PT2BOX_NOT_FOUND);
			assert_int_equal(
				pb_send(fd, PB_MSG_session_close, &close_it, NULL, 0, NULL),
				PT2BOX_OK);
		}
	close(fd);
}

static void test_two_clients(void **state)
{
	struct pt2box_model *sa, *sb;
	struct pt2box *c[2];
	struct loaded a, b;

	(void)state;
	assert_int_equal(test_broker_start(&broker, getenv("PT2BOX_LIBEXEC")), 0);
	for (int i = 0; i < 2; i++)
		OK(pt2box_open(broker.socket, &c[i], &test_error));
	loaded_open(&a, c[0], "extmut", 1);
	loaded_open(&b, c[1], "extmut", 1);
	sa = session(&a);
	sb = session(&b);
	for (int i = 1; i <= 4; i++) {
		assert_int_equal(count(&a, a.m), i);
		assert_int_equal(count(&a, sa), i);
		if (i % 2) {
			assert_int_equal(count(&b, b.m), i / 2 + 1);
			assert_int_equal(count(&b, sb), i / 2 + 1);
		}
	}
	check_foreign_ids();
	assert_int_equal(count(&a, sa), 5);
	assert_int_equal(count(&b, sb), 3);
	assert_true(read_count(sa) == 5);
	/* One goes; the other's state is what it was. */
	pt2box_close(c[0]);
	pt2box_unload(sa);
	loaded_close(&a);
	assert_int_equal(count(&b, sb), 4);
	assert_int_equal(count(&b, b.m), 3);
	pt2box_unload(sb);
	loaded_close(&b);
	pt2box_close(c[1]);
	assert_int_equal(test_broker_stop(&broker), 0);
	test_remove_tree(broker.dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_survives_runs),
		CHECK_TEST(test_sequence),
		CHECK_TEST(test_sessions_at_once),
		CHECK_TEST(test_crash_idle),
		CHECK_TEST(test_template_dies),
		CHECK_TEST(test_crash_running),
		CHECK_TEST(test_no_retries),
		CHECK_TEST(test_extract),
		CHECK_TEST(test_update),
		CHECK_TEST(test_update_and_crash),
		CHECK_TEST(test_limit),
		CHECK_TEST(test_usage),
		CHECK_TEST(test_closed_first),
		CHECK_TEST(test_two_clients),
	};

	return test_programs_init() ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
