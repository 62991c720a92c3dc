/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The other tenant: a process of its own, as root also with a uid of its own, that runs an honest model over and over while a
 * broker is attacked. Its results must stay the very same bits, and none may be late.
 */
#ifndef TESTS_LIB_CANARY_H
#define TESTS_LIB_CANARY_H

#include <sys/types.h>

#include "tests/lib/broker.h"

#define TEST_CANARY_LATE_MS 10000

struct test_canary {
	pid_t pid;
	struct test_canary_state *state; /* shared with it */
	long checked;			 /* runs at the last check */
};

/* @honest: a fixture's folder. Returns when it has run once; -1 with a line on stderr. */
int test_canary_start(struct test_canary *c, const struct test_broker *b, const char *honest);
/* It has run since the last check, within 10 s, was never wrong and never refused. NULL: all well; else what was not. */
const char *test_canary_check(struct test_canary *c);
long test_canary_runs(const struct test_canary *c, long *ret_worst_us);
void test_canary_stop(struct test_canary *c);

#endif
