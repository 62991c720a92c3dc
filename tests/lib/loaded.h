/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fixture that is loaded, with its inputs; constants as its files have them; the processes of a
 * broker, from ps. What cannot fail in a sound tree fails the running cmocka test, with the line's
 * own words.
 */
#ifndef TESTS_LIB_LOADED_H
#define TESTS_LIB_LOADED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <jansson.h>

#include "include/pt2box.h"
#include "tests/lib/check.h"
#include "tests/lib/fixture.h"

extern __thread struct pt2box_error test_error; /* of the last call in OK() */

#define OK(call)                                                                                 \
	do {                                                                                     \
		enum pt2box_status st_ = call;                                                   \
		if (st_)                                                                         \
			fail_msg("%s: %s: %s", #call, pt2box_status_name(st_), test_error.text); \
	} while (0)

/* A call has this status, and its sentence has @says in it. */
#define REFUSED(call, status_, says)                                                               \
	do {                                                                                       \
		enum pt2box_status st_ = call;                                                     \
		if (st_ != (status_) || (st_ && !strstr(test_error.text, says)))                   \
			fail_msg("%s: %s, not %s with \"%s\": %s", #call, pt2box_status_name(st_), \
				 pt2box_status_name(status_), says, st_ ? test_error.text : "");   \
	} while (0)

/* How the constants of a fixture are updated: meta.json, see make_fixtures.py. */
struct test_update {
	char kind[16]; /* full, partial, swap */
	char constants[512], out[512];
	int runs_before;
};
/* The i-th of the fixture; false: there are no more. */
bool test_update_get(const char *fixture, size_t i, struct test_update *ret);

struct loaded {
	struct test_fixture f;
	struct pt2box *own; /* connection to close; NULL: the caller's */
	struct pt2box *c;
	struct pt2box_model *m;
	struct test_arrays in; /* of the first case */
	struct pt2box_tensor *t[TEST_ARRAYS_MAX], *out[TEST_ARRAYS_MAX];
	size_t n_out;
};

/* @c: NULL: a private broker. External constants are brought along. */
void loaded_open(struct loaded *l, struct pt2box *c, const char *fixture, uint32_t runners);
void loaded_close(struct loaded *l);
/* One run of the first case on @m, l->m or a session of it; outputs in l->out, freed by
 * loaded_free(). */
enum pt2box_status loaded_run(struct loaded *l, struct pt2box_model *m);
void loaded_free(struct loaded *l);
/* One run that has to succeed, and to give what is in the file, closely. */
void loaded_gives(struct loaded *l, struct pt2box_model *m, const char *out_path);
/* The bytes of all outputs of one run, one after the other; malloc'd. */
uint8_t *loaded_bits(struct loaded *l, size_t *ret_bytes);

/* Constants of a file, lent. */
struct test_constants {
	struct test_arrays a;
	struct pt2box_constant list[TEST_ARRAYS_MAX];
	size_t n;
};
void test_constants_read(struct test_constants *c, const char *path);
void test_constants_free(struct test_constants *c);
/* By name; NULL if it is not there. */
struct pt2box_tensor *test_constants_find(const struct pt2box_constant *list, size_t n,
					  const char *name);
/* Same dtype and sizes, and element by element the same bits. */
bool test_tensors_same(const struct pt2box_tensor *a, const struct pt2box_tensor *b);

/* The answer of ps; json_decref(). */
json_t *test_ps(struct pt2box *c);
/* A process of the first model: "template", "warden", "worker"; or "broker", "spawner". 0: there is
 * none now. */
pid_t test_ps_pid(struct pt2box *c, const char *what, size_t worker);
/* Kill a worker or template, and wait until the broker says that another has its place. */
void test_kill_and_wait(struct pt2box *c, const char *what, size_t worker);

/* What a program of these tests does first: build/libexec, reaper of all that descends from it. */
int test_programs_init(void);

#endif
