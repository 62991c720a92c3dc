/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lane: one client's channel to one model, without the broker on the path of a run.
 *
 * Two memories, made, sized and sealed by the broker. "up" is written by the client and read-only in the worker: the
 * bell, the requests, the inputs. "down" is written by the workers and read-only in the client: claims, replies,
 * outputs. Each begins with a control part (head and slots), then segment 0; more segments are separate memfds.
 *
 * Life of a slot, by sequence number s (never 0):
 *	client:  payload, then up.seq = s, bell++, wake if a worker sleeps
 *	worker:  down.claim: CAS to (s, worker); copies the payload out once; runs; payload, then down.done = s; wakes
 *	client:  sees done == s, copies the payload out once, may use the slot again
 *	broker:  if a worker dies between claim and done, writes the reply in its place, or takes the claim back
 *
 * Geometry comes from a message of the broker, never from the memory. Every number read from the memory is copied once
 * and validated; each end treats all that it reads as hostile. A spin is bounded; then the futex. Futexes work through
 * read-only mappings.
 */
#ifndef PT2BOX_IPC_LANE_H
#define PT2BOX_IPC_LANE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/status.h"

#define PB_LANE_SLOTS_MAX 64
#define PB_LANE_TENSORS_MAX 4096
#define PB_LANE_SEGMENTS_MAX 16 /* grown ones, in each direction */
#define PB_WORKERS_MAX 64

struct pb_lane_geometry {
	uint32_t slots;
	uint32_t slot_bytes; /* payload of one slot */
	uint64_t up_bytes;   /* segment 0 of each direction, after the control part */
	uint64_t down_bytes;
};

struct pb_lane_up_head {
	_Atomic uint32_t bell; /* counts submissions; the workers' futex */
	uint8_t pad0[60];
	_Atomic uint32_t cpu; /* CPU of the waiting client + 1, 0 unknown: no spinning against oneself */
	uint8_t pad1[60];
};

struct pb_lane_up_slot {
	_Atomic uint32_t seq;	  /* the request that is published */
	_Atomic uint32_t waiting; /* seq whose reply the client sleeps on, else 0 */
	_Atomic uint32_t cancel;  /* seq that the client gave up */
	uint32_t len;
	uint8_t payload[];
};

struct pb_lane_down_head {
	_Atomic uint64_t sleepers; /* bit w: worker w sleeps or is about to */
	uint8_t pad0[56];
	_Atomic uint32_t cpu; /* CPU of the worker that waits, + 1 */
	uint8_t pad1[60];
};

struct pb_lane_down_slot {
	_Atomic uint64_t claim; /* seq << 32 | worker + 1 */
	_Atomic uint32_t done;	/* the request that is answered; the client's futex */
	_Atomic uint32_t fault; /* seq of a run that stored into its read-only inputs */
	_Atomic uint32_t refused; /* seq of a run that was refused memory */
	uint32_t len;
	uint8_t payload[];
};

struct pb_lane_segment {
	uint8_t *base; /* NULL: not mapped */
	uint64_t bytes;
	uint32_t id;
};

/* One end's view of a lane. */
struct pb_lane {
	struct pb_lane_geometry geo;
	uint64_t control_bytes; /* of each memory */
	uint32_t slot_stride;
	uint8_t *up, *down;
	uint64_t up_mapped, down_mapped;
	struct pb_lane_segment up_seg[1 + PB_LANE_SEGMENTS_MAX];
	struct pb_lane_segment down_seg[1 + PB_LANE_SEGMENTS_MAX];
	uint32_t scan; /* worker: where the next scan begins */
};

enum pb_lane_side { PB_LANE_CLIENT, PB_LANE_WORKER, PB_LANE_BROKER };

/* A tensor in a request or reply. @offset: bytes from the segment to element 0. */
struct pb_lane_tensor {
	bool none;    /* output that is None */
	bool down;    /* in the down memory */
	int32_t dtype;
	int32_t ndim;
	uint32_t segment;
	uint64_t offset;
	int64_t sizes[PT2BOX_MAX_DIMS];
	int64_t strides[PT2BOX_MAX_DIMS];
};

