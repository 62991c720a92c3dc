/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The constants of a container: where they lie in memory, how they get into it, their changes. A container has two
 * buffers of them; runs use the active one. Whatever the manifest's layout says lies at base + blob_offset.
 *
 * Constants of a stateless package are never copied: the container gets them as user-managed pairs over a read-only
 * mapping of sealed memory. A stateful package (it writes to its constants) gets memory of its own: a private mapping,
 * whose pages forks share until they are written, or the copy that its container made. Owns the mappings.
 */
#ifndef PT2BOX_WORKER_CONSTANTS_H
#define PT2BOX_WORKER_CONSTANTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/messages.h"
#include "ipc/status.h"
#include "runtime/aoti.h"

struct pb_model;

struct pb_aoti_constant {
	const char *name;
	AtenTensorHandle handle;
};

/* Calls of the container; NULL: the package is older than the call. */
struct pb_constants_calls {
	int32_t (*set)(void *c, const struct pb_aoti_constant *pairs, size_t n, bool inactive, bool all);
	int32_t (*swap)(void *c);
	int32_t (*free_inactive)(void *c);
	int32_t (*fold)(void *c, bool inactive, void *stream, void *proxy);
	int32_t (*entries)(void *c, const struct pb_aoti_constant **ret, size_t *ret_n, bool inactive);
};

struct pb_constants_buffer {
	bool present;
	uint8_t *base;	    /* NULL: not known (the container's own copy, in a package that cannot tell where it is) */
	void *map;	    /* to be unmapped; NULL: the code's, or the container's */
	uint64_t map_bytes;
	AtenTensorHandle *pairs; /* the container's handles of user-managed constants, which it never frees itself */
	size_t n_pairs;
};

struct pb_constants {
	struct pb_constants_calls call;
	struct pb_constants_buffer buffer[2];
	unsigned active;
	bool stateful;
	bool given;	 /* memory with constants came with the package */
	bool folds;	 /* the package computes constants from constants */
	uint8_t *promised; /* base of what the runtime may keep packed copies of, NULL: nothing */
	uint32_t change_seq; /* number of the last change that was made */
};

/* A change, mapped and ready. Initialise with {.map = NULL}. */
struct pb_constants_change {
	uint32_t seq;
	enum pb_change kind;
	bool inactive;
	uint8_t *map;
	uint64_t map_bytes;
};

/*
 * Map what must be mapped while it can be: the container closes the file that it reads its constants from. @given: sealed
 * memory with all constants (borrowed), which wins over those in the package; @given_bytes 0: there is none.
 */
PB_CHECK pb_status pb_constants_prepare(struct pb_model *m, int given, uint64_t given_bytes, struct pt2box_error *err);
/* Give a new container its constants, and fold them. Errors: NOT_FOUND, there are none; UNSUPPORTED; MODEL_ERROR. */
PB_CHECK pb_status pb_constants_init(struct pb_model *m, struct pt2box_error *err);

/*
 * Get ready for change @seq: map @fd (borrowed; -1 for a change without memory), const_bytes and one byte a constant long,
 * made and sealed by the broker. Errors: UNSUPPORTED, a call that the package does not have, named; PROTOCOL; SYSTEM.
 */
PB_CHECK pb_status pb_constants_stage(const struct pb_model *m, uint32_t seq, enum pb_change kind, bool inactive, int fd,
				      struct pb_constants_change *ret, struct pt2box_error *err);
/* Give up a change that was staged. */
void pb_constants_unstage(struct pb_constants_change *ch);
/*
 * Make a change that was staged, between two runs, and unmap what is not used any more. @pack: the runtime may keep
 * packed copies of the active constants from now on (the template, whose forks share them). Takes the change. On failure
 * all is as before. Errors: USAGE, a buffer is empty; UNSUPPORTED; MODEL_ERROR.
 */
PB_CHECK pb_status pb_constants_apply(struct pb_model *m, struct pb_constants_change *take, bool pack,
				      struct pt2box_error *err);
/*
 * Write the values of a buffer into @fd (borrowed), which is as long as in pb_constants_stage() and zeroed: storages
 * at their blob_offset, then 1 for each that is there. Errors: UNSUPPORTED; SYSTEM; MODEL_ERROR.
 */
PB_CHECK pb_status pb_constants_extract(struct pb_model *m, bool inactive, int fd, struct pt2box_error *err);

#endif
