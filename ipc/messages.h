/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control messages: structs, encoder and decoder expanded from messages.def. A message is one msgpack array
 * [id, field...] in one SOCK_SEQPACKET packet of at most PB_FRAME_MAX bytes, with its fds attached to it.
 */
#ifndef PT2BOX_IPC_MESSAGES_H
#define PT2BOX_IPC_MESSAGES_H

#include <stddef.h>
#include <stdint.h>

#include "ipc/status.h"

#define PB_PROTOCOL_VERSION 1
#define PB_FRAME_MAX 65536
#define PB_FDS_MAX 8

enum pb_role { PB_CLIENT, PB_BROKER, PB_SPAWNER, PB_WARDEN, PB_TEMPLATE, PB_WORKER, PB_OPS };
enum pb_state { PB_STATE_ANY, PB_STATE_NEW, PB_STATE_READY };

/* How far a template has come; the text of a failure names it. */
enum pb_load_phase {
	PB_PHASE_SPAWN,
	PB_PHASE_CONFINE,
	PB_PHASE_GATE,
	PB_PHASE_DLOPEN,
	PB_PHASE_CONSTRUCTORS,
	PB_PHASE_CONTAINER,
	PB_PHASE_CONSTANTS,
	PB_PHASE_FORK,
	PB_PHASE_READY,
};

struct pb_bytes {
	const uint8_t *data; /* borrowed from the frame */
	uint32_t len;
};

/*
 * Changes of a model's constants. The template makes them first, so that later forks have them; workers are staged, and
 * make them between two runs once the board's committed number reaches the change's.
 */
enum pb_change {
	PB_CHANGE_UPDATE,	 /* memory comes with it */
	PB_CHANGE_SWAP,		 /* active and inactive buffer */
	PB_CHANGE_FREE_INACTIVE,
	PB_CHANGE_FOLD,
};

enum pb_msg_id {
#define MSG(name, id, from, to, state, min_fds, max_fds, doc) PB_MSG_##name = id,
#define FIELD(msg, type, name, max, doc)
#define END(name)
#include "ipc/messages.def"
#undef MSG
#undef FIELD
#undef END
};

#define PB_DECL_u64(name, max) uint64_t name;
#define PB_DECL_i64(name, max) int64_t name;
#define PB_DECL_str(name, max) char name[(max) + 1];
#define PB_DECL_bin(name, max) struct pb_bytes name;
#define MSG(name, id, from, to, state, min_fds, max_fds, doc) struct pb_msg_##name {
#define FIELD(msg, type, name, max, doc) PB_DECL_##type(name, max)
#define END(name) };
#include "ipc/messages.def"
#undef MSG
#undef FIELD
#undef END

enum pb_field_type { PB_FIELD_u64, PB_FIELD_i64, PB_FIELD_str, PB_FIELD_bin };

struct pb_field {
	const char *name;
	enum pb_field_type type;
	size_t offset;
	uint64_t max;
	const char *doc;
};

struct pb_msg_row {
	const char *name;
	uint16_t id;
	enum pb_role from, to;
	enum pb_state state;
	uint8_t min_fds, max_fds;
	const struct pb_field *fields;
	uint32_t n_fields;
	size_t struct_size;
	const char *doc;
};

/* All rows, in the order of the table. */
const struct pb_msg_row *pb_msg_rows(size_t *ret_n);
/* NULL if there is no such message. */
const struct pb_msg_row *pb_msg_row(uint64_t id);
const char *pb_role_name(enum pb_role role);

/* Room for any decoded message. */
union pb_msg {
#define MSG(name, id, from, to, state, min_fds, max_fds, doc) struct pb_msg_##name name;
#define FIELD(msg, type, name, max, doc)
#define END(name)
#include "ipc/messages.def"
#undef MSG
#undef FIELD
#undef END
};

/*
 * Encode @msg (struct pb_msg_<row>) into @buf of @cap bytes. A value over its maximum is our bug: INTERNAL.
 * Returns OK and *ret_len.
 */
PB_CHECK pb_status pb_msg_encode(const struct pb_msg_row *row, const void *msg, uint8_t *buf, size_t cap,
				 size_t *ret_len);

/*
 * Decode one frame that @from sent to @to in @state with @n_fds descriptors. Everything in the row is checked before
 * anything is handed out: permission, state, number of fds, types, maxima, no byte left over. PROTOCOL on any fault.
 * bin fields point into @frame.
 */
PB_CHECK pb_status pb_msg_decode(const uint8_t *frame, size_t len, enum pb_role from, enum pb_role to,
				 enum pb_state state, size_t n_fds, const struct pb_msg_row **ret_row,
				 union pb_msg *ret, struct pt2box_error *err);

/* Structure check of hostile msgpack before the library sees it: one object, counts bounded by the bytes left, depth at
 * most @max_depth, nothing left over. The library makes 24 bytes of an object of one: so there may be only so many (the
 * largest manifest has 1.6 million). */
#define PB_MSGPACK_OBJECTS_MAX (2u << 20)
PB_CHECK pb_status pb_msgpack_scan(const uint8_t *data, size_t len, unsigned max_depth);

#endif
