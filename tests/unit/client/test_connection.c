/* SPDX-License-Identifier: Apache-2.0 */
/* A broker that lies, fails or goes away; several threads that wait for it; a private one that
 * cannot be started. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/lib/check.h"
#include "tests/unit/client/fake.h"

static int text_fd(const char *text)
{
	int fd;

	assert_int_equal(pb_memfd_from("text", text, strlen(text), &fd, NULL), PT2BOX_OK);
	return fd;
}

static void close_all(struct fake *f)
{
	close(f->broker);
	pt2box_close(f->c);
}

static void test_text(void **state)
{
	struct pb_msg_text m = {.request = 1};
	int fd = text_fd("{\"a\":1}");
	struct fake f;
	char *text;

	(void)state;
	fake_connect(&f);
	fake_say(&f, PB_MSG_text, &m, &fd, 1);
	assert_int_equal(pt2box_ps(f.c, &text, NULL), PT2BOX_OK);
	assert_string_equal(text, "{\"a\":1}");
	pt2box_free_text(text);
	close(fd);
	close_all(&f);
}

/* Answers that are not those that were asked for. */
static void test_wrong_answers(void **state)
{
	struct pb_msg_failed other = {
		.request = 77, .status = PT2BOX_LIMIT, .text = "for somebody else"};
	struct pb_msg_failed fails = {
		.request = 1, .status = PT2BOX_DENIED, .sys_errno = 13, .text = "no\x1b[31m"};
	struct pb_msg_failed odd = {.request = 2, .status = 200};
	struct pb_msg_done done = {.request = 3};
	struct pt2box_error e;
	struct fake f;
	char *text;

	(void)state;
	fake_connect(&f);
	fake_say(&f, PB_MSG_failed, &other, NULL, 0);
	fake_say(&f, PB_MSG_failed, &fails, NULL, 0);
	assert_int_equal(pt2box_doctor(f.c, &text, &e), PT2BOX_DENIED);
	assert_int_equal(e.sys_errno, 13);
	assert_string_equal(e.text, "no?[31m");
	fake_say(&f, PB_MSG_failed, &odd, NULL, 0);
	assert_int_equal(pt2box_doctor(f.c, &text, &e), PT2BOX_PROTOCOL);
	/* Of the wrong kind: such a broker is not spoken to again. */
	fake_say(&f, PB_MSG_done, &done, NULL, 0);
	assert_int_equal(pt2box_doctor(f.c, &text, &e), PT2BOX_PROTOCOL);
	assert_int_equal(pt2box_doctor(f.c, &text, &e), PT2BOX_PROTOCOL);
	close_all(&f);
}

static void test_garbage(void **state)
{
	struct fake f;
	char *text;

	(void)state;
	fake_connect(&f);
	assert_int_equal(write(f.broker, "\x93garbage", 8), 8);
	assert_int_equal(pt2box_ps(f.c, &text, NULL), PT2BOX_PROTOCOL);
	close_all(&f);
}

/* A whole text that is too long, or a descriptor that is no file. */
static void test_bad_files(void **state)
{
	struct pb_msg_text m = {.request = 1};
	int fd = fake_memory(65u << 20), p[2];
	struct fake f;
	char *text;

	(void)state;
	fake_connect(&f);
	fake_say(&f, PB_MSG_text, &m, &fd, 1);
	assert_int_equal(pt2box_ps(f.c, &text, NULL), PT2BOX_LIMIT);
	assert_int_equal(pipe(p), 0);
	m.request = 2;
	fake_say(&f, PB_MSG_text, &m, &p[0], 1);
	if (pt2box_ps(f.c, &text, NULL) == PT2BOX_OK)
		pt2box_free_text(text); /* empty: a pipe has no length */
	close(p[0]);
	close(p[1]);
	close(fd);
	close_all(&f);
}

static void test_says_why(void **state)
{
	struct pb_msg_failed m = {
		.request = 0, .status = PT2BOX_LAYER_MISSING, .text = "no seccomp"};
	struct pt2box_error e;
	struct fake f;
	char *text;

	(void)state;
	fake_connect(&f);
	fake_say(&f, PB_MSG_failed, &m, NULL, 0);
	close(f.broker);
	assert_int_equal(pt2box_ps(f.c, &text, &e), PT2BOX_LAYER_MISSING);
	assert_string_equal(e.text, "no seccomp");
	assert_int_equal(pb_connection_poll(f.c, &e), PT2BOX_LAYER_MISSING);
	pt2box_close(f.c);
}

