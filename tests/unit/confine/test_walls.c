/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walls, live: each step is taken in a child as a role takes it, then something is tried that it must stop. Everything
 * is run with the rights that the test has, and as root a second time as an ordinary user.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "confine/confine.h"
#include "ipc/fdmap.h"
#include "tests/unit/confine/child.h"

/* The sanitizer makes calls of its own, which filters do not know. */
#if defined(__SANITIZE_ADDRESS__)
#define NEEDS_FILTERS() skip()
#else
#define NEEDS_FILTERS()
#endif

static const struct pb_limits limits = {.data_bytes = 64u << 20, .file_bytes = 0, .files = 32, .tasks = 64};

/* @f as a role, with all rights there are and with none. */
static void expect_exit_0(void (*f)(void *arg))
{
	assert_int_equal(status_in_namespaces(f, NULL, false), 0);
	assert_int_equal(status_in_namespaces(f, NULL, true), 0);
}

static bool try_open(const char *path, int flags, int want)
{
	int fd = open(path, flags, 0600);

	if (fd >= 0)
		close(fd);
	return want ? fd < 0 && errno == want : fd >= 0;
}

/* ---- root ---- */

static void empty_root(void *arg)
{
	struct stat sb;

	(void)arg;
	REQUIRE(try_open("/etc/passwd", O_RDONLY, 0));
	REQUIRE(pb_step_empty_root(NULL) == PT2BOX_OK);
	REQUIRE(try_open("/etc/passwd", O_RDONLY, ENOENT));
	REQUIRE(try_open("/proc/self/mem", O_RDONLY, ENOENT));
	REQUIRE(try_open("../../../../etc/passwd", O_RDONLY, ENOENT));
	REQUIRE(try_open("/x", O_RDWR | O_CREAT, EROFS));
	REQUIRE(mkdir("/x", 0700) < 0 && errno == EROFS);
	REQUIRE(stat("/", &sb) == 0 && sb.st_nlink == 2);
}

static void test_empty_root(void **state)
{
	(void)state;
	expect_exit_0(empty_root);
	/* It was the child's own. */
	assert_true(try_open("/etc/passwd", O_RDONLY, 0));
}

/* The warden shares the template's mount namespace: its root goes with it. */
static void root_of_both(void *arg)
{
	int p[2], status;
	char byte;
	pid_t pid;

	(void)arg;
	REQUIRE(pipe(p) == 0);
	pid = fork();
	if (pid == 0) {
		REQUIRE(pb_step_empty_root(NULL) == PT2BOX_OK);
		REQUIRE(write(p[1], "x", 1) == 1);
		_exit(0);
	}
	REQUIRE(read(p[0], &byte, 1) == 1);
	REQUIRE(try_open("/etc/passwd", O_RDONLY, ENOENT));
	REQUIRE(waitpid(pid, &status, 0) == pid && status == 0);
}

static void test_root_of_both(void **state)
{
	(void)state;
	expect_exit_0(root_of_both);
}

/* ---- descriptors, threads, namespaces ---- */

static void exact_fds(void *arg)
{
	static const int fds[] = {0, 1, 2};
	struct pt2box_error e;
	int extra;

	(void)arg;
	close_range(3, ~0u, 0);
	REQUIRE(pb_confine_fds(fds, 3, &e) == PT2BOX_OK);
	extra = dup2(0, 777);
	REQUIRE(pb_confine_fds(fds, 3, &e) == PT2BOX_LAYER_MISSING);
	REQUIRE(strstr(e.text, "descriptor 777 is open"));
	close(extra);
	REQUIRE(pb_confine_fds(fds, 3, &e) == PT2BOX_OK);
}

