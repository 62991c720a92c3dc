/* SPDX-License-Identifier: Apache-2.0 */
/* What tests of operators that a client brings share: the fixture customop, whose operator is pt2box_test::triple. */
#ifndef TESTS_LIB_OPERATORS_H
#define TESTS_LIB_OPERATORS_H

#include "include/pt2box.h"

extern int64_t test_operators_run_deadline_ms; /* of models that are loaded from here on; operators have half of it */

struct test_operators {
	struct pt2box *c;
	struct pt2box_model *m;
	struct pt2box_tensor *in;
	float *x;
};

/* Takes @ops_take. */
enum pt2box_status test_operators_load(struct pt2box *c, const char *fixture, int ops_take, uint32_t runners,
				       struct pt2box_model **ret);
/* A private broker with customop and one input. Takes @ops_take. */
void test_operators_begin(struct test_operators *w, int ops_take, uint32_t runners);
void test_operators_input(struct pt2box_model *m, struct pt2box_tensor **ret, float **ret_x);
void test_operators_end(struct test_operators *w);
/* One run, the first element of its input being @first; what it computes must be right. */
enum pt2box_status test_operators_run(struct test_operators *w, float first);
/* The fixtures customop and opkinds, many runs each, against what PyTorch computed. @open: a new descriptor of the operators' file. */
void test_operators_values(int (*open_ops)(void), int runs);

#endif
