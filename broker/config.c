/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration file, by libconfuse. Values are checked as they are read, so that errors have their line; names that
 * refer to something else in the file are checked at the end.
 */
#include "broker/config.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/config_grammar.h"

const char *const pb_limit_key[PB_N_LIMITS] = {
#define KEY(id, key, def, bytes, text) #key,
	PB_LIMIT_LIST(KEY)
#undef KEY
};

const char *const pb_limit_text[PB_N_LIMITS] = {
#define TEXT(id, key, def, bytes, text) text,
	PB_LIMIT_LIST(TEXT)
#undef TEXT
};

void pb_tenant_conf_init(struct pb_tenant_conf *t, const char *name)
{
	static const uint64_t limits[PB_N_LIMITS] = {
#define DEFAULT(id, key, def, bytes, text) def,
		PB_LIMIT_LIST(DEFAULT)
#undef DEFAULT
	};

	*t = (struct pb_tenant_conf){.cpu_weight = 100,
				     .profiles = PB_PROFILES_ALL,
				     .backends = PB_BACKENDS_ALL,
				     .ops = true,
				     .upload = true};
	snprintf(t->name, sizeof(t->name), "%s", name);
	memcpy(t->limit, limits, sizeof(limits));
}

/* ---- errors ---- */

/* libconfuse's error function has no argument of ours. */
static struct pt2box_error *first_error;

static void note_error(cfg_t *cfg, const char *fmt, va_list ap)
{
	char text[300];

	vsnprintf(text, sizeof(text), fmt, ap);
	if (first_error && !first_error->status)
		pb_error_set(first_error, PT2BOX_USAGE, "%s:%d: %s", cfg->filename ? cfg->filename : "?", cfg->line, text);
}

/* ---- from the grammar's values to ours; all have been checked ---- */

/* NULL for what is not there. */
static char *text_of(cfg_t *cfg, const char *key)
{
	const char *text = cfg_getstr(cfg, key);

	return text ? strdup(text) : NULL;
}

static uint64_t bytes_of(cfg_t *cfg, const char *key, uint64_t fallback)
{
	const char *text = cfg_getstr(cfg, key);
	uint64_t v;

	return text && pb_config_number(text, true, &v) ? v : fallback;
}

static char **list_of(cfg_t *cfg, const char *key, size_t *ret_n)
{
	unsigned n = cfg_size(cfg, key);
	char **list = n ? calloc(n, sizeof(*list)) : NULL;

	for (unsigned i = 0; list && i < n; i++)
		list[i] = strdup(cfg_getnstr(cfg, key, i));
	*ret_n = list ? n : 0;
	return list;
}

static uint32_t *ids_of(cfg_t *cfg, const char *key, bool group, size_t *ret_n)
{
	unsigned n = cfg_size(cfg, key);
	uint32_t *list = n ? calloc(n, sizeof(*list)) : NULL;

	for (unsigned i = 0; list && i < n; i++)
		(void)pb_config_id(cfg_getnstr(cfg, key, i), group, &list[i]);
	*ret_n = list ? n : 0;
	return list;
}

static unsigned bits_of(cfg_t *cfg, const char *key, const char *const *names, unsigned all)
{
	unsigned bits = 0;

	for (unsigned i = 0; i < cfg_size(cfg, key); i++)
		bits |= 1u << pb_config_index(cfg_getnstr(cfg, key, i), names);
	return bits ? bits : all;
}

static bool says(cfg_t *cfg, const char *key, const char *word)
{
	const char *text = cfg_getstr(cfg, key);

	return text && strcmp(text, word) == 0;
}

static void take_tenant(cfg_t *cfg, struct pb_tenant_conf *t)
{
	pb_tenant_conf_init(t, cfg_title(cfg));
	t->uids = ids_of(cfg, "uid", false, &t->n_uids);
	t->gids = ids_of(cfg, "gid", true, &t->n_gids);
	for (int l = 0; l < PB_N_LIMITS; l++)
		t->limit[l] = bytes_of(cfg, pb_limit_key[l], t->limit[l]);
	t->cpu_weight = (uint32_t)cfg_getint(cfg, "cpu_weight");
	t->cpu_max = (uint32_t)cfg_getint(cfg, "cpu_max");
	t->worker_memory = bytes_of(cfg, "worker_memory", 0);
	t->run_deadline_ms = cfg_getint(cfg, "run_deadline_ms");
	t->profiles = bits_of(cfg, "profiles", pb_profile_names, PB_PROFILES_ALL);
	t->backends = bits_of(cfg, "backends", pb_backend_names, PB_BACKENDS_ALL);
	t->ops = cfg_getbool(cfg, "ops");
	t->upload = cfg_getbool(cfg, "upload");
	t->isolate = says(cfg, "isolate", "request");
	t->is_operator = cfg_getbool(cfg, "operator");
}

