/* SPDX-License-Identifier: Apache-2.0 */
/* The spawner and intake as real processes: new constants for a model, and comparing memories, confined as for a load. */
#include "tests/lib/check.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/broker.h"
#include "ipc/manifest.h"
#include "ipc/socket.h"

#define BYTES 128

static int sock;
static pid_t pid;
static struct pb_config config;

static int start(void **state)
{
	const char *b = getenv("B");
	static char libexec[200];

	(void)state;
	snprintf(libexec, sizeof(libexec), "%s/libexec", b ? b : "build");
	config.libexec = realpath(libexec, NULL);
	return pb_spawner_start(&config, NULL, &sock, &pid, NULL) != PT2BOX_OK;
}

static int stop(void **state)
{
	(void)state;
	close(sock);
	return waitpid(pid, NULL, 0) != pid;
}

/* Until what was started has ended: it did so by itself. */
static void wait_end(uint64_t id)
{
	struct pb_rx *rx = calloc(1, sizeof(*rx));

	assert_non_null(rx);
	for (;;) {
		struct pollfd p = {.fd = sock, .events = POLLIN};

		assert_int_equal(1, poll(&p, 1, 20000));
		assert_int_equal(PT2BOX_OK, pb_recv(sock, PB_SPAWNER, PB_BROKER, PB_STATE_ANY, false, rx, NULL));
		if (rx->row->id == PB_MSG_spawn_failed)
			fail_msg("%s", rx->msg.spawn_failed.text);
		if (rx->row->id == PB_MSG_exited && rx->msg.exited.id == id)
			break;
	}
	assert_int_equal(0, rx->msg.exited.wait_status);
	free(rx);
}

/* The answer is [status, text]. */
static void expect_result(int fd, pb_status st, const char *text)
{
	uint8_t buf[600];
	ssize_t n = read(fd, buf, sizeof(buf) - 1);

	assert_true(n >= 3);
	buf[n] = '\0';
	assert_int_equal(0x92, buf[0]);
	if (buf[1] != (uint8_t)st || !strstr((char *)buf + 2, text))
		fail_msg("want %d %s, got %d %s", st, text, buf[1], buf + 2);
	close(fd);
}

static int sealed(const void *data, size_t bytes)
{
	int fd = -1;

	assert_int_equal(PT2BOX_OK, pb_memfd_from("test", data, bytes, &fd, NULL));
	return fd;
}

static int manifest(void)
{
	struct pb_constant c[2] = {
		{.name = "w_", .fqn = "w", .dtype = PT2BOX_FLOAT32, .ndim = 1, .sizes = {4}, .strides = {1}, .data_size = 64,
		 .type = PB_CONST_PARAMETER},
		{.name = "b_", .fqn = "b", .dtype = PT2BOX_FLOAT32, .ndim = 1, .sizes = {2}, .strides = {2}, .data_size = 64,
		 .blob_offset = 64, .type = PB_CONST_BUFFER}};
	const struct pb_manifest m = {.constants = c, .n_constants = 2, .const_source = PB_CONSTS_EXTERNAL,
				      .const_bytes = BYTES};
	uint8_t *data;
	size_t n;
	int fd;

	assert_int_equal(PT2BOX_OK, pb_manifest_encode(&m, &data, &n, NULL));
	fd = sealed(data, n);
	free(data);
	return fd;
}

/* *ret_out: what was written. */
static void update(struct pb_msg_spawn_constants *m, const char *header, pb_status st, const char *text, uint8_t ret[BYTES + 2])
{
	char base[BYTES + 8], parameters[BYTES], file[400];
	const uint64_t n = strlen(header);
	int fds[7], result[2];

	memset(base, 0x11, sizeof(base));
	memset(parameters, 0x22, sizeof(parameters));
	memset(file, 'x', sizeof(file));
	memcpy(file, &n, 8);
	memcpy(file + 8, header, n);
	assert_int_equal(0, pipe2(result, O_CLOEXEC));
	fds[0] = 2;
	fds[1] = result[1];
	fds[2] = manifest();
	fds[3] = sealed(file, 8 + n + 16);
	assert_int_equal(PT2BOX_OK, pb_memfd_unsealed("out", &fds[4], NULL));
	fds[5] = sealed(base, sizeof(base));
	fds[6] = sealed(parameters, sizeof(parameters));
	m->base_offset = 8;
	m->max_bytes = 1 << 20;
	assert_int_equal(PT2BOX_OK, pb_send(sock, PB_MSG_spawn_constants, m, fds, 7, NULL));
	wait_end(m->id);
	expect_result(result[0], st, text);
	memset(ret, 0xee, BYTES + 2);
	(void)!pread(fds[4], ret, BYTES + 2, 0);
	for (int i = 1; i < 7; i++)
		close(fds[i]);
}

