/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The broker's objects and who owns whom:
 *
 *	broker -- clients -- models -- workers
 *	                           |-- lanes -- segments
 *	                           |-- sessions
 *	                           |-- the change of its constants that is under way, and what is read of them
 *	                           `-- code and constants -- memory, shared by models of one user
 *	       `- jobs: processes of intake; each works for a model, and outlives it if need be
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
#include <stdio.h>
#include <sys/types.h>

#include "broker/tenant.h"
#include "ipc/board.h"
#include "ipc/lane.h"
#include "ipc/socket.h"
#include "ipc/python_place.h"
#include "ipc/torch_place.h"

#define PB_LANE_SLOTS 16
#define PB_LANE_BYTES_MIN 65536u

#define PB_LANES_PER_SESSION 64 /* also of a model's own workers */
#define PB_LANES_PER_MODEL 256
/* Of a tenant, beside the limits that the operator sets: so that one does not use up what the spawner has for all. */
#define PB_ENDING_PER_TENANT 256 /* models whose processes have not ended yet */
#define PB_STARTS_PER_TENANT 16	 /* under way at a time; more wait for their turn */
#define PB_BRIEFS_PER_TENANT 16	 /* packages whose names and metadata are read at a time: these do not wait behind loads */
#define PB_PACKAGE_BYTES_MAX (16ull << 30)
#define PB_DOCTORS_MAX 8

#define PB_DEAF_NS 3000000000u /* beyond what lies between the end of a control socket and the news of the death */

#define PB_STATUS_MAX 64 /* beyond all of PT2BOX_STATUS_LIST */
#define PB_QUICK_DEATHS 8 /* of a worker, replaced at once; then longer and longer is waited */
#define PB_QUICK_DEATH_NS 2000000000u

struct pb_broker;
struct pb_ops_rec;

/* An fd in the epoll set. Embedded in its object; @object is what it belongs to. */
struct pb_source {
	int fd;
	void (*ready)(struct pb_broker *b, struct pb_source *s, uint32_t events);
	void *object;
	/* What a confined process may have the broker do for it. */
	uint32_t per_second; /* events; 0: no limit */
	uint32_t heard;	     /* in the second that began then: */
	uint64_t second_ns;
	struct pb_source *next_paused; /* of those that are not listened to until their second is over */
};

/*
 * A process of intake, from the order to the news of its end. Whoever it works for may give it up: then it is killed, and
 * the record waits alone.
 */
struct pb_job {
	struct pb_job *next;
	struct pb_model_rec *model; /* NULL: given up */
	void *object;		    /* of the model's, for done() */
	/* @e: its result, OK with a text or a failure. The job is freed afterwards; done() may free the model. */
	void (*done)(struct pb_broker *b, struct pb_model_rec *m, void *object, const struct pt2box_error *e);
	struct pb_tenant *tenant;
	bool brief;
	uint32_t spawn_id;
	bool kill_wanted, kill_sent; /* the spawner may have to be asked again */
	uint64_t deadline_ns;
	struct pt2box_error failure; /* why it was killed */
	const char *what;	     /* it does, for texts */
	struct pb_source result, errors;
	uint8_t result_buf[4096];
	size_t result_len;
};

enum pb_memory_kind { PB_MEM_CODE, PB_MEM_CONSTANTS };

/*
 * Sealed memory of a package's code or of constants, counted by reference. Models of one tenant whose memory has the same
 * bytes share it; those of two, whose accesses could be timed, only where the operator said so (share = public).
 */
struct pb_memory {
	struct pb_memory *next;
	uint32_t refs;
	enum pb_memory_kind kind;
	struct pb_tenant *tenant; /* NULL: public */
	int fd;			  /* read-only */
	uint64_t bytes;
	bool has_key;
	uint8_t key[64];   /* what intake says that it is; believed only after a comparison */
	uint64_t reported; /* number of the last report with it */
};

/* A buffer of constants: they begin at @offset. @memory NULL: empty. */
struct pb_buffer {
	struct pb_memory *memory;
	uint64_t offset;
};

/* Looking for the same bytes in another model. */
struct pb_share {
	struct pb_memory **mine;
	struct pb_memory *other; /* a reference while they are compared */
	struct pb_job *job;
	void (*then)(struct pb_broker *b, struct pb_model_rec *m);
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
	uint32_t last;	     /* last seen, waiting or not */
	uint32_t served;     /* isolate=request: answered, and its worker has been replaced for it */
	uint64_t seen_ns;    /* first sight of the request */
	uint64_t claimed_ns; /* first sight of a claim; 0: none yet */
};

struct pb_lane_rec {
	struct pb_lane_rec *next;
	struct pb_model_rec *model;
	uint32_t id;
	uint32_t session;    /* whose worker serves it; 0: any of the model's own */
	struct pb_lane lane; /* control parts */
	int up_rw, up_ro, down_rw, down_ro;
	struct pb_segment_rec *segments;
	uint32_t next_segment;
	uint64_t bytes; /* charged, as is each slot */
	uint32_t slots;
	struct pb_slot_watch watch[PB_LANE_SLOTS];
	bool busy, stalled; /* at the last look: a run is under way; a request has waited for a whole deadline */
};

