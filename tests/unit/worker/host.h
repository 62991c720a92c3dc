/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fixture's model in this process, as a template has it, without a sandbox: for tests of what a worker does with a
 * container. Each in a child of its own, because a model can be loaded once: EXPECT ends the child.
 */
#ifndef TESTS_UNIT_WORKER_HOST_H
#define TESTS_UNIT_WORKER_HOST_H

#include "tests/lib/check.h"

#include "tests/lib/fixture.h"
#include "worker/model.h"

#define EXPECT(ok, ...)                                                                                                \
	do {                                                                                                           \
		if (!(ok))                                                                                             \
			host_fail(__FILE__, __LINE__, #ok, " " __VA_ARGS__);                                           \
	} while (0)
#define EXPECT_OK(call)                                                                                                \
	do {                                                                                                           \
		struct pt2box_error e_ = {.text = ""};                                                                 \
		pb_status st_ = (call);                                                                                \
		if (st_)                                                                                               \
			host_fail(__FILE__, __LINE__, #call, ": %s, %s", pt2box_status_name(st_), e_.text);            \
	} while (0)

struct host {
	char fixture[64];
	struct test_fixture about;
	struct pb_backend backend;
	struct pb_manifest *manifest;
	struct pb_model model;
};

_Noreturn void host_fail(const char *file, int line, const char *what, const char *fmt, ...) PB_PRINTF(4, 5);
/* Runs @f in a child; the test fails unless it returns. */
void host_child(void (*f)(const char *fixture), const char *fixture);
/* Load a fixture; @given: constants' memory that comes with it (-1: what the fixture needs). */
struct host *host_load(const char *fixture, int given);
/* One run on the arrays of @in; 0 and outputs close to those of @out, or 1 with the first difference in @why. */
int host_run(struct host *h, const char *in, const char *out, char why[256]);
/* Element 0 of output @i of a run on @in. */
float host_first(struct host *h, const char *in, size_t i);
/* New memory like @base (a memfd; -1: zeros) with the constants of a safetensors file of the fixture; NULL: none. */
int host_memory(const struct host *h, int base, const char *file);
/* The values of a buffer, in new memory. */
int host_extract(struct host *h, bool inactive);
pb_status host_change(struct host *h, enum pb_change kind, bool inactive, int memory, struct pt2box_error *err);

#endif
