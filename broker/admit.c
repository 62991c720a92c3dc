/* SPDX-License-Identifier: Apache-2.0 */
/* Who may load what, and how much of it: options against what the operator allows, and the charges of a load. */
#include <stdio.h>
#include <string.h>

#include "broker/broker.h"
#include "ipc/ops_call.h"

#define OPS_FILES 3    /* of an ops process, besides two a worker */
#define MODEL_FILES 16 /* of a model in the broker, besides one a worker */

static int index_of(const char *s, const char *const *list)
{
	for (int i = 0; list[i]; i++)
		if (strcmp(s, list[i]) == 0)
			return i;
	return -1;
}

/* What the operator set is the most that a tenant gets; of an embedded broker the client is the operator. */
static pb_status admit_memory(const struct pb_broker *b, const struct pb_tenant *t, struct pb_msg_load *m,
			      struct pt2box_error *err)
{
	const uint64_t most = t->conf->worker_memory ? t->conf->worker_memory : b->config.memory_bytes;

	if (b->config.embedded_fd < 0 && m->memory_bytes > most)
		return pb_error_set(err, PT2BOX_LIMIT, "a worker may have at most %llu bytes here (worker_memory)",
				    (unsigned long long)most);
	if (!m->memory_bytes)
		m->memory_bytes = most;
	return PT2BOX_OK;
}

static pb_status admit_deadline(const struct pb_broker *b, const struct pb_tenant *t, struct pb_msg_load *m,
				struct pt2box_error *err)
{
	const int64_t most = t->conf->run_deadline_ms, usual = b->config.run_deadline_ms;

	if (m->load_deadline_ms < 0 || m->run_deadline_ms < -1)
		return pb_error_set(err, PT2BOX_USAGE, "a deadline must be positive");
	if (!most)
		return PT2BOX_OK;
	if (m->run_deadline_ms == -1 || m->run_deadline_ms > most)
		return pb_error_set(err, PT2BOX_LIMIT, "runs of tenant %s may take at most %lld ms (run_deadline_ms)",
				    t->name, (long long)most);
	if (m->run_deadline_ms == 0 && (usual == -1 || usual > most))
		m->run_deadline_ms = most;
	return PT2BOX_OK;
}

static pb_status admit_names(const struct pb_broker *b, const struct pb_tenant *t, struct pb_msg_load *m,
			     struct pt2box_error *err)
{
	static const char *const backends[] = {"native", "torch", "auto", NULL}, *const profiles[] = {"default", "strict", NULL};
	const int backend = index_of(m->backend, backends), profile = index_of(m->profile, profiles);

	if (backend < 0)
		return pb_error_set(err, PT2BOX_USAGE, "backend must be auto, native or torch");
	if (profile < 0)
		return pb_error_set(err, PT2BOX_USAGE, "profile must be default or strict");
	if (!(t->conf->profiles & 1u << profile))
		return pb_error_set(err, PT2BOX_DENIED, "tenant %s may not use profile %s", t->name, m->profile);
	if (backend < 2 && !(t->conf->backends & 1u << backend))
		return pb_error_set(err, PT2BOX_DENIED, "tenant %s may not use backend %s", t->name, m->backend);
	if (backend == 2 && t->conf->backends != PB_BACKENDS_ALL)
		strcpy(m->backend, t->conf->backends == PB_BACKEND_NATIVE ? "native" : "torch");
	if (strcmp(m->backend, "torch") == 0 && !b->config.torch.path[0])
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "backend torch: %s", b->config.torch.text);
	return PT2BOX_OK;
}

pb_status pb_admit(const struct pb_broker *b, const struct pb_tenant *t, const struct pb_repo_model *repo, bool plugin,
		   struct pb_msg_load *m, struct pt2box_error *err)
{
	pb_status st;

	if (!repo && !t->conf->upload)
		return pb_error_set(err, PT2BOX_DENIED, "tenant %s may load only models that are offered by name", t->name);
	if (plugin && !t->conf->ops)
		return pb_error_set(err, PT2BOX_DENIED, "tenant %s may not bring operators", t->name);
	if (m->runners < 1)
		return pb_error_set(err, PT2BOX_USAGE, "runners must be 1 to %d", PB_WORKERS_MAX);
	if (repo && (st = pb_repo_apply(repo, m, err)))
		return st;
	m->isolate |= t->conf->isolate;
	st = admit_names(b, t, m, err);
	if (!st)
		st = admit_deadline(b, t, m, err);
	return st ? st : admit_memory(b, t, m, err);
}

/* ---- charges ---- */

/* All of a model that is known before its package is read; nothing on failure. */
pb_status pb_admit_charge(struct pb_broker *b, struct pb_tenant *t, const struct pb_msg_load *opt, bool plugin,
			  bool serves, struct pb_charges *ret, struct pt2box_error *err)
{
	const uint32_t workers = serves ? (uint32_t)opt->runners : 0;
	const struct pb_charges c = {.models = 1,
				     .workers = workers,
				     .files = MODEL_FILES + workers + (plugin ? OPS_FILES + 2 * workers : 0),
				     .ops_bytes = plugin ? 2 * PB_OPS_LANE_BYTES * workers : 0};
	const struct {
		enum pb_limit what;
		uint64_t n;
	} list[] = {{PB_LIMIT_MODELS, c.models}, {PB_LIMIT_WORKERS, c.workers}, {PB_LIMIT_FDS, c.files},
		    {PB_LIMIT_LANES, c.ops_bytes}};

	if (pb_count_ending(b, t) >= PB_ENDING_PER_TENANT)
		return pb_error_set(err, PT2BOX_LIMIT, "tenant %s has %d models that have not ended yet", t->name,
				    PB_ENDING_PER_TENANT);
	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		pb_status st = pb_tenant_charge(t, list[i].what, list[i].n, err);

		if (!st)
			continue;
		while (i--)
			pb_tenant_discharge(t, list[i].what, list[i].n);
		return st;
	}
	*ret = c;
	return PT2BOX_OK;
}

void pb_admit_discharge(struct pb_tenant *t, struct pb_charges *c)
{
	pb_tenant_discharge(t, PB_LIMIT_MODELS, c->models);
	pb_tenant_discharge(t, PB_LIMIT_WORKERS, c->workers);
	pb_tenant_discharge(t, PB_LIMIT_FDS, c->files);
	pb_tenant_discharge(t, PB_LIMIT_LANES, c->ops_bytes);
	*c = (struct pb_charges){.models = 0};
}

/* A package turned out to need less. */
void pb_admit_lower(struct pb_tenant *t, struct pb_charges *c, uint32_t workers, bool ops)
{
	if (workers < c->workers) {
		pb_tenant_discharge(t, PB_LIMIT_WORKERS, c->workers - workers);
		c->workers = workers;
	}
	if (!ops) {
		pb_tenant_discharge(t, PB_LIMIT_LANES, c->ops_bytes);
		c->ops_bytes = 0;
	}
}