static void take_model(cfg_t *cfg, struct pb_model_conf *m)
{
	*m = (struct pb_model_conf){.name = strdup(cfg_title(cfg)),
				    .path = text_of(cfg, "path"),
				    .model = text_of(cfg, "model"),
				    .constants = text_of(cfg, "constants"),
				    .is_public = says(cfg, "share", "public"),
				    .preload = cfg_getbool(cfg, "preload"),
				    .isolate = says(cfg, "isolate", "request"),
				    .runners = (uint32_t)cfg_getint(cfg, "runners")};
	m->tenants = list_of(cfg, "tenants", &m->n_tenants);
	if (cfg_getstr(cfg, "backend"))
		snprintf(m->backend, sizeof(m->backend), "%s", cfg_getstr(cfg, "backend"));
	if (cfg_getstr(cfg, "profile"))
		snprintf(m->profile, sizeof(m->profile), "%s", cfg_getstr(cfg, "profile"));
}

static bool take_service(cfg_t *cfg, struct pb_service_conf *c)
{
	c->socket = text_of(cfg, "socket");
	c->group = text_of(cfg, "socket_group");
	c->log = text_of(cfg, "log");
	c->audit = text_of(cfg, "audit");
	c->mode = 0666;
	if (cfg_getstr(cfg, "socket_mode"))
		(void)pb_config_mode(cfg_getstr(cfg, "socket_mode"), &c->mode);
	c->verbose = cfg_getbool(cfg, "verbose");
	c->load_deadline_ms = cfg_getint(cfg, "load_deadline_ms");
	c->run_deadline_ms = cfg_getint(cfg, "run_deadline_ms");
	c->op_deadline_ms = cfg_getint(cfg, "op_deadline_ms");
	c->memory_bytes = bytes_of(cfg, "worker_memory", 0);
	c->required = list_of(cfg, "require", &c->n_required);
	c->tenants = calloc(cfg_size(cfg, "tenant") + 1, sizeof(*c->tenants));
	c->models = calloc(cfg_size(cfg, "model") + 1, sizeof(*c->models));
	if (!c->tenants || !c->models)
		return false;
	for (; c->n_tenants < cfg_size(cfg, "tenant"); c->n_tenants++)
		take_tenant(cfg_getnsec(cfg, "tenant", (unsigned)c->n_tenants), &c->tenants[c->n_tenants]);
	for (; c->n_models < cfg_size(cfg, "model"); c->n_models++)
		take_model(cfg_getnsec(cfg, "model", (unsigned)c->n_models), &c->models[c->n_models]);
	return true;
}

/* ---- what refers to something else ---- */

static const struct pb_tenant_conf *find_tenant(const struct pb_service_conf *c, const char *name)
{
	for (size_t i = 0; i < c->n_tenants; i++)
		if (strcmp(c->tenants[i].name, name) == 0)
			return &c->tenants[i];
	return NULL;
}

/* The first user or group that two tenants have. */
static bool twice(const uint32_t *a, size_t n_a, const uint32_t *b, size_t n_b, uint32_t *ret)
{
	for (size_t i = 0; i < n_a; i++)
		for (size_t k = 0; k < n_b; k++)
			if (a[i] == b[k]) {
				*ret = a[i];
				return true;
			}
	return false;
}

static void join_tenants(cfg_t *cfg, struct pb_service_conf *c)
{
	uint32_t id;

	c->strangers = find_tenant(c, "default");
	for (size_t i = 0; i < c->n_tenants; i++) {
		const struct pb_tenant_conf *t = &c->tenants[i];
		cfg_t *sec = cfg_getnsec(cfg, "tenant", (unsigned)i);

		if ((t == c->strangers) == (t->n_uids || t->n_gids))
			cfg_error(sec, t == c->strangers ?
					       "tenant default is for users that no other names: it has no uid and no gid" :
					       "tenant %s needs a uid or a gid", t->name);
		if (t->worker_memory && c->memory_bytes && t->worker_memory > c->memory_bytes)
			cfg_error(sec, "worker_memory of tenant %s is more than everybody's", t->name);
		for (size_t k = 0; k < i; k++) {
			const struct pb_tenant_conf *o = &c->tenants[k];

			if (twice(t->uids, t->n_uids, o->uids, o->n_uids, &id))
				cfg_error(sec, "tenants %s and %s both have uid %u", o->name, t->name, id);
			if (twice(t->gids, t->n_gids, o->gids, o->n_gids, &id))
				cfg_error(sec, "tenants %s and %s both have gid %u", o->name, t->name, id);
		}
	}
}