struct pb_lane_request {
	uint32_t window_segment; /* room for the outputs, in the down memory */
	uint64_t window_offset;
	uint64_t window_bytes;
	uint32_t fetch; /* not 0: hand out the kept outputs of this sequence number of the slot, do not run */
	uint32_t n_inputs;
	struct pb_lane_tensor *inputs;
	bool seeded; /* the run's generator begins with @seed, else with a number of the worker's own */
	uint64_t seed;
};

/* An input that the model wrote while it had a copy: contiguous bytes in the window, to be copied back. */
struct pb_lane_written {
	uint32_t input;
	struct pb_lane_tensor copy;
};

struct pb_lane_reply {
	uint32_t status; /* enum pt2box_status */
	int32_t signal;
	uint32_t worker;
	uint64_t needed_bytes; /* WINDOW: what the outputs need */
	uint64_t run_ns;       /* time in the model, as the worker measured it: a hint */
	char text[480];
	uint32_t n_outputs;
	struct pb_lane_tensor *outputs;
	uint32_t n_written;
	struct pb_lane_written *written;
};

/* Checks the numbers; LIMIT if a lane of that size cannot be. */
PB_CHECK pb_status pb_lane_sizes(const struct pb_lane_geometry *geo, uint64_t *ret_up_total, uint64_t *ret_down_total,
				 uint64_t *ret_control);
/* Payload that requests and replies with so many tensors need. */
uint32_t pb_lane_slot_bytes(uint32_t n_inputs, uint32_t n_outputs);

/* Map both memories as @side may: client up RW down RO, worker up RO down RW, broker the control parts RW. fds are
 * borrowed; the caller has made sure that they have the size (the broker made and sealed them). */
PB_CHECK pb_status pb_lane_map(struct pb_lane *l, enum pb_lane_side side, const struct pb_lane_geometry *geo,
			       int up_fd, int down_fd, struct pt2box_error *err);
void pb_lane_unmap(struct pb_lane *l);
/* Segments grown later. LIMIT: no room in the table. */
PB_CHECK pb_status pb_lane_map_segment(struct pb_lane *l, enum pb_lane_side side, bool down, uint32_t id,
				       uint64_t bytes, int fd, struct pt2box_error *err);
void pb_lane_unmap_segment(struct pb_lane *l, uint32_t id);
/* [offset, offset + bytes) of a segment, NULL if it is not all inside. */
uint8_t *pb_lane_span(const struct pb_lane *l, bool down, uint32_t segment, uint64_t offset, uint64_t bytes);

/* ---- client ---- */
/* Publish a request: @payload is copied into the slot. Wakes a worker if one sleeps. */
void pb_lane_submit(struct pb_lane *l, uint32_t slot, uint32_t seq, const uint8_t *payload, uint32_t len);
/* The reply is there. */
bool pb_lane_is_done(const struct pb_lane *l, uint32_t slot, uint32_t seq);
/* What a client has learnt about waiting on a lane. */
struct pb_lane_pace {
	uint64_t run_ns; /* typical time from submit to reply; 0 unknown */
	uint32_t spin_ns;
	uint32_t misses;
};
/* Wait for the reply: spin, hybrid poll or sleep. @deadline_ns: CLOCK_MONOTONIC, UINT64_MAX none. false: deadline. */
bool pb_lane_wait(struct pb_lane *l, uint32_t slot, uint32_t seq, struct pb_lane_pace *pace, uint64_t deadline_ns);
/* For who sleeps on several replies at once: ask to be woken, and the futex for it. *ret_value: the word now; if it is
 * @seq the reply is there. */
const _Atomic uint32_t *pb_lane_arm(struct pb_lane *l, uint32_t slot, uint32_t seq, uint32_t *ret_value);
/* Copy the reply out; returns its length (<= cap), or 0 if the worker claims an impossible one. */
uint32_t pb_lane_take_reply(const struct pb_lane *l, uint32_t slot, uint8_t *buf, uint32_t cap);
void pb_lane_cancel(struct pb_lane *l, uint32_t slot, uint32_t seq);

