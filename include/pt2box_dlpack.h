/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The binary interface of DLPack 1.x, from its specification (dmlc/dlpack,
 * include/dlpack/dlpack.h): structs whose layout is fixed, and the table of functions that a tensor
 * type may offer as __dlpack_c_exchange_api__. Shared by what speaks to Python; no part of the API, not installed.
 */
#ifndef PT2BOX_DLPACK_H
#define PT2BOX_DLPACK_H

#include <stdint.h>

#define DL_CPU 1
#define DL_CUDA_HOST 3 /* pinned: ordinary memory */
#define DL_READ_ONLY 1u
#define DL_IS_COPIED 2u

enum dl_code {
	DL_INT = 0,
	DL_UINT = 1,
	DL_FLOAT = 2,
	DL_BFLOAT = 4,
	DL_COMPLEX = 5,
	DL_BOOL = 6,
	DL_FLOAT8_E4M3FN = 10,
	DL_FLOAT8_E5M2 = 12,
};

struct dl_device {
	int32_t type, id;
};

struct dl_type {
	uint8_t code, bits;
	uint16_t lanes;
};

/* @strides: in elements; NULL: contiguous. */
struct dl_tensor {
	void *data;
	struct dl_device device;
	int32_t ndim;
	struct dl_type dtype;
	int64_t *shape, *strides;
	uint64_t byte_offset;
};

/* Capsule "dltensor". */
struct dl_managed {
	struct dl_tensor t;
	void *ctx;
	void (*deleter)(struct dl_managed *);
};

/* Capsule "dltensor_versioned". */
struct dl_versioned {
	uint32_t major, minor;
	void *ctx;
	void (*deleter)(struct dl_versioned *);
	uint64_t flags;
	struct dl_tensor t;
};

/* Functions return 0, or -1 with a Python exception. "to" takes what it is given, "view" borrows
 * from the object. */
struct dl_exchange {
	uint32_t major, minor;
	struct dl_exchange *previous;
	int (*alloc)(struct dl_tensor *, struct dl_versioned **, void *,
		     void (*)(void *, const char *, const char *));
	int (*from)(void *object, struct dl_versioned **ret);
	int (*to)(struct dl_versioned *take, void **ret_object);
	int (*view)(void *object, struct dl_tensor *ret);
	int (*stream)(int32_t, int32_t, void **);
};

#endif
