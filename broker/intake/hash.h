/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256. */
#ifndef PT2BOX_BROKER_INTAKE_HASH_H
#define PT2BOX_BROKER_INTAKE_HASH_H

#include <stdint.h>

struct pb_hash {
	_Alignas(16) uint8_t state[128]; /* the library's */
};

void pb_hash_begin(struct pb_hash *h);
void pb_hash_add(struct pb_hash *h, const void *data, uint64_t bytes);
void pb_hash_end(struct pb_hash *h, uint8_t ret[32]);

#endif
