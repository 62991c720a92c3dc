/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside libpt2box: who owns whom.
 *
 *	pt2box (connection) <--ref-- model --ref--> lane <--ref-- storage <--ref-- tensor
 *				       ^--ref-- session --ref--> a lane of its own
 *
 * A model, a lane's memory and a connection's record live until the last handle that needs them is
 *freed, so handles may be freed in any order. The control socket is read by whoever waits for an
 *answer, one thread at a time; a run does not touch it. Everything that comes out of a lane is a
 *claim: an output lies in an input of its own run or in the window that was given to that run, or
 *the reply is refused.
 */
#ifndef PT2BOX_CLIENT_INTERNAL_H
#define PT2BOX_CLIENT_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/arena.h"
#include "ipc/lane.h"
#include "ipc/manifest.h"
#include "ipc/socket.h"

#define PB_SMALL_OUTPUT 65536u /* copied out; larger ones stay in the lane until they are freed */

struct pb_async;

/* A private broker. @pidfd -1: there is none. */
struct pb_embedded {
	pid_t pid;
	int pidfd;
};

struct pt2box {
	_Atomic uint32_t refs;
	int sock; /* -1: closed */
	uint32_t generation;
	struct pb_embedded broker;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool reading; /* a thread is receiving */
	struct pb_call *calls;
	uint64_t next_request;
	struct pt2box_error lost; /* status not OK: nothing will come any more */
	_Atomic bool is_lost;	  /* the same, without the lock */
	struct pb_rx rx;
	struct pb_async *_Atomic async; /* made by the first asynchronous run */
};

/* A request that waits for its answer; on the stack of who waits. */
struct pb_call {
	struct pb_call *next;
	uint64_t request;
	enum pb_msg_id expect;
	bool done;
	struct pt2box_error error; /* status not OK: it failed */
	union pb_msg msg;
	struct pb_fds fds;
};

/* ---- connection.c ---- */
/* For a socket that is connected already; owns @sock and @broker from the call on. */
PB_CHECK pb_status pb_connection_new(int sock_take, struct pb_embedded broker_take,
				     struct pt2box **ret, struct pt2box_error *err);
void pb_connection_unref(struct pt2box *c);
/* Usable from this process: not closed, not inherited by fork, not lost. */
PB_CHECK pb_status pb_connection_check(struct pt2box *c, struct pt2box_error *err);
/* A forked child must not touch what its parent uses. */
bool pb_connection_is_ours(const struct pt2box *c);
/* Look whether the broker is still there, for those who wait for something else. */
PB_CHECK pb_status pb_connection_poll(struct pt2box *c, struct pt2box_error *err);

/* ---- calls.c ---- */
/* After pb_connection_check(). */
void pb_call_begin(struct pt2box *c, struct pb_call *call, enum pb_msg_id expect);
/* Send a request that carries call->request; a failure ends the call. */
PB_CHECK pb_status pb_call_send(struct pt2box *c, struct pb_call *call, enum pb_msg_id id,
				const void *msg, const int *fds, size_t n_fds,
				struct pt2box_error *err);
/* Wait for the answer. The fds of the answer are the caller's. */
PB_CHECK pb_status pb_call_await(struct pt2box *c, struct pb_call *call, struct pt2box_error *err);
/* Both. */
PB_CHECK pb_status pb_call_finish(struct pt2box *c, struct pb_call *call, enum pb_msg_id id,
				  const void *msg, const int *fds, size_t n_fds,
				  struct pt2box_error *err);
/* Nobody waits for the answer any more. */
void pb_call_end(struct pt2box *c, const struct pb_call *call);
/* Without an answer; a failure to send is found by others. */
void pb_tell(struct pt2box *c, enum pb_msg_id id, const void *msg);

/* ---- embedded.c ---- */
PB_CHECK pb_status pb_embedded_start(int *ret_sock, struct pb_embedded *ret,
				     struct pt2box_error *err);
/* Its socket is closed: wait for its end, and see to it. */
void pb_embedded_end(struct pb_embedded *e);
/* Say how it ended, if it has; appended to @err. */
void pb_embedded_explain(const struct pb_embedded *e, struct pt2box_error *err);

/* ---- lane.c ---- */
struct pb_place {
	uint64_t begin, end; /* bytes from the segment's begin */
	uint32_t output;
};

/* One request slot with what its run holds. Used by one run at a time. */
struct pb_slot {
	uint32_t index;
	uint32_t seq; /* of the last request */
	bool made;
	bool abandoned; /* given up by its caller while a worker may still use its memory */
	struct pb_lane_pace pace;
	struct pb_lane_decoder *decoder;
	uint8_t *buf;		    /* request, then reply */
	struct pb_lane_tensor *in;  /* as sent */
	struct pb_block **in_block; /* where each input is; NULL: no bytes */
	bool *in_lent;		    /* that block is the caller's tensor's, not ours */
	uint64_t *in_same;	    /* bytes of an input that lies here as its tensor does, no holes; else 0 */
	struct pb_place *places;
	struct pb_block *window, *old_window;
	struct pb_block *leftover; /* what outputs did not need of the window, linked by bin_next */
};

