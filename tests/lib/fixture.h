/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fixtures: packages that PyTorch compiled, with inputs and the outputs that PyTorch computed; meta.json says how many
 * cases there are, which dtypes, and how close is close enough. Files that numpy wrote are read by client/cmd/.
 */
#ifndef TESTS_LIB_FIXTURE_H
#define TESTS_LIB_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/cmd/array.h"

#define TEST_FIXTURES "tests/fixtures"
#define TEST_ARRAYS_MAX 64

struct test_case {
	char model[64]; /* "": the only one */
	char in[512], out[512];
	/* Declared; -1: None. */
	int32_t dtypes_in[TEST_ARRAYS_MAX], dtypes_out[TEST_ARRAYS_MAX];
	size_t n_in, n_out;
};

struct test_fixture {
	char name[64];
	char package[512], constants[512]; /* constants "": none to bring */
	double rtol, atol;
	bool sequence; /* the cases are runs of one model, in this order */
	struct test_case cases[8];
	size_t n_cases;
};

/* 0, or -1 with a line on stderr. */
int test_fixture_load(const char *name, struct test_fixture *ret);
/* The i-th fixture by name; false: there are no more. */
bool test_fixture_name(size_t i, char ret[64]);

/* All arrays of a file, in memory. */
struct test_arrays {
	struct pb_array_view v[TEST_ARRAYS_MAX];
	size_t n;
	struct pb_array_file *file;
	void *data[TEST_ARRAYS_MAX];
};

/*
 * Dtypes that numpy lacks are taken from @dtypes, by the number in an array's name, else by its place. 0, or -1
 * with a line on stderr; test_arrays_free() in either case.
 */
int test_arrays_read(const char *path, const int32_t *dtypes, size_t n_dtypes, struct test_arrays *ret);
void test_arrays_free(struct test_arrays *a);
/*
 * Same dtype, same sizes, every element equal or, if it has a fraction, within atol + rtol * |want|; NaN equals NaN. The
 * strides of the two do not matter. @why: the first difference.
 */
bool test_close(const struct pb_array_view *got, const struct pb_array_view *want, double rtol, double atol,
		char why[256]);
/* An output file against the one of a case, names included. 0, or -1 with a line on stderr. */
int test_compare_files(const struct test_fixture *f, const struct test_case *c, const char *got);

#endif
