/* SPDX-License-Identifier: Apache-2.0 */
/* An intake that waits for a job: descriptors at their numbers and nothing else, arguments, packets that make no sense. */
#include "tests/lib/check.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/intake/spare.h"
#include "ipc/socket.h"

/* What a child sees that waits; its exit status: 0 right, 1 no job, 2 wrong. */
static int child(int sock)
{
	static const char *const want[] = {"a", "", "--c"};
	char **argv, byte;
	int argc, holes;

	dup2(sock, PB_SPARE_FD);
	close_range(PB_SPARE_FD + 1, ~0u, 0);
	if (!pb_spare_wait(&argc, &argv))
		return 1;
	if (argc != 3 || argv[3])
		return 2;
	for (int i = 0; i < 3; i++)
		if (strcmp(argv[i], want[i]) != 0)
			return 2;
	/* The pipe's ends are 3 and 5. */
	holes = fcntl(4, F_GETFD) < 0;
	for (int fd = 6; fd < 100; fd++)
		holes += fcntl(fd, F_GETFD) < 0;
	if (holes != 95 || write(5, "x", 1) != 1 || read(3, &byte, 1) != 1 || byte != 'x')
		return 2;
	return 0;
}

static int run(const struct pb_spare_job *job, size_t bytes, size_t n_fds)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * 2)];
		struct cmsghdr align;
	} control = {.buf = {0}};
	struct iovec iov = {(void *)(uintptr_t)job, bytes};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
	int sock[2], p[2], status;
	pid_t pid;

	assert_int_equal(0, pipe(p));
	assert_int_equal(PT2BOX_OK, pb_socket_pair(sock, NULL));
	pid = fork();
	if (pid == 0)
		_exit(child(sock[1]));
	if (n_fds) {
		struct cmsghdr *c;

		h.msg_control = control.buf;
		h.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		c = CMSG_FIRSTHDR(&h);
		*c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
				      .cmsg_len = CMSG_LEN(sizeof(int) * n_fds)};
		memcpy(CMSG_DATA(c), p, sizeof(int) * n_fds);
	}
	if (bytes)
		assert_int_equal(bytes, sendmsg(sock[0], &h, 0));
	close(sock[0]);
	close(sock[1]);
	close(p[0]);
	close(p[1]);
	assert_int_equal(pid, waitpid(pid, &status, 0));
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void test_spare(void **state)
{
	struct pb_spare_job j = {.target = {3, 5}, .n_args = 3, .args = "a\0\0--c"};

	(void)state;
	assert_int_equal(0, run(&j, sizeof(j), 2));
	assert_int_equal(1, run(&j, 0, 0)); /* the spawner is gone, or has no use for it */
	assert_int_equal(1, run(&j, sizeof(j), 0));
	assert_int_equal(1, run(&j, sizeof(j) - 1, 2));
	j.target[1] = 64;
	assert_int_equal(1, run(&j, sizeof(j), 2));
	j.target[1] = -1;
	assert_int_equal(1, run(&j, sizeof(j), 2));
	j.target[1] = 5;
	j.n_args = PB_SPARE_ARGS + 1;
	assert_int_equal(1, run(&j, sizeof(j), 2));
	j.n_args = 2;
	memset(j.args, 'x', sizeof(j.args));
	assert_int_equal(1, run(&j, sizeof(j), 2));
}

int main(void)
{
	const struct CMUnitTest tests[] = {CHECK_TEST(test_spare)};

	return cmocka_run_group_tests_name("spare", tests, NULL, NULL);
}
