/* SPDX-License-Identifier: Apache-2.0 */
/* What may stand in the configuration file, and the checks of single values, made as they are read. See config_grammar.h. */
#include "broker/config_grammar.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#define N(a) (sizeof(a) / sizeof((a)[0]))
#define DEADLINE_MAX_MS 86400000

static const bool limit_is_bytes[PB_N_LIMITS] = {
#define BYTES(id, key, def, bytes, text) bytes,
	PB_LIMIT_LIST(BYTES)
#undef BYTES
};

const char *const pb_profile_names[] = {"default", "strict", NULL};
const char *const pb_backend_names[] = {"native", "torch", NULL};
static const char *const share_names[] = {"tenant", "public", NULL};
static const char *const isolate_names[] = {"none", "request", NULL};

/* ---- values ---- */

/* A number, with K, M, G or T behind it if it is bytes. */
bool pb_config_number(const char *text, bool bytes, uint64_t *ret)
{
	static const char suffixes[] = "KMGT";
	const char *s;
	char *end;
	unsigned shift = 0;
	unsigned long long v;

	if (text[0] < '0' || text[0] > '9')
		return false;
	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno)
		return false;
	s = bytes && *end ? strchr(suffixes, *end) : NULL;
	if (s) {
		shift = 10 * (unsigned)(s - suffixes + 1);
		end++;
	}
	if (*end || v > (unsigned long long)INT64_MAX >> shift)
		return false;
	*ret = v << shift;
	return true;
}

bool pb_config_id(const char *text, bool group, uint32_t *ret)
{
	const struct passwd *pw;
	const struct group *gr;
	uint64_t v;

	if (pb_config_number(text, false, &v)) {
		*ret = (uint32_t)v;
		return v < UINT32_MAX;
	}
	pw = group ? NULL : getpwnam(text);
	gr = group ? getgrnam(text) : NULL;
	if (pw)
		*ret = pw->pw_uid;
	if (gr)
		*ret = gr->gr_gid;
	return pw || gr;
}

int pb_config_index(const char *text, const char *const *names)
{
	for (int i = 0; names[i]; i++)
		if (strcmp(text, names[i]) == 0)
			return i;
	return -1;
}

/* ---- checks, one value at a time ---- */

static const char *last_text(cfg_opt_t *opt)
{
	const char *text = cfg_opt_size(opt) ? cfg_opt_getnstr(opt, cfg_opt_size(opt) - 1) : NULL;

	return text ? text : "";
}

static int check_count(cfg_t *cfg, cfg_opt_t *opt)
{
	uint64_t v;

	if (pb_config_number(last_text(opt), false, &v))
		return 0;
	cfg_error(cfg, "%s must be a number, not \"%s\"", opt->name, last_text(opt));
	return -1;
}

static int check_bytes(cfg_t *cfg, cfg_opt_t *opt)
{
	uint64_t v;

	if (pb_config_number(last_text(opt), true, &v))
		return 0;
	cfg_error(cfg, "%s must be a number of bytes, as 512M or 8G, not \"%s\"", opt->name, last_text(opt));
	return -1;
}

static int check_uid(cfg_t *cfg, cfg_opt_t *opt)
{
	uint32_t id;

	if (pb_config_id(last_text(opt), false, &id))
		return 0;
	cfg_error(cfg, "there is no user \"%s\"", last_text(opt));
	return -1;
}

static int check_gid(cfg_t *cfg, cfg_opt_t *opt)
{
	uint32_t id;

	if (pb_config_id(last_text(opt), true, &id))
		return 0;
	cfg_error(cfg, "there is no group \"%s\"", last_text(opt));
	return -1;
}

