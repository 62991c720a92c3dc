/* SPDX-License-Identifier: Apache-2.0 */
/* A sibling by clone: the caller's parent is its parent, and libc knows who it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>

#include "confine/fork_sibling.h"
#include "tests/unit/confine/child.h"

struct told {
	pid_t sibling, parent_of_sibling, owner, tid;
};

/* What libc believes the thread's id to be: it writes it into a lock. */
static pid_t cached_tid(void)
{
	pthread_mutex_t m;
	pthread_mutexattr_t a;
	pid_t owner;

	pthread_mutexattr_init(&a);
	pthread_mutexattr_settype(&a, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(&m, &a);
	pthread_mutex_lock(&m);
	owner = m.__data.__owner;
	pthread_mutex_unlock(&m);
	return owner;
}

static void tell(int fd)
{
	struct told t = {getpid(), getppid(), cached_tid(), gettid()};

	(void)!write(fd, &t, sizeof(t));
}

/* In a child of the test: forks a sibling, which ends as @how says. */
static void fork_one(int fd, void (*how)(void))
{
	REQUIRE(pb_fork_sibling_prepare(NULL) == PT2BOX_OK);
	if (pb_fork_sibling() == 0) {
		tell(fd);
		how();
		_exit(0);
	}
	_exit(0);
}

/* Status of the sibling, which the test reaps: it is its own child. */
static int sibling_status(void (*how)(void), struct told *t)
{
	int p[2], status;
	pid_t pid;

	assert_int_equal(pipe(p), 0);
	pid = fork();
	if (pid == 0) {
		for (int sig = 1; sig < 32; sig++)
			signal(sig, SIG_DFL);
		fork_one(p[1], how);
	}
	close(p[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(read(p[0], t, sizeof(*t)), sizeof(*t));
	close(p[0]);
	assert_int_equal(waitpid(t->sibling, &status, 0), t->sibling);
	assert_int_equal(t->parent_of_sibling, getpid());
	assert_int_equal(t->owner, t->sibling);
	assert_int_equal(t->tid, t->sibling);
	return status;
}

static void *idle(void *arg)
{
	return arg;
}

static void starts_a_thread(void)
{
	pthread_t t;

	/* The stack of the thread list, the id and the joiner's futex all have to be right. */
	REQUIRE(pthread_create(&t, NULL, idle, NULL) == 0);
	REQUIRE(pthread_join(t, NULL) == 0);
	_exit(7);
}

static void forks_again(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(cached_tid() == getpid() ? 3 : 4);
	REQUIRE(waitpid(pid, &status, 0) == pid);
	_exit(WEXITSTATUS(status));
}

static void test_exit(void **state)
{
	struct told t;

	(void)state;
	assert_int_equal(WEXITSTATUS(sibling_status(starts_a_thread, &t)), 7);
	assert_int_equal(WEXITSTATUS(sibling_status(forks_again, &t)), 3);
}

static void test_abort(void **state)
{
	struct told t;

	(void)state;
	assert_true(killed_by(sibling_status(abort, &t), SIGABRT));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_exit), cmocka_unit_test(test_abort)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
