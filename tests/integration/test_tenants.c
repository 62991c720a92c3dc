/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one client does to a broker must not be felt by another: floods of every kind, on connections of their own, while
 * a second client asks a question over and over and is answered each time.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/socket.h"
#include "tests/lib/broker.h"
#include "tests/lib/check.h"

#define CLIENTS 40
#define LOADS 60
#define ANSWER_MS 2000 /* the worst seen is 20; a broker that waits for somebody takes for ever */

static struct test_broker broker;
static struct pb_rx rx;

static int open_client(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct pb_msg_hello hello = {.version = PB_PROTOCOL_VERSION, .program = "test"};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	strcpy(a.sun_path, broker.socket);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) != 0 ||
	    pb_send(fd, PB_MSG_hello, &hello, NULL, 0, NULL) != PT2BOX_OK ||
	    pb_recv(fd, PB_BROKER, PB_CLIENT, PB_STATE_ANY, false, &rx, NULL) != PT2BOX_OK) {
		close(fd);
		return -1;
	}
	return fd;
}

/* One message from the broker within @ms; its id, 0 if none came. */
static int answer(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int id = 0;

	if (poll(&p, 1, ms) == 1 &&
	    pb_recv(fd, PB_BROKER, PB_CLIENT, PB_STATE_ANY, true, &rx, NULL) == PT2BOX_OK) {
		id = rx.row->id;
		pb_fds_close(&rx.fds);
	}
	return id;
}

static void send_load(int fd, uint64_t request, int package, uint64_t memory_bytes)
{
	struct pb_msg_load m = {.request = request,
				.model = "model",
				.backend = "auto",
				.profile = "default",
				.runners = 1,
				.device = -1,
				.memory_bytes = memory_bytes};

	(void)!pb_send(fd, PB_MSG_load, &m, &package, 1, NULL);
}

static int junk(void)
{
	int fd = memfd_create("junk", MFD_CLOEXEC);

	assert_int_equal(write(fd, "no package", 10), 10);
	return fd;
}

/* The other client, which asks as long as @flooder runs. */
static void expect_answers(pid_t flooder)
{
	struct pb_msg_describe ask = {.request = 1, .model = 1};
	int canary = open_client(), status = 0;
	unsigned asked = 0;

	assert_true(canary >= 0);
	while (waitpid(flooder, &status, WNOHANG) == 0 || asked < 20) {
		ask.request = ++asked;
		assert_int_equal(pb_send(canary, PB_MSG_describe, &ask, NULL, 0, NULL), PT2BOX_OK);
		assert_int_equal(answer(canary, ANSWER_MS), PB_MSG_failed); /* NOT_FOUND, at once */
		usleep(20000);
	}
	assert_int_equal(status, 0);
	close(canary);
}

static pid_t flood_with(void (*flood)(void))
{
	pid_t pid = fork();

	if (pid == 0) {
		flood();
		_exit(0);
	}
	return pid;
}

/* Loads by the thousand: more than the sockets between broker and spawner hold, in both directions. */
static void flood_loads(void)
{
	int client[CLIENTS], package = junk(), answers = 0;

	for (int c = 0; c < CLIENTS; c++)
		client[c] = open_client();
	for (int i = 0; i < LOADS; i++)
		for (int c = 0; c < CLIENTS; c++)
			send_load(client[c], (uint64_t)i + 1, package, 0);
	for (int c = 0; c < CLIENTS; c++)
		for (int i = 0; i < LOADS && answer(client[c], 20000) == PB_MSG_failed; i++)
			answers++;
	if (answers != CLIENTS * LOADS)
		_exit(1);
}

static void test_flood_of_loads(void **state)
{
	(void)state;
	expect_answers(flood_with(flood_loads));
}

/* A question that costs the broker much, as often as the socket takes it. */
static void flood_doctor(void)
{
	struct pb_msg_doctor m = {.request = 1};
	int fd = open_client();

	for (int i = 0; i < 400; i++)
		if (pb_send(fd, PB_MSG_doctor, &m, NULL, 0, NULL) != PT2BOX_OK || answer(fd, 5000) != PB_MSG_text)
			_exit(1);
}

static void test_flood_of_questions(void **state)
{
	long began = test_now_ms();

	(void)state;
	expect_answers(flood_with(flood_doctor));
	/* Looked at anew each time, it takes 4 ms and more. */
	assert_true(CHECK_SANITIZED || test_now_ms() - began < 1500);
}

/* More connections than there are descriptors: the rest is closed, and the broker sleeps. */
static void flood_connections(void)
{
	int fd[400];

	for (int i = 0; i < 400; i++)
		fd[i] = open_client();
	sleep(1);
	for (int i = 0; i < 400; i++)
		if (fd[i] >= 0)
			close(fd[i]);
}

static void test_flood_of_connections(void **state)
{
	(void)state;
	expect_answers(flood_with(flood_connections));
}

/* ---- what a client does not get ---- */

/* While intake writes it, the manifest can still be written by whoever has it. */
static void test_unsealed_memory(void **state)
{
	struct pb_msg_describe ask = {.request = 77};
	int package = junk(), fd = open_client();

	(void)state;
	for (uint64_t i = 1; i <= 8; i++) {
		send_load(fd, i, package, 0);
		ask.model = i;
		assert_int_equal(pb_send(fd, PB_MSG_describe, &ask, NULL, 0, NULL), PT2BOX_OK);
	}
	for (int i = 0; i < 16; i++)
		assert_int_equal(answer(fd, 5000), PB_MSG_failed);
	close(fd);
	close(package);
}

/* The operator's limit is the most that there is. */
static void test_memory_above_the_limit(void **state)
{
	int package = junk(), fd = open_client();

	(void)state;
	send_load(fd, 1, package, 1ull << 40);
	assert_int_equal(answer(fd, 5000), PB_MSG_failed);
	assert_int_equal(rx.msg.failed.status, PT2BOX_LIMIT);
	close(fd);
	close(package);
}

static int begin(void **state)
{
	struct test_paths paths;

	(void)state;
	alarm(100);
	test_paths_init(&paths);
	return test_broker_start(&broker, paths.programs);
}

static int end(void **state)
{
	int left = test_broker_stop(&broker);

	(void)state;
	test_remove_tree(broker.dir);
	return left;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flood_of_loads),
		cmocka_unit_test(test_flood_of_questions),
		cmocka_unit_test(test_flood_of_connections),
		cmocka_unit_test(test_unsealed_memory),
		cmocka_unit_test(test_memory_above_the_limit),
	};

	return cmocka_run_group_tests_name("tenants", tests, begin, end);
}
