/* SPDX-License-Identifier: Apache-2.0 */
/* ldflags: -Wl,--wrap=malloc,--wrap=recvmsg,--wrap=sendmsg,--wrap=memfd_create,--wrap=ftruncate,--wrap=fcntl,--wrap=pread,--wrap=write */
/*
 * Sockets, descriptors and memfds. After every test the number of open descriptors is what it was: whatever a peer sends,
 * nothing that came with it stays open.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "ipc/socket.h"
#include "tests/lib/check.h"
#include "tests/unit/ipc/samples.h"

static struct pb_rx rx; /* 64 KiB: not for the stack */

static void make_pair(int s[2])
{
	struct pt2box_error err;

	assert_int_equal(PT2BOX_OK, pb_socket_pair(s, &err));
}

static void close_pair(int s[2])
{
	pb_close_fd(&s[0]);
	pb_close_fd(&s[1]);
}

static int dev_null(void)
{
	const int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

/* @len bytes with @n copies of one descriptor, as a peer may send them that is not ours. */
static void send_raw(int sock, const void *data, size_t len, size_t n)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * 253)];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
	const int fd = dev_null();

	memset(&control, 0, sizeof(control));
	if (n) {
		struct cmsghdr *c;

		h.msg_control = control.buf;
		h.msg_controllen = CMSG_SPACE(sizeof(int) * n);
		c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n);
		for (size_t i = 0; i < n; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof(int));
	}
	assert_int_equal(len, sendmsg(sock, &h, MSG_NOSIGNAL));
	close(fd);
}

static pb_status receive(int sock, const struct pb_msg_row *row, struct pt2box_error *err)
{
	return pb_recv(sock, row->from, row->to, sample_state(row), true, &rx, err);
}

/* ---- messages with descriptors ---- */

static void send_and_receive(const struct pb_msg_row *row, enum sample_kind kind, size_t n_fds)
{
	int s[2], fds[PB_FDS_MAX];
	struct pt2box_error err;
	struct stat a, b;
	union pb_msg m;

	make_pair(s);
	for (size_t i = 0; i < n_fds; i++)
		assert_int_equal(PT2BOX_OK, pb_memfd("test", 4096 * (i + 1), &fds[i], &err));
	sample_message(row, kind, &m);
	assert_int_equal(PT2BOX_OK, pb_send(s[0], (enum pb_msg_id)row->id, &m, fds, n_fds, &err));
	assert_int_equal(PT2BOX_OK, receive(s[1], row, &err));
	assert_ptr_equal(row, rx.row);
	assert_int_equal(n_fds, rx.fds.n);
	for (size_t i = 0; i < n_fds; i++) {
		assert_int_not_equal(fds[i], rx.fds.fd[i]);
		assert_int_equal(0, fstat(fds[i], &a));
		assert_int_equal(0, fstat(rx.fds.fd[i], &b));
		assert_true(a.st_ino == b.st_ino && a.st_dev == b.st_dev);
		assert_int_equal(FD_CLOEXEC, fcntl(rx.fds.fd[i], F_GETFD) & FD_CLOEXEC);
		close(fds[i]);
	}
	pb_fds_close(&rx.fds);
	close_pair(s);
}

static void test_every_row(void **state)
{
	size_t n;
	const struct pb_msg_row *rows = pb_msg_rows(&n);

	(void)state;
	for (size_t i = 0; i < n; i++)
		for (int kind = 0; kind < SAMPLE_KINDS; kind++) {
			send_and_receive(&rows[i], (enum sample_kind)kind, rows[i].min_fds);
			send_and_receive(&rows[i], (enum sample_kind)kind, rows[i].max_fds);
		}
}

