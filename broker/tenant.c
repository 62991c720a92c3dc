/* SPDX-License-Identifier: Apache-2.0 */
/* See tenant.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "broker/broker.h"

#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

#define GROUPS_MAX 256
#define SPARE_ROOM (16ull << 20) /* a package of a few bytes may hold that much of zeros */

/* ---- who ---- */

static bool has(const uint32_t *list, size_t n, uint32_t id)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] == id)
			return true;
	return false;
}

static struct pb_tenant *tenant_new(struct pb_broker *b, const struct pb_tenant_conf *conf)
{
	struct pb_tenant *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->conf = conf;
	t->id = ++b->next_tenant;
	t->refs = 1;
	snprintf(t->name, sizeof(t->name), "%s", conf->name);
	memcpy(t->limit, conf->limit, sizeof(t->limit));
	/* A quarter: so that it takes several to use them up, not one. An embedded broker has but one. */
	if (!t->limit[PB_LIMIT_FDS])
		t->limit[PB_LIMIT_FDS] = b->config.embedded_fd < 0 ? b->files_max / 4 : b->files_max - b->files_max / 16;
	t->next = b->tenants;
	b->tenants = t;
	return t;
}

pb_status pb_tenants_begin(struct pb_broker *b, struct pt2box_error *err)
{
	const struct pb_service_conf *s = b->config.service;

	pb_tenant_conf_init(&b->anybody, "default");
	for (size_t i = 0; s && i < s->n_tenants; i++) {
		struct pb_tenant *t = &s->tenants[i] == s->strangers ? NULL : tenant_new(b, &s->tenants[i]);

		if (t)
			t->named = true;
		else if (&s->tenants[i] != s->strangers)
			return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for tenants");
	}
	return PT2BOX_OK;
}

/* Those of the process, as they were when it connected. */
static size_t groups_of(int sock, uint32_t gid, uint32_t ret[GROUPS_MAX])
{
	socklen_t len = (GROUPS_MAX - 1) * sizeof(ret[0]);

	ret[0] = gid;
	if (getsockopt(sock, SOL_SOCKET, SO_PEERGROUPS, ret + 1, &len) != 0)
		return 1; /* more than fit, or an old kernel: the first one counts */
	return 1 + len / sizeof(ret[0]);
}

static struct pb_tenant *named_for(struct pb_broker *b, int sock, uint32_t uid, uint32_t gid)
{
	uint32_t groups[GROUPS_MAX];
	size_t n;

	for (struct pb_tenant *t = b->tenants; t; t = t->next)
		if (t->named && has(t->conf->uids, t->conf->n_uids, uid))
			return t;
	n = groups_of(sock, gid, groups);
	for (size_t g = 0; g < n; g++)
		for (struct pb_tenant *t = b->tenants; t; t = t->next)
			if (t->named && has(t->conf->gids, t->conf->n_gids, groups[g]))
				return t;
	return NULL;
}

/* Each is a tenant of its own: two strangers have nothing in common but their limits. */
static struct pb_tenant *stranger(struct pb_broker *b, uint32_t uid)
{
	const struct pb_service_conf *s = b->config.service;
	struct pb_tenant *t = b->tenants;

	while (t && (!t->stranger || t->uid != uid))
		t = t->next;
	if (t)
		return pb_tenant_ref(t);
	t = tenant_new(b, s && s->strangers ? s->strangers : &b->anybody);
	if (t) {
		t->stranger = true;
		t->uid = uid;
		snprintf(t->name, sizeof(t->name), "uid %u", uid);
	}
	return t;
}

pb_status pb_tenant_of_peer(struct pb_broker *b, int sock, uint32_t uid, uint32_t gid, struct pb_tenant **ret,
			    struct pt2box_error *err)
{
	const struct pb_service_conf *s = b->config.service;
	struct pb_tenant *t = named_for(b, sock, uid, gid);

