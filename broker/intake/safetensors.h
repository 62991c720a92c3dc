/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Constants from a safetensors file, once, by pread: checked against the model's description, laid out in the model's
 * order and strides. Nothing in the file is ever run or unpickled.
 * Source: the format as described by huggingface/safetensors, README, "Format".
 */
#ifndef PT2BOX_BROKER_INTAKE_SAFETENSORS_H
#define PT2BOX_BROKER_INTAKE_SAFETENSORS_H

#include "ipc/manifest.h"

#define PB_SAFETENSORS_HEADER_MAX (32u << 20)

/*
 * Fill @dst (const_bytes bytes, zeroed) with the constants of @m from the file @fd. PKG_REJECTED "const.format: ..." for a
 * file of another kind or a malformed one; BAD_TENSOR naming what is missing, unknown, or of another dtype or shape; IO.
 */
PB_CHECK pb_status pb_safetensors_read(int fd, const struct pb_manifest *m, uint8_t *dst, struct pt2box_error *err);

#endif
