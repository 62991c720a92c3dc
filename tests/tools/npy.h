/* SPDX-License-Identifier: Apache-2.0 */
/* The little of .npz that the tools need: arrays by name, little endian, into 64-byte aligned
 * memory. */
#ifndef PT2BOX_TESTS_TOOLS_NPY_H
#define PT2BOX_TESTS_TOOLS_NPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NPY_MAX_DIMS 16

struct npy {
	void *data;
	uint64_t bytes;
	int32_t dtype; /* c10 number; uint16 may be bfloat16, which numpy does not have */
	int ndim;
	int64_t sizes[NPY_MAX_DIMS], strides[NPY_MAX_DIMS];
};

/* The array @name of the archive @path; false if there is none or it is not understood. */
bool npy_read(const char *path, const char *name, struct npy *ret);
void npy_deinit(struct npy *a);

/* A whole entry of a zip archive whose name ends in @suffix and holds @part; NULL if there is none.
 */
void *zip_slurp(const char *path, const char *part, const char *suffix, uint64_t *ret_bytes);

#endif
