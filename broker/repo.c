/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The repository: models that the operator offers by name. Their files are opened once, while there are rights to. Of a
 * model with share = public the broker keeps what intake made of it, and all tenants' loads begin with that: code and
 * constants, in sealed memory; processes and lanes are each tenant's own, as ever. Who has no right to a model hears what
 * he would hear if there were none.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "broker/broker.h"

/* ---- start ---- */

static pb_status open_file(const char *path, int *ret, struct pt2box_error *err)
{
	PB_CLEANUP(pb_close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat sb;

	if (fd < 0)
		return pb_error_sys(err, "%s", path);
	if (fstat(fd, &sb) != 0 || !S_ISREG(sb.st_mode))
		return pb_error_set(err, PT2BOX_BAD_FD, "%s is not a file: a package is one .pt2 archive", path);
	*ret = pb_take_fd(&fd);
	return PT2BOX_OK;
}

pb_status pb_repo_open(struct pb_broker *b, struct pt2box_error *err)
{
	const struct pb_service_conf *s = b->config.service;
	pb_status st = PT2BOX_OK;

	if (!s || !s->n_models)
		return PT2BOX_OK;
	b->repo = calloc(s->n_models, sizeof(*b->repo));
	if (!b->repo)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for the repository");
	for (; b->n_repo < s->n_models && !st; b->n_repo++) {
		struct pb_repo_model *r = &b->repo[b->n_repo];

		*r = (struct pb_repo_model){.conf = &s->models[b->n_repo], .fd = -1, .constants_fd = -1, .manifest_fd = -1};
		st = open_file(r->conf->path, &r->fd, err);
		if (!st && r->conf->constants)
			st = open_file(r->conf->constants, &r->constants_fd, err);
	}
	return st;
}

void pb_repo_close(struct pb_broker *b)
{
	for (size_t i = 0; i < b->n_repo; i++) {
		struct pb_repo_model *r = &b->repo[i];

		pb_close_fd(&r->fd);
		pb_close_fd(&r->constants_fd);
		pb_close_fd(&r->manifest_fd);
		pb_memory_unref(b, r->code);
		pb_memory_unref(b, r->constants);
	}
	free(b->repo);
	b->repo = NULL;
	b->n_repo = 0;
}

/* ---- who may ---- */

static bool may_use(const struct pb_model_conf *m, const struct pb_tenant *t)
{
	bool may = m->n_tenants == 0;

	for (size_t i = 0; i < m->n_tenants; i++)
		may |= strcmp(m->tenants[i], t->conf->name) == 0;
	return may;
}

/* All are looked at, whichever it is: how long that takes says nothing. */
pb_status pb_repo_find(struct pb_broker *b, const struct pb_tenant *t, const char *name, struct pb_repo_model **ret,
		       struct pt2box_error *err)
{
	struct pb_repo_model *found = NULL;

	for (size_t i = 0; i < b->n_repo; i++) {
		const bool may = may_use(b->repo[i].conf, t);

		if (strcmp(b->repo[i].conf->name, name) == 0 && may)
			found = &b->repo[i];
	}
	if (!found)
		return pb_error_set(err, PT2BOX_NOT_FOUND, "no model of that name is offered");
	*ret = found;
	return PT2BOX_OK;
}

pb_status pb_repo_apply(const struct pb_repo_model *r, struct pb_msg_load *m, struct pt2box_error *err)
{
	const struct pb_model_conf *c = r->conf;

	if (c->runners && m->runners > c->runners)
		return pb_error_set(err, PT2BOX_LIMIT, "model %s may have at most %u workers (runners)", c->name, c->runners);
	if (c->model)
		snprintf(m->model, sizeof(m->model), "%s", c->model);
	if (c->backend[0])
		memcpy(m->backend, c->backend, sizeof(m->backend));
	if (c->profile[0])
		memcpy(m->profile, c->profile, sizeof(m->profile));
	m->isolate |= c->isolate;
	return PT2BOX_OK;
}

/* ---- what is kept ---- */

bool pb_repo_keeps(const struct pb_model_rec *m)
{
	/*
	 * Constants that a client brings are its own, and so is what is made of them. Its name inside the package is part of
	 * what is kept: another one is its tenant's.
	 */
	return m->repo && m->repo->conf->is_public && !m->opt.constants &&
	       (m->repo->conf->model || strcmp(m->opt.model, "model") == 0);
}

void pb_repo_keep(struct pb_model_rec *m)
{
	struct pb_repo_model *r = m->repo;

	/* A description of its own for everybody: tenants see no offset or flag of each other's. */
	if (!pb_repo_keeps(m) || r->code || pb_fd_readonly(m->out_manifest, &r->manifest_fd, NULL))
		return;
	r->code = pb_memory_ref(m->code);
	if (m->active.memory && m->active.memory != m->code)
		r->constants = pb_memory_ref(m->active.memory);
}

bool pb_repo_take(struct pb_model_rec *m)
{
	const struct pb_repo_model *r = m->repo;

	return pb_repo_keeps(m) && r->code && pb_fd_readonly(r->manifest_fd, &m->out_manifest, NULL) == PT2BOX_OK;
}

/* ---- preload ---- */

static void preload_one(struct pb_broker *b, struct pb_client *c, struct pb_repo_model *r)
{
	struct pb_msg_load opt = {.model = "model", .backend = "auto", .profile = "default", .runners = 1, .device = -1};
	struct pt2box_error e = {.status = PT2BOX_OK};

	if (pb_repo_apply(r, &opt, &e) || pb_load_preload(b, c, r, &opt, &e))
		fprintf(stderr, "pt2boxd: model %s cannot be preloaded: %s\n", r->conf->name, e.text);
}

void pb_repo_preload(struct pb_broker *b)
{
	struct pb_client *c = NULL;

	for (size_t i = 0; i < b->n_repo; i++) {
		if (!b->repo[i].conf->preload)
			continue;
		if (!c)
			c = pb_client_internal(b);
		if (c)
			preload_one(b, c, &b->repo[i]);
	}
}