/* Templates and workers have write(2) only. Their largest messages must fit it too. */
static void test_write_every_row_of_the_confined(void **state)
{
	size_t n;
	const struct pb_msg_row *rows = pb_msg_rows(&n);

	(void)state;
	for (size_t i = 0; i < n; i++) {
		struct pt2box_error err;
		union pb_msg m;
		int s[2];

		if (rows[i].from != PB_TEMPLATE && rows[i].from != PB_WORKER)
			continue;
		make_pair(s);
		sample_message(&rows[i], SAMPLE_MAX, &m);
		if (pb_write(s[0], (enum pb_msg_id)rows[i].id, &m, &err))
			fail_msg("%s at its largest: %s", rows[i].name, err.text);
		assert_int_equal(PT2BOX_OK, receive(s[1], &rows[i], &err));
		close_pair(s);
	}
}

static void test_descriptors_are_taken_once(void **state)
{
	struct pb_fds fds = PB_FDS_INIT;
	int fd = dev_null(), taken;

	(void)state;
	fds.fd[fds.n++] = fd;
	fds.fd[fds.n++] = dev_null();
	taken = pb_fds_take(&fds, 0);
	assert_int_equal(fd, taken);
	assert_int_equal(-1, pb_fds_take(&fds, 0));
	assert_int_equal(-1, pb_fds_take(&fds, 2));
	assert_int_equal(-1, pb_fds_take(&fds, PB_FDS_MAX));
	pb_fds_close(&fds);
	assert_int_equal(0, fds.n);
	assert_int_equal(FD_CLOEXEC, fcntl(taken, F_GETFD)); /* the one taken out is still open */
	close(taken);
	pb_fds_close(&fds);
}

/* ---- hostile peers ---- */

static void test_wrong_number_of_descriptors(void **state)
{
	static const size_t counts[] = {0, 1, 2, 3, 5, 6, 7, 8, 9, 16, 100, 253};
	size_t n, len;
	const struct pb_msg_row *rows = pb_msg_rows(&n);
	const int before = check_count_fds();

	(void)state;
	for (size_t i = 0; i < n; i++)
		for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
			const bool ok = counts[c] >= rows[i].min_fds && counts[c] <= rows[i].max_fds;
			uint8_t frame[16384];
			struct pt2box_error err;
			union pb_msg m;
			int s[2];

			make_pair(s);
			sample_message(&rows[i], SAMPLE_SOME, &m);
			assert_int_equal(PT2BOX_OK, pb_msg_encode(&rows[i], &m, frame, sizeof(frame), &len));
			send_raw(s[0], frame, len, counts[c]);
			assert_int_equal(ok ? PT2BOX_OK : PT2BOX_PROTOCOL, receive(s[1], &rows[i], &err));
			assert_int_equal(ok ? counts[c] : 0, rx.fds.n);
			pb_fds_close(&rx.fds);
			close_pair(s);
			assert_int_equal(before, check_count_fds());
		}
}

static void test_garbage_with_descriptors(void **state)
{
	const struct pb_msg_row *row = pb_msg_row(PB_MSG_load);
	const int before = check_count_fds();
	uint64_t seed = 6;
	int s[2];

	(void)state;
	make_pair(s);
	for (int i = 0; i < 5000; i++) {
		uint8_t data[64];
		const size_t len = 1 + check_rand(&seed) % sizeof(data);

		for (size_t j = 0; j < len; j++)
			data[j] = (uint8_t)check_rand(&seed);
		send_raw(s[0], data, len, check_rand(&seed) % 12);
		assert_int_equal(PT2BOX_PROTOCOL, receive(s[1], row, NULL));
		assert_int_equal(before + 2, check_count_fds());
	}
	close_pair(s);
}

/* An empty packet looks like the end of the stream, but may bring descriptors. */
static void test_empty_packet(void **state)
{
	const struct pb_msg_row *row = pb_msg_row(PB_MSG_load);
	const int before = check_count_fds();
	struct pt2box_error err;

	(void)state;
	for (size_t n = 0; n <= 12; n++) {
		pb_status st;
		int s[2];

		make_pair(s);
		send_raw(s[0], "", 0, n);
		st = receive(s[1], row, &err);
		assert_true(st == PT2BOX_PROTOCOL || st == PT2BOX_BROKER_LOST);
		assert_int_equal(0, rx.fds.n);
		assert_int_equal(before + 2, check_count_fds());
		close_pair(s);
	}
}