static void *wait_forever(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static void two_threads(void *arg)
{
	struct pt2box_error e;
	pthread_t t;

	(void)arg;
	REQUIRE(pb_step_one_thread(&e) == PT2BOX_OK);
	REQUIRE(pthread_create(&t, NULL, wait_forever, NULL) == 0);
	REQUIRE(pb_step_one_thread(&e) == PT2BOX_LAYER_MISSING);
	REQUIRE(strstr(e.text, "2 threads"));
}

/* Like the end of libgomp's teams: joined leader, followers that are still on their way out. */
static void *late(void *arg)
{
	usleep(20000);
	return arg;
}

static void ending_thread(void *arg)
{
	pthread_t t;

	(void)arg;
	REQUIRE(pthread_create(&t, NULL, late, NULL) == 0);
	pthread_detach(t);
	REQUIRE(pb_step_one_thread(NULL) == PT2BOX_OK);
}

static void test_process(void **state)
{
	(void)state;
	assert_int_equal(status_of(exact_fds, NULL), 0);
	assert_int_equal(status_of(two_threads, NULL), 0);
	assert_int_equal(status_of(ending_thread, NULL), 0);
}

static void good_namespaces(void *arg)
{
	(void)arg;
	REQUIRE(getpid() == 1);
	REQUIRE(pb_step_check_namespaces(NULL) == PT2BOX_OK);
}

static void shared_pids(void *arg)
{
	struct pt2box_error e;

	(void)arg;
	REQUIRE(pb_step_check_namespaces(&e) == PT2BOX_LAYER_MISSING);
	REQUIRE(strstr(e.text, "pid namespace"));
}

static void no_network(void *arg)
{
	struct sockaddr a = {.sa_family = AF_UNSPEC};
	int s = socket(AF_INET, SOCK_STREAM, 0);
	const unsigned char loopback[16] = {AF_INET, 0, 0, 80, 127, 0, 0, 1};

	(void)arg;
	memcpy(&a, loopback, sizeof(a));
	REQUIRE(s >= 0 && connect(s, &a, sizeof(a)) < 0 && errno == ENETUNREACH);
}

static void test_namespaces(void **state)
{
	(void)state;
	expect_exit_0(good_namespaces);
	expect_exit_0(no_network);
	assert_int_equal(status_of(shared_pids, NULL), 0);
}

/* In a user namespace there is no second one: rights inside it are not worth having. */
static void no_nested(void *arg)
{
	(void)arg;
	REQUIRE(unshare(CLONE_NEWUSER) < 0 && errno == ENOSPC);
}

static void test_no_nested_user_namespace(void **state)
{
	(void)state;
	assert_int_equal(status_in_namespaces(no_nested, NULL, true), 0);
}

/* ---- ids and capabilities ---- */

static void powerless(void *arg)
{
	const uint32_t uid = *(uint32_t *)arg;
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct c[2];

	REQUIRE(pb_step_identity(uid, uid, NULL) == PT2BOX_OK);
	REQUIRE(geteuid() == uid && getegid() == uid);
	REQUIRE(syscall(SYS_capget, &h, c) == 0);
	for (int i = 0; i < 2; i++)
		REQUIRE((c[i].effective | c[i].permitted | c[i].inheritable) == 0);
	for (unsigned cap = 0; cap <= CAP_LAST_CAP; cap++)
		REQUIRE(prctl(PR_CAPBSET_READ, cap, 0, 0, 0) <= 0);
	REQUIRE(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 && errno == EPERM);
	REQUIRE(uid == 0 || (setuid(0) < 0 && getgroups(0, NULL) == 0));
	REQUIRE(prctl(PR_GET_SECUREBITS, 0, 0, 0, 0) & SECBIT_NOROOT);
	REQUIRE(prctl(PR_GET_SECUREBITS, 0, 0, 0, 0) & SECBIT_NO_CAP_AMBIENT_RAISE);
	REQUIRE(prctl(PR_SET_SECUREBITS, 0, 0, 0, 0) < 0);
}

static void test_identity(void **state)
{
	uint32_t own = 0x60001234, keep = 0;

	(void)state;
	if (pb_confine_has_rights())
		assert_int_equal(status_in_namespaces(powerless, &own, false), 0);
	assert_int_equal(status_in_namespaces(powerless, &keep, true), 0);
}

static void sealed(void *arg)
{
	int sig = 0;

	(void)arg;
	REQUIRE(pb_step_identity(pb_confine_has_rights() ? 0x60001234 : 0, 0, NULL) == PT2BOX_OK);
	REQUIRE(pb_step_sealed_process(NULL) == PT2BOX_OK);
	REQUIRE(prctl(PR_GET_PDEATHSIG, &sig) == 0 && sig == SIGKILL);
	REQUIRE(prctl(PR_GET_DUMPABLE) == 0);
	REQUIRE(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
	/* /proc/self belongs to root now. */
	REQUIRE(try_open("/proc/self/mem", O_RDWR, EACCES));
}

static void test_sealed(void **state)
{
	(void)state;
	expect_exit_0(sealed);
}

/* ---- limits ---- */

static void within_limits(void *arg)
{
	struct rlimit r;
	void *p;

	(void)arg;
	REQUIRE(pb_step_limits(&limits, NULL) == PT2BOX_OK);
	REQUIRE(getrlimit(RLIMIT_CORE, &r) == 0 && r.rlim_max == 0);
	REQUIRE(getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_max == 32);
	REQUIRE(dup2(0, 40) < 0 && errno == EBADF);
	/* Private writable memory counts, shared and unwritable does not: constants are free. */
	p = mmap(NULL, 128u << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(p == MAP_FAILED && errno == ENOMEM);
	p = mmap(NULL, 128u << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(p != MAP_FAILED);
	REQUIRE(mprotect(p, 128u << 20, PROT_READ | PROT_WRITE) < 0 && errno == ENOMEM);
}

static void no_tasks(void *arg)
{
	struct pb_limits l = limits;

	(void)arg;
	l.tasks = 0;
	REQUIRE(pb_step_limits(&l, NULL) == PT2BOX_OK);
	REQUIRE(pb_step_identity(pb_confine_has_rights() ? 0x60001234 : 0, 0, NULL) == PT2BOX_OK);
	REQUIRE(fork() < 0 && errno == EAGAIN);
}

static void no_file_bytes(void *arg)
{
	int fd = memfd_create("x", 0);

	(void)arg;
	signal(SIGXFSZ, SIG_IGN);
	REQUIRE(pb_step_limits(&limits, NULL) == PT2BOX_OK);
	REQUIRE(ftruncate(fd, 1) < 0 && errno == EFBIG);
}

static void test_limits(void **state)
{
	(void)state;
	expect_exit_0(within_limits);
	expect_exit_0(no_tasks);
	expect_exit_0(no_file_bytes);
}

/* ---- Landlock ---- */

static bool has_landlock(int abi)
{
	return syscall(SYS_landlock_create_ruleset, NULL, 0, 1) >= abi;
}

static void landlocked(void *arg)
{
	pid_t parent = getppid();

	(void)arg;
	REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	REQUIRE(kill(parent, 0) == 0);
	pb_step_landlock(false);
	REQUIRE(try_open("/etc/passwd", O_RDONLY, EACCES));
	REQUIRE(!has_landlock(6) || (kill(parent, 0) < 0 && errno == EPERM));
}

static void landlocked_warden(void *arg)
{
	pid_t parent = getppid();

	(void)arg;
	REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	pb_step_landlock(true);
	REQUIRE(try_open("/etc/passwd", O_RDONLY, EACCES));
	REQUIRE(kill(parent, 0) == 0);
}

static void test_landlock(void **state)
{
	(void)state;
	if (!has_landlock(1))
		skip();
	assert_int_equal(status_of(landlocked, NULL), 0);
	assert_int_equal(status_of(landlocked_warden, NULL), 0);
}

/* ---- memory that was written ---- */

static void no_exec_gain(void *arg)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *text;

	(void)arg;
	pb_step_no_exec_gain();
	text = pb_confine_report_text();
	if (strstr(text, "no executable memory gained\ton"))
		REQUIRE(mprotect(p, 4096, PROT_READ | PROT_EXEC) < 0 && errno == EACCES);
}

static void test_no_exec_gain(void **state)
{
	(void)state;
	assert_int_equal(status_of(no_exec_gain, NULL), 0);
}

/* ---- whole roles ---- */

static void as_intake(void (*then)(void))
{
	struct pb_confine_spec s = {.memory_bytes = 256u << 20};
	struct pt2box_error e = {.text = ""};

	s.uid = s.gid = pb_confine_has_rights() ? 0x60001234 : 0;
	dup2(2, 3);
	close_range(4, ~0u, 0);
	if (pb_confine_intake(&s, &e)) {
		dprintf(2, "%s\n", e.text);
		_exit(104);
	}
	then();
}

static void opens_softly(void)
{
	REQUIRE(try_open("/etc/passwd", O_RDONLY, EPERM));
}

static void makes_a_socket(void)
{
	socket(AF_UNIX, SOCK_STREAM, 0);
}

static void calls_as_i386(void)
{
	long r;

	__asm__ volatile("int $0x80" : "=a"(r) : "a"(20) : "r8", "r9", "r10", "r11", "memory");
}

static void forks(void)
{
	fork();
}

static void maps_code(void)
{
	mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void ends(void)
{
}

static void intake(void *arg)
{
	void (*then)(void);

	memcpy(&then, arg, sizeof(then));
	as_intake(then);
}

static int intake_status(void (*then)(void), bool ordinary)
{
	return status_in_namespaces(intake, &then, ordinary);
}

static void test_intake(void **state)
{
	(void)state;
	NEEDS_FILTERS();
	for (int ordinary = 0; ordinary < 2; ordinary++) {
		assert_int_equal(intake_status(ends, ordinary), 0);
		assert_int_equal(intake_status(opens_softly, ordinary), 0);
		assert_true(killed_by(intake_status(makes_a_socket, ordinary), SIGSYS));
		assert_true(killed_by(intake_status(calls_as_i386, ordinary), SIGSYS));
		assert_true(killed_by(intake_status(forks, ordinary), SIGSYS));
		assert_true(killed_by(intake_status(maps_code, ordinary), SIGSYS));
	}
}

/* How far a template goes before it does what its last filter must stop. */
enum until { UNTIL_RUN, UNTIL_STEADY, UNTIL_STEADY_STRICT };

/* Pid 1 of the test is no warden, but the template only asks whose child it is. */
static void template_child(const struct pb_confine_spec *s, enum until until)
{
	struct pt2box_error e = {.text = ""};

	close(PB_FD_LINK_PEER);
	if (pb_confine_template(s, &e)) {
		dprintf(2, "%s\n", e.text);
		_exit(104);
	}
	REQUIRE(try_open("/etc/passwd", O_RDONLY, EPERM)); /* asks; the answer is EPERM */
	REQUIRE(pb_confine_run(s, &e) == PT2BOX_OK);
	if (until == UNTIL_RUN)
		open("/etc/passwd", O_RDONLY);
	(void)!write(PB_FD_WARDEN_LINK, "x", 1);
	REQUIRE(pb_confine_steady(s, &e) == PT2BOX_OK);
	(void)!write(PB_FD_WARDEN_LINK, "x", 1); /* the link is not a worker's */
	_exit(0);
}

static void answer_one(int listener)
{
	struct seccomp_notif n;
	struct seccomp_notif_resp r;

	memset(&n, 0, sizeof(n));
	REQUIRE(ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &n) == 0);
	REQUIRE(n.data.nr == SYS_openat);
	r = (struct seccomp_notif_resp){.id = n.id, .error = -EPERM};
	REQUIRE(ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &r) == 0);
}

static void template(void *arg)
{
	const enum until until = *(enum until *)arg;
	struct pb_confine_spec s = {.memory_bytes = 256u << 20,
				    .threads = 1,
				    .tasks = 16,
				    .strict = until == UNTIL_STEADY_STRICT,
				    .link_fd = PB_FD_WARDEN_LINK};
	int p[2], listener = -1, status;
	pid_t pid;

	s.uid = s.gid = pb_confine_has_rights() ? 0x60001234 : 0;
	REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, p) == 0);
	REQUIRE(dup2(p[0], 100) == 100 && dup2(p[1], 101) == 101);
	close_range(3, 99, 0);
	REQUIRE(dup2(100, PB_FD_LINK_PEER) > 0 && dup2(101, PB_FD_WARDEN_LINK) > 0);
	close_range(100, ~0u, 0);
	pid = fork();
	if (pid == 0)
		template_child(&s, until);
	close(PB_FD_WARDEN_LINK);
	for (int i = 0; i < 3000 && listener < 0; i++) {
		listener = pb_confine_receive_listener(PB_FD_LINK_PEER);
		usleep(1000);
	}
	REQUIRE(listener >= 0);
	answer_one(listener);
	REQUIRE(waitpid(pid, &status, 0) == pid);
	REQUIRE(killed_by(status, SIGSYS));
}

