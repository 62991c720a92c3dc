/* SPDX-License-Identifier: Apache-2.0 */
/* What --check-config understood: every value in force, in the words of the file. */
#include "broker/config.h"

static void print_ids(FILE *f, const char *key, const uint32_t *ids, size_t n)
{
	for (size_t i = 0; i < n; i++)
		fprintf(f, "%s%u%s", i ? ", " : key, ids[i], i + 1 == n ? "}\n" : "");
}

static void print_limit(FILE *f, const char *key, uint64_t v)
{
	if (v)
		fprintf(f, "\t%s = %llu\n", key, (unsigned long long)v);
	else
		fprintf(f, "\t# %s: a share of what the broker has\n", key);
}

static void print_tenant(FILE *f, const struct pb_tenant_conf *t)
{
	fprintf(f, "tenant %s {\n", t->name);
	print_ids(f, "\tuid = {", t->uids, t->n_uids);
	print_ids(f, "\tgid = {", t->gids, t->n_gids);
	for (int l = 0; l < PB_N_LIMITS; l++)
		print_limit(f, pb_limit_key[l], t->limit[l]);
	fprintf(f, "\tcpu_weight = %u\n", t->cpu_weight);
	if (t->cpu_max)
		fprintf(f, "\tcpu_max = %u\n", t->cpu_max);
	if (t->worker_memory)
		fprintf(f, "\tworker_memory = %llu\n", (unsigned long long)t->worker_memory);
	if (t->run_deadline_ms)
		fprintf(f, "\trun_deadline_ms = %lld\n", (long long)t->run_deadline_ms);
	fprintf(f, "\tprofiles = {%s%s%s}\n", t->profiles & PB_PROFILE_DEFAULT ? "default" : "",
		t->profiles == PB_PROFILES_ALL ? ", " : "", t->profiles & PB_PROFILE_STRICT ? "strict" : "");
	fprintf(f, "\tbackends = {%s%s%s}\n", t->backends & PB_BACKEND_NATIVE ? "native" : "",
		t->backends == PB_BACKENDS_ALL ? ", " : "", t->backends & PB_BACKEND_TORCH ? "torch" : "");
	fprintf(f, "\tops = %s\n\tupload = %s\n\tisolate = %s\n\toperator = %s\n}\n", t->ops ? "true" : "false",
		t->upload ? "true" : "false", t->isolate ? "request" : "none", t->is_operator ? "true" : "false");
}

static void print_text(FILE *f, const char *key, const char *value)
{
	if (!value)
		return;
	fprintf(f, "%s = \"", key);
	for (; *value; value++)
		fprintf(f, *value == '"' || *value == '\\' ? "\\%c" : "%c", *value);
	fputs("\"\n", f);
}

static void print_list(FILE *f, const char *key, char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		fprintf(f, "%s\"%s\"%s", i ? ", " : key, list[i], i + 1 == n ? "}\n" : "");
}

static void print_model(FILE *f, const struct pb_model_conf *m)
{
	fprintf(f, "model %s {\n", m->name);
	print_text(f, "\tpath", m->path);
	print_text(f, "\tmodel", m->model);
	print_text(f, "\tconstants", m->constants);
	if (m->n_tenants)
		print_list(f, "\ttenants = {", m->tenants, m->n_tenants);
	else
		fputs("\t# for everybody\n", f);
	fprintf(f, "\tshare = %s\n\tpreload = %s\n\tisolate = %s\n", m->is_public ? "public" : "tenant",
		m->preload ? "true" : "false", m->isolate ? "request" : "none");
	if (m->runners)
		fprintf(f, "\trunners = %u\n", m->runners);
	print_text(f, "\tbackend", m->backend[0] ? m->backend : NULL);
	print_text(f, "\tprofile", m->profile[0] ? m->profile : NULL);
	fputs("}\n", f);
}

void pb_config_print(FILE *f, const struct pb_service_conf *c)
{
	print_text(f, "socket", c->socket);
	fprintf(f, "socket_mode = 0%o\n", c->mode);
	print_text(f, "socket_group", c->group);
	print_text(f, "log", c->log);
	print_text(f, "audit", c->audit);
	fprintf(f, "verbose = %s\n", c->verbose ? "true" : "false");
	if (c->load_deadline_ms)
		fprintf(f, "load_deadline_ms = %lld\n", (long long)c->load_deadline_ms);
	if (c->run_deadline_ms)
		fprintf(f, "run_deadline_ms = %lld\n", (long long)c->run_deadline_ms);
	if (c->op_deadline_ms)
		fprintf(f, "op_deadline_ms = %lld\n", (long long)c->op_deadline_ms);
	if (c->memory_bytes)
		fprintf(f, "worker_memory = %llu\n", (unsigned long long)c->memory_bytes);
	print_list(f, "require = {", c->required, c->n_required);
	for (size_t i = 0; i < c->n_tenants; i++)
		print_tenant(f, &c->tenants[i]);
	for (size_t i = 0; i < c->n_models; i++)
		print_model(f, &c->models[i]);
	if (!c->strangers)
		fputs("# users that no tenant names are refused\n", f);
}