struct pb_lane_client {
	_Atomic uint32_t refs;
	struct pt2box *c;
	uint32_t id;
	uint32_t n_in, n_out;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* a slot is free, or growing has ended */
	uint32_t waiters, runs;
	bool growing, dead;
	struct pb_lane lane;
	struct pb_arena up, down;
	uint64_t free_slots;
	uint64_t window_bytes; /* what outputs have needed so far */
	struct pb_slot slot[PB_LANE_SLOTS_MAX];
};

/* Geometry and descriptors as the broker sent them: checked here. Takes a reference of @c. */
PB_CHECK pb_status pb_lane_client_new(struct pt2box *c, const struct pb_msg_lane *m, int up_fd,
				      int down_fd, uint32_t n_in, uint32_t n_out,
				      struct pb_lane_client **ret, struct pt2box_error *err);
/* With what the message asks for; its request is filled in. */
PB_CHECK pb_status pb_lane_client_open(struct pt2box *c, struct pb_msg_lane_open *m, uint32_t n_in,
				       uint32_t n_out, struct pb_lane_client **ret,
				       struct pt2box_error *err);
void pb_lane_client_unref(struct pb_lane_client *l);
/* A block of either direction; grows the lane where it must. LIMIT: it cannot. */
PB_CHECK pb_status pb_lane_client_alloc(struct pb_lane_client *l, bool down, uint64_t bytes,
					struct pb_block **ret, struct pt2box_error *err);
void pb_lane_client_unref_block(struct pb_lane_client *l, bool down, struct pb_block *b);
/* With the lock held: a free slot, or NULL. NO_MEMORY is told apart by *ret_status. */
struct pb_slot *pb_lane_client_take_slot(struct pb_lane_client *l, pb_status *ret_status);
/* With the lock held: drop what the slot's run holds and make it free again. Now and then also
 * trims. */
void pb_lane_client_put_slot(struct pb_lane_client *l, struct pb_slot *s);
/* With the lock held: give back grown segments that have been empty for a while although the lane
 * was used. */
void pb_lane_client_trim(struct pb_lane_client *l, uint64_t min_idle_ns);

/* ---- tensor.c ---- */
/* Memory shared by tensors: in a lane, a mapping, or on the heap behind the struct. */
struct pb_storage {
	_Atomic uint32_t refs;
	bool down;
	struct pb_lane_client *lane;
	struct pb_block *block;
	uint8_t *map;
	uint64_t map_bytes;
};

struct pt2box_tensor {
	struct pt2box_tensor_info info;
	struct pb_storage *storage; /* NULL: lent, or empty */
	uint32_t of_input;	    /* an output that lies in an input of its run: that one + 1; else 0 */
	uint64_t input_offset;	    /* bytes from the input's element 0 */
};

extern uint8_t pb_tensor_nothing[64]; /* what a tensor without elements points to */
/* A tensor without data; *ret_bytes: its extent from element 0 on. @strides NULL: contiguous. */
PB_CHECK pb_status pb_tensor_new(int32_t dtype, int32_t ndim, const int64_t *sizes,
				 const int64_t *strides, struct pt2box_tensor **ret,
				 uint64_t *ret_bytes, struct pt2box_error *err);
/* @bytes of sealed memory, read-only. */
PB_CHECK pb_status pb_storage_new_map(int fd, uint64_t bytes, struct pb_storage **ret,
				      struct pt2box_error *err);
struct pb_storage *pb_storage_new_heap(uint64_t bytes, uint8_t **ret_data);
/* Takes a reference of the lane, and over one of the block (NULL: given later). NULL: no memory. */
struct pb_storage *pb_storage_new_block(struct pb_lane_client *l, bool down, struct pb_block *b);
void pb_storage_unref(struct pb_storage *s);
/* Product of sizes; false if it does not fit. */
bool pb_numel(int32_t ndim, const int64_t *sizes, int64_t *ret);

/* ---- copy.c ---- */
/* Strides that the package was compiled for, at these sizes. false: it does not say, or does not
 * take this rank. */
bool pb_strides_wanted(const struct pb_sig_input *s, int32_t ndim, const int64_t *sizes,
		       int64_t *ret);
void pb_strides_contiguous(int32_t ndim, const int64_t *sizes, int64_t *ret);
/* The same elements in the same places. */
bool pb_strides_equal(int32_t ndim, const int64_t *sizes, const int64_t *a, const int64_t *b);
/* Element by element; both sides have the same sizes. */
void pb_copy_strided(int32_t ndim, const int64_t *sizes, size_t elem, void *dst,
		     const int64_t *dst_strides, const void *src, const int64_t *src_strides);

