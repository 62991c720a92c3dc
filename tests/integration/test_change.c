/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes of constants and sessions, from the broker's side: whatever dies while a change is under way, it is made for all
 * or for nobody, somebody says which, and nothing is left of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <jansson.h>

#include "include/pt2box.h"
#include "ipc/socket.h"
#include "tests/lib/broker.h"
#include "tests/lib/check.h"
#include "tests/lib/package.h"
#include "tests/lib/tensors.h"

#define N 16
#define N_WEIGHTS 1024
#define BUILT_IN 0.25f /* the package's own constants */
#define SLOW 777.0f    /* tests/hostile/change.c */
enum { TEMPLATE_DIES = 1001, WORKER_DIES, TEMPLATE_HANGS, WORKER_HANGS, TEMPLATE_FAILS, WORKER_FAILS };

static struct test_broker broker;
static struct test_paths paths;
static char package[256];
static struct pt2box *box;
static struct pt2box_error failure;

#define OK(call)                                                                                                       \
	do {                                                                                                           \
		enum pt2box_status st_ = call;                                                                         \
		if (st_)                                                                                               \
			fail_msg("%s: %s: %s", #call, pt2box_status_name(st_), failure.text);                          \
	} while (0)

/* ---- what a test does ---- */

static struct pt2box_model *load_with(uint32_t runners, int64_t load_deadline_ms)
{
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT;
	struct pt2box_model *m;

	opt.runners = runners;
	opt.load_deadline_ms = load_deadline_ms;
	opt.run_deadline_ms = 20000;
	OK(pt2box_load_path(box, package, &opt, &m, &failure));
	return m;
}

static enum pt2box_status run_value(struct pt2box_model *m, float first, float *ret, struct pt2box_error *err)
{
	int64_t size = N;
	struct pt2box_tensor *in, *out;
	enum pt2box_status st = pt2box_tensor_alloc(m, PT2BOX_FLOAT32, 1, &size, &in, err);
	float *x;

	if (st)
		return st;
	x = pt2box_tensor_get_info(in)->data;
	for (int i = 0; i < N; i++)
		x[i] = i ? 1 : first;
	st = pt2box_run(m, &in, 1, NULL, &out, err);
	if (!st) {
		*ret = ((float *)pt2box_tensor_get_info(out)->data)[1] - 2;
		pt2box_tensor_free(out);
	}
	pt2box_tensor_free(in);
	return st;
}

/* The constants that a run sees. */
static float seen(struct pt2box_model *m)
{
	float v = -1;

	OK(run_value(m, 1, &v, &failure));
	return v;
}

/* All of them @value, the first one @first. */
static enum pt2box_status update(struct pt2box_model *m, float first, float value, uint32_t flags,
				 struct pt2box_error *err)
{
	float w[N_WEIGHTS];
	int64_t size = N_WEIGHTS;
	struct pt2box_constant c = {.name = "w"};
	enum pt2box_status st;

	for (int i = 0; i < N_WEIGHTS; i++)
		w[i] = i ? value : first;
	st = pt2box_tensor_lend(PT2BOX_FLOAT32, 1, &size, NULL, w, &c.tensor, err);
	if (!st)
		st = pt2box_load_constants(m, &c, 1, flags, err);
	pt2box_tensor_free(c.tensor);
	return st;
}

static json_t *ps(void)
{
	char *text;
	json_t *j;

	OK(pt2box_ps(box, &text, &failure));
	j = json_loads(text, 0, NULL);
	assert_non_null(j);
	pt2box_free_text(text);
	return j;
}

static json_t *model_of(json_t *all, size_t i)
{
	json_t *m = json_array_get(json_object_get(all, "models"), i);

	assert_non_null(m);
	return m;
}

/* Pid of the only model's worker at place @i in the list, -1: of the template. */
static pid_t pid_of(int i)
{
	json_t *all = ps(), *m = model_of(all, 0);
	json_t *p = i < 0 ? json_object_get(m, "template") : json_array_get(json_object_get(m, "workers"), (size_t)i);
	pid_t pid = (pid_t)json_integer_value(json_object_get(p, "pid"));

	json_decref(all);
	return pid;
}

static void kill_pid(pid_t pid)
{
	if (pid > 1)
		kill(pid, SIGKILL);
}

/* Descriptors of the broker, when nothing is under way any more. */
static int settled_fds(void)
{
	int n = -2, same = 0;

	for (int i = 0; i < 100 && same < 5; i++) {
		int now = test_broker_fds(&broker);

		same = now == n ? same + 1 : 0;
		n = now;
		usleep(30000);
	}
	return n;
}

/* ---- a change on a thread of its own ---- */

struct changing {
	struct pt2box_model *m;
	float first, value;
	enum pt2box_status st;
	struct pt2box_error err;
	pthread_t t;
};

static void *change_thread(void *arg)
{
	struct changing *c = arg;

	c->st = update(c->m, c->first, c->value, 0, &c->err);
	return NULL;
}

static void change_start(struct changing *c, struct pt2box_model *m, float first, float value)
{
	*c = (struct changing){.m = m, .first = first, .value = value};
	assert_int_equal(pthread_create(&c->t, NULL, change_thread, c), 0);
}

static enum pt2box_status change_end(struct changing *c)
{
	pthread_join(c->t, NULL);
	return c->st;
}

struct running {
	struct pt2box_model *m;
	float first, value;
	enum pt2box_status st;
	struct pt2box_error err;
	pthread_t t;
};

static void *run_thread(void *arg)
{
	struct running *r = arg;

	r->st = run_value(r->m, r->first, &r->value, &r->err);
	return NULL;
}

static void run_start(struct running *r, struct pt2box_model *m, float first)
{
	*r = (struct running){.m = m, .first = first};
	assert_int_equal(pthread_create(&r->t, NULL, run_thread, r), 0);
}

/* ---- changes that go well ---- */

static void test_buffers(void **state)
{
	struct pt2box_model *m = load_with(2, 0);
	struct pt2box_constant *list;
	size_t n;

	(void)state;
	assert_true(seen(m) == BUILT_IN);
	OK(update(m, 3, 3, 0, &failure));
	assert_true(seen(m) == 3);
	assert_int_equal(pt2box_swap_constants(m, &failure), PT2BOX_USAGE);
	assert_int_equal(pt2box_fold_constants(m, 1, &failure), PT2BOX_USAGE);
	OK(pt2box_free_inactive_constants(m, &failure));
	OK(pt2box_fold_constants(m, 0, &failure));
	OK(update(m, 4, 4, PT2BOX_CONSTANTS_INACTIVE, &failure));
	assert_true(seen(m) == 3);
	OK(pt2box_swap_constants(m, &failure));
	assert_true(seen(m) == 4);
	OK(pt2box_extract_constants(m, 1, &list, &n, &failure));
	assert_int_equal(n, 1);
	assert_true(((float *)pt2box_tensor_get_info(list[0].tensor)->data)[7] == 3);
	pt2box_free_constants(list, n);
	OK(pt2box_free_inactive_constants(m, &failure));
	OK(pt2box_extract_constants(m, 1, &list, &n, &failure));
	assert_int_equal(n, 0);
	pt2box_free_constants(list, n);
	OK(pt2box_extract_constants(m, 0, &list, &n, &failure));
	assert_int_equal(n, 1);
	assert_true(((float *)pt2box_tensor_get_info(list[0].tensor)->data)[7] == 4);
	pt2box_free_constants(list, n);
	assert_int_equal(pt2box_swap_constants(m, &failure), PT2BOX_USAGE);
	pt2box_unload(m);
}

/* The template is started again with both buffers, whichever of them is the package's own. */
static void test_buffers_survive_the_template(void **state)
{
	struct pt2box_model *m = load_with(1, 0);
	float v;

	(void)state;
	OK(update(m, 5, 5, PT2BOX_CONSTANTS_INACTIVE, &failure));
	for (int i = 0; i < 4; i++) {
		kill_pid(pid_of(-1));
		usleep(50000);
		while (run_value(m, 1, &v, &failure))
			usleep(10000);
		assert_true(v == (i % 2 ? 5 : BUILT_IN));
		OK(pt2box_swap_constants(m, &failure));
		assert_true(seen(m) == (i % 2 ? BUILT_IN : 5));
	}
	pt2box_unload(m);
}

static void test_nothing_leaks(void **state)
{
	struct pt2box_model *m = load_with(2, 0);
	int before, after;

	(void)state;
	OK(update(m, 1, 1, 0, &failure));
	OK(update(m, 1, 1, PT2BOX_CONSTANTS_INACTIVE, &failure));
	before = settled_fds();
	for (int i = 0; i < 50; i++) {
		OK(update(m, (float)i, (float)i, 0, &failure));
		OK(update(m, -1, -1, PT2BOX_CONSTANTS_INACTIVE, &failure));
		OK(pt2box_swap_constants(m, &failure));
		OK(pt2box_free_inactive_constants(m, &failure));
		assert_true(seen(m) == -1);
	}
	OK(update(m, 1, 1, PT2BOX_CONSTANTS_INACTIVE, &failure));
	after = settled_fds();
	assert_int_equal(after, before);
	pt2box_unload(m);
}

/* ---- death ---- */

/* Whatever the moment, a worker's death is no failure of a change. */
static void test_worker_dies(void **state)
{
	struct pt2box_model *m = load_with(2, 0);
	int before;
	float v;

	(void)state;
	OK(update(m, 1, 1, 0, &failure)); /* from now on there is memory beside the package's */
	before = settled_fds();
	for (int i = 0; i < 24; i++) {
		struct changing c;

		change_start(&c, m, (float)i, (float)i);
		usleep((useconds_t)i * 500);
		kill_pid(pid_of(i % 2));
		if (change_end(&c))
			fail_msg("after %d: %s", i, c.err.text);
		while (run_value(m, 1, &v, &failure))
			assert_int_equal(failure.status, PT2BOX_MODEL_CRASHED);
		assert_true(v == i);
	}
	assert_int_equal(settled_fds(), before);
	pt2box_unload(m);
}

/* With the template all workers die: the change is made or not, and the answer says which. */
static void test_template_dies(void **state)
{
	int made = 0, before;
	float old, v;

	(void)state;
	before = settled_fds();
	for (int round = 0; round < 5; round++) {
		struct pt2box_model *m = load_with(2, 0);

		old = seen(m);
		for (int i = 0; i < 5; i++) {
			struct changing c;
			float value = (float)(round * 5 + i + 1);

			change_start(&c, m, value, value);
			usleep((useconds_t)(round * 5 + i) * 400);
			kill_pid(pid_of(-1));
			if (change_end(&c) == PT2BOX_OK) {
				old = value;
				made++;
			} else {
				assert_int_equal(c.st, PT2BOX_MODEL_CRASHED);
			}
			while (run_value(m, 1, &v, &failure))
				usleep(5000);
			if (v != old)
				fail_msg("round %d, %d: %s, but a run sees %g, not %g", round, i,
					 pt2box_status_name(c.st), v, old);
		}
		pt2box_unload(m);
	}
	printf("    %d of 25 changes were made\n", made);
	assert_int_equal(settled_fds(), before);
}

static void test_template_misbehaves(void **state)
{
	struct pt2box_model *m = load_with(1, 2000);
	float v;

	(void)state;
	(void)seen(m);
	OK(update(m, 2, 2, 0, &failure));
	assert_int_equal(update(m, TEMPLATE_FAILS, 9, 0, &failure), PT2BOX_MODEL_ERROR);
	assert_true(seen(m) == 2);
	assert_int_equal(update(m, TEMPLATE_DIES, 9, 0, &failure), PT2BOX_MODEL_CRASHED);
	while (run_value(m, 1, &v, &failure))
		usleep(5000);
	assert_true(v == 2);
	assert_int_equal(update(m, TEMPLATE_HANGS, 9, 0, &failure), PT2BOX_MODEL_TIMEOUT);
	while (run_value(m, 1, &v, &failure))
		usleep(5000);
	assert_true(v == 2);
	OK(update(m, 3, 3, 0, &failure));
	assert_true(seen(m) == 3);
	pt2box_unload(m);
}

static void test_worker_misbehaves(void **state)
{
	static const int how[] = {WORKER_FAILS, WORKER_DIES, WORKER_HANGS};
	struct pt2box_model *m = load_with(1, 1500);
	float v = 0;

	(void)state;
	for (int i = 0; i < 3; i++) {
		(void)seen(m);
		OK(update(m, (float)how[i], (float)(10 + i), 0, &failure));
		while (run_value(m, 1, &v, &failure))
			usleep(5000);
		assert_true(v == 10 + i);
		assert_true(seen(m) == 10 + i);
	}
	pt2box_unload(m);
}

/* A run in hand keeps its constants, and a change waits for it and nothing else. */
static void test_staging(void **state)
{
	struct pt2box_model *m = load_with(1, 0);
	struct changing c;
	struct running r;
	long began;

	(void)state;
	(void)seen(m);
	for (int i = 0; i < 3; i++) {
		float old = seen(m), v;

		run_start(&r, m, SLOW);
		usleep(100000);
		began = test_now_ms();
		change_start(&c, m, (float)i + 20, (float)i + 20);
		usleep(100000);
		if (i == 1)
			kill_pid(pid_of(0));
		if (i == 2)
			kill_pid(pid_of(-1));
		if (i == 2)
			assert_int_equal(change_end(&c), PT2BOX_MODEL_CRASHED);
		else if (change_end(&c))
			fail_msg("%s", c.err.text);
		assert_true(test_now_ms() - began < 1500);
		pthread_join(r.t, NULL);
		assert_int_equal(r.st, i == 0 ? PT2BOX_OK : PT2BOX_MODEL_CRASHED);
		if (i == 0)
			assert_true(r.value == old);
		while (run_value(m, 1, &v, &failure))
			usleep(5000);
		assert_true(v == (i == 2 ? old : (float)i + 20));
	}
	pt2box_unload(m);
}

/* ---- raw messages: clients that go, models that are unloaded ---- */

static struct pb_rx rx;

static int raw_client(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct pb_msg_hello hello = {.version = PB_PROTOCOL_VERSION, .program = "test"};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(a.sun_path, broker.socket);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(pb_send(fd, PB_MSG_hello, &hello, NULL, 0, NULL), PT2BOX_OK);
	assert_int_equal(pb_recv(fd, PB_BROKER, PB_CLIENT, PB_STATE_ANY, false, &rx, NULL), PT2BOX_OK);
	return fd;
}

/* The next message; what came with it is closed. */
static int raw_answer(int fd)
{
	assert_int_equal(pb_recv(fd, PB_BROKER, PB_CLIENT, PB_STATE_ANY, false, &rx, NULL), PT2BOX_OK);
	pb_fds_close(&rx.fds);
	return rx.row->id;
}

static uint64_t raw_load(int fd, const char *path)
{
	struct pb_msg_load m = {.request = 1, .model = "model", .backend = "auto", .profile = "default", .runners = 2,
				.device = -1};
	int file = open(path, O_RDONLY | O_CLOEXEC);

	assert_int_equal(pb_send(fd, PB_MSG_load, &m, &file, 1, NULL), PT2BOX_OK);
	close(file);
	if (raw_answer(fd) != PB_MSG_loaded)
		fail_msg("%s", rx.msg.failed.text);
	return rx.msg.loaded.model;
}

static int constants_file(float value)
{
	static const char head[] = "{\"w\":{\"dtype\":\"F32\",\"shape\":[1024],\"data_offsets\":[0,4096]}}";
	int fd = memfd_create("constants", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	uint64_t n = strlen(head);

	assert_int_equal(write(fd, &n, 8), 8);
	assert_int_equal(write(fd, head, n), (ssize_t)n);
	for (int i = 0; i < N_WEIGHTS; i++)
		assert_int_equal(write(fd, &value, 4), 4);
	return fd;
}

static void raw_change(int fd, uint64_t request, uint64_t model, enum pb_change change, bool inactive, float value)
{
	struct pb_msg_change_constants m = {.request = request, .model = model, .change = change, .inactive = inactive};
	int file = change == PB_CHANGE_UPDATE ? constants_file(value) : -1;

	assert_int_equal(pb_send(fd, PB_MSG_change_constants, &m, &file, file >= 0 ? 1 : 0, NULL), PT2BOX_OK);
	pb_close_fd(&file);
}

static void test_unload_in_the_middle(void **state)
{
	int before = settled_fds();

	(void)state;
	for (int i = 0; i < 16; i++) {
		int fd = raw_client(), id;
		uint64_t model = raw_load(fd, package);
		struct pb_msg_unload u = {.request = 3, .model = model};

		raw_change(fd, 2, model, PB_CHANGE_UPDATE, i & 1, 1);
		(void)!pb_send(fd, PB_MSG_read_constants,
			       &(struct pb_msg_read_constants){.request = 5, .model = model}, NULL, 0, NULL);
		usleep((useconds_t)i * 500);
		if (i % 4 == 3) {
			close(fd); /* the client goes */
			continue;
		}
		assert_int_equal(pb_send(fd, PB_MSG_unload, &u, NULL, 0, NULL), PT2BOX_OK);
		/* Each of the three is answered, the change once. */
		for (uint64_t got = 0; got != (1 << 2 | 1 << 3 | 1 << 5);) {
			id = raw_answer(fd);
			assert_true(id == PB_MSG_failed || id == PB_MSG_done || id == PB_MSG_constants_values);
			if (id == PB_MSG_failed)
				assert_int_equal(rx.msg.failed.status, PT2BOX_CANCELLED);
			assert_false(got & 1ull << rx.msg.done.request);
			got |= 1ull << rx.msg.done.request;
		}
		close(fd);
	}
	assert_true(test_broker_alive(&broker));
	assert_int_equal(settled_fds(), before);
}

static void expect_failed(int fd, uint64_t request, pb_status st)
{
	assert_int_equal(raw_answer(fd), PB_MSG_failed);
	assert_int_equal(rx.msg.failed.request, request);
	if (rx.msg.failed.status != st)
		fail_msg("%s: %s", pt2box_status_name(rx.msg.failed.status), rx.msg.failed.text);
}

static void test_refused(void **state)
{
	int before = settled_fds(), fd = raw_client(), junk = memfd_create("junk", MFD_CLOEXEC);
	uint64_t model = raw_load(fd, package);
	struct pb_msg_change_constants m = {.model = model, .change = PB_CHANGE_UPDATE};

	(void)state;
	raw_change(fd, 2, 77, PB_CHANGE_UPDATE, false, 1);
	expect_failed(fd, 2, PT2BOX_NOT_FOUND);
	raw_change(fd, 3, model, PB_CHANGE_SWAP, false, 0);
	expect_failed(fd, 3, PT2BOX_USAGE);
	m.request = 4; /* without a file */
	assert_int_equal(pb_send(fd, PB_MSG_change_constants, &m, NULL, 0, NULL), PT2BOX_OK);
	expect_failed(fd, 4, PT2BOX_USAGE);
	m.request = 5; /* no safetensors */
	assert_int_equal(pb_send(fd, PB_MSG_change_constants, &m, &junk, 1, NULL), PT2BOX_OK);
	assert_int_equal(raw_answer(fd), PB_MSG_failed);
	m.request = 6; /* with a file, but no update */
	m.change = PB_CHANGE_SWAP;
	assert_int_equal(pb_send(fd, PB_MSG_change_constants, &m, &junk, 1, NULL), PT2BOX_OK);
	expect_failed(fd, 6, PT2BOX_USAGE);
	raw_change(fd, 7, model, PB_CHANGE_UPDATE, false, 1); /* two at once */
	raw_change(fd, 8, model, PB_CHANGE_UPDATE, false, 2);
	expect_failed(fd, 8, PT2BOX_LIMIT);
	assert_int_equal(raw_answer(fd), PB_MSG_done);
	assert_int_equal(rx.msg.done.request, 7);
	raw_change(fd, 9, model, PB_CHANGE_FREE_INACTIVE, false, 0);
	assert_int_equal(raw_answer(fd), PB_MSG_done);
	close(fd);
	close(junk);
	assert_int_equal(settled_fds(), before);
}

/* ---- sessions ---- */

static void test_many_sessions(void **state)
{
	int before = settled_fds(), fd = raw_client();
	uint64_t model = raw_load(fd, package), last = 0;
	struct pb_msg_session_open open_msg = {.request = 9, .model = model};
	struct pb_msg_session_close close_msg = {.model = model};
	struct pb_msg_lane_open lane = {.request = 11, .model = model};
	int n = 0;

	(void)state;
	for (;; n++) {
		assert_int_equal(pb_send(fd, PB_MSG_session_open, &open_msg, NULL, 0, NULL), PT2BOX_OK);
		if (raw_answer(fd) != PB_MSG_session)
			break;
		assert_true(rx.msg.session.session > last);
		last = rx.msg.session.session;
	}
	assert_int_equal(rx.msg.failed.status, PT2BOX_LIMIT);
	assert_int_equal(n, 62);
	close_msg.session = 5;
	assert_int_equal(pb_send(fd, PB_MSG_session_close, &close_msg, NULL, 0, NULL), PT2BOX_OK);
	lane.session = 5;
	assert_int_equal(pb_send(fd, PB_MSG_lane_open, &lane, NULL, 0, NULL), PT2BOX_OK);
	expect_failed(fd, 11, PT2BOX_NOT_FOUND);
	do { /* once its worker is gone there is room for another, with another id */
		usleep(10000);
		assert_int_equal(pb_send(fd, PB_MSG_session_open, &open_msg, NULL, 0, NULL), PT2BOX_OK);
	} while (raw_answer(fd) != PB_MSG_session);
	assert_true(rx.msg.session.session > last);
	close(fd);
	assert_true(test_broker_alive(&broker));
	assert_int_equal(settled_fds(), before);
}

static void test_sessions_change(void **state)
{
	struct pt2box_model *m = load_with(1, 0), *s, *s2;

	(void)state;
	OK(update(m, 6, 6, 0, &failure));
	OK(pt2box_session_open(m, &s, &failure));
	assert_true(seen(s) == 6);
	OK(update(m, 7, 7, 0, &failure));
	assert_true(seen(s) == 7);
	OK(pt2box_session_open(m, &s2, &failure));
	assert_true(seen(s2) == 7);
	pt2box_unload(s);
	assert_true(seen(s2) == 7 && seen(m) == 7);
	pt2box_unload(s2);
	pt2box_unload(m);
}

/* ---- state ---- */

/* The fixture whose runs count one up; *ret: the count. */
static enum pt2box_status run_count(struct pt2box_model *m, double *ret)
{
	struct test_arrays a;
	struct pt2box_tensor *in[4], *out[2];
	enum pt2box_status st;

	fixture_read("mutbuf", "in.npz", &a);
	fixture_tensors(m, &a, in);
	st = pt2box_run(m, in, 1, NULL, out, &failure);
	if (!st) {
		*ret = fixture_at(pt2box_tensor_get_info(out[1]), 0);
		pt2box_tensor_free(out[0]);
		pt2box_tensor_free(out[1]);
	}
	pt2box_tensor_free(in[0]);
	test_arrays_free(&a);
	return st;
}

static double counted(struct pt2box_model *m)
{
	double n = -1;

	OK(run_count(m, &n));
	return n;
}

/* Wait until the worker at @place is there, and another one than @was. */
static void wait_for_successor(int place, pid_t was)
{
	for (int i = 0; i < 500; i++) {
		json_t *all = ps(), *w = json_array_get(json_object_get(model_of(all, 0), "workers"), (size_t)place);
		bool ready = strcmp(json_string_value(json_object_get(w, "state")), "ready") == 0;
		pid_t pid = (pid_t)json_integer_value(json_object_get(w, "pid"));

		json_decref(all);
		if (ready && pid > 1 && pid != was)
			return;
		usleep(10000);
	}
	fail_msg("no worker took its place");
}

static void test_state_lost(void **state)
{
	struct pt2box_model *m, *s[2];
	double n;

	(void)state;
	OK(pt2box_load_path(box, fixture_path("mutbuf", "model.pt2"), NULL, &m, &failure));
	assert_true(pt2box_model_is_stateful(m));
	assert_true(counted(m) == 1 && counted(m) == 2);
	OK(pt2box_session_open(m, &s[0], &failure));
	OK(pt2box_session_open(m, &s[1], &failure));
	assert_true(counted(s[0]) == 1 && counted(s[1]) == 1 && counted(s[1]) == 2 && counted(m) == 3);
	/* Nobody runs: the next to run hears of it, once, and only where it happened. */
	for (int place = 0; place < 2; place++) {
		pid_t was = pid_of(place);

		kill_pid(was);
		wait_for_successor(place, was);
		assert_int_equal(run_count(place ? s[0] : m, &n), PT2BOX_STATE_LOST);
		assert_true(counted(place ? s[0] : m) == 1);
		assert_true(counted(s[1]) == 3 + place);
	}
	/* All of them with the template. */
	kill_pid(pid_of(-1));
	usleep(200000);
	assert_int_equal(run_count(s[1], &n), PT2BOX_STATE_LOST);
	assert_int_equal(run_count(m, &n), PT2BOX_STATE_LOST);
	assert_int_equal(run_count(s[0], &n), PT2BOX_STATE_LOST);
	assert_true(counted(s[0]) == 1 && counted(s[1]) == 1 && counted(m) == 1);
	pt2box_unload(s[0]);
	pt2box_unload(s[1]);
	pt2box_unload(m);
}

/* ---- sharing ---- */

static struct pt2box_model *load_fixture(struct pt2box *c, const char *name, bool constants)
{
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT;
	struct pt2box_model *m;

	opt.constants_fd = constants ? open(fixture_path(name, "constants.safetensors"), O_RDONLY | O_CLOEXEC) : -1;
	OK(pt2box_load_path(c, fixture_path(name, "model.pt2"), &opt, &m, &failure));
	pb_close_fd(&opt.constants_fd);
	return m;
}

/* Of the models that @key is shared by; *ret_bytes: what all models hold. */
static long long sharers(const char *key, long long *ret_bytes)
{
	json_t *all = ps(), *m;
	json_int_t n = json_integer_value(json_object_get(json_object_get(model_of(all, 0), key), "models"));
	size_t i;

	*ret_bytes = 0;
	json_array_foreach(json_object_get(all, "models"), i, m)
		*ret_bytes += json_integer_value(json_object_get(m, "memfd_bytes"));
	json_decref(all);
	return n;
}

static void test_sharing(void **state)
{
	static const struct {
		const char *a, *b, *key;
		bool constants;
	} cases[] = {{"shared_a", "shared_b", "constants", true}, {"resnet18", "resnet18", "code", false}};
	struct pt2box *other;

	(void)state;
	OK(pt2box_open(broker.socket, &other, &failure));
	for (size_t i = 0; i < 2; i++) {
		struct pt2box_model *a = load_fixture(box, cases[i].a, cases[i].constants), *b;
		long long one, two;

		assert_int_equal(sharers(cases[i].key, &one), 1);
		b = load_fixture(other, cases[i].b, cases[i].constants);
		assert_int_equal(sharers(cases[i].key, &two), 2);
		assert_true(two < one + one / 2 + (1 << 20));
		pt2box_unload(a);
		assert_int_equal(sharers(cases[i].key, &two), 1);
		pt2box_unload(b);
	}
	pt2box_close(other);
}

/* ---- rolling ---- */

static bool is_rolled(void)
{
	json_t *all = ps(), *m = model_of(all, 0), *list = json_object_get(m, "workers"), *w;
	json_int_t changes = json_integer_value(json_object_get(m, "changes"));
	bool ok = json_array_size(list) == 2;
	size_t i;

	json_array_foreach(list, i, w) {
		ok = ok && strcmp(json_string_value(json_object_get(w, "state")), "ready") == 0;
		ok = ok && json_integer_value(json_object_get(w, "born")) == changes;
		assert_int_equal(json_integer_value(json_object_get(w, "deaths")), 0);
	}
	json_decref(all);
	return ok;
}

static void test_rolling(void **state)
{
	struct pt2box_model *m = load_with(2, 0);
	int before, rounds = 0;

	(void)state;
	OK(update(m, 1, 1, 0, &failure));
	before = settled_fds();
	for (int i = 0; i < 3; i++) {
		OK(update(m, (float)i, (float)i, 0, &failure));
		/* No run fails, and none sees anything else. */
		for (rounds = 0; !is_rolled() && rounds < 500; rounds++) {
			for (int k = 0; k < 50; k++)
				assert_true(seen(m) == i);
		}
		assert_true(rounds < 500);
	}
	assert_int_equal(settled_fds(), before);
	pt2box_unload(m);
}

static int begin(void **state)
{
	struct test_package p = {.constants = true};
	char so[300];

	(void)state;
	alarm(200);
	test_paths_init(&paths);
	if (test_broker_start(&broker, paths.programs))
		return -1;
	snprintf(package, sizeof(package), "%s/change.pt2", broker.dir);
	snprintf(so, sizeof(so), "%s/change.3.so", paths.models);
	p.so_path = so;
	if (test_package_write(package, &p))
		return -1;
	return pt2box_open(broker.socket, &box, &failure) ? -1 : 0;
}

static int end(void **state)
{
	int left;

	(void)state;
	pt2box_close(box);
	left = test_broker_stop(&broker);
	test_remove_tree(broker.dir);
	return left;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_buffers),
		cmocka_unit_test(test_buffers_survive_the_template),
		cmocka_unit_test(test_nothing_leaks),
		cmocka_unit_test(test_worker_dies),
		cmocka_unit_test(test_template_dies),
		cmocka_unit_test(test_template_misbehaves),
		cmocka_unit_test(test_worker_misbehaves),
		cmocka_unit_test(test_staging),
		cmocka_unit_test(test_unload_in_the_middle),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_many_sessions),
		cmocka_unit_test(test_sessions_change),
		cmocka_unit_test(test_rolling),
		cmocka_unit_test(test_state_lost),
		cmocka_unit_test(test_sharing),
	};

	return cmocka_run_group_tests_name("change", tests, begin, end);
}
