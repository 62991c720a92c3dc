/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packages whose operators come from a plugin, through real processes: right values; plugins that crash, hang, return too
 * much or nonsense, of which only the call in hand fails; plugins that cannot be used; processes that die around a call.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/broker.h"
#include "tests/lib/loaded.h"
#include "tests/lib/operators.h"
#include "tests/lib/tensors.h"
#include "tests/plugins/hostile.h"

static int open_plugin(const char *name)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/tests/plugins/%s.so", test_build_dir(), name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static int open_built(const char *name)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/%s", test_build_dir(), name);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static int open_example(void)
{
	return open_plugin("example");
}

static void test_values(void **state)
{
	(void)state;
	test_operators_values(open_example, 100);
}

/* Each fails in its own way, and the next call is right again, in the same worker. */
static void test_hostile(void **state)
{
	static const struct {
		enum hostile what;
		enum pt2box_status status;
		const char *says;
	} rows[] = {
		{HOSTILE_CRASH, PT2BOX_OP_CRASHED, "SIGSEGV"},
		{HOSTILE_HANG, PT2BOX_OP_TIMEOUT, "deadline of 500 ms"},
		{HOSTILE_TOO_MUCH, PT2BOX_LIMIT, "results of more than"},
		{HOSTILE_NO_RESULT, PT2BOX_MODEL_ERROR, "result 0 is missing"},
		{HOSTILE_FORGE, PT2BOX_OP_CRASHED, "nonsense"},
		{HOSTILE_SOCKET, PT2BOX_OP_CRASHED, "forbidden system call"},
		{HOSTILE_FILE, PT2BOX_OP_CRASHED, "forbidden system call"},
		{HOSTILE_EXIT, PT2BOX_OP_CRASHED, "exit code 3"},
		{HOSTILE_FAIL, PT2BOX_MODEL_ERROR, "does not like 1009"},
		{HOSTILE_STORE_INPUT, PT2BOX_OP_CRASHED, "SIGSEGV"},
		{HOSTILE_STRANGER, PT2BOX_MODEL_ERROR, "the schema does not say"},
	};
	struct test_operators w;
	pid_t worker;

	(void)state;
	test_operators_begin(&w, open_plugin("hostile"), 1);
	OK(test_operators_run(&w, HOSTILE_NOT));
	worker = test_ps_pid(w.c, "worker", 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		enum pt2box_status st = test_operators_run(&w, (float)rows[i].what);

		if (st != rows[i].status || (!strstr(test_error.text, rows[i].says) && rows[i].what != HOSTILE_STRANGER))
			fail_msg("%d: %s: %s", rows[i].what, pt2box_status_name(st), test_error.text);
		if (!strstr(test_error.text, "pt2box_test::triple"))
			fail_msg("%d: does not name the operator: %s", rows[i].what, test_error.text);
		OK(test_operators_run(&w, HOSTILE_NOT));
	}
	assert_int_equal(test_ps_pid(w.c, "worker", 0), worker);
	test_operators_end(&w);
}

/* What the model makes of a result that it was not compiled for is its own affair; nobody else's. */
static void test_other_shape(void **state)
{
	struct test_operators w;

	(void)state;
	test_operators_begin(&w, open_plugin("hostile"), 1);
	if (test_operators_run(&w, HOSTILE_OTHER_SHAPE) == PT2BOX_OK)
		fail_msg("a result of another shape gave right values");
	OK(test_operators_run(&w, HOSTILE_NOT));
	test_operators_end(&w);
}

static void test_quick_deaths(void **state)
{
	struct test_operators w;

	(void)state;
	test_operators_begin(&w, open_plugin("hostile"), 1);
	for (int i = 0; i < 15; i++) {
		assert_int_equal(test_operators_run(&w, HOSTILE_CRASH), PT2BOX_OP_CRASHED);
		OK(test_operators_run(&w, HOSTILE_NOT));
	}
	test_operators_end(&w);
}

struct thread_job {
	struct test_operators w; /* its own input */
	bool attacks;
	int bad;
};

static void *runs(void *arg)
{
	struct thread_job *j = arg;
	struct pt2box_error e;

	for (int i = 0; i < (j->attacks ? 4 : 200); i++) {
		struct pt2box_tensor *out = NULL;
		enum pt2box_status st;

		j->w.x[0] = j->attacks ? (i % 2 ? HOSTILE_HANG : HOSTILE_CRASH) : (float)i;
		st = pt2box_run(j->w.m, &j->w.in, 1, NULL, &out, &e);
		if (j->attacks)
			j->bad += st != (i % 2 ? PT2BOX_OP_TIMEOUT : PT2BOX_OP_CRASHED);
		else
			j->bad += st || ((const float *)pt2box_tensor_get_info(out)->data)[0] != (float)i * 3 + 4;
		if (st && (!j->attacks || j->bad))
			fprintf(stderr, "run %d: %s: %s\n", i, pt2box_status_name(st), e.text);
		pt2box_tensor_free(out);
	}
	return NULL;
}

/* Several workers share one ops process: calls that wait are not lost with the one that it dies of. */
static void test_only_the_call_in_hand(void **state)
{
	struct thread_job j[3];
	pthread_t t[3];
	struct test_operators w;

	(void)state;
	test_operators_begin(&w, open_plugin("hostile"), 3);
	for (int i = 0; i < 3; i++) {
		j[i] = (struct thread_job){.w = w, .attacks = i == 0};
		test_operators_input(w.m, &j[i].w.in, &j[i].w.x);
		assert_int_equal(pthread_create(&t[i], NULL, runs, &j[i]), 0);
	}
	for (int i = 0; i < 3; i++) {
		pthread_join(t[i], NULL);
		assert_int_equal(j[i].bad, 0);
		pt2box_tensor_free(j[i].w.in);
	}
	test_operators_end(&w);
}

