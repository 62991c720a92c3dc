/* SPDX-License-Identifier: Apache-2.0 */
/* Packages for tests: a .so made by the test, in the folders and with the texts that PyTorch writes. */
#ifndef TESTS_LIB_PACKAGE_H
#define TESTS_LIB_PACKAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One input float32[16], one output; as tests/hostile/base.h has it. */
struct test_package {
	const char *so_path;
	const char *model_name; /* NULL: "model" */
	bool constants;		/* one float32[1024] named "w"... */
	const void *blob;	/* ...in a file of its own; NULL: inside the .so */
	size_t blob_bytes;
};

/* Write @p to @path, entries stored. Returns 0, or -1 with a line on stderr. */
int test_package_write(const char *path, const struct test_package *p);

/* The first array of a file, in its own layout; malloc'd. NULL on any fault. */
struct test_array {
	int ndim;
	int64_t shape[16];
	size_t bytes;
	unsigned char data[];
};
struct test_array *test_npz_first(const char *path);

#endif