/* isolate=request: the one run that a worker was seen with. */
struct pb_run_seen {
	uint32_t lane, slot, seq; /* lane 0: none yet */
	bool in_closed_lane;	  /* answered, in a lane that has been closed since */
};

enum pb_worker_state { PB_W_NONE, PB_W_FORKING, PB_W_READY, PB_W_DYING };

struct pb_worker_rec {
	enum pb_worker_state state;
	bool used;	  /* there is to be a worker at this index: one that dies is replaced */
	uint32_t session; /* it serves; 0: the model */
	struct pb_source ctl;
	pb_status kill_status; /* why the broker had it killed; OK if it did not */
	uint64_t forked_ns;
	uint64_t since_ns; /* in its state */
	uint32_t deaths;
	uint32_t quick_deaths; /* in a row, soon after the fork and before the model had done anything: back off */
	uint64_t done_at_fork; /* pb_lanes_done() then */
	uint64_t retry_ns;
	struct pb_run_seen run;
	char denied[401]; /* explain: the call that it was killed for */
	char lost[240];	  /* its state was lost while nobody ran: what its successor is told */
	/* Constants. */
	uint32_t born_seq, seq; /* number of the change that it was forked with, and of the last that it made */
	bool asked, staged;	/* for the change under way */
	bool retiring;		/* a newer one is there: ends after the run in hand */
	bool overdue;		/* and was killed, since it did not: a client leaves its outputs with it */
	bool requeue;		/* it dies with constants that it could not change: what it claimed has not begun */
};

struct pb_session_rec {
	struct pb_session_rec *next;
	uint32_t id;
	uint32_t worker;
	uint64_t request;
	bool announced;
};

enum pb_change_state {
	PB_CH_WAIT_TURN,     /* for intake */
	PB_CH_INTAKE,	     /* reads the file, or compares */
	PB_CH_WAIT_TEMPLATE, /* which is being restarted */
	PB_CH_TEMPLATE,	     /* makes the change; no fork is ordered */
	PB_CH_STAGING,	     /* workers get ready */
	PB_CH_APPLYING,	     /* it is in force; workers give back what they had */
};

/* A change of a model's constants. */
struct pb_change_rec {
	enum pb_change_state state;
	struct pb_msg_change_constants msg;
	uint32_t seq;
	uint64_t deadline_ns;
	uint32_t files;	   /* charged */
	uint64_t reserved; /* bytes, until its memory is there and charged */
	int file_fd, out_fd;
	struct pb_job *job;
	struct pb_share share;
	struct pb_memory *memory; /* an update's */
};

/* Values that a worker is asked for. */
struct pb_extract_rec {
	struct pb_extract_rec *next;
	uint32_t id;
	uint64_t request;
	uint32_t session;
	bool inactive;
	int worker; /* -1: none yet */
	uint64_t deadline_ns;
	uint64_t bytes; /* charged */
	int fd;
};

/* What a model is charged for, besides its memory. */
struct pb_charges {
	uint32_t models, workers, files;
	uint64_t ops_bytes; /* of its workers' lanes to the ops process */
};

/* What has gone wrong with a model that serves: ps and metrics show it. */
struct pb_health {
	uint32_t deaths[PB_STATUS_MAX]; /* of workers, template and ops process, by status */
	pb_status status;		/* of the last; OK: there was none */
	int signal;
	uint64_t ns;
	char text[240];
	bool told; /* it is known to be in quarantine */
};

enum pb_model_state {
	PB_M_WAIT_CONSTANTS,
	PB_M_WAIT_TURN,
	PB_M_INTAKE,
	PB_M_SHARING, /* looks for the same code and constants in other models of the user */
	PB_M_OPS, /* its ops process starts */
	PB_M_LOADING,
	PB_M_READY,
	PB_M_BROKEN,
	PB_M_ENDING,
};

struct pb_model_rec {
	struct pb_model_rec *next;
	struct pb_client *client; /* NULL once it has gone: the record waits for its process to end */
	struct pb_tenant *tenant; /* whose it is, also then */
	uid_t uid;
	struct pb_charges charges; /* while there is a client */
	uint64_t reserved;	   /* that its intake may make */
	uint64_t manifest_bytes; /* charged until the record goes */
	uint32_t id;		  /* of the connection */
	uint32_t serial;	  /* of the tenant */
	uint64_t request;
	bool inspect_only, brief, preload;
	struct pb_repo_model *repo; /* NULL: the client brought the package */
	enum pb_model_state state;
	struct pb_msg_load opt;
	uint64_t begun_ns, deadline_ns;

	int package_fd, constants_fd;
	int out_model, out_constants; /* what intake writes */
	int out_manifest;	      /* sealed after intake */
	struct pb_job *job;
	struct pb_memory *code;
	struct pb_buffer active, inactive;
	bool own_constants; /* they came inside the code: a buffer whose memory is @code has them */
	struct pb_share share[2];
	char why_fixed[120];   /* why its constants cannot be changed; "": they can */
	uint64_t const_bytes;  /* of its constants, and then a byte for each of n_constants */
	uint32_t n_constants;
	char model_name[256];	  /* as the package says */
	uint32_t team;		  /* threads that its code asks for */
	bool lapack;		  /* its operators need it */
	char backend[16];