/* ---- several threads ---- */

static void *ask(void *data)
{
	struct fake *f = data;
	char *text = NULL;
	pb_status st = pt2box_ps(f->c, &text, NULL);

	/* Each gets an answer to its own question. */
	if (!st && strncmp(text, "answer ", 7) != 0)
		st = PT2BOX_INTERNAL;
	pt2box_free_text(text);
	return (void *)(intptr_t)st;
}

#define ASKERS 8

static void test_threads(void **state)
{
	uint64_t requests[ASKERS];
	pthread_t thread[ASKERS];
	struct fake f;
	void *st;

	(void)state;
	fake_connect(&f);
	for (int i = 0; i < ASKERS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, ask, &f), 0);
	for (int i = 0; i < ASKERS;) {
		const struct pb_rx *rx = fake_hear(&f);

		if (rx)
			requests[i++] = rx->msg.ps.request;
		else
			usleep(100);
	}
	/* Answered backwards. */
	for (int i = ASKERS - 1; i >= 0; i--) {
		struct pb_msg_text m = {.request = requests[i]};
		int fd = text_fd("answer x");

		fake_say(&f, PB_MSG_text, &m, &fd, 1);
		close(fd);
	}
	for (int i = 0; i < ASKERS; i++) {
		pthread_join(thread[i], &st);
		assert_int_equal((intptr_t)st, PT2BOX_OK);
	}
	/* And lost together. */
	for (int i = 0; i < ASKERS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, ask, &f), 0);
	usleep(20000);
	close(f.broker);
	for (int i = 0; i < ASKERS; i++) {
		pthread_join(thread[i], &st);
		assert_int_equal((intptr_t)st, PT2BOX_BROKER_LOST);
	}
	pt2box_close(f.c);
}

/* ---- a private broker ---- */

static char dir[64];

static void write_program(const char *text)
{
	char path[100];
	FILE *file;

	snprintf(path, sizeof(path), "%s/pt2boxd", dir);
	file = fopen(path, "we");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
	chmod(path, 0755);
}

static void expect_no_broker(pb_status want, const char *text)
{
	struct pt2box_error e;
	struct pt2box *c;

	assert_int_equal(pt2box_open(NULL, &c, &e), want);
	assert_int_equal(e.status, want);
	if (!strstr(e.text, text))
		fail_msg("\"%s\" is not in \"%s\"", text, e.text);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left */
}

static void test_no_broker(void **state)
{
	(void)state;
	setenv("PT2BOX_LIBEXEC", dir, 1);
	expect_no_broker(PT2BOX_NOT_FOUND, "PT2BOX_LIBEXEC");
	write_program("#!/nonexistent\n");
	expect_no_broker(PT2BOX_SYSTEM, "cannot start");
	write_program("#!/bin/sh\nexit 42\n");
	expect_no_broker(PT2BOX_BROKER_LOST, "exit status 42");
	write_program("#!/bin/sh\nkill -9 $$\n");
	expect_no_broker(PT2BOX_BROKER_LOST, "signal 9");
	write_program("#!/bin/sh\nprintf garbage >&3\nread x <&3\n");
	expect_no_broker(PT2BOX_PROTOCOL, "");
	unsetenv("PT2BOX_LIBEXEC");
}

static void test_no_socket(void **state)
{
	char longer[300];
	struct pt2box_error e;
	struct pt2box *c;

	(void)state;
	assert_int_equal(pt2box_open("/nonexistent/socket", &c, &e), PT2BOX_BROKER_LOST);
	assert_int_equal(e.status, PT2BOX_BROKER_LOST);
	assert_non_null(strstr(e.text, "/nonexistent/socket"));
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(pt2box_open(longer, &c, &e), PT2BOX_USAGE);
}

static int make_dir(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/pt2box-connection-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char path[100];

	(void)state;
	snprintf(path, sizeof(path), "%s/pt2boxd", dir);
	unlink(path);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_text),	    CHECK_TEST(test_wrong_answers),
		CHECK_TEST(test_garbage),   CHECK_TEST(test_bad_files),
		CHECK_TEST(test_says_why),  CHECK_TEST(test_threads),
		CHECK_TEST(test_no_broker), CHECK_TEST(test_no_socket),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
