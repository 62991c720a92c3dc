/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that is freed all at once. Zeroed. */
#ifndef PT2BOX_BROKER_INTAKE_ARENA_H
#define PT2BOX_BROKER_INTAKE_ARENA_H

#include <stddef.h>

struct pb_arena {
	struct pb_arena_chunk *chunks;
};

/* NULL: no memory. */
void *pb_arena_take(struct pb_arena *a, size_t n, size_t size);
/* @bytes bytes and a NUL. */
char *pb_arena_text(struct pb_arena *a, const char *s, size_t bytes);
void pb_arena_deinit(struct pb_arena *a);

#endif