static void test_packet_that_is_too_long(void **state)
{
	static uint8_t big[PB_FRAME_MAX + 1];
	const struct pb_msg_row *row = pb_msg_row(PB_MSG_ps);
	struct pt2box_error err;
	int s[2];

	(void)state;
	make_pair(s);
	/* A valid message in front does not make it valid: [12, 5], then more. */
	memcpy(big, "\x92\x0c\x05", 3);
	send_raw(s[0], big, sizeof(big), 0);
	send_raw(s[0], big, sizeof(big), 3);
	send_raw(s[0], big, PB_FRAME_MAX, 0);
	send_raw(s[0], big, 3, 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(PT2BOX_PROTOCOL, receive(s[1], row, &err));
	assert_int_equal(PT2BOX_OK, receive(s[1], row, &err));
	assert_int_equal(5, rx.msg.ps.request);
	close_pair(s);
}

static void test_ends_of_a_connection(void **state)
{
	const struct pb_msg_row *row = pb_msg_row(PB_MSG_ps);
	const struct pb_msg_ps ps = {.request = 1};
	struct pt2box_error err;
	int s[2];

	(void)state;
	make_pair(s);
	assert_int_equal(PT2BOX_NOT_FOUND, receive(s[1], row, &err));
	assert_int_equal(PT2BOX_OK, pb_send(s[0], PB_MSG_ps, &ps, NULL, 0, &err));
	pb_close_fd(&s[0]);
	assert_int_equal(PT2BOX_OK, receive(s[1], row, &err)); /* sent before the end: still there */
	assert_int_equal(PT2BOX_BROKER_LOST, receive(s[1], row, &err));
	assert_int_equal(PT2BOX_BROKER_LOST, pb_send(s[1], PB_MSG_ps, &ps, NULL, 0, &err)); /* and no SIGPIPE */
	close_pair(s);
	/* Something unread at the other end when it closes: a reset. */
	make_pair(s);
	assert_int_equal(PT2BOX_OK, pb_send(s[1], PB_MSG_ps, &ps, NULL, 0, &err));
	pb_close_fd(&s[0]);
	assert_int_equal(PT2BOX_BROKER_LOST, receive(s[1], row, &err));
	close_pair(s);
}

static void test_peer_that_does_not_read(void **state)
{
	const struct pb_msg_ps ps = {.request = 1};
	struct pt2box_error err;
	int s[2], fd = dev_null(), sent = 0;
	pb_status st;

	(void)state;
	make_pair(s);
	assert_int_equal(0, fcntl(s[0], F_SETFL, O_NONBLOCK));
	while ((st = pb_send(s[0], PB_MSG_ps, &ps, NULL, 0, &err)) == PT2BOX_OK && sent < 1000000)
		sent++;
	assert_int_equal(PT2BOX_LIMIT, st);
	assert_true(sent > 0);
	assert_int_equal(PT2BOX_LIMIT, pb_write(s[0], PB_MSG_ps, &ps, &err));
	assert_int_equal(PT2BOX_LIMIT, pb_send(s[0], PB_MSG_ps, &ps, &fd, 1, &err));
	close(fd);
	close_pair(s);
}

static void test_what_cannot_be_sent(void **state)
{
	const struct pb_msg_cancel wrong = {.slot = 256};
	int s[2], fds[PB_FDS_MAX + 1] = {0};
	struct pt2box_error err;

	(void)state;
	make_pair(s);
	assert_int_equal(PT2BOX_INTERNAL, pb_send(s[0], PB_MSG_cancel, &wrong, NULL, 0, &err));
	assert_int_equal(PT2BOX_INTERNAL, pb_send(s[0], (enum pb_msg_id)9999, &wrong, NULL, 0, &err));
	assert_int_equal(PT2BOX_INTERNAL,
			 pb_send(s[0], PB_MSG_ps, &(struct pb_msg_ps){1}, fds, PB_FDS_MAX + 1, &err));
	assert_int_equal(PT2BOX_INTERNAL, pb_write(s[0], PB_MSG_cancel, &wrong, &err));
	assert_int_equal(PT2BOX_NOT_FOUND, receive(s[1], pb_msg_row(PB_MSG_cancel), &err));
	close_pair(s);
}

static void test_failing_calls_of_messages(void **state)
{
	const struct pb_msg_row *row = pb_msg_row(PB_MSG_loaded);
	const int before = check_count_fds();

	(void)state;
	for (long n = 0; check_fail_at(n); n++) {
		struct pt2box_error err = {0};
		int s[2], fd = dev_null();
		union pb_msg m;
		pb_status st;

		make_pair(s);
		sample_message(row, SAMPLE_SOME, &m);
		st = pb_send(s[0], (enum pb_msg_id)row->id, &m, &fd, 1, &err);
		if (!st)
			st = receive(s[1], row, &err);
		assert_int_equal(check_failed() ? PT2BOX_SYSTEM : PT2BOX_OK, st);
		if (st)
			assert_int_equal(EIO, err.sys_errno);
		pb_fds_close(&rx.fds);
		close(fd);
		close_pair(s);
		assert_int_equal(before, check_count_fds());
	}
}

/* ---- memory ---- */

static bool maps(int fd, int prot)
{
	void *p = mmap(NULL, 4096, prot, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return false;
	munmap(p, 4096);
	return true;
}

static void test_memfd(void **state)
{
	struct pt2box_error err;
	struct stat st;
	int fd;

	(void)state;
	assert_int_equal(PT2BOX_OK, pb_memfd("test", 8192, &fd, &err));
	assert_int_equal(0, fstat(fd, &st));
	assert_int_equal(8192, st.st_size);
	assert_int_equal(F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL, fcntl(fd, F_GET_SEALS));
	assert_int_equal(FD_CLOEXEC, fcntl(fd, F_GETFD));
	assert_int_equal(-1, ftruncate(fd, 4096));
	assert_int_equal(-1, ftruncate(fd, 16384));
	assert_int_equal(-1, pwrite(fd, "x", 1, 8192));
	assert_int_equal(1, pwrite(fd, "x", 1, 8191));
	assert_true(maps(fd, PROT_READ | PROT_WRITE));
	/* Nobody adds a seal later: a peer could otherwise freeze a lane. */
	assert_int_equal(-1, fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	close(fd);
	assert_int_equal(PT2BOX_SYSTEM, pb_memfd("test", UINT64_MAX, &fd, &err));
	assert_int_equal(PT2BOX_SYSTEM, pb_memfd("test", (uint64_t)INT64_MAX + 1, &fd, &err));
}

static void test_sealing(void **state)
{
	struct pt2box_error err;
	void *p;
	int fd;

	(void)state;
	assert_int_equal(PT2BOX_OK, pb_memfd_unsealed("test", &fd, &err));
	assert_int_equal(FD_CLOEXEC, fcntl(fd, F_GETFD));
	assert_int_equal(0, ftruncate(fd, 4096));
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(p != MAP_FAILED);
	/* Somebody could still write through a mapping: not sealed, and said so. */
	assert_int_equal(PT2BOX_SYSTEM, pb_memfd_seal(fd, &err));
	assert_int_equal(EBUSY, err.sys_errno);
	munmap(p, 4096);
	assert_int_equal(PT2BOX_OK, pb_memfd_seal(fd, &err));
	assert_int_equal(F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL, fcntl(fd, F_GET_SEALS));
	assert_int_equal(-1, pwrite(fd, "x", 1, 0));
	assert_int_equal(-1, ftruncate(fd, 0));
	assert_false(maps(fd, PROT_READ | PROT_WRITE));
	assert_true(maps(fd, PROT_READ));
	assert_int_equal(PT2BOX_SYSTEM, pb_memfd_seal(fd, &err));
	close(fd);
}

static void test_read_only_descriptor(void **state)
{
	struct pt2box_error err;
	struct stat a, b;
	int fd, ro;

	(void)state;
	assert_int_equal(PT2BOX_OK, pb_memfd("test", 4096, &fd, &err));
	assert_int_equal(PT2BOX_OK, pb_fd_readonly(fd, &ro, &err));
	assert_int_equal(O_RDONLY, fcntl(ro, F_GETFL) & O_ACCMODE);
	assert_int_equal(FD_CLOEXEC, fcntl(ro, F_GETFD));
	assert_int_equal(-1, pwrite(ro, "x", 1, 0));
	assert_false(maps(ro, PROT_READ | PROT_WRITE));
	assert_true(maps(ro, PROT_READ));
	assert_int_equal(0, fstat(fd, &a));
	assert_int_equal(0, fstat(ro, &b));
	assert_true(a.st_ino == b.st_ino);
	close(ro);
	close(fd);
	assert_int_equal(PT2BOX_SYSTEM, pb_fd_readonly(fd, &ro, &err)); /* closed */
}

static void test_memfd_from_and_slurp(void **state)
{
	static char data[70000], *got;
	struct pt2box_error err;
	size_t n;
	int fd;

	(void)state;
	memset(data, 'd', sizeof(data));
	assert_int_equal(PT2BOX_OK, pb_memfd_from("test", data, sizeof(data), &fd, &err));
	assert_int_equal(O_RDONLY, fcntl(fd, F_GETFL) & O_ACCMODE);
	assert_true(fcntl(fd, F_GET_SEALS) & F_SEAL_WRITE);
	assert_int_equal(PT2BOX_OK, pb_fd_slurp(fd, sizeof(data), (uint8_t **)&got, &n, &err));
	assert_int_equal(sizeof(data), n);
	assert_memory_equal(data, got, n);
	assert_int_equal('\0', got[n]);
	free(got);
	assert_int_equal(PT2BOX_LIMIT, pb_fd_slurp(fd, sizeof(data) - 1, (uint8_t **)&got, &n, &err));
	close(fd);
	assert_int_equal(PT2BOX_OK, pb_memfd_from("test", "", 0, &fd, &err));
	assert_int_equal(PT2BOX_OK, pb_fd_slurp(fd, 0, (uint8_t **)&got, &n, &err));
	assert_int_equal(0, n);
	assert_string_equal("", got);
	free(got);
	close(fd);
	assert_int_equal(PT2BOX_SYSTEM, pb_fd_slurp(-1, 10, (uint8_t **)&got, &n, &err));
}

static void test_failing_calls_of_memory(void **state)
{
	const int before = check_count_fds();

	(void)state;
	for (long n = 0; check_fail_at(n); n++) {
		PB_CLEANUP(pb_close_fd) int a = -1;
		PB_CLEANUP(pb_close_fd) int b = -1;
		struct pt2box_error err;
		uint8_t *got = NULL;
		size_t bytes;
		pb_status st;

		st = pb_memfd("test", 4096, &a, &err);
		if (!st)
			st = pb_memfd_from("test", "contents", 8, &b, &err);
		if (!st)
			st = pb_fd_slurp(b, 100, &got, &bytes, &err);
		if (check_failed())
			assert_true(st == PT2BOX_SYSTEM || st == PT2BOX_NO_MEMORY);
		else
			assert_int_equal(PT2BOX_OK, st);
		assert_int_equal(st == PT2BOX_OK, got != NULL);
		free(got);
		pb_close_fd(&a);
		pb_close_fd(&b);
		assert_int_equal(before, check_count_fds());
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_every_row),
		CHECK_TEST(test_write_every_row_of_the_confined),
		CHECK_TEST(test_descriptors_are_taken_once),
		CHECK_TEST(test_wrong_number_of_descriptors),
		CHECK_TEST(test_garbage_with_descriptors),
		CHECK_TEST(test_empty_packet),
		CHECK_TEST(test_packet_that_is_too_long),
		CHECK_TEST(test_ends_of_a_connection),
		CHECK_TEST(test_peer_that_does_not_read),
		CHECK_TEST(test_what_cannot_be_sent),
		CHECK_TEST(test_failing_calls_of_messages),
		CHECK_TEST(test_memfd),
		CHECK_TEST(test_sealing),
		CHECK_TEST(test_read_only_descriptor),
		CHECK_TEST(test_memfd_from_and_slurp),
		CHECK_TEST(test_failing_calls_of_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