static int check_name(cfg_t *cfg, cfg_opt_t *opt, const char *const *names)
{
	char all[64] = "";

	if (pb_config_index(last_text(opt), names) >= 0)
		return 0;
	for (int i = 0; names[i]; i++)
		snprintf(all + strlen(all), sizeof(all) - strlen(all), "%s%s", i ? " or " : "", names[i]);
	cfg_error(cfg, "%s must be %s, not \"%s\"", opt->name, all, last_text(opt));
	return -1;
}

static int check_profile(cfg_t *cfg, cfg_opt_t *opt)
{
	return check_name(cfg, opt, pb_profile_names);
}

static int check_backend(cfg_t *cfg, cfg_opt_t *opt)
{
	return check_name(cfg, opt, pb_backend_names);
}

static int check_share(cfg_t *cfg, cfg_opt_t *opt)
{
	return check_name(cfg, opt, share_names);
}

static int check_isolate(cfg_t *cfg, cfg_opt_t *opt)
{
	return check_name(cfg, opt, isolate_names);
}

static int check_path(cfg_t *cfg, cfg_opt_t *opt)
{
	if (last_text(opt)[0] == '/')
		return 0;
	cfg_error(cfg, "%s must be an absolute path, not \"%s\"", opt->name, last_text(opt));
	return -1;
}

bool pb_config_mode(const char *text, unsigned *ret)
{
	char *end;
	unsigned long v = strtoul(text, &end, 8);

	*ret = (unsigned)v;
	return *text >= '0' && *text <= '7' && !*end && v <= 0777;
}

static int check_mode(cfg_t *cfg, cfg_opt_t *opt)
{
	unsigned mode;

	if (pb_config_mode(last_text(opt), &mode))
		return 0;
	cfg_error(cfg, "%s must be octal, as 0660, not \"%s\"", opt->name, last_text(opt));
	return -1;
}

