/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packages whose operators are in Python, through real processes and this machine's interpreter: right values; functions that
 * raise, crash, hang or reach for what they may not have, of which only the call in hand fails; files that are of no use.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/lib/broker.h"
#include "tests/lib/loaded.h"
#include "tests/lib/operators.h"
#include "tests/lib/tensors.h"

#define PATIENT_MS 120000 /* an interpreter may have to start again before a run is done, on a busy machine */
#define HASTY_MS 12000

static int open_ops(void)
{
	int fd = open("tests/plugins/my_ops.py", O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static int open_text(const char *text)
{
	int fd = memfd_create("operators", MFD_CLOEXEC);

	assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	return fd;
}

static void test_values(void **state)
{
	(void)state;
	test_operators_run_deadline_ms = PATIENT_MS;
	test_operators_values(open_ops, 20);
}

/* Each fails in its own way, and the next call is right again, in the same worker. */
static void test_deeds(void **state)
{
	static const struct {
		int what;
		enum pt2box_status status;
		const char *says, *or_says;
	} rows[] = {
		{1001, PT2BOX_MODEL_ERROR, "ValueError: does not like 1001 (line ", NULL},
		{1003, PT2BOX_OP_CRASHED, "SIG", "forbidden system call"}, /* abort() of pid 1 ends in a fault */
		{1004, PT2BOX_OP_CRASHED, "forbidden system call", NULL},
		{1005, PT2BOX_MODEL_ERROR, "PermissionError", NULL},
		{1006, PT2BOX_OP_CRASHED, "forbidden system call", NULL},
		{1007, PT2BOX_MODEL_ERROR, "PermissionError", NULL},
		{1008, PT2BOX_MODEL_ERROR, "no module csv here", NULL},
		{1009, PT2BOX_MODEL_ERROR, "SystemExit: 3", NULL},
		{1010, PT2BOX_OP_CRASHED, "exit code 3", NULL},
		{1011, PT2BOX_MODEL_ERROR, "result 0 is None", NULL},
		{1012, PT2BOX_MODEL_ERROR, "read-only", NULL},
		{1013, PT2BOX_LIMIT, "results of more than", NULL},
		{1014, PT2BOX_OP_CRASHED, "SIGSEGV", NULL},
		{1015, PT2BOX_MODEL_ERROR, "can't start new thread", NULL},
		{1016, PT2BOX_MODEL_ERROR, "RecursionError", NULL},
		{1017, PT2BOX_MODEL_ERROR, "dtype object", NULL},
		{1018, PT2BOX_MODEL_ERROR, "cannot be described", NULL},
		{1019, PT2BOX_OP_CRASHED, "forbidden system call", NULL},
		{1020, PT2BOX_OP_CRASHED, "forbidden system call", NULL},
		{1021, PT2BOX_MODEL_ERROR, "dtype >f4", NULL},
		{1022, PT2BOX_MODEL_ERROR, "20 dimensions", NULL},
		{1023, PT2BOX_MODEL_ERROR, "PermissionError", NULL},
	};
	struct test_operators w;
	pid_t worker;

	(void)state;
	test_operators_run_deadline_ms = PATIENT_MS;
	test_operators_begin(&w, open_ops(), 1);
	OK(test_operators_run(&w, 0));
	worker = test_ps_pid(w.c, "worker", 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		enum pt2box_status st = test_operators_run(&w, (float)rows[i].what);

		if (st != rows[i].status || (!strstr(test_error.text, rows[i].says) &&
					     !(rows[i].or_says && strstr(test_error.text, rows[i].or_says))))
			fail_msg("%d: %s: %s", rows[i].what, pt2box_status_name(st), test_error.text);
		if (!strstr(test_error.text, "pt2box_test::triple"))
			fail_msg("%d: does not name the operator: %s", rows[i].what, test_error.text);
		OK(test_operators_run(&w, 0));
	}
	assert_int_equal(test_ps_pid(w.c, "worker", 0), worker);
	test_operators_end(&w);
}

static void test_hang(void **state)
{
	struct test_operators w;

	(void)state;
	test_operators_run_deadline_ms = HASTY_MS;
	test_operators_begin(&w, open_ops(), 1);
	assert_int_equal(test_operators_run(&w, 1002), PT2BOX_OP_TIMEOUT);
	assert_non_null(strstr(test_error.text, "deadline of 6000 ms"));
	OK(test_operators_run(&w, 0));
	test_operators_end(&w);
}

/* Why a file is of no use, with its line. */
static void test_refused(void **state)
{
#define TRIPLE "import pt2box.ops\n@pt2box.ops.op('pt2box_test::triple', "
	static const struct {
		const char *text;
		enum pt2box_status status;
		const char *says;
	} rows[] = {
		{"x = 1\nraise RuntimeError('not today')\n", PT2BOX_MODEL_ERROR, "RuntimeError: not today (line 2)"},
		{"x = 1\n\nif:\n", PT2BOX_MODEL_ERROR, "SyntaxError: invalid syntax (line 3)"},
		{"import sys\nsys.exit(0)\n", PT2BOX_MODEL_ERROR, "SystemExit: 0 (line 2)"},
		{"import xml.dom\n", PT2BOX_MODEL_ERROR, "no module xml here"},
		{"import os\nos.kill(1, 9)\n", PT2BOX_OP_CRASHED, "forbidden system call"},
		{"open('/etc/passwd')\n", PT2BOX_MODEL_ERROR, "PermissionError"},
		{"x = 1\n", PT2BOX_NOT_FOUND, "pt2box_test::triple"},
		{"", PT2BOX_UNSUPPORTED, "empty"},
		{TRIPLE "'(Tensor x, int k)')\ndef f(x, k): pass\n", PT2BOX_MODEL_ERROR, "-> is missing"},
		{TRIPLE "'(Tensor x, int k) -> Tensor')\ndef f(x): pass\n", PT2BOX_MODEL_ERROR, "too many positional arguments"},
		{TRIPLE "'(Tensor x, float k) -> Tensor')\ndef f(x, k): pass\n", PT2BOX_UNSUPPORTED, "k"},
		{TRIPLE "'(Tensor x, int k) -> int')\ndef f(x, k): pass\n", PT2BOX_USAGE, "returns a number"},
	};
#undef TRIPLE
	struct pt2box_model *m;
	struct pt2box *c;
	int fd;

	(void)state;
	test_operators_run_deadline_ms = PATIENT_MS;
	OK(pt2box_open(NULL, &c, &test_error));
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		enum pt2box_status st = test_operators_load(c, "customop", open_text(rows[i].text), 1, &m);

		if (st != rows[i].status || !strstr(test_error.text, rows[i].says))
			fail_msg("%s: %s: %s", rows[i].text, pt2box_status_name(st), test_error.text);
	}
	/* Not Python at all. */
	fd = open(fixture_path("customop", "model.pt2"), O_RDONLY | O_CLOEXEC);
	REFUSED(test_operators_load(c, "customop", fd, 1, &m), PT2BOX_MODEL_ERROR, "the operators' file: ");
	pt2box_close(c);
}

/* The files that the spawner gives to an interpreter are ours; that there are two workers makes no difference. */
static void test_others_die(void **state)
{
	struct test_operators w;

	(void)state;
	test_operators_run_deadline_ms = PATIENT_MS;
	test_operators_begin(&w, open_ops(), 2);
	OK(test_operators_run(&w, 0));
	test_kill_and_wait(w.c, "worker", 0);
	OK(test_operators_run(&w, 0));
	assert_int_equal(test_operators_run(&w, 1010), PT2BOX_OP_CRASHED);
	OK(test_operators_run(&w, 0));
	test_operators_end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_values),
		CHECK_TEST(test_deeds),
		CHECK_TEST(test_hang),
		CHECK_TEST(test_refused),
		CHECK_TEST(test_others_die),
	};

	/* The one whose packages the build needs; else whatever the broker finds. */
	if (access("/usr/bin/python3", X_OK) == 0)
		setenv("PT2BOX_PYTHON", "/usr/bin/python3", 0);
	return test_programs_init() ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
