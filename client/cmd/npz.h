/* SPDX-License-Identifier: Apache-2.0 */
/*
 * .npz: a zip archive of .npy entries, stored or deflated, in archive order. Read by libzip. Written by our own few
 * lines: libzip would want whole entries in memory, and writes through a temporary name of its own.
 */
#ifndef PT2BOX_CMD_NPZ_H
#define PT2BOX_CMD_NPZ_H

#include "client/cmd/array.h"
#include "client/cmd/sink.h"

PB_CHECK pb_status pb_npz_open(struct pb_array_file *f, struct pt2box_error *err);
PB_CHECK pb_status pb_npz_read(struct pb_array_file *f, const struct pb_array *a, void *dst, struct pt2box_error *err);
PB_CHECK pb_status pb_npz_read_span(struct pb_array_file *f, struct pb_array *a, uint64_t from, uint64_t n, void *dst,
				    struct pt2box_error *err);
void pb_npz_close(struct pb_array_file *f);
/* Entries "NAME.npy", uncompressed. */
PB_CHECK pb_status pb_npz_write(struct pb_sink *s, const struct pb_array_view *v, size_t n, struct pt2box_error *err);

#endif