/* Worker and template die; their successors find the ops process. */
static void test_others_die(void **state)
{
	struct test_operators w;

	(void)state;
	test_operators_begin(&w, open_plugin("hostile"), 1);
	OK(test_operators_run(&w, HOSTILE_NOT));
	test_kill_and_wait(w.c, "worker", 0);
	OK(test_operators_run(&w, HOSTILE_NOT));
	test_kill_and_wait(w.c, "template", 0);
	OK(test_operators_run(&w, HOSTILE_NOT));
	assert_int_equal(test_operators_run(&w, HOSTILE_CRASH), PT2BOX_OP_CRASHED);
	OK(test_operators_run(&w, HOSTILE_NOT));
	test_operators_end(&w);
}

static void test_refused(void **state)
{
	struct pt2box_model *m;
	struct pt2box *c;
	char path[300];
	int fd;

	(void)state;
	OK(pt2box_open(NULL, &c, &test_error));
	REFUSED(test_operators_load(c, "customop", -1, 1, &m), PT2BOX_UNSUPPORTED, "pt2box_test::triple");
	/* Operators that the plugin does not have. */
	REFUSED(test_operators_load(c, "opkinds", open_plugin("hostile"), 1, &m), PT2BOX_NOT_FOUND, "pt2box_kinds::big");
	/* Not a plugin; not even a library. */
	snprintf(path, sizeof(path), "%s/libpt2box.so", test_build_dir());
	fd = open(path, O_RDONLY);
	assert_true(test_operators_load(c, "customop", fd, 1, &m) != PT2BOX_OK);
	REFUSED(test_operators_load(c, "customop", open_built("libexec/pt2box-ops"), 1, &m), PT2BOX_PKG_REJECTED, "elf");
	fd = open("/dev/null", O_RDONLY);
	REFUSED(test_operators_load(c, "customop", fd, 1, &m), PT2BOX_BAD_FD, "plugin");
	/* Its constructor runs after the filter. */
	REFUSED(test_operators_load(c, "customop", open_plugin("early"), 1, &m), PT2BOX_OP_CRASHED, "forbidden system call");
	/* A plugin that nobody calls is not even looked at. */
	fd = open(fixture_path("customop", "model.pt2"), O_RDONLY);
	OK(test_operators_load(c, "mlp", fd, 1, &m));
	pt2box_unload(m);
	OK(test_operators_load(c, "customop", open_plugin("example"), 1, &m));
	pt2box_unload(m);
	pt2box_close(c);
}

/* The file says which host it is for; those that this machine does not have are named. */
static void test_hosts(void **state)
{
	struct pt2box_model *m;
	struct pt2box *c;
	int fd;

	(void)state;
	setenv("PT2BOX_TORCH", "none", 1);
	setenv("PT2BOX_PYTHON", "none", 1);
	OK(pt2box_open(NULL, &c, &test_error));
	/* A model is linked with PyTorch's library, as extensions are. */
	REFUSED(test_operators_load(c, "customop", open_built("tests/hostile/benign.0.so"), 1, &m), PT2BOX_UNSUPPORTED, "needs PyTorch");
	fd = open(fixture_path("customop", "model.pt2"), O_RDONLY | O_CLOEXEC);
	REFUSED(test_operators_load(c, "customop", fd, 1, &m), PT2BOX_UNSUPPORTED, "would have to be Python");
	pt2box_close(c);
}

/* Nothing is left of a served broker's ops processes, nor of descriptors, whatever they died of. */
static void test_nothing_left(void **state)
{
	struct test_broker broker;
	struct pt2box *c;
	int before = 0;

	(void)state;
	assert_int_equal(test_broker_start(&broker, getenv("PT2BOX_LIBEXEC")), 0);
	OK(pt2box_open(broker.socket, &c, &test_error));
	for (int i = 0; i < 6; i++) {
		struct test_operators w = {.c = c};

		OK(test_operators_load(c, "customop", open_plugin("hostile"), 2, &w.m));
		test_operators_input(w.m, &w.in, &w.x);
		OK(test_operators_run(&w, HOSTILE_NOT));
		if (i % 2)
			assert_int_equal(test_operators_run(&w, HOSTILE_CRASH), PT2BOX_OP_CRASHED);
		pt2box_tensor_free(w.in);
		pt2box_unload(w.m);
		usleep(100000);
		if (i == 1)
			before = test_broker_fds(&broker);
	}
	assert_int_equal(test_broker_fds(&broker), before);
	pt2box_close(c);
	assert_true(test_broker_alive(&broker));
	assert_int_equal(test_broker_stop(&broker), 0);
	test_remove_tree(broker.dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_values),
		CHECK_TEST(test_hostile),
		CHECK_TEST(test_other_shape),
		CHECK_TEST(test_quick_deaths),
		CHECK_TEST(test_only_the_call_in_hand),
		CHECK_TEST(test_others_die),
		CHECK_TEST(test_refused),
		CHECK_TEST(test_hosts),
		CHECK_TEST(test_nothing_left),
	};

	return test_programs_init() ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