	if (t) {
		*ret = pb_tenant_ref(t);
		return PT2BOX_OK;
	}
	/* The operator is let in to look after the broker, whoever else is. */
	if (s && !s->strangers && uid != 0 && uid != b->started_by)
		return pb_error_set(err, PT2BOX_DENIED, "no tenant is configured for uid %u", uid);
	*ret = stranger(b, uid);
	return *ret ? PT2BOX_OK : pb_error_set(err, PT2BOX_NO_MEMORY, "the broker has no memory for a tenant");
}

struct pb_tenant *pb_tenant_internal(struct pb_broker *b, const struct pb_tenant_conf *conf)
{
	return tenant_new(b, conf);
}

int pb_peer_pidfd(int sock)
{
	socklen_t len = sizeof(int);
	int fd = -1;

	return getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, &fd, &len) == 0 ? fd : -1; /* close-on-exec at birth */
}

bool pb_tenant_is_operator(const struct pb_broker *b, const struct pb_tenant *t, uint32_t uid)
{
	return uid == 0 || uid == b->started_by || t->conf->is_operator;
}

uint32_t pb_tenant_cpu(const struct pb_broker *b, const struct pb_tenant *t)
{
	return b->config.embedded_fd < 0 ? t->id : 0;
}

/* ---- references ---- */

struct pb_tenant *pb_tenant_ref(struct pb_tenant *t)
{
	t->refs++;
	return t;
}

struct pb_tenant *pb_tenant_unref(struct pb_broker *b, struct pb_tenant *t)
{
	struct pb_tenant **p = &b->tenants;

	if (!t || --t->refs)
		return NULL;
	while (*p && *p != t)
		p = &(*p)->next;
	if (*p)
		*p = t->next;
	/* A charge that nobody returned is a bug of ours, which must not cost others anything. */
	for (int l = 0; l < PB_N_LIMITS; l++)
		if (t->used[l])
			fprintf(stderr, "pt2boxd: bug: tenant %s has gone, and %llu %s are still charged to it\n", t->name,
				(unsigned long long)t->used[l], pb_limit_text[l]);
	free(t);
	return NULL;
}

/* ---- how much ---- */

static pb_status refuse(const struct pb_tenant *t, enum pb_limit what, struct pt2box_error *err)
{
	return pb_error_set(err, PT2BOX_LIMIT, "tenant %s may have at most %llu %s (%s)", t->name,
			    (unsigned long long)t->limit[what], pb_limit_text[what], pb_limit_key[what]);
}

/* What is not used and not promised. */
static uint64_t left(const struct pb_tenant *t, enum pb_limit what)
{
	uint64_t taken = t->used[what] + (what == PB_LIMIT_CONSTANTS ? t->reserved : 0);

	return taken < t->limit[what] ? t->limit[what] - taken : 0;
}

pb_status pb_tenant_charge(struct pb_tenant *t, enum pb_limit what, uint64_t n, struct pt2box_error *err)
{
	if (!t)
		return PT2BOX_OK;
	if (n > left(t, what))
		return refuse(t, what, err);
	t->used[what] += n;
	return PT2BOX_OK;
}

void pb_tenant_discharge(struct pb_tenant *t, enum pb_limit what, uint64_t n)
{
	if (t)
		t->used[what] -= n;
}

pb_status pb_tenant_reserve(struct pb_tenant *t, uint64_t least, uint64_t most, uint64_t *ret, struct pt2box_error *err)
{
	const uint64_t room = left(t, PB_LIMIT_CONSTANTS);
	/* Packages are deflated to an eighth at best. More where there is much, but so that others can begin meanwhile. */
	uint64_t want = least < most / 16 ? 8 * least + SPARE_ROOM : most;

	if (want < room / PB_STARTS_PER_TENANT)
		want = room / PB_STARTS_PER_TENANT;
	if (least > room || (t->reserved && want > room)) {
		if (t->reserved || t->ending)
			return PT2BOX_NOT_FOUND;
		return refuse(t, PB_LIMIT_CONSTANTS, err);
	}
	if (want > room)
		want = room;
	*ret = want < most ? want : most;
	t->reserved += *ret;
	return PT2BOX_OK;
}

void pb_tenant_unreserve(struct pb_tenant *t, uint64_t *bytes)
{
	t->reserved -= *bytes;
	*bytes = 0;
}
