/* SPDX-License-Identifier: Apache-2.0 */
/*
 * .safetensors: a JSON header, then elements. The format is a map without an order: arrays are taken in the natural
 * order of their names (in2 before in10), whatever the order in the file.
 * Source: github.com/huggingface/safetensors, README, "Format".
 */
#ifndef PT2BOX_CMD_SAFETENSORS_H
#define PT2BOX_CMD_SAFETENSORS_H

#include "client/cmd/array.h"
#include "client/cmd/sink.h"

#define PB_SAFETENSORS_HEADER_MAX (16u << 20) /* PB_ARRAYS_MAX of them, with long names */

PB_CHECK pb_status pb_array_open_safetensors(struct pb_array_file *f, struct pt2box_error *err);
PB_CHECK pb_status pb_array_write_safetensors(struct pb_sink *s, const struct pb_array_view *v, size_t n,
					struct pt2box_error *err);

#endif
