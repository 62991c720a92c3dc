/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What unit tests share: no test may leave a descriptor open, and calls can be made to fail one after the other.
 *
 *	CHECK_TEST(test_x)	a cmocka test that fails if the number of open descriptors changes
 *
 * Failing calls need the linker's help, asked for in the first lines of the test:
 *
 *	(comment) ldflags: -Wl,--wrap=malloc,--wrap=calloc ... (comment)
 *
 * with any of malloc, calloc, realloc, mmap, recvmsg, sendmsg, memfd_create, ftruncate, fcntl, pread, write. Then
 *
 *	for (long n = 0; check_fail_at(n); n++)
 *		scenario();
 *
 * runs the scenario with no failure first (n 0), then with call 1, 2, 3 ... failing, until one runs to its end with all
 * calls succeeding. Calls of shared libraries are not wrapped.
 */
#ifndef TESTS_LIB_CHECK_H
#define TESTS_LIB_CHECK_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>

#include <cmocka.h>

int check_fds_setup(void **state);
int check_fds_teardown(void **state);
#define CHECK_TEST(f) cmocka_unit_test_setup_teardown(f, check_fds_setup, check_fds_teardown)

/* Open descriptors of this process. */
int check_count_fds(void);
/* Kilobytes of a line of /proc/self/status ("VmPeak", "VmRSS"); -1 if there is none. */
long check_status_kib(const char *line);

/* Arm the n-th call from here, see above. False, and nothing armed, when the run before came to its end unharmed. */
bool check_fail_at(long n);
/* The armed call was reached: the scenario must have failed in an orderly way. */
bool check_failed(void);
/* Nothing fails from here on, until the next check_fail_at(). */
void check_disarm(void);

/* Deterministic random numbers: a test that fails fails again. */
static inline uint64_t check_rand(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

/* With sanitizers everything is slower and memory is not what it seems. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CHECK_SANITIZED 1
#else
#define CHECK_SANITIZED 0
#endif

#endif