static void test_template(void **state)
{
	(void)state;
	NEEDS_FILTERS();
	for (enum until u = UNTIL_RUN; u <= UNTIL_STEADY_STRICT; u++) {
		assert_int_equal(status_in_namespaces(template, &u, false), 0);
		assert_int_equal(status_in_namespaces(template, &u, true), 0);
	}
}

/* ---- reports ---- */

static void test_probe(void **state)
{
	static const char *const required[] = {"network namespace", "pid namespace", "empty root", "resource limits",
					       "no capabilities", "no_new_privs", "seccomp load filter",
					       "seccomp run filter"};
	char *text;

	(void)state;
	NEEDS_FILTERS();
	text = pb_confine_probe_text(0, false);
	assert_non_null(text);
	for (size_t i = 0; i < sizeof(required) / sizeof(required[0]); i++) {
		char want[64];

		snprintf(want, sizeof(want), "%s\ton\t", required[i]);
		if (!strstr(text, want))
			fail_msg("%s is not there:\n%s", required[i], text);
	}
	free(text);
	/* It was tried in a child: nothing has happened to us. */
	assert_true(try_open("/etc/passwd", O_RDONLY, 0));
}

static void probe_as_broker(void *arg)
{
	char *text;

	(void)arg;
	if (geteuid() == 0)
		become_ordinary();
	REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_DUMPABLE, 0) == 0);
	text = pb_confine_probe_text(0, false);
	REQUIRE(text && strstr(text, "user namespace\ton") && strstr(text, "seccomp run filter\ton"));
	free(text);
}

static void test_probe_as_broker(void **state)
{
	(void)state;
	NEEDS_FILTERS();
	assert_int_equal(status_of(probe_as_broker, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty_root),   cmocka_unit_test(test_root_of_both),
		cmocka_unit_test(test_process),	     cmocka_unit_test(test_namespaces),
		cmocka_unit_test(test_identity),     cmocka_unit_test(test_no_nested_user_namespace),
		cmocka_unit_test(test_sealed),	     cmocka_unit_test(test_limits),
		cmocka_unit_test(test_landlock),     cmocka_unit_test(test_no_exec_gain),
		cmocka_unit_test(test_intake),	     cmocka_unit_test(test_template),
		cmocka_unit_test(test_probe),	     cmocka_unit_test(test_probe_as_broker),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