/* ---- worker ---- */
/* Claim the next request; false if there is none. */
bool pb_lane_claim(struct pb_lane *l, uint32_t worker, uint32_t *ret_slot, uint32_t *ret_seq);
/* Copy the request out; 0 if the client claims an impossible length. */
uint32_t pb_lane_take_request(const struct pb_lane *l, uint32_t slot, uint8_t *buf, uint32_t cap);
bool pb_lane_is_cancelled(const struct pb_lane *l, uint32_t slot, uint32_t seq);
/* Publish a reply and wake the client if it sleeps. */
void pb_lane_reply(struct pb_lane *l, uint32_t slot, uint32_t seq, const uint8_t *payload, uint32_t len);
/* Bell now; before sleeping the worker marks itself, reads the bell again, then sleeps on it. */
uint32_t pb_lane_bell(const struct pb_lane *l);
void pb_lane_mark_sleeping(struct pb_lane *l, uint32_t worker, bool sleeping);
_Atomic uint32_t *pb_lane_bell_word(const struct pb_lane *l);
/* The run of this slot stored into its inputs (called from a signal handler). */
void pb_lane_mark_fault(struct pb_lane *l, uint32_t slot, uint32_t seq);

/* The run of this slot was refused memory: if it dies of that, it is told apart from a crash. */
void pb_lane_mark_refused(struct pb_lane *l, uint32_t slot, uint32_t seq);

/* ---- broker ---- */
struct pb_lane_peek {
	uint32_t seq;	 /* published */
	uint32_t done;	 /* answered */
	bool pending;	 /* published and not answered */
	bool served;	 /* answered, by ... */
	bool claimed;	 /* published and not answered, and claimed by ... */
	uint32_t worker; /* ... this worker */
	bool fault;	 /* it stored into its inputs */
	bool refused;	 /* it was refused memory */
};
/* Look at a slot without trusting it. */
void pb_lane_look(const struct pb_lane *l, uint32_t slot, struct pb_lane_peek *ret);
/* Answer in the place of a dead worker. */
void pb_lane_fail(struct pb_lane *l, uint32_t slot, uint32_t seq, pb_status status,
		  int signal, const char *text);
/* Claim a request that no worker has claimed, so that it can be failed without a race; false: a worker has it, or it is not
 * the slot's request any more. */
bool pb_lane_claim_unserved(struct pb_lane *l, uint32_t slot, uint32_t seq);
/* Take a dead worker's claim back, so that another worker runs the request. */
void pb_lane_requeue(struct pb_lane *l, uint32_t slot, uint32_t seq);
/* Wake every worker that sleeps on this lane. */
void pb_lane_ring(struct pb_lane *l);
/* Wake every client that sleeps on this lane: who died between its answer and the wake owes one. */
void pb_lane_rouse(const struct pb_lane *l);

/* ---- payloads ---- */
/* Encode; 0 if it does not fit @cap. */
uint32_t pb_lane_encode_request(const struct pb_lane_request *r, uint8_t *buf, uint32_t cap);
uint32_t pb_lane_encode_reply(const struct pb_lane_reply *r, uint8_t *buf, uint32_t cap);
/* Decoders reuse their memory from call to call. One per thread. */
struct pb_lane_decoder;
struct pb_lane_decoder *pb_lane_decoder_new(uint32_t max_tensors);
struct pb_lane_decoder *pb_lane_decoder_free(struct pb_lane_decoder *d);
/* The result points into the decoder, until the next call. PROTOCOL on any fault: counts, types, ndim, negative sizes
 * or strides, extents that overflow. Segments and offsets are checked by the caller with pb_lane_tensor_data(). */
PB_CHECK pb_status pb_lane_decode_request(struct pb_lane_decoder *d, const uint8_t *buf, uint32_t len,
					  const struct pb_lane_request **ret);
PB_CHECK pb_status pb_lane_decode_reply(struct pb_lane_decoder *d, const uint8_t *buf, uint32_t len,
					const struct pb_lane_reply **ret);
/* Element 0 of a tensor, NULL if its extent does not lie in its segment. *ret_bytes: extent in bytes. A tensor without
 * elements gives a pointer that must not be read. */
uint8_t *pb_lane_tensor_data(const struct pb_lane *l, const struct pb_lane_tensor *t, uint64_t *ret_bytes);

/* Nanoseconds of CLOCK_MONOTONIC. */
uint64_t pb_now_ns(void);
/* Futex on shared memory. @timeout_ns relative, UINT64_MAX none. */
void pb_futex_wait(const _Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns);
void pb_futex_wake(const _Atomic uint32_t *word, int n);

#endif
