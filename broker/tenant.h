/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tenants: who a client is, by what the kernel says of it, and what is held for it. Everything that the broker makes for a
 * tenant is charged where it is made, and returned where it ends; what the operator set is the most.
 */
#ifndef PT2BOX_BROKER_TENANT_H
#define PT2BOX_BROKER_TENANT_H

#include "broker/config.h"

struct pb_broker;

struct pb_tenant {
	uint32_t next_serial; /* of models */
	struct pb_tenant *next;
	const struct pb_tenant_conf *conf;
	char name[PB_NAME_MAX + 1];
	uint32_t id;  /* never 0, never used again */
	bool named;   /* by the configuration: stays. Else it goes with the last that refers to it, and is ... */
	bool stranger; /* ... of one user that no tenant names */
	uint32_t uid;  /* of that user */
	uint32_t refs;
	uint64_t limit[PB_N_LIMITS], used[PB_N_LIMITS];
	uint64_t reserved; /* bytes of constants that intakes may still make */
	uint32_t ending;   /* models whose processes have not ended yet */
	uint64_t active_ns; /* when one of its runs was last seen */
};

/* Those that have names, from the configuration; *ret of the others are made as their users come. */
PB_CHECK pb_status pb_tenants_begin(struct pb_broker *b, struct pt2box_error *err);
/*
 * Whose the peer of @sock is: a uid that a tenant names, else a group of the process, else a stranger's. DENIED: nobody's.
 * The reference is the caller's.
 */
PB_CHECK pb_status pb_tenant_of_peer(struct pb_broker *b, int sock, uint32_t uid, uint32_t gid, struct pb_tenant **ret,
				     struct pt2box_error *err);
/* One that no peer is: of what the broker does by itself. NULL: no memory. */
struct pb_tenant *pb_tenant_internal(struct pb_broker *b, const struct pb_tenant_conf *conf);
/* Of the process that connected; -1 where the kernel has none (before Linux 6.5). */
int pb_peer_pidfd(int sock);
struct pb_tenant *pb_tenant_ref(struct pb_tenant *t);
/* Accepts NULL; returns NULL. */
struct pb_tenant *pb_tenant_unref(struct pb_broker *b, struct pb_tenant *t);
/* LIMIT, with the limit's name, if @n more are too many. @t NULL: nobody's, which has no limit. */
PB_CHECK pb_status pb_tenant_charge(struct pb_tenant *t, enum pb_limit what, uint64_t n, struct pt2box_error *err);
void pb_tenant_discharge(struct pb_tenant *t, enum pb_limit what, uint64_t n);
/*
 * Room for what an intake will make, of which only the least is known: *ret is what it may make, to be given back by
 * pb_tenant_unreserve() before the memory is charged. NOT_FOUND: not now, others of the tenant end soon.
 */
PB_CHECK pb_status pb_tenant_reserve(struct pb_tenant *t, uint64_t least, uint64_t most, uint64_t *ret,
				     struct pt2box_error *err);
void pb_tenant_unreserve(struct pb_tenant *t, uint64_t *bytes);
/* By what number the spawner knows it; 0: there is but one tenant, and nobody to share with. */
uint32_t pb_tenant_cpu(const struct pb_broker *b, const struct pb_tenant *t);
/* May see what others hold. */
bool pb_tenant_is_operator(const struct pb_broker *b, const struct pb_tenant *t, uint32_t uid);

#endif
