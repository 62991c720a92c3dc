/* SPDX-License-Identifier: Apache-2.0 */
/* Products of bytes by the VNNI instructions, where the CPU has them. */
#ifndef PT2BOX_RUNTIME_OPS_S8_VNNI_H
#define PT2BOX_RUNTIME_OPS_S8_VNNI_H

#include <stdint.h>

/*
 * c[i][j] = sum over quads of a[i][4q + s] * b[q][j][s], for @rows rows and one panel of as many
 * columns as the instruction set's nr[0]; c is written whole.
 */
typedef void pb_s8_vnni_fn(const uint8_t *a, int64_t a_row, const int8_t *b, int64_t quads,
			   int32_t *c, int64_t c_row, int64_t rows);

/* NULL: the CPU has none, or a lower instruction set was asked for. */
pb_s8_vnni_fn *pb_s8_vnni_rows(void);

#endif
