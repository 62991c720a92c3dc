/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The broker's own sandbox: a child closes it as pt2boxd does, and then makes calls that a broker which has been taken over
 * would make. What it needs works, what it does not need kills it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "confine/confine.h"
#include "ipc/socket.h"
#include "tests/unit/confine/child.h"

#if defined(__SANITIZE_ADDRESS__)
#define NEEDS_FILTERS() skip()
#else
#define NEEDS_FILTERS()
#endif

static void close_sandbox(void)
{
	struct pt2box_error e = {.text = ""};

	if (pb_confine_broker(0x5ffffff0u, &e) || pb_confine_broker_closed(&e)) {
		dprintf(2, "%s\n", e.text);
		_exit(102);
	}
}

static void *nothing(void *arg)
{
	return arg;
}

static void works(void *arg)
{
	int p[2], fd, no = 0, ep = epoll_create1(EPOLL_CLOEXEC);
	struct pt2box_error e;
	struct ucred cred;
	socklen_t len = sizeof(cred);
	struct epoll_event ev = {.events = EPOLLIN};
	pthread_t t;
	void *m;

	(void)arg;
	close_sandbox();
	REQUIRE(pb_socket_pair(p, NULL) == PT2BOX_OK && fcntl(p[0], F_SETFL, O_NONBLOCK) == 0);
	REQUIRE(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev) == 0 && epoll_wait(ep, &ev, 1, 0) == 0);
	(void)setsockopt(p[0], SOL_SOCKET, 83, &no, sizeof(no));
	REQUIRE(getsockopt(p[0], SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0);
	REQUIRE(pb_memfd_from("x", "abc", 3, &fd, &e) == PT2BOX_OK);
	REQUIRE(pb_send(p[0], PB_MSG_done, &(struct pb_msg_done){.request = 1}, NULL, 0, NULL) == PT2BOX_OK);
	m = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	REQUIRE(m != MAP_FAILED && memcmp(m, "abc", 3) == 0);
	REQUIRE(pthread_create(&t, NULL, nothing, NULL) == 0 && pthread_join(t, NULL) == 0);
	REQUIRE((fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0 && close(fd) == 0);
	REQUIRE((fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC)) >= 0 && close(fd) == 0);
}

/* Landlock: reading is all that the filter leaves, and this says where. Not on every kernel. */
static void reads_files(void *arg)
{
	char *report;
	int fd;

	(void)arg;
	close_sandbox();
	report = pb_confine_report_text();
	REQUIRE(report && strstr(report, "filter\ton\tbroker: "));
	fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
	if (strstr(report, "landlock\ton"))
		REQUIRE(fd < 0 && errno == EACCES);
	free(report);
}

static void call_fork(void)
{
	(void)fork();
}

static void call_exec(void)
{
	char *argv[] = {(char[]){"true"}, NULL};

	execv("/bin/true", argv);
}

static void call_socket(void)
{
	(void)socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static void call_unix_socket(void)
{
	(void)socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static void call_open_to_write(void)
{
	(void)open("/tmp/pt2box-test-must-not-be", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
}

static void call_unlink(void)
{
	(void)unlink("/tmp/pt2box-test-must-not-be");
}

static void call_kill(void)
{
	(void)kill(1, 0);
}

static void call_ptrace(void)
{
	(void)ptrace(PTRACE_TRACEME, 0, 0, 0);
}

static void call_exec_memory(void)
{
	(void)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void call_protect(void)
{
	void *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)mprotect(m, 4096, PROT_READ | PROT_EXEC);
}

static void call_setuid(void)
{
	(void)syscall(SYS_setresuid, 0, 0, 0);
}

static void call_unshare(void)
{
	(void)unshare(CLONE_NEWUSER);
}

static void call_bpf(void)
{
	(void)syscall(SYS_bpf, 0, NULL, 0);
}

static void call_io_uring(void)
{
	(void)syscall(SYS_io_uring_setup, 1, NULL);
}

static void call_prctl(void)
{
	(void)prctl(PR_SET_DUMPABLE, 1);
}

static void call_int80(void)
{
	long r;

	__asm__ volatile("int $0x80" : "=a"(r) : "a"(20) : "r8", "r9", "r10", "r11", "memory");
}

static void forbidden(void *arg)
{
	void (*call)(void) = *(void (**)(void))arg;

	close_sandbox();
	call();
}

static void test_what_it_needs(void **state)
{
	(void)state;
	NEEDS_FILTERS();
	assert_int_equal(status_of(reads_files, NULL), 0);
	assert_int_equal(status_of(works, NULL), 0);
}

static void test_what_kills_it(void **state)
{
	static void (*const calls[])(void) = {
		call_fork,   call_exec,	  call_socket,	    call_unix_socket, call_open_to_write, call_unlink,
		call_kill,   call_ptrace, call_exec_memory, call_protect,     call_setuid,	  call_unshare,
		call_bpf,    call_io_uring, call_prctl,	    call_int80,
	};

	(void)state;
	NEEDS_FILTERS();
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		void (*call)(void) = calls[i];

		if (!killed_by(status_of(forbidden, &call), SIGSYS))
			fail_msg("call %zu of the list did not kill it", i);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_what_it_needs), cmocka_unit_test(test_what_kills_it)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