static void join_models(cfg_t *cfg, const struct pb_service_conf *c)
{
	for (size_t i = 0; i < c->n_models; i++) {
		const struct pb_model_conf *m = &c->models[i];
		cfg_t *sec = cfg_getnsec(cfg, "model", (unsigned)i);

		if (!m->path)
			cfg_error(sec, "model %s needs a path", m->name);
		if (m->preload && !m->is_public)
			cfg_error(sec, "preload is for share = public: nothing of model %s may be kept for several tenants",
				  m->name);
		for (size_t k = 0; k < m->n_tenants; k++)
			if (!find_tenant(c, m->tenants[k]))
				cfg_error(sec, "there is no tenant %s", m->tenants[k]);
	}
}

/* ---- the whole ---- */

#define CONFIG_BYTES_MAX (1u << 20)

/* The text, and the key that ends it. NULL: too long, or no memory. */
static FILE *with_end(FILE *f, char **ret_text)
{
	static const char end[] = "\n" PB_CONFIG_END " = true\n";
	char *text = malloc(CONFIG_BYTES_MAX + sizeof(end));
	size_t n = text ? fread(text, 1, CONFIG_BYTES_MAX + 1, f) : 0;

	*ret_text = text;
	if (!text || n > CONFIG_BYTES_MAX)
		return NULL;
	memcpy(text + n, end, sizeof(end));
	return fmemopen(text, n + sizeof(end) - 1, "r");
}

static pb_status parse(cfg_t *cfg, FILE *f, struct pb_service_conf *c, struct pt2box_error *err)
{
	struct pt2box_error e = {.status = PT2BOX_OK};
	int rc;

	cfg_set_error_function(cfg, note_error);
	first_error = &e;
	rc = cfg_parse_fp(cfg, f);
	if (rc == CFG_SUCCESS && !e.status) {
		if (take_service(cfg, c)) {
			join_tenants(cfg, c);
			join_models(cfg, c);
		} else {
			pb_error_set(&e, PT2BOX_NO_MEMORY, "no memory for the configuration");
		}
	}
	first_error = NULL;
	if (e.status && strstr(e.text, PB_CONFIG_END))
		pb_error_set(&e, PT2BOX_USAGE, "%s: a section is not closed: } is missing", cfg->filename);
	if (rc == CFG_SUCCESS && !e.status && !cfg_getbool(cfg, PB_CONFIG_END))
		pb_error_set(&e, PT2BOX_USAGE, "%s: the text ends too soon", cfg->filename);
	if (rc != CFG_SUCCESS && !e.status)
		pb_error_set(&e, PT2BOX_USAGE, "%s:%d: cannot be read", cfg->filename ? cfg->filename : "?", cfg->line);
	return e.status ? pb_error_set(err, e.status, "%s", e.text) : PT2BOX_OK;
}

pb_status pb_config_parse(FILE *f, const char *name, struct pb_service_conf **ret, struct pt2box_error *err)
{
	cfg_t *cfg = pb_config_grammar();
	struct pb_service_conf *c = calloc(1, sizeof(*c));
	char *text = NULL;
	FILE *whole = with_end(f, &text);
	pb_status st;

	if (cfg && c)
		cfg->filename = strdup(name);
	if (!cfg || !c || !cfg->filename || !whole)
		st = pb_error_set(err, PT2BOX_USAGE, "%s: too long, or no memory for it", name);
	else
		st = parse(cfg, whole, c, err);
	if (whole)
		fclose(whole);
	free(text);
	if (cfg)
		cfg_free(cfg);
	if (st)
		pb_config_free(c);
	else
		*ret = c;
	return st;
}

pb_status pb_config_read(const char *path, struct pb_service_conf **ret, struct pt2box_error *err)
{
	FILE *f = fopen(path, "re");
	struct stat sb;
	pb_status st = PT2BOX_OK;

	if (!f)
		return pb_error_sys(err, "%s", path);
	if (fstat(fileno(f), &sb) != 0 || !S_ISREG(sb.st_mode))
		st = pb_error_set(err, PT2BOX_USAGE, "%s is not a file", path);
	else if ((sb.st_uid != 0 && sb.st_uid != geteuid()) || sb.st_mode & 022)
		st = pb_error_set(err, PT2BOX_DENIED, "%s may be changed by others than root and the broker's user", path);
	if (!st)
		st = pb_config_parse(f, path, ret, err);
	fclose(f);
	return st;
}

static char **list_free(char **list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(list[i]);
	free(list);
	return NULL;
}

struct pb_service_conf *pb_config_free(struct pb_service_conf *c)
{
	if (!c)
		return NULL;
	for (size_t i = 0; i < c->n_tenants; i++) {
		free(c->tenants[i].uids);
		free(c->tenants[i].gids);
	}
	for (size_t i = 0; i < c->n_models; i++) {
		struct pb_model_conf *m = &c->models[i];

		free(m->name);
		free(m->path);
		free(m->model);
		free(m->constants);
		list_free(m->tenants, m->n_tenants);
	}
	free(c->tenants);
	free(c->models);
	free(c->socket);
	free(c->group);
	free(c->log);
	free(c->audit);
	list_free(c->required, c->n_required);
	free(c);
	return NULL;
}