static int check_title(cfg_t *cfg, cfg_opt_t *opt)
{
	const cfg_t *sec = cfg_opt_getnsec(opt, cfg_opt_size(opt) - 1);
	size_t n = strlen(sec->title);

	if (n >= 1 && n <= PB_NAME_MAX &&
	    strspn(sec->title, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == n)
		return 0;
	cfg_error(cfg, "a name has 1 to %d letters, digits, dots, dashes and underscores", PB_NAME_MAX);
	return -1;
}

static int in_range(cfg_t *cfg, cfg_opt_t *opt, long min, long max)
{
	long v = cfg_opt_getnint(opt, 0);

	if (v >= min && v <= max)
		return 0;
	cfg_error(cfg, "%s must be %ld to %ld, not %ld", opt->name, min, max, v);
	return -1;
}

static int check_weight(cfg_t *cfg, cfg_opt_t *opt)
{
	return in_range(cfg, opt, 1, 10000);
}

static int check_percent(cfg_t *cfg, cfg_opt_t *opt)
{
	return in_range(cfg, opt, 0, 1000000);
}

static int check_ms(cfg_t *cfg, cfg_opt_t *opt)
{
	return in_range(cfg, opt, 1, DEADLINE_MAX_MS);
}

static int check_runners(cfg_t *cfg, cfg_opt_t *opt)
{
	return in_range(cfg, opt, 1, 64);
}

/* ---- the grammar ---- */

static cfg_opt_t tenant_opts[] = {
	CFG_STR_LIST("uid", NULL, CFGF_NONE),
	CFG_STR_LIST("gid", NULL, CFGF_NONE),
#define OPTION(id, key, def, bytes, text) CFG_STR(#key, NULL, CFGF_NONE),
	PB_LIMIT_LIST(OPTION)
#undef OPTION
	CFG_INT("cpu_weight", 100, CFGF_NONE),
	CFG_INT("cpu_max", 0, CFGF_NONE),
	CFG_STR("worker_memory", NULL, CFGF_NONE),
	CFG_INT("run_deadline_ms", 0, CFGF_NONE),
	CFG_STR_LIST("profiles", NULL, CFGF_NONE),
	CFG_STR_LIST("backends", NULL, CFGF_NONE),
	CFG_BOOL("ops", cfg_true, CFGF_NONE),
	CFG_BOOL("upload", cfg_true, CFGF_NONE),
	CFG_STR("isolate", NULL, CFGF_NONE),
	CFG_BOOL("operator", cfg_false, CFGF_NONE),
	CFG_END(),
};

static cfg_opt_t model_opts[] = {
	CFG_STR("path", NULL, CFGF_NONE),
	CFG_STR("model", NULL, CFGF_NONE),
	CFG_STR("constants", NULL, CFGF_NONE),
	CFG_STR_LIST("tenants", NULL, CFGF_NONE),
	CFG_STR("share", NULL, CFGF_NONE),
	CFG_BOOL("preload", cfg_false, CFGF_NONE),
	CFG_STR("isolate", NULL, CFGF_NONE),
	CFG_INT("runners", 0, CFGF_NONE),
	CFG_STR("backend", NULL, CFGF_NONE),
	CFG_STR("profile", NULL, CFGF_NONE),
	CFG_END(),
};

static cfg_opt_t service_opts[] = {
	CFG_STR("socket", NULL, CFGF_NONE),
	CFG_STR("socket_mode", NULL, CFGF_NONE),
	CFG_STR("socket_group", NULL, CFGF_NONE),
	CFG_STR("log", NULL, CFGF_NONE),
	CFG_STR("audit", NULL, CFGF_NONE),
	CFG_BOOL("verbose", cfg_false, CFGF_NONE),
	CFG_INT("load_deadline_ms", 0, CFGF_NONE),
	CFG_INT("run_deadline_ms", 0, CFGF_NONE),
	CFG_INT("op_deadline_ms", 0, CFGF_NONE),
	CFG_STR("worker_memory", NULL, CFGF_NONE),
	CFG_STR_LIST("require", NULL, CFGF_NONE),
	CFG_BOOL(PB_CONFIG_END, cfg_false, CFGF_NONE),
	CFG_SEC("tenant", tenant_opts, CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES),
	CFG_SEC("model", model_opts, CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES),
	CFG_END(),
};

static const struct {
	const char *key;
	cfg_validate_callback_t check;
} checks[] = {
	{"socket", check_path},
	{"socket_mode", check_mode},
	{"socket_group", check_gid},
	{"log", check_path},
	{"audit", check_path},
	{"load_deadline_ms", check_ms},
	{"run_deadline_ms", check_ms},
	{"op_deadline_ms", check_ms},
	{"worker_memory", check_bytes},
	{"tenant", check_title},
	{"tenant|uid", check_uid},
	{"tenant|gid", check_gid},
	{"tenant|cpu_weight", check_weight},
	{"tenant|cpu_max", check_percent},
	{"tenant|worker_memory", check_bytes},
	{"tenant|run_deadline_ms", check_ms},
	{"tenant|profiles", check_profile},
	{"tenant|backends", check_backend},
	{"tenant|isolate", check_isolate},
	{"model", check_title},
	{"model|path", check_path},
	{"model|constants", check_path},
	{"model|share", check_share},
	{"model|isolate", check_isolate},
	{"model|runners", check_runners},
	{"model|backend", check_backend},
	{"model|profile", check_profile},
};

static void set_checks(cfg_t *cfg)
{
	char key[64];

	for (size_t i = 0; i < N(checks); i++)
		cfg_set_validate_func(cfg, checks[i].key, checks[i].check);
	for (int l = 0; l < PB_N_LIMITS; l++) {
		snprintf(key, sizeof(key), "tenant|%s", pb_limit_key[l]);
		cfg_set_validate_func(cfg, key, limit_is_bytes[l] ? check_bytes : check_count);
	}
}

cfg_t *pb_config_grammar(void)
{
	cfg_t *cfg = cfg_init(service_opts, CFGF_NONE);

	if (cfg)
		set_checks(cfg);
	return cfg;
}
