/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A broker that is given its listening socket, as systemd does it: LISTEN_FDS, LISTEN_PID, descriptor 3. What is handed over
 * must be what it says; what was meant for another process is left alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/pt2box.h"
#include "tests/lib/broker.h"

static char dir[] = "/tmp/pt2box-test-XXXXXX", path[128];

static int listener(int type)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	unlink(path);
	strcpy(a.sun_path, path);
	assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(fd, 8) == 0);
	return fd;
}

/* @fds: as in LISTEN_FDS; @ours: whether LISTEN_PID is the broker's. */
static pid_t start(int fd, const char *fds, bool ours)
{
	char program[4096], pid[16];
	pid_t child = fork();

	assert_true(child >= 0);
	if (child)
		return child;
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	snprintf(program, sizeof(program), "%s/libexec/pt2boxd", test_build_dir());
	snprintf(pid, sizeof(pid), "%d", ours ? getpid() : 1);
	setenv("LISTEN_FDS", fds, 1);
	setenv("LISTEN_PID", pid, 1);
	setenv("PT2BOX_SOCKET", ours ? "/nowhere/at/all" : path, 1);
	if (fd == 3)
		fcntl(3, F_SETFD, 0);
	else if (dup2(fd, 3) != 3)
		_exit(126);
	closefrom(4);
	execl(program, "pt2boxd", NULL);
	_exit(127);
}

static int ended(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void test_serves_what_it_was_given(void **state)
{
	int fd = listener(SOCK_SEQPACKET);
	pid_t pid = start(fd, "1", true);
	struct pt2box_error e;
	struct pt2box *c = NULL;
	char *text = NULL;
	struct stat sb;

	(void)state;
	/* It may not run yet: the connection waits in the socket, as it would for systemd's. */
	close(fd);
	assert_int_equal(pt2box_open(path, &c, &e), PT2BOX_OK);
	assert_int_equal(pt2box_doctor(c, &text, &e), PT2BOX_OK);
	assert_non_null(strstr(text, "\"filter\",\"state\":\"on\",\"detail\":\"broker: "));
	free(text);
	pt2box_close(c);
	kill(pid, SIGTERM);
	assert_int_equal(ended(pid), 0);
	/* The name is whose who made it. */
	assert_int_equal(stat(path, &sb), 0);
}

static void test_refuses_what_it_cannot_serve(void **state)
{
	int fd = listener(SOCK_STREAM), p[2];

	(void)state;
	assert_int_equal(ended(start(fd, "1", true)), PT2BOX_USAGE);
	close(fd);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p), 0);
	assert_int_equal(ended(start(p[0], "1", true)), PT2BOX_USAGE);
	close(p[0]);
	close(p[1]);
	fd = listener(SOCK_SEQPACKET);
	assert_int_equal(ended(start(fd, "2", true)), PT2BOX_USAGE);
	close(fd);
}

static void test_leaves_what_is_for_others(void **state)
{
	int fd = listener(SOCK_SEQPACKET);
	struct pt2box *c = NULL;
	struct stat sb;
	pid_t pid;

	(void)state;
	unlink(path);
	pid = start(fd, "1", false);
	close(fd);
	for (int i = 0; i < 500 && stat(path, &sb) != 0; i++)
		usleep(10000);
	assert_int_equal(pt2box_open(path, &c, NULL), PT2BOX_OK);
	pt2box_close(c);
	kill(pid, SIGTERM);
	assert_int_equal(ended(pid), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_serves_what_it_was_given),
					   cmocka_unit_test(test_refuses_what_it_cannot_serve),
					   cmocka_unit_test(test_leaves_what_is_for_others)};
	int rc;

	if (!mkdtemp(dir))
		return 1;
	chmod(dir, 0755);
	snprintf(path, sizeof(path), "%s/socket", dir);
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	test_remove_tree(dir);
	return rc;
}
