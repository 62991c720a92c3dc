/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operator's configuration: who may use the broker, how much of it, and the models that it offers by name. Read once,
 * before rights are given up; trusted, but every mistake in it is an error with file and line.
 */
#ifndef PT2BOX_BROKER_CONFIG_H
#define PT2BOX_BROKER_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "ipc/status.h"

#define PB_NAME_MAX 64 /* of a tenant */

/*
 * What a tenant holds is counted, and each has a maximum: X(ID, key, default, is in bytes, what it is, as a limit's text
 * says it). 0 in place of a default: a share of what the broker itself has.
 */
#define PB_LIMIT_LIST(X)                                                                                               \
	X(CONNECTIONS, connections, 64, false, "connections")                                                          \
	X(MODELS, models, 256, false, "models")                                                                        \
	X(WORKERS, workers, 1024, false, "workers")                                                                    \
	X(CONSTANTS, constants_bytes, 64ull << 30, true, "bytes of packages and constants")                            \
	X(LANES, lanes_bytes, 64ull << 30, true, "bytes of lanes")                                                     \
	X(RUNS, runs_in_flight, 65536, false, "runs in flight")                                                        \
	X(FDS, fds, 0, false, "descriptors of the broker's")

enum pb_limit {
#define PB_LIMIT_ENUM(id, key, def, bytes, text) PB_LIMIT_##id,
	PB_LIMIT_LIST(PB_LIMIT_ENUM)
#undef PB_LIMIT_ENUM
	PB_N_LIMITS
};

extern const char *const pb_limit_key[PB_N_LIMITS], *const pb_limit_text[PB_N_LIMITS];

/* What one may ask for: bits by place in the list of names. */
enum { PB_PROFILE_DEFAULT = 1, PB_PROFILE_STRICT = 2, PB_PROFILES_ALL = 3 };
enum { PB_BACKEND_NATIVE = 1, PB_BACKEND_TORCH = 2, PB_BACKENDS_ALL = 3 };

struct pb_tenant_conf {
	char name[PB_NAME_MAX + 1];
	uint32_t *uids, *gids;
	size_t n_uids, n_gids;
	uint64_t limit[PB_N_LIMITS];
	uint32_t cpu_weight;	     /* 100: as everybody */
	uint32_t cpu_max;	     /* percent of one CPU; 0: no maximum */
	uint64_t worker_memory;	     /* most for each worker; 0: the broker's */
	int64_t run_deadline_ms;     /* most for a run; 0: no maximum but the default of the broker */
	unsigned profiles, backends; /* bits of those that are allowed */
	bool ops;		     /* may bring plugins */
	bool upload;		     /* may bring packages; else only those of the repository */
	bool isolate;		     /* every run in a fresh fork, whether asked for or not */
	bool is_operator;	     /* sees what all tenants hold */
};

struct pb_model_conf {
	char *name, *path;
	char *model;	 /* inside the package */
	char *constants; /* safetensors file; NULL: none */
	char **tenants;	 /* names; none: everybody */
	size_t n_tenants;
	bool is_public; /* bytes and constants are shared between tenants */
	bool preload;	/* read when the broker starts */
	bool isolate;
	uint32_t runners;	 /* most that a load may ask for; 0: whatever the tenant may */
	char backend[16];	 /* "": as asked for */
	char profile[16];	 /* "": as asked for */
};

struct pb_service_conf {
	char *socket;	   /* NULL: not said */
	char *group;	   /* of the socket; NULL: the broker's */
	unsigned mode;	   /* of the socket */
	char *log;	   /* NULL: standard error */
	char *audit;	   /* NULL: no audit log */
	bool verbose;
	int64_t load_deadline_ms, run_deadline_ms, op_deadline_ms; /* 0: not said */
	uint64_t memory_bytes;					    /* 0: not said */
	char **required; /* layers without which the broker does not start */
	size_t n_required;
	struct pb_tenant_conf *tenants;
	size_t n_tenants;
	const struct pb_tenant_conf *strangers; /* of uids that match nobody; NULL: they are refused */
	struct pb_model_conf *models;
	size_t n_models;
};

/* What a user gets where nothing is configured. */
void pb_tenant_conf_init(struct pb_tenant_conf *t, const char *name);
/*
 * @name: for texts. USAGE: the text is "NAME:LINE: what is wrong". Opens nothing but the user database. *ret:
 * pb_config_free().
 */
PB_CHECK pb_status pb_config_parse(FILE *f, const char *name, struct pb_service_conf **ret, struct pt2box_error *err);
/* The same from a file that only its owner, root or the caller, may change: anything else is DENIED. */
PB_CHECK pb_status pb_config_read(const char *path, struct pb_service_conf **ret, struct pt2box_error *err);
/* Accepts NULL; returns NULL. */
struct pb_service_conf *pb_config_free(struct pb_service_conf *c);
/* Every value in force, for the operator's eyes. */
void pb_config_print(FILE *f, const struct pb_service_conf *c);

#endif
