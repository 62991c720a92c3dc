/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Constants of a manifest by name, and texts that list names: what the client checks before it sends anything, and intake
 * again, since a client is not believed. Names are found in a sorted index: a hostile list may have as many as a hostile model.
 */
#ifndef PT2BOX_IPC_CONSTANT_NAMES_H
#define PT2BOX_IPC_CONSTANT_NAMES_H

#include "ipc/manifest.h"

struct pb_constant_key;

/* Initialise with {.n = 0}. */
struct pb_constant_index {
	struct pb_constant_key *key;
	size_t n;
};

/* Index @m (borrowed) by fully qualified names; with @internal also by internal ones, which come second. */
PB_CHECK pb_status pb_constant_index_init(struct pb_constant_index *x, const struct pb_manifest *m, bool internal,
					  struct pt2box_error *err);
void pb_constant_index_deinit(struct pb_constant_index *x);
/* The constant that goes by @name, -1: there is none. */
int64_t pb_constant_index_find(const struct pb_constant_index *x, const char *name);

/* A parameter with elements: what a full update must give. PyTorch only warns of missing buffers and tensor constants. */
bool pb_constant_is_parameter(const struct pb_constant *c);

/* Names for an error's text, as many as fit. Initialise with {.n = 0}. */
struct pb_names {
	char text[360];
	size_t used, n, shown;
};
void pb_names_add(struct pb_names *l, const char *name);
/* "const.name: @what a, b and 3 more" as NOT_FOUND; OK if there are none. */
PB_CHECK pb_status pb_names_error(const struct pb_names *l, const char *what, struct pt2box_error *err);

#define PB_INTEGERS_TEXT 160
/* "2, 3, 4" in @buf, which is returned; a long list is cut. */
const char *pb_integers_text(int32_t n, const int64_t *v, char buf[PB_INTEGERS_TEXT]);

#endif