static void test_constants(void **state)
{
	struct pb_msg_spawn_constants m = {.id = 7};
	uint8_t out[BYTES + 2];

	(void)state;
	update(&m, "{\"w\": {\"dtype\": \"F32\", \"shape\": [4], \"data_offsets\": [0, 16]}}", PT2BOX_OK, "", out);
	assert_memory_equal("xxxxxxxxxxxxxxxx\0", out, 17);
	assert_int_equal(0x11, out[64]);
	assert_memory_equal("\1\0", out + BYTES, 2);
	m.id = 8;
	/* Strided: through a mapping, which its filter must let through. By its internal name. */
	m.names = 1;
	update(&m, "{\"b_\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8]}}", PT2BOX_OK, "", out);
	assert_int_equal(0x22, out[63]);
	assert_memory_equal("xxxx\0\0\0\0xxxx\0", out + 64, 13);
	assert_memory_equal("\0\1", out + BYTES, 2);
	m.id = 9;
	m.full = 1;
	update(&m, "{\"b_\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8]}}", PT2BOX_NOT_FOUND,
	       "const.name: not given: w", out);
	assert_int_equal(0xee, out[0]);
}

static void compare(uint64_t id, const char *one, const char *other, pb_status st, const char *text)
{
	struct pb_msg_spawn_compare m = {.id = id};
	int result[2], fds[4];

	assert_int_equal(0, pipe2(result, O_CLOEXEC));
	fds[0] = 2;
	fds[1] = result[1];
	fds[2] = sealed(one, strlen(one));
	fds[3] = sealed(other, strlen(other));
	assert_int_equal(PT2BOX_OK, pb_send(sock, PB_MSG_spawn_compare, &m, fds, 4, NULL));
	wait_end(id);
	expect_result(result[0], st, text);
	for (int i = 1; i < 4; i++)
		close(fds[i]);
}

static void test_compare(void **state)
{
	(void)state;
	compare(11, "same", "same", PT2BOX_OK, "");
	compare(12, "same", "some", PT2BOX_NOT_FOUND, "they differ");
}

/* The intake that waits for a job, 0: there is none. */
static pid_t find_spare(void)
{
	char path[64], buf[256];
	int child;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
	f = fopen(path, "re");
	if (!f)
		return -1;
	while (fscanf(f, "%d", &child) == 1) {
		FILE *c;
		size_t n = 0;

		snprintf(path, sizeof(path), "/proc/%d/cmdline", child);
		c = fopen(path, "re");
		if (c) {
			n = fread(buf, 1, sizeof(buf) - 1, c);
			fclose(c);
		}
		buf[n] = '\0';
		if (n > 14 && strcmp(buf + strlen(buf) + 1, "--wait") == 0) {
			fclose(f);
			return child;
		}
	}
	fclose(f);
	return 0;
}

static pid_t wait_spare(void)
{
	pid_t p = 0;

	for (int i = 0; i < 2000 && p == 0; i++) {
		p = find_spare();
		usleep(1000);
	}
	return p;
}

/* After the second job of a kind the next one is done by a process that waits already; if that is lost, by a new one. */
static void test_spare(void **state)
{
	static const char header[] = "{\"w\": {\"dtype\": \"F32\", \"shape\": [4], \"data_offsets\": [0, 16]}}";
	struct pb_msg_spawn_constants m = {.id = 21};
	uint8_t out[BYTES + 2];
	pid_t first, second;

	(void)state;
	update(&m, header, PT2BOX_OK, "", out);
	m.id = 24;
	update(&m, header, PT2BOX_OK, "", out);
	first = wait_spare();
	if (first < 0)
		skip(); /* the kernel does not tell children */
	m.id = 22;
	update(&m, header, PT2BOX_OK, "", out);
	assert_memory_equal("xxxxxxxxxxxxxxxx\0", out, 17);
	assert_int_not_equal(0, kill(first, 0)); /* it did the job, and ended */
	second = wait_spare();
	assert_true(second > 0 && second != first);
	assert_int_equal(0, kill(second, SIGKILL));
	while (kill(second, 0) == 0)
		usleep(1000);
	m.id = 23;
	update(&m, header, PT2BOX_OK, "", out);
	assert_memory_equal("xxxxxxxxxxxxxxxx\0", out, 17);
	assert_true(wait_spare() > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {CHECK_TEST(test_constants), CHECK_TEST(test_compare), CHECK_TEST(test_spare)};

	return cmocka_run_group_tests_name("spawner", tests, start, stop);
}
