/* SPDX-License-Identifier: Apache-2.0 */
/* A broker from which layers of the sandbox are left out (confine/test_layers.h), and attacks against it. */
#ifndef TESTS_LIB_LAYERED_H
#define TESTS_LIB_LAYERED_H

#include <stdbool.h>

#include "include/pt2box.h"
#include "tests/lib/broker.h"

struct test_layered {
	struct test_broker broker;
	struct test_paths paths;
};

/* @off: names with commas between them; @product: the programs that are installed, which know of no such thing. */
bool test_layered_start(struct test_layered *l, const char *off, bool product);
bool test_layered_begin(struct test_layered *l, const char *off);
/* Whatever of the broker is left: without a pid namespace workers outlive their warden. Ends all children of this process. */
void test_layered_end(struct test_layered *l);
/* Load tests/hostile/FIXTURE.3.so, and if it loads, have it attack in a run. */
enum pt2box_status test_layered_attack(struct test_layered *l, const char *fixture, struct pt2box_error *e);
/* It got what it wanted: its own words, or another program in its place. */
bool test_got_through(const char *fixture, enum pt2box_status st, const struct pt2box_error *e);
/* The name that M08 looks for; -1: it cannot be had. */
int test_listen_abstract(void);

#endif
