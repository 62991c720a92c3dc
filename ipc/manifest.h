/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manifest: what intake found in a package, as msgpack in a sealed memfd. Written by intake (confined, but it has
 * parsed hostile bytes), validated by the broker, then read by worker and client. All text in it is the package author's.
 *
 * The in-memory form below owns its memory in one arena; strings are NUL-terminated UTF-8 with control characters
 * escaped already. Decoding checks every count and length against the limits here and against the bytes at hand.
 */
#ifndef PT2BOX_IPC_MANIFEST_H
#define PT2BOX_IPC_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/nodes.h"
#include "ipc/status.h"

#define PB_MANIFEST_VERSION 3
#define PB_MANIFEST_MAX_BYTES (8u << 20)
#define PB_MANIFEST_MAX_TENSORS 65536
#define PB_MANIFEST_MAX_IMPORTS 4096

/* One dimension of an input: a fixed size has lo == hi; a dynamic one its bounds (hi INT64_MAX if unbounded). The
 * lower bound 2 that the compiler writes is stored as 1 (0 if the package allows 0), so that a batch of 1 runs. */
struct pb_sig_dim {
	int64_t lo, hi;
	int64_t stride; /* elements, as declared; -1: dynamic, follows from the sizes (or unknown) */
};

struct pb_sig_input {
	const char *name;
	int32_t dtype; /* -1: not a tensor / unknown */
	int32_t ndim;  /* -1: unknown */
	struct pb_sig_dim dims[PT2BOX_MAX_DIMS];
};

enum pb_const_type { PB_CONST_UNKNOWN, PB_CONST_PARAMETER, PB_CONST_BUFFER, PB_CONST_TENSOR, PB_CONST_FOLDED };

struct pb_constant {
	const char *name; /* internal name, "fc1_weight" */
	const char *fqn;  /* "fc1.weight" */
	int32_t dtype;
	int32_t ndim;
	int64_t sizes[PT2BOX_MAX_DIMS];
	int64_t strides[PT2BOX_MAX_DIMS];
	int64_t storage_offset; /* elements */
	uint64_t data_size;	/* bytes of the storage, as the package says */
	uint64_t blob_offset;	/* bytes into the constants' memory: 64-aligned running sum of data_size, folded ones skipped */
	bool folded;
	bool opaque; /* in a layout of oneDNN's own (freezing): data_size bytes that sizes and strides do not explain */
	enum pb_const_type type;
};

/* Where the bytes of the constants are. */
enum pb_const_source {
	PB_CONSTS_EMBEDDED_RO,	/* section .lrodata of the .so */
	PB_CONSTS_EMBEDDED_RW,	/* section .ldata: the model mutates a buffer: stateful */
	PB_CONSTS_MMAP_SELF,	/* appended to the .so; the model opens its own file */
	PB_CONSTS_BLOB,		/* *_weights.blob, in the constants memfd */
	PB_CONSTS_EXTERNAL,	/* none in the package: the client must bring them */
	PB_CONSTS_WEIGHTS_FILE, /* pickled weights: refused unless the client brings constants */
	PB_CONSTS_NONE,		/* the model has no constants */
};

enum pb_shim_state { PB_SHIM_IS_NATIVE, PB_SHIM_IS_PROXIED, PB_SHIM_IS_ABSENT, PB_SHIM_IS_OTHER };

struct pb_import {
	const char *name;	 /* aoti_torch_cpu_addmm_out, Sleef_expf8_u10, ... */
	enum pb_shim_state state; /* OTHER: not of the aoti_torch ABI (SLEEF, C, C++ library) */
	const char *note;	 /* for absent and proxied ones: the operator and what would provide it; else "" */
};

struct pb_key_value {
	const char *key, *value;
};

struct pb_manifest {
	const char *model_name;
	const char **model_names; /* all in the package */
	uint32_t n_model_names;
	const char *device; /* "cpu", "cuda" */
	struct pb_key_value *metadata;
	uint32_t n_metadata;
	const char *in_spec, *out_spec; /* pytree JSON as in the package, "" if intake could not find it */

	struct pb_sig_input *inputs; /* meaningful if has_signature */
	uint32_t n_inputs, n_outputs; /* from wrapper.cpp, a hint; the container has the last word */
	bool has_signature;

	struct pb_constant *constants;
	uint32_t n_constants;
	enum pb_const_source const_source;
	uint64_t const_bytes; /* size of the constants' memory */
	uint64_t const_file_offset; /* EMBEDDED_*, MMAP_SELF: where they begin in the code's file; else 0 */
	bool mutates; /* the model writes to its constants, wherever they are: it has state */

	struct pb_import *imports; /* undefined dynamic symbols of the .so that are aoti_torch_* or Sleef_* */
	uint32_t n_imports;
	uint32_t n_absent, n_proxied;

	/* The code, as rewritten by intake: constructors taken out, executable-stack flag cleared. */
	uint64_t so_bytes;
	uint64_t init_addr;	  /* DT_INIT, 0 if none; relative to the load address */
	uint64_t init_array_addr; /* DT_INIT_ARRAY, 0 if none */
	uint32_t init_array_count;
	uint8_t so_sha256[32];	/* of the rewritten file without its constants */
	uint8_t pkg_sha256[32]; /* of the package file */

	const char *cpu_isa; /* AOTI_CPU_ISA */
	const char *cpu_needs; /* space separated features the code needs: "avx2 fma f16c", from the compile command and ISA */
	bool uses_openmp;
	uint32_t openmp_threads; /* threads the loops were compiled for; 0 unknown */
	bool minimal_arrayref;
	bool needs_lapack;	 /* the native runtime computes some of it with LAPACK */
	struct pb_nodes *nodes; /* calls of operators by name; NULL when encoding: none */
};

/* Encode into a malloc'd buffer that the caller frees. Errors: LIMIT, NO_MEMORY. */
PB_CHECK pb_status pb_manifest_encode(const struct pb_manifest *m, uint8_t **ret, size_t *ret_bytes,
				      struct pt2box_error *err);
/* Decode hostile bytes. Errors: PKG_REJECTED (text says what), NO_MEMORY. pb_manifest_free(). */
PB_CHECK pb_status pb_manifest_decode(const uint8_t *data, size_t bytes, struct pb_manifest **ret,
				      struct pt2box_error *err);
/* The same from a sealed memfd (borrowed). */
PB_CHECK pb_status pb_manifest_read(int fd, struct pb_manifest **ret, struct pt2box_error *err);
/* Accepts NULL; returns NULL. For decoded ones only. */
struct pb_manifest *pb_manifest_free(struct pb_manifest *m);

#endif
