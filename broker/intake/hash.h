/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 of files and memory. */
#ifndef PT2BOX_BROKER_INTAKE_HASH_H
#define PT2BOX_BROKER_INTAKE_HASH_H

#include <stdint.h>

#include "ipc/status.h"

void pb_hash_memory(const uint8_t *data, uint64_t bytes, uint8_t ret[32]);
PB_CHECK pb_status pb_hash_file(int fd, uint64_t bytes, uint8_t ret[32], struct pt2box_error *err);

#endif