	uint32_t spawn_id; /* 0: no process */
	pid_t pid;
	bool kill_wanted, kill_sent; /* the spawner may have to be asked again */
	int oom_fd;		     /* where the kernel counts its kills for memory; -1: it does not */
	uint32_t oom_kills;	     /* of them, those that are known to have been somebody's death */
	struct pb_source errors;     /* stderr of the processes */

	struct pb_source warden, template_ctl;
	int board_fd;
	struct pb_board *board;
	bool template_ready;
	enum pb_replay {
		PB_REPLAY_NONE,
		PB_REPLAY_INACTIVE, /* the inactive buffer */
		PB_REPLAY_ACTIVE,   /* the active one as the inactive one, which is the package's own ... */
		PB_REPLAY_SWAP,	    /* ... and they change places */
	} replay;		    /* what a new template is given before it forks */
	uint64_t n_inputs, n_outputs;
	pb_status fail_status; /* first reason heard, for when the process has ended */
	int fail_signal;
	char fail_text[480];
	char denied[401];
	unsigned phase;
	uint32_t restarts;
	uint32_t restarts_in_a_row; /* less those that time has forgiven */
	uint64_t restarted_ns;
	char *layers; /* report of the template, malloc'd */

	bool copy_inputs, stateful, announced;
	uint64_t lost_runs; /* answered in the place of a worker that died */
	uint64_t closed_runs; /* answered in lanes that have been closed */
	struct pb_health health;
	int64_t run_deadline_ms;
	uint64_t started_us;
	uint32_t n_workers;
	int forking; /* worker whose fork is under way, -1 none */
	struct pb_worker_rec worker[PB_WORKERS_MAX];
	uint32_t top; /* no index from here on has ever been used */
	struct pb_session_rec *sessions;
	uint32_t next_session;
	uint32_t change_seq;   /* last number given to a change */
	uint64_t deaf_ns;      /* when a template that has closed its socket is ended; 0: it has not */
	uint32_t template_seq; /* last that the template has made */
	struct pb_change_rec *change;
	struct pb_extract_rec *extracts;
	uint32_t next_extract;
	uint32_t roll_seq; /* stateless: workers forked before this change are replaced, one by one; 0: none are */
	uint64_t roll_ns;  /* not before */
	int fresh;	   /* the index of a replacement until it is ready, -1 */
	struct pb_ops_rec *ops; /* NULL: the client brought no plugin */
	struct pb_lane_rec *lanes;
	uint64_t paused_ns; /* when one of its workers was last seen to be paused */
	uint64_t look_ns; /* when its lanes are to be looked at again */
	uint64_t runs_seen;
};

/* A model that is offered by name. */
struct pb_repo_model {
	const struct pb_model_conf *conf;
	int fd, constants_fd;
	/* Public, and read: what all loads begin with. */
	struct pb_memory *code, *constants;
	int manifest_fd;
};

struct pb_client {
	struct pb_client *next;
	struct pb_source source;
	enum pb_state state;
	struct pb_tenant *tenant;
	uid_t uid;
	pid_t pid;
	int pidfd; /* of the process that connected; -1: the kernel has none */
	char program[65];
	uint32_t next_model, next_lane;
	uint64_t doctor[PB_DOCTORS_MAX]; /* requests that wait for what this machine can enforce */
	uint32_t n_doctor;
	struct pb_model_rec *models;
};

struct pb_config {
	const struct pb_service_conf *service; /* NULL: nothing is configured */
	const char *audit_path;		       /* NULL: no audit log */
	const char *socket_path;	       /* NULL: embedded */
	int embedded_fd;	 /* -1: serve */
	const char *libexec;
	int64_t load_deadline_ms, run_deadline_ms, op_deadline_ms;
	uint64_t memory_bytes;
	bool verbose;
	/* Looked for once, at the start. */
	struct pb_torch_place torch;
	struct pb_python_place python;
};

