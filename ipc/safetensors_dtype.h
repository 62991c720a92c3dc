/* SPDX-License-Identifier: Apache-2.0 */
/* Element types as the headers of safetensors files name them. */
#ifndef PT2BOX_IPC_SAFETENSORS_DTYPE_H
#define PT2BOX_IPC_SAFETENSORS_DTYPE_H

#include <stdbool.h>
#include <stdint.h>

/* "F32" -> PT2BOX_FLOAT32; -1 if unknown. */
int32_t pb_dtype_from_safetensors(const char *name);
/* NULL: not even a name of our own. */
const char *pb_dtype_safetensors_name(int32_t dtype);
/* The format has it, so that others can read it too. */
bool pb_dtype_in_safetensors(int32_t dtype);

#endif
