/* SPDX-License-Identifier: Apache-2.0 */
/* Where a broker listens: its own place, with the group and mode that were asked for, and never a place that is anybody's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/broker.h"
#include "tests/lib/check.h"

static char dir[] = "/tmp/pt2box-listen-XXXXXX";

static void test_mode_and_group(void **state)
{
	char path[100], group[24];
	struct pt2box_error e;
	struct stat sb;
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "%s/socket", dir);
	snprintf(group, sizeof(group), "%u", getegid());
	assert_int_equal(pb_listen(path, 0640, group, &fd, &e), PT2BOX_OK);
	assert_int_equal(stat(path, &sb), 0);
	assert_int_equal(sb.st_mode & 07777, 0640);
	assert_int_equal(sb.st_gid, getegid());
	close(fd);
	assert_int_equal(pb_listen(path, 0600, NULL, &fd, &e), PT2BOX_OK); /* nobody answers on the old one */
	assert_int_equal(stat(path, &sb), 0);
	assert_int_equal(sb.st_mode & 07777, 0600);
	assert_int_equal(pb_listen(path, 0600, NULL, &(int){-1}, &e), PT2BOX_USAGE);
	close(fd);
	unlink(path);
}

/* 0: as it should be. */
static int as_ordinary_user(void)
{
	struct pt2box_error e = {.status = PT2BOX_OK};
	char path[108];

	unsetenv("PT2BOX_SOCKET");
	unsetenv("XDG_RUNTIME_DIR");
	if (getuid() == 0 && (setresgid(65533, 65533, 65533) != 0 || setresuid(65533, 65533, 65533) != 0))
		return 1;
	snprintf(path, sizeof(path), "/run/user/%u", getuid());
	if (access(path, F_OK) != 0 &&
	    (pb_default_socket(path, &e) != PT2BOX_USAGE || !strstr(e.text, "name a socket with --socket")))
		return 2;
	setenv("XDG_RUNTIME_DIR", "/somewhere", 1);
	if (pb_default_socket(path, &e) || strcmp(path, "/somewhere/pt2box.sock") != 0)
		return 3;
	setenv("PT2BOX_SOCKET", "/else/where", 1);
	return pb_default_socket(path, &e) || strcmp(path, "/else/where") != 0 ? 4 : 0;
}

static void test_default_place(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	if (pid == 0)
		_exit(as_ordinary_user());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_mode_and_group),
		CHECK_TEST(test_default_place),
	};
	int failed;

	if (!mkdtemp(dir))
		return 1;
	failed = cmocka_run_group_tests_name("listen", tests, NULL, NULL);
	rmdir(dir);
	return failed;
}