/* ---- model.c ---- */
struct pt2box_model {
	_Atomic uint32_t refs; /* of the handle and its sessions */
	_Atomic bool unloaded;
	struct pt2box *c;
	struct pb_lane_client *lane;
	struct pb_manifest *manifest; /* a session: its model's */
	struct pb_msg_loaded loaded;
	bool has_signature; /* of as many inputs as the container has */
	struct pt2box_model *of; /* a session: its model */
	uint32_t session;	 /* not 0: a session */
	pthread_mutex_t changing; /* changes of constants take turns */
};

/* A handle on a connection, with one reference and nothing else; NULL: no memory. */
struct pt2box_model *pb_model_new(struct pt2box *c, const struct pb_msg_loaded *loaded);
/* Open its lane, of a session if it is one. */
PB_CHECK pb_status pb_model_open_lane(struct pt2box_model *m, struct pt2box_error *err);
void pb_model_unref(struct pt2box_model *m);
/* Of a handle that could not be made, or is ended. */
void pb_tell_unload(struct pt2box *c, uint32_t model);
/* Usable: its connection is, and it is not a session of an unloaded model. */
PB_CHECK pb_status pb_model_check(const struct pt2box_model *m, struct pt2box_error *err);

/* ---- load.c ---- */
/* A broker that serves many takes no file that it might have to wait for (ipc/file_system.h): such a one is copied, then *fd is
 * *ret_copy. */
PB_CHECK pb_status pb_make_local(const struct pt2box *c, int *fd, int *ret_copy, struct pt2box_error *err);

/* ---- run.c ---- */
struct pb_run {
	struct pt2box_model *m;
	struct pt2box_tensor *const *in; /* NULL: given up, see boxed */
	struct pt2box_tensor **boxed;	 /* not NULL: the same, freed when the slot holds what is needed of them */
	struct pb_slot *slot;		 /* NULL: not begun */
	int (*interrupted)(void *arg);
	void *arg;
	uint64_t deadline_ns, grace_ns, look_ns;
	int64_t deadline_ms;
	uint32_t retries;
	uint32_t deaths; /* of workers, by this run's own doing */
	uint32_t fetch;
	uint32_t windows;  /* how often the window was too small */
	bool seeded;
	uint64_t seed;
	pb_status stopped; /* not OK: given up for this reason, the reply is awaited */
};

PB_CHECK pb_status pb_run_init(struct pb_run *r, struct pt2box_model *m,
			       struct pt2box_tensor *const *in, size_t n_in,
			       const struct pt2box_run_options *opt, struct pt2box_error *err);
/* Copy what must be copied and submit. NOT_FOUND: no slot is free (only if !@wait). */
PB_CHECK pb_status pb_run_begin(struct pb_run *r, bool wait, struct pt2box_error *err);
/* The reply is there. true: the run has ended with *ret_status, and has no slot any more. false: it
 * goes on. */
bool pb_run_step(struct pb_run *r, struct pt2box_tensor **ret_out, pb_status *ret_status,
		 struct pt2box_error *err);
/* Ask the worker and the broker to end it. */
void pb_run_stop(struct pb_run *r, pb_status why);
/* Leave the slot behind: it is free again once the worker has answered. */
void pb_run_abandon(struct pb_run *r);
pb_status pb_run_stopped_error(const struct pb_run *r, struct pt2box_error *err);

/* ---- inputs.c ---- */
/* Describe input i in the run's slot, and copy it if it must be. */
PB_CHECK pb_status pb_run_place_input(struct pb_run *r, uint32_t i, struct pt2box_error *err);

/* ---- outputs.c ---- */
/*
 * Make the caller's tensors from a reply that claims success, and give back to @in (NULL: nobody has
 * them) what the model wrote into its copies of them. Where an output stays in the window, that part of the window
 * becomes the tensor's. MODEL_PROTOCOL: the reply is impossible; then no input has been touched and
 * @ret_out holds NULLs.
 */
PB_CHECK pb_status pb_outputs_make(struct pb_lane_client *l, struct pb_slot *s,
				   const struct pb_lane_reply *reply,
				   struct pt2box_tensor *const *in, struct pt2box_tensor **ret_out,
				   struct pt2box_error *err);

/* ---- async.c ---- */
/* End what has not ended, and the thread. */
void pb_async_end(struct pt2box *c);
/* A slot has become free: runs may wait for it. */
void pb_async_kick(struct pt2box *c);

/* ---- describe.c ---- */
/* JSON of a manifest; @loaded NULL: inspected only. malloc'd. */
PB_CHECK pb_status pb_describe(const struct pb_manifest *m, const struct pb_msg_loaded *loaded,
			       char **ret_json, struct pt2box_error *err);
/* Names and metadata only. */
PB_CHECK pb_status pb_describe_brief(const struct pb_manifest *m, char **ret_json,
				     struct pt2box_error *err);

#endif
