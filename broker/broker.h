/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The broker's objects and who owns whom:
 *
 *	broker -- clients -- models -- workers
 *	                           `-- lanes -- segments
 *
 * One thread, one epoll loop, one event at a time: a handler may free any object. A client that misbehaves is closed; a
 * model that misbehaves is killed; neither takes anything else with it. The broker maps only memory that it made itself,
 * and of that only the control parts of lanes.
 */
#ifndef PT2BOX_BROKER_BROKER_H
#define PT2BOX_BROKER_BROKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "ipc/board.h"
#include "ipc/lane.h"
#include "ipc/socket.h"

#define PB_LANE_SLOTS 16
#define PB_LANE_BYTES_MIN 65536u

/* Limits of one connection; of a tenant in the issue about tenants. */
#define PB_MODELS_PER_CLIENT 64
#define PB_LANES_PER_MODEL 64
#define PB_CLIENTS_PER_UID 64
/* Of one user over all connections, so that one does not use up what the spawner has for all (CHILDREN_MAX). */
#define PB_MODELS_PER_UID 256
#define PB_STARTS_PER_UID 16 /* under way at a time; more wait for their turn */
#define PB_LANE_BYTES_PER_CLIENT (64ull << 30)
#define PB_PACKAGE_BYTES_MAX (16ull << 30)

struct pb_broker;

/* An fd in the epoll set. Embedded in its object; @object is what it belongs to. */
struct pb_source {
	int fd;
	void (*ready)(struct pb_broker *b, struct pb_source *s, uint32_t events);
	void *object;
};

struct pb_segment_rec {
	struct pb_segment_rec *next;
	uint32_t id;
	bool down;
	uint64_t bytes;
	int fd_ro, fd_rw;
};

/* What the broker has seen in a slot, with its own clock. */
struct pb_slot_watch {
	uint32_t seq;	     /* last seen to wait; 0: none */
	bool waits;	     /* not answered at the last look */
	uint32_t worker;     /* last seen with it */
	uint64_t seen_ns;    /* first sight of the request */
	uint64_t claimed_ns; /* first sight of a claim; 0: none yet */
};

struct pb_lane_rec {
	struct pb_lane_rec *next;
	struct pb_model_rec *model;
	uint32_t id;
	struct pb_lane lane; /* control parts */
	int up_rw, up_ro, down_rw, down_ro;
	struct pb_segment_rec *segments;
	uint32_t next_segment;
	uint64_t bytes;
	struct pb_slot_watch watch[PB_LANE_SLOTS];
};

enum pb_worker_state { PB_W_NONE, PB_W_FORKING, PB_W_READY, PB_W_DYING };

struct pb_worker_rec {
	enum pb_worker_state state;
	struct pb_source ctl;
	pb_status kill_status; /* why the broker had it killed; OK if it did not */
	uint64_t forked_ns;
	uint64_t since_ns; /* in its state */
	uint32_t deaths;
	uint32_t quick_deaths; /* in a row, soon after the fork: back off */
	uint64_t retry_ns;
	char denied[401]; /* explain: the call that it was killed for */
};

enum pb_model_state {
	PB_M_WAIT_CONSTANTS,
	PB_M_WAIT_TURN,
	PB_M_INTAKE,
	PB_M_LOADING,
	PB_M_READY,
	PB_M_BROKEN,
	PB_M_ENDING,
};

struct pb_model_rec {
	struct pb_model_rec *next;
	struct pb_client *client; /* NULL once it has gone: the record waits for its process to end */
	uid_t uid;		  /* whose it is, also then */
	uint32_t files;		  /* charged to the client */
	uint32_t id;		  /* of the connection */
	uint64_t request;
	bool inspect_only;
	enum pb_model_state state;
	struct pb_msg_load opt;
	uint64_t begun_ns, deadline_ns;

	int package_fd, constants_fd;
	int out_model, out_constants, out_manifest; /* memfds, sealed after intake */
	char model_name[256];	  /* as the package says */
	uint32_t team;		  /* threads that its code asks for */
	char backend[16];

	uint32_t spawn_id; /* 0: no process */
	pid_t pid;
	bool kill_wanted, kill_sent; /* the spawner may have to be asked again */
	struct pb_source result, errors; /* intake's result, stderr of whatever runs */
	uint8_t result_buf[4096];
	size_t result_len;
	char errors_tail[512];

	struct pb_source warden, template_ctl;
	int board_fd;
	struct pb_board *board;
	bool template_ready;
	uint64_t n_inputs, n_outputs;
	pb_status fail_status; /* first reason heard, for when the process has ended */
	int fail_signal;
	char fail_text[480];
	char denied[401];
	unsigned phase;
	uint32_t restarts;
	char *layers; /* report of the template, malloc'd */

	bool copy_inputs, stateful, announced;
	int64_t run_deadline_ms;
	uint64_t started_us;
	uint32_t n_workers;
	int forking; /* worker whose fork is under way, -1 none */
	struct pb_worker_rec worker[PB_WORKERS_MAX];
	struct pb_lane_rec *lanes;
	uint64_t look_ns; /* when its lanes are to be looked at again */
	uint64_t runs_seen;
};

struct pb_client {
	struct pb_client *next;
	struct pb_source source;
	enum pb_state state;
	uid_t uid;
	pid_t pid;
	char tenant[65];
	char program[65];
	uint32_t next_model, next_lane;
	uint32_t n_models;
	uint64_t lane_bytes;
	uint32_t files; /* descriptors that the broker holds, or will hold, for it */
	struct pb_model_rec *models;
};

struct pb_config {
	const char *socket_path; /* NULL: embedded */
	int embedded_fd;	 /* -1: serve */
	const char *libexec;
	int64_t load_deadline_ms, run_deadline_ms;
	uint64_t memory_bytes;
	bool verbose;
};

struct pb_broker {
	struct pb_config config;
	int epoll;
	bool stop;
	struct pb_source listener, spawner, signals, parent;
	pid_t spawner_pid;
	uint32_t next_spawn;
	char *spawner_layers;
	char *probe; /* what this machine can enforce: does not change, so it is looked at once */
	struct pb_client *clients;
	struct pb_model_rec *orphans; /* models without a client that still end */
	struct pb_rx rx;
	uint32_t files_max; /* descriptors that this process may have */
	int spare_fd;	    /* given up for a moment to turn a connection away when there are no others */
	uint64_t began_ns;
};

/* ---- loop.c ---- */
/* The first of two connected descriptors in the loop, *ret_peer the other; both are closed on failure. */
PB_CHECK pb_status pb_loop_add_pair(struct pb_broker *b, struct pb_source *s, const int p_take[2],
				    void (*ready)(struct pb_broker *, struct pb_source *, uint32_t), void *object,
				    int *ret_peer, struct pt2box_error *err);
/*
 * A socket to a process that is not trusted: our end in the loop, *ret_peer for the other. Our end never blocks, so that
 * a process which does not read holds nobody up, and takes no descriptors where the kernel can refuse them.
 */
PB_CHECK pb_status pb_loop_add_control(struct pb_broker *b, struct pb_source *s,
				       void (*ready)(struct pb_broker *, struct pb_source *, uint32_t), void *object,
				       int *ret_peer, struct pt2box_error *err);
PB_CHECK pb_status pb_loop_add(struct pb_broker *b, struct pb_source *s, struct pt2box_error *err);
/* Take out of the loop and close. Does nothing for fd -1. */
void pb_loop_remove(struct pb_broker *b, struct pb_source *s);
/* Run until b->stop. */
void pb_loop_run(struct pb_broker *b);
void pb_log(const struct pb_broker *b, const char *fmt, ...) PB_PRINTF(2, 3);

/* ---- client.c ---- */
PB_CHECK pb_status pb_client_new(struct pb_broker *b, int fd_take, struct pt2box_error *err);
void pb_client_close(struct pb_broker *b, struct pb_client *c);
void pb_client_fail(struct pb_broker *b, struct pb_client *c, uint64_t request, const struct pt2box_error *e);
/* LIMIT if @files more descriptors are more than its user's share of what the broker can have. */
PB_CHECK pb_status pb_client_charge_files(struct pb_broker *b, struct pb_client *c, uint32_t files,
					  struct pt2box_error *err);
/*
 * Close what a client handed in and nobody has looked at yet, without waiting for it. For PB_CLEANUP. Clients of a user
 * whose descriptors do not close are turned away.
 */
void pb_client_drop_fd(int *fd);
/* Send to a client; a client that does not read loses its connection (later: the handler may still use @c). */
void pb_client_send(struct pb_client *c, enum pb_msg_id id, const void *msg, const int *fds, size_t n_fds);

/* ---- model.c ---- */
void pb_model_load(struct pb_broker *b, struct pb_client *c, const struct pb_msg_load *m, int package_fd_take);
void pb_model_inspect(struct pb_broker *b, struct pb_client *c, const struct pb_msg_inspect *m, int package_fd_take);
void pb_model_give_constants(struct pb_broker *b, struct pb_client *c, uint64_t request, int fd_take);
/* End its processes; the record goes when they have. */
void pb_model_end(struct pb_broker *b, struct pb_model_rec *m);
/* Kill its namespace, now: exited will follow. */
void pb_model_kill(struct pb_broker *b, struct pb_model_rec *m);
struct pb_model_rec *pb_model_find(struct pb_client *c, uint64_t id);
/* From the spawner. */
void pb_model_spawned(struct pb_broker *b, const struct pb_msg_spawned *m);
void pb_model_exited(struct pb_broker *b, const struct pb_msg_exited *m);
void pb_model_spawn_failed(struct pb_broker *b, const struct pb_msg_spawn_failed *m);
/* Deadlines and back-off; returns when to look again (CLOCK_MONOTONIC, UINT64_MAX: never). */
uint64_t pb_model_tick(struct pb_broker *b, struct pb_model_rec *m, uint64_t now);

/* ---- workers.c ---- */
void pb_workers_start(struct pb_broker *b, struct pb_model_rec *m);
void pb_workers_continue(struct pb_broker *b, struct pb_model_rec *m);
void pb_worker_died(struct pb_broker *b, struct pb_model_rec *m, uint32_t w, int wait_status);
void pb_worker_kill(struct pb_broker *b, struct pb_model_rec *m, uint32_t w, pb_status why);
/* Replace what is missing; returns when to look again. */
uint64_t pb_workers_tick(struct pb_broker *b, struct pb_model_rec *m, uint64_t now);
/* Tell every worker, and ring the board. */
void pb_workers_send(struct pb_broker *b, struct pb_model_rec *m, enum pb_msg_id id, const void *msg, const int *fds,
		     size_t n_fds);
void pb_board_ring(struct pb_model_rec *m);
/* What a wait status means. @refused: the process had been refused memory. */
pb_status pb_death_status(int wait_status, bool refused, const char *denied, int *ret_signal, char *text, size_t cap);

/* ---- lanes.c ---- */
void pb_lanes_open(struct pb_broker *b, struct pb_client *c, const struct pb_msg_lane_open *m);
void pb_lanes_grow(struct pb_broker *b, struct pb_client *c, const struct pb_msg_lane_grow *m);
void pb_lanes_close_segment(struct pb_broker *b, struct pb_client *c, const struct pb_msg_segment_close *m);
struct pb_lane_rec *pb_lanes_find(struct pb_client *c, uint64_t id);
void pb_lanes_free(struct pb_broker *b, struct pb_lane_rec *l);
/* Give a new worker every lane of its model. */
PB_CHECK pb_status pb_lanes_attach_all(struct pb_model_rec *m, uint32_t w);
/* Answer or requeue what a dead worker held. */
void pb_lanes_worker_died(struct pb_broker *b, struct pb_model_rec *m, uint32_t w, pb_status status, int signal,
			  const char *text, bool segv);
/* The worker had been refused memory in the run it holds. */
bool pb_lanes_refused(const struct pb_model_rec *m, uint32_t w);
/* Fail everything that waits: the model is broken or ends. */
void pb_lanes_fail_all(struct pb_model_rec *m, pb_status status, int signal, const char *text);
void pb_lanes_cancel(struct pb_broker *b, struct pb_client *c, const struct pb_msg_cancel *m);
uint64_t pb_lanes_tick(struct pb_broker *b, struct pb_model_rec *m, uint64_t now);

/* ---- report.c ---- */
void pb_report_doctor(struct pb_broker *b, struct pb_client *c, uint64_t request);
void pb_report_ps(struct pb_broker *b, struct pb_client *c, uint64_t request);

/* ---- spawner.c: a process of its own ---- */
/* Fork the spawner; *ret_sock talks to it. The child never returns. @unlink_path (may be NULL) is removed at its end. */
PB_CHECK pb_status pb_spawner_start(const char *libexec, const char *unlink_path, int *ret_sock, pid_t *ret_pid,
				    struct pt2box_error *err);

#endif
