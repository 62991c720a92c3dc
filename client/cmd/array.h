/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arrays in files: .npy, .npz and .safetensors read into, and written from, plain memory.
 *
 * A file is opened in two steps so that elements are read once, straight to where they are needed: open parses what
 * describes the arrays, read then fills memory of the caller's. Every number in a file is a claim: it is bounded by the
 * size of the file before anything is allocated or read by it.
 */
#ifndef PT2BOX_CMD_ARRAY_H
#define PT2BOX_CMD_ARRAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/status.h"

#define PB_ARRAYS_MAX 65536 /* of one file; a model cannot have more inputs */

struct zip_file;

enum pb_format { PB_FORMAT_NONE, PB_FORMAT_NPY, PB_FORMAT_NPZ, PB_FORMAT_SAFETENSORS };

/* By the extension of the name. */
enum pb_format pb_format_of(const char *path);

struct pb_array {
	char *name;
	int32_t dtype; /* enum pt2box_dtype; unsigned of the same size if raw */
	bool raw;      /* "|V2" and the like: some dtype that numpy does not know */
	bool swap;     /* the file is big-endian */
	int32_t ndim;
	int64_t sizes[PT2BOX_MAX_DIMS];
	int64_t strides[PT2BOX_MAX_DIMS]; /* elements */
	uint64_t bytes;			  /* of all elements; they are dense */
	uint64_t offset;		  /* of the elements in the file, or in the archive's entry */
	uint64_t entry;			  /* .npz: index in the archive */
	struct zip_file *stream;	  /* .npz: open at byte stream_at of the elements, for spans */
	uint64_t stream_at;
	bool stored; /* .npz: not deflated, can be sought in */
};

struct pb_array_file;

/* Errors: IO (not there, not a regular file), USAGE (extension), BAD_TENSOR (not what it should be), NO_MEMORY. */
PB_CHECK pb_status pb_array_file_open(const char *path, struct pb_array_file **ret, struct pt2box_error *err);
/* From an open regular file (borrowed); @name is for messages. */
PB_CHECK pb_status pb_array_file_open_fd(int fd, enum pb_format format, const char *name, struct pb_array_file **ret,
					 struct pt2box_error *err);
/* Accepts NULL; returns NULL. */
struct pb_array_file *pb_array_file_free(struct pb_array_file *f);
size_t pb_array_file_count(const struct pb_array_file *f);
const struct pb_array *pb_array_file_get(const struct pb_array_file *f, size_t i);
/* Fill @dst with the elements in the machine's byte order: pb_array_file_get(f, i)->bytes. */
PB_CHECK pb_status pb_array_file_read(struct pb_array_file *f, size_t i, void *dst, struct pt2box_error *err);
/* The same of a part: @n bytes from byte @from of the elements on. Quick if spans are read in order, also where they are deflated. */
PB_CHECK pb_status pb_array_file_read_span(struct pb_array_file *f, size_t i, uint64_t from, uint64_t n, void *dst,
					   struct pt2box_error *err);

/* The rows are in C order: nothing to do but copy. */
bool pb_array_is_c_order(const struct pb_array *a);
/*
 * The dtype of the elements, given that the package declares @want (-1: does not say). numpy has no bfloat16, float8 and
 * complex32: they come as unsigned integers of their size, or as raw bytes. -1: raw, and nobody knows of what.
 */
int32_t pb_array_dtype_as(const struct pb_array *a, int32_t want);

/* What is written: a borrowed view of elements, in any strides. */
struct pb_array_view {
	const char *name;
	int32_t dtype;
	int32_t ndim;
	const int64_t *sizes;
	const int64_t *strides;
	const void *data;
};

/* Write a whole file to @fd, an empty regular file. Errors: USAGE (the format cannot hold this), SYSTEM. */
PB_CHECK pb_status pb_arrays_write(int fd, enum pb_format format, const struct pb_array_view *v, size_t n,
				   struct pt2box_error *err);

/* ---- for the formats ---- */

/* Sets bytes and, for C or Fortran order, strides, from dtype and sizes. false: too large to exist. */
bool pb_array_measure(struct pb_array *a, bool fortran);
/* Room for @n more arrays, zeroed; NULL if there is none. */
struct pb_array *pb_array_file_add(struct pb_array_file *f);
/* pread all of @n bytes; a short file is an error. */
PB_CHECK pb_status pb_array_pread(const struct pb_array_file *f, void *dst, uint64_t n, uint64_t offset,
				  struct pt2box_error *err);

struct zip;
struct pb_array_file {
	enum pb_format format;
	int fd;
	uint64_t size;
	char *name;
	struct zip *zip;
	struct pb_array *item;
	size_t n, room;
};

#endif