struct pb_broker {
	struct pb_config config;
	int epoll;
	bool stop, listens;
	struct pb_source listener, spawner, signals, parent;
	const char *listener_name;
	struct pb_source *paused;
	pid_t spawner_pid;
	uint32_t next_spawn;
	char *spawner_layers;
	char *probe;  /* what this machine can enforce: does not change, so it is looked at once */
	bool probing; /* the spawner has been asked */
	struct pb_tenant *tenants;
	struct pb_tenant_conf anybody; /* where nothing is configured */
	uint32_t next_tenant;
	bool shares_cpu;  /* the kernel does, between tenants */
	uint32_t cpus;
	uint64_t fair_ns; /* when to look again who may run */
	uint32_t fair_turn;
	struct pb_repo_model *repo;
	size_t n_repo;
	uint32_t started_by; /* uid: an operator */
	struct pb_client *clients;
	struct pb_model_rec *orphans; /* models without a client that still end */
	struct pb_job *jobs;
	struct pb_memory *memories;
	int empty_fd; /* sealed memory without bytes: "no constants" */
	uint64_t next_report;
	struct pb_rx rx;
	uint32_t files_max; /* descriptors that this process may have */
	int audit_fd;	    /* -1: none */
	uint64_t audit_lost; /* lines that could not be written since the last that could */
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
/* Log what @who has written to its standard error, @s; at its end @s leaves the loop. */
void pb_log_words(struct pb_broker *b, struct pb_source *s, const char *who);

/* ---- listen.c ---- */
/* Where a broker listens that was not told where. USAGE: there is no place that is safe. */
PB_CHECK pb_status pb_default_socket(char ret[108], struct pt2box_error *err);
/* The socket that whoever started this process has handed over; *ret_fd stays as it is if there is none. */
PB_CHECK pb_status pb_listen_inherited(int *ret_fd, struct pt2box_error *err);
/* @group: by name or number; NULL: as it is. */
PB_CHECK pb_status pb_listen(const char *path, unsigned mode, const char *group, int *ret_fd, struct pt2box_error *err);

/* ---- client.c ---- */
PB_CHECK pb_status pb_client_new(struct pb_broker *b, int fd_take, struct pt2box_error *err);
/* Nobody's connection, for what the broker does by itself. NULL: no memory. */
struct pb_client *pb_client_internal(struct pb_broker *b);
void pb_client_close(struct pb_broker *b, struct pb_client *c);
void pb_client_fail(struct pb_broker *b, struct pb_client *c, uint64_t request, const struct pt2box_error *e);
/*
 * Close what a client handed in and nobody has looked at yet, without waiting for it. For PB_CLEANUP. Clients of a user
 * whose descriptors do not close are turned away.
 */
void pb_client_drop_fd(int *fd);
/* The same when no message of a client is being handled: one that a client of @uid handed in. */
void pb_client_drop_fd_of(uid_t uid, int *fd);
/* Send to a client; a client that does not read loses its connection (later: the handler may still use @c). */
void pb_client_send(struct pb_client *c, enum pb_msg_id id, const void *msg, const int *fds, size_t n_fds);

/* ---- job.c ---- */
/*
 * Order a process of intake by message @id (@msg, whose id field becomes the job's). @fds follow stderr and result.
 * @what: static text, "the package could not be read".
 */
PB_CHECK pb_status pb_job_start(struct pb_broker *b, struct pb_model_rec *m, enum pb_msg_id id, void *msg,
				const int *fds, size_t n_fds, const char *what,
				void (*done)(struct pb_broker *, struct pb_model_rec *, void *,
					     const struct pt2box_error *),
				void *object, struct pb_job **ret, struct pt2box_error *err);
/* Nobody waits for it any more. Accepts NULL; returns NULL. */
struct pb_job *pb_job_give_up(struct pb_broker *b, struct pb_job *j);
/* From the spawner; false: it is no job's. */
bool pb_job_exited(struct pb_broker *b, const struct pb_msg_exited *msg);
bool pb_job_spawn_failed(struct pb_broker *b, const struct pb_msg_spawn_failed *msg);
uint64_t pb_job_tick(struct pb_broker *b, struct pb_job *j, uint64_t now);
/* What of a tenant's ends without being waited for: models and processes that were given up. */
unsigned pb_count_ending(const struct pb_broker *b, const struct pb_tenant *t);
/* One more start of this tenant's may be ordered now. */
bool pb_is_turn(const struct pb_broker *b, const struct pb_tenant *t, bool brief);
/* A pipe whose read end is in the loop; *ret_write is for the child. */
PB_CHECK pb_status pb_make_pipe(struct pb_broker *b, struct pb_source *s, void *object,
				void (*ready)(struct pb_broker *, struct pb_source *, uint32_t), int *ret_write,
				struct pt2box_error *err);

/* ---- ops.c ---- */
/* The client brought a plugin: the model may have an ops process. The descriptor is taken, success or not. */
PB_CHECK pb_status pb_ops_new(struct pb_model_rec *m, int plugin_fd_take, struct pt2box_error *err);
/* Order its process; pb_load_continue() follows when it is ready, pb_model_load_failed() if it never is. */
PB_CHECK pb_status pb_ops_start(struct pb_broker *b, struct pb_model_rec *m, struct pt2box_error *err);
/* There is a process. */
bool pb_ops_lives(const struct pb_model_rec *m);
/* 0: there is none now. Of a model with m->ops. */
pid_t pb_ops_pid(const struct pb_model_rec *m, uint32_t *ret_deaths);
/* @why: OP_TIMEOUT, or the call in hand is said to have crashed. */
void pb_ops_kill(struct pb_broker *b, struct pb_model_rec *m, pb_status why);
void pb_ops_free(struct pb_broker *b, struct pb_model_rec *m);
/* A lane between worker @w and the ops process, told to both. OK without one. */
PB_CHECK pb_status pb_ops_open_lane(struct pb_broker *b, struct pb_model_rec *m, uint32_t w);
/* The worker is gone. */
void pb_ops_close_lane(struct pb_broker *b, struct pb_model_rec *m, uint32_t w);
/* From the spawner; false: it is no ops process. */
bool pb_ops_spawned(struct pb_broker *b, const struct pb_msg_spawned *msg);
bool pb_ops_exited(struct pb_broker *b, const struct pb_msg_exited *msg);
bool pb_ops_spawn_failed(struct pb_broker *b, const struct pb_msg_spawn_failed *msg);
uint64_t pb_ops_tick(struct pb_broker *b, struct pb_model_rec *m, uint64_t now);

/* ---- ops_host.c ---- */
/* The ops process @wants another host for its file. UNSUPPORTED, with the reason: this machine has none; DENIED: not for @t. */
PB_CHECK pb_status pb_ops_host_for(const struct pb_config *c, const struct pb_tenant *t, const char *wants,
				   struct pt2box_error *err);

/* ---- memory.c ---- */
/* Seal what intake has written to *@fd_take; the memory has one reference, the caller's. @t NULL: it is public. */
PB_CHECK pb_status pb_memory_new(struct pb_broker *b, struct pb_tenant *t, enum pb_memory_kind kind, int *fd_take,
				 struct pb_memory **ret, struct pt2box_error *err);
struct pb_memory *pb_memory_ref(struct pb_memory *mem);
/* Accepts NULL; returns NULL. */
struct pb_memory *pb_memory_unref(struct pb_broker *b, struct pb_memory *mem);
/* The key of constants from intake's result, 64 hexadecimal digits; anything else is no key. */
void pb_memory_set_key_text(struct pb_memory *mem, const char *text);
void pb_buffer_set(struct pb_broker *b, struct pb_buffer *dst, struct pb_memory *mem_take, uint64_t offset);
/*
 * If another model of the user has memory that is said to be the same, compare the two, put that one in the place of
 * *@mine if it is true, and call @then. false: there is none, nothing was begun.
 */
bool pb_share_begin(struct pb_broker *b, struct pb_model_rec *m, struct pb_share *s, struct pb_memory **mine,
		    void (*then)(struct pb_broker *, struct pb_model_rec *));
void pb_share_give_up(struct pb_broker *b, struct pb_share *s);

/* ---- model.c ---- */
/* At the head of the client's list. NULL: no memory. */
struct pb_model_rec *pb_model_new(struct pb_client *c, uint64_t request);
/* End its processes; the record goes when they have. */
void pb_model_end(struct pb_broker *b, struct pb_model_rec *m);
/* The load has failed: say so and end. */
void pb_model_load_failed(struct pb_broker *b, struct pb_model_rec *m, const struct pt2box_error *e);
/* Kill its namespace, now: exited will follow. */
void pb_model_kill(struct pb_broker *b, struct pb_model_rec *m);
struct pb_model_rec *pb_model_find(struct pb_client *c, uint64_t id);
/* Milliseconds: what was asked, or @fallback. */
int64_t pb_deadline_of(int64_t asked, int64_t fallback);
int64_t pb_load_deadline_ms(const struct pb_broker *b, const struct pb_model_rec *m);
/* From the spawner. */
void pb_model_spawned(struct pb_broker *b, const struct pb_msg_spawned *m, int oom_fd_take);
/* The kernel has killed a process of it for memory since this was last true. */
bool pb_model_was_oom_killed(struct pb_model_rec *m);
void pb_model_exited(struct pb_broker *b, const struct pb_msg_exited *m);
void pb_model_spawn_failed(struct pb_broker *b, const struct pb_msg_spawn_failed *m);
/* Deadlines and back-off; returns when to look again (CLOCK_MONOTONIC, UINT64_MAX: never). */
uint64_t pb_model_tick(struct pb_broker *b, struct pb_model_rec *m, uint64_t now);

/* ---- backend.c ---- */
struct pb_manifest;
/* The package calls operators by name that the native runtime does not have. */
bool pb_calls_others(const struct pb_manifest *mf);
/*
 * "native" or "torch" into @ret for what was @wanted. @plugin: those operators are a plugin's, which will be asked.
 * UNSUPPORTED names what is lacking.
 */
PB_CHECK pb_status pb_choose_backend(const char *wanted, const struct pb_manifest *mf, bool plugin,
				     const struct pb_torch_place *torch, char ret[16], struct pt2box_error *err);

/* ---- admit.c ---- */
/* What a tenant may ask for; @m becomes what it gets. @repo: NULL, it brings the package. USAGE, DENIED, LIMIT. */
PB_CHECK pb_status pb_admit(const struct pb_broker *b, const struct pb_tenant *t, const struct pb_repo_model *repo,
			    bool plugin, struct pb_msg_load *m, struct pt2box_error *err);
/* All of a model that is known before its package is read; nothing on failure. @serves: there will be workers. */
PB_CHECK pb_status pb_admit_charge(struct pb_broker *b, struct pb_tenant *t, const struct pb_msg_load *opt, bool plugin,
				   bool serves, struct pb_charges *ret, struct pt2box_error *err);
void pb_admit_discharge(struct pb_tenant *t, struct pb_charges *c);
/* A package turned out to need less. */
void pb_admit_lower(struct pb_tenant *t, struct pb_charges *c, uint32_t workers, bool ops);

/* ---- repo.c ---- */
/* Open all files that the configuration names. */
PB_CHECK pb_status pb_repo_open(struct pb_broker *b, struct pt2box_error *err);
void pb_repo_close(struct pb_broker *b);
/* NOT_FOUND: there is none, or it is not for this tenant, which makes no difference. */
PB_CHECK pb_status pb_repo_find(struct pb_broker *b, const struct pb_tenant *t, const char *name,
				struct pb_repo_model **ret, struct pt2box_error *err);
/* What the configuration says of a model, into the options of a load. */
PB_CHECK pb_status pb_repo_apply(const struct pb_repo_model *r, struct pb_msg_load *m, struct pt2box_error *err);
/* Its code and constants are for all tenants. */
bool pb_repo_keeps(const struct pb_model_rec *m);
/* Its memory is there: keep it for later loads, if it is public and none is kept. */
void pb_repo_keep(struct pb_model_rec *m);
/* It is kept: the model has the manifest. */
bool pb_repo_take(struct pb_model_rec *m);
/* Begin to read what is to be ready before anybody asks. */
void pb_repo_preload(struct pb_broker *b);

/* ---- files.c ---- */
/*
 * A look at the file, a read or its close may wait for some user's program, for as long as that likes. Found without asking
 * the file system, since that is such a question too. Cannot tell: true.
 */
bool pb_file_may_wait(int fd);

/* ---- load.c ---- */
/* Takes what it needs of @fds. */
void pb_load(struct pb_broker *b, struct pb_client *c, const struct pb_msg_load *m, struct pb_fds *fds);
/* Read a public model of the repository, for all that will load it; @c: pb_client_internal(). */
PB_CHECK pb_status pb_load_preload(struct pb_broker *b, struct pb_client *c, struct pb_repo_model *repo,
				   const struct pb_msg_load *opt, struct pt2box_error *err);
void pb_load_inspect(struct pb_broker *b, struct pb_client *c, const struct pb_msg_inspect *m, int package_fd_take);
void pb_load_give_constants(struct pb_broker *b, struct pb_client *c, uint64_t request, int fd_take);
/* What a client may hand in: a regular file or memfd, readable. BAD_FD. */
PB_CHECK pb_status pb_check_file(const struct pb_broker *b, int fd, const char *what, struct pt2box_error *err);
/* The ops process is ready: the template is next. */
void pb_load_continue(struct pb_broker *b, struct pb_model_rec *m);
/* Waits for its turn; returns when to look again. */
uint64_t pb_load_tick(struct pb_broker *b, struct pb_model_rec *m, uint64_t now);

/* ---- template.c ---- */
/* The board, if there is none yet. */
PB_CHECK pb_status pb_board_make(struct pb_model_rec *m, struct pt2box_error *err);
/* Order warden and template, with the constants that the model has now. */
PB_CHECK pb_status pb_template_start(struct pb_broker *b, struct pb_model_rec *m, struct pt2box_error *err);
/* Read what the dead have left in their sockets. */
void pb_template_last_words(struct pb_broker *b, struct pb_model_rec *m);
void pb_template_note_failure(struct pb_model_rec *m, pb_status st, const char *text);
/*
 * It did not take a message, with status @st. One that has gone is heard of from the warden, with the reason; any other is
 * ended.
 */
void pb_template_deaf(struct pb_broker *b, struct pb_model_rec *m, pb_status st);
/* When to look again whether one that has closed its socket lives on: then it is ended. */
uint64_t pb_template_tick(struct pb_broker *b, struct pb_model_rec *m, uint64_t now);
/* What it was doing: "linking", for texts. */
const char *pb_template_phase(const struct pb_model_rec *m);
/* May be told to fork: it is ready and has been given its constants. */
bool pb_template_forks(const struct pb_model_rec *m);
/* Order a change, @mem NULL: without memory. false: it does not listen, and its end will be heard of. */
bool pb_template_apply(struct pb_broker *b, struct pb_model_rec *m, const struct pb_msg_constants_apply *msg,
		       const struct pb_memory *mem);
/* What a template or worker may say of its failure once untrusted code has run in it: only what is about itself. */
pb_status pb_believed(uint64_t status);

/* ---- change.c ---- */
void pb_change_begin(struct pb_broker *b, struct pb_client *c, const struct pb_msg_change_constants *msg, int fd_take);
/* The template has made it, or not. */
void pb_change_template_done(struct pb_broker *b, struct pb_model_rec *m, const struct pb_msg_constants_done *msg);
void pb_change_worker_staged(struct pb_broker *b, struct pb_model_rec *m, uint32_t w, uint64_t seq);
void pb_change_worker_applied(struct pb_broker *b, struct pb_model_rec *m, uint32_t w,
			      const struct pb_msg_constants_applied *msg);
/* Something has happened that it may have waited for: a worker is ready, or gone; the template can work. */
void pb_change_continue(struct pb_broker *b, struct pb_model_rec *m);
/* The template is gone, with all workers. Before the commit nothing has changed; after it, it is done. */
void pb_change_template_lost(struct pb_broker *b, struct pb_model_rec *m, const struct pt2box_error *why);
/* The template works on it: no fork may be ordered. */
bool pb_change_holds_forks(const struct pb_model_rec *m);
/* Workers get ready for it, or make it: none is to be replaced now. */
bool pb_change_holds_workers(const struct pb_model_rec *m);
/* The model ends. Does nothing if there is no change. */
void pb_change_cancel(struct pb_broker *b, struct pb_model_rec *m, const struct pt2box_error *why);
uint64_t pb_change_tick(struct pb_broker *b, struct pb_model_rec *m, uint64_t now);

/* ---- extract.c ---- */
void pb_extract_begin(struct pb_broker *b, struct pb_client *c, const struct pb_msg_read_constants *msg);
void pb_extract_done(struct pb_broker *b, struct pb_model_rec *m, uint32_t w,
		     const struct pb_msg_constants_extracted *msg);
/* Give what waits to workers that are ready. */
void pb_extract_continue(struct pb_broker *b, struct pb_model_rec *m);
/* @e NULL: another one may be asked. */
void pb_extract_worker_died(struct pb_broker *b, struct pb_model_rec *m, uint32_t w, const struct pt2box_error *e);
/* Those of a session; PB_ALL_SESSIONS: all. */
void pb_extract_fail(struct pb_broker *b, struct pb_model_rec *m, uint32_t session, const struct pt2box_error *e);
uint64_t pb_extract_tick(struct pb_broker *b, struct pb_model_rec *m, uint64_t now);

/* ---- sessions.c ---- */
#define PB_ALL_SESSIONS UINT32_MAX
void pb_session_open(struct pb_broker *b, struct pb_client *c, const struct pb_msg_session_open *msg);
void pb_session_close(struct pb_broker *b, struct pb_client *c, const struct pb_msg_session_close *msg);
/* NULL: there is none that lanes may be opened to. */
struct pb_session_rec *pb_session_find(struct pb_model_rec *m, uint64_t id);
/* Its worker is ready: say so, once. */
void pb_session_ready(struct pb_broker *b, struct pb_model_rec *m, uint32_t w);
/* Its worker died before it was ever ready: the session could not be opened. false: it is open. */
bool pb_session_failed(struct pb_broker *b, struct pb_model_rec *m, uint32_t w, const struct pt2box_error *e);
/* All that are not open yet cannot be. */
void pb_sessions_fail(struct pb_broker *b, struct pb_model_rec *m, const struct pt2box_error *e);
void pb_sessions_free(struct pb_model_rec *m);

/* ---- workers.c ---- */
/* The indices of the model's own workers. */
void pb_workers_init(struct pb_model_rec *m);
/* An index that nothing is at; -1: none. */
int pb_workers_free_index(const struct pb_model_rec *m);
/* A worker for @session is wanted at a free index. */
void pb_workers_want(struct pb_model_rec *m, uint32_t w, uint32_t session);
/* Fork what is missing. */
void pb_workers_continue(struct pb_broker *b, struct pb_model_rec *m);
void pb_worker_died(struct pb_broker *b, struct pb_model_rec *m, uint32_t w, int wait_status);
void pb_worker_kill(struct pb_broker *b, struct pb_model_rec *m, uint32_t w, pb_status why);
/* The namespace is gone. */
void pb_workers_lost(struct pb_broker *b, struct pb_model_rec *m, const struct pt2box_error *why);
/* Close what leads to them: none is there any more. */
void pb_workers_forget(struct pb_broker *b, struct pb_model_rec *m);
/* Replace what is missing; returns when to look again. */
uint64_t pb_workers_tick(struct pb_broker *b, struct pb_model_rec *m, uint64_t now);
/* Tell the workers of a session (PB_ALL_SESSIONS: all), and ring the board. */
void pb_workers_send(struct pb_broker *b, struct pb_model_rec *m, uint32_t session, enum pb_msg_id id, const void *msg,
		     const int *fds, size_t n_fds);
/* Tell one; false: it does not listen, and is killed. */
bool pb_worker_send(struct pb_broker *b, struct pb_model_rec *m, uint32_t w, enum pb_msg_id id, const void *msg,
		    const int *fds, size_t n_fds);
void pb_board_ring(struct pb_model_rec *m);
/* What a wait status means. @refused: the process had been refused memory. */
pb_status pb_death_status(int wait_status, bool refused, const char *denied, int *ret_signal, char *text, size_t cap);

/* Order a fork at an index that is wanted. NO_MEMORY: this broker is short of descriptors; else the template is deaf. */
PB_CHECK pb_status pb_worker_fork(struct pb_broker *b, struct pb_model_rec *m, uint32_t w);
/* What follows if that failed. */
void pb_worker_not_forked(struct pb_broker *b, struct pb_model_rec *m, uint32_t w, pb_status st);

/* ---- roll.c ---- */
/* Replace the workers that were forked before change @seq. Stateless models only. */
void pb_roll(struct pb_model_rec *m, uint32_t seq);
/* Order the next fresh one, if it is time. */
void pb_roll_next(struct pb_broker *b, struct pb_model_rec *m, uint64_t now);
/* The fresh one is ready. */
void pb_roll_ready(struct pb_model_rec *m);
/* A worker has died: was it the fresh one? */
void pb_roll_died(struct pb_model_rec *m, uint32_t w);
/* Told to end long ago, and not in a run. */
bool pb_roll_is_overdue(const struct pb_model_rec *m, uint32_t w, uint64_t now);

/* ---- health.c ---- */
/* A process of a model died, or was ended. @what: "worker 3"; for the audit log. @killed: by the broker. */
void pb_health_note(struct pb_broker *b, struct pb_model_rec *m, const char *what, bool killed,
		    const struct pt2box_error *why);
/* The model may be in quarantine now, for @why: then the audit log has it, once. */
void pb_health_check(struct pb_broker *b, struct pb_model_rec *m, const struct pt2box_error *why);
/* "healthy", "degraded" or "quarantined". */
const char *pb_health_name(const struct pb_model_rec *m, uint64_t now);

/* ---- audit.c ---- */
/* Before rights are given up. Without a path there is no log, and pb_audit() does nothing. */
PB_CHECK pb_status pb_audit_open(struct pb_broker *b, struct pt2box_error *err);
/* One line. @c: who; @m NULL: of no model yet; @what: which process, NULL: none; @why NULL: nothing went wrong. */
void pb_audit(struct pb_broker *b, const struct pb_client *c, const struct pb_model_rec *m, const char *event,
	      const char *what, const struct pt2box_error *why);

/* ---- lanes.c ---- */
void pb_lanes_open(struct pb_broker *b, struct pb_client *c, const struct pb_msg_lane_open *m);
void pb_lanes_grow(struct pb_broker *b, struct pb_client *c, const struct pb_msg_lane_grow *m);
void pb_lanes_close_segment(struct pb_broker *b, struct pb_client *c, const struct pb_msg_segment_close *m);
struct pb_lane_rec *pb_lanes_find(struct pb_client *c, uint64_t id);
void pb_lanes_free(struct pb_broker *b, struct pb_lane_rec *l);
/* Those of a session; PB_ALL_SESSIONS: all. */
void pb_lanes_free_all(struct pb_broker *b, struct pb_model_rec *m, uint32_t session);
/* Give a new worker every lane that it is to serve. */
PB_CHECK pb_status pb_lanes_attach_all(struct pb_model_rec *m, uint32_t w);
/* Answer or requeue what a dead worker held. @requeue: it has not begun. */
void pb_lanes_worker_died(struct pb_broker *b, struct pb_model_rec *m, uint32_t w, const struct pt2box_error *e,
			  bool segv, bool requeue);
/* The worker had been refused memory in the run it holds. */
bool pb_lanes_refused(const struct pb_model_rec *m, uint32_t w);
/* The worker is in a run. */
bool pb_lanes_busy(const struct pb_model_rec *m, uint32_t w);
/* How many runs workers have answered, as far as differences go: from numbers that clients write, and our own. */
uint64_t pb_lanes_done(const struct pb_model_rec *m);
/* Fail everything that waits in a session's lanes (PB_ALL_SESSIONS: in all); returns how much that was. */
unsigned pb_lanes_fail_all(struct pb_model_rec *m, uint32_t session, const struct pt2box_error *e);
void pb_lanes_cancel(struct pb_broker *b, struct pb_client *c, const struct pb_msg_cancel *m);
uint64_t pb_lanes_tick(struct pb_broker *b, struct pb_model_rec *m, uint64_t now);

/* ---- fair.c ---- */
/* Where the kernel does not share the CPU out between tenants: who may claim runs now. When to look again. */
uint64_t pb_fair_tick(struct pb_broker *b, uint64_t now);

/* ---- isolate.c ---- */
/* A request that it answered is in a lane, or was when the lane was closed. Each counts once. */
bool pb_isolate_has_served(struct pb_model_rec *m, uint32_t w);
/* Before it goes: the news of the deaths of those that have served in it may come later. */
void pb_isolate_lane_closes(struct pb_lane_rec *l);
/* @p, claimed, is not the one run that its worker was seen with. Always false without isolation. */
bool pb_isolate_is_second_run(const struct pb_lane_rec *l, uint32_t slot, const struct pb_lane_peek *p);

/* ---- report.c ---- */
void pb_report_doctor(struct pb_broker *b, struct pb_client *c, uint64_t request);
/* From the spawner: who waits for a report is answered. */
void pb_report_probed(struct pb_broker *b, const struct pb_msg_probed *msg);
void pb_json_string(FILE *f, const char *s);
void pb_report_ps(struct pb_broker *b, struct pb_client *c, uint64_t request);

/* ---- spawner.c: a process of its own ---- */
/* Fork the spawner, which keeps the places in @config; *ret_sock talks to it. The child never returns. @unlink_path (may be NULL) is removed at its end. */
PB_CHECK pb_status pb_spawner_start(const struct pb_config *config, const char *unlink_path, int *ret_sock,
				    pid_t *ret_pid, struct pt2box_error *err);

#endif
