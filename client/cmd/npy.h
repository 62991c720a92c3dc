/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The .npy format, versions 1 to 3, alone or as an entry of an .npz. Structured and object dtypes are refused.
 * Source: numpy/lib/format.py, numpy 2.4.
 */
#ifndef PT2BOX_CMD_NPY_H
#define PT2BOX_CMD_NPY_H

#include "client/cmd/array.h"
#include "client/cmd/sink.h"

/* Magic, version and the longest length field. */
#define PB_NPY_PREFIX 12
#define PB_NPY_HEADER_MAX 65536

/*
 * Bytes of the header, prefix included, from the first PB_NPY_PREFIX bytes (or fewer, if the file has fewer); 0 if this
 * is no .npy file, or one with a header beyond PB_NPY_HEADER_MAX.
 */
size_t pb_npy_header_bytes(const uint8_t *data, size_t n);
/*
 * Parse a header that is there whole; @a gets dtype, raw, swap, ndim, sizes, strides, bytes, and offset: the header's
 * own length. @what names the array in messages. Errors: BAD_TENSOR.
 */
PB_CHECK pb_status pb_npy_parse(const uint8_t *data, size_t n, const char *what, struct pb_array *a,
				struct pt2box_error *err);
PB_CHECK pb_status pb_npy_open(struct pb_array_file *f, struct pt2box_error *err);

/* Bytes that pb_npy_write() will write. */
uint64_t pb_npy_size(const struct pb_array_view *v);
PB_CHECK pb_status pb_npy_write(struct pb_sink *s, const struct pb_array_view *v, struct pt2box_error *err);

#endif
