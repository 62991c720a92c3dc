/* SPDX-License-Identifier: Apache-2.0 */
/* Fixtures as tensors of libpt2box; files and comparison are in tests/lib/fixture.h. */
#ifndef TESTS_LIB_TENSORS_H
#define TESTS_LIB_TENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "include/pt2box.h"
#include "tests/lib/fixture.h"

/* "tests/fixtures/NAME/FILE"; static text, overwritten by the next call. */
const char *fixture_path(const char *name, const char *file);
/* Read an .npz; fails the program if it cannot. */
void fixture_read(const char *name, const char *file, struct test_arrays *ret);
/* Tensors over the arrays: copied into the lane of @m, or lent where it is NULL. Fails the program
 * on an error. */
void fixture_tensors(struct pt2box_model *m, const struct test_arrays *f,
		     struct pt2box_tensor **ret);
/*
 * Every array that is there (named outN) equals output N closely, or exactly for integers; outputs
 * without an array are None. false with a line on stderr.
 */
bool fixture_equal(struct pt2box_tensor *const *out, size_t n_out, const struct test_arrays *want,
		   double rtol, double atol);
/* One element of a tensor as a number. */
double fixture_at(const struct pt2box_tensor_info *t, int64_t flat_index);

#endif
