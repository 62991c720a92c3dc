/* SPDX-License-Identifier: Apache-2.0 */
/* What ps, metrics and top say of models that serve, that crash, and that have been given up. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/lib/broker.h"
#include "tests/lib/loaded.h"
#include "tests/lib/package.h"

#define MAGIC 666.0f /* what makes hostile models do it: base.h */

static struct test_broker broker;
static struct pt2box *box;

static void begin_with(const char *config)
{
	char programs[256];

	snprintf(programs, sizeof(programs), "%s/libexec", test_build_dir());
	assert_int_equal(config ? test_broker_start_configured(&broker, programs, config) :
				  test_broker_start(&broker, programs), 0);
	OK(pt2box_open(broker.socket, &box, &test_error));
}

static int begin(void **state)
{
	(void)state;
	begin_with(NULL);
	return 0;
}

static int end(void **state)
{
	(void)state;
	pt2box_close(box);
	assert_int_equal(test_broker_stop(&broker), 0);
	test_remove_tree(broker.dir);
	return 0;
}

static enum pt2box_status load_hostile(const char *name, int at, struct pt2box_model **ret)
{
	struct test_package p = {0};
	char so[300], pkg[128];
	enum pt2box_status st;

	snprintf(so, sizeof(so), "%s/tests/hostile/%s.%d.so", test_build_dir(), name, at);
	p.so_path = so;
	snprintf(pkg, sizeof(pkg), "%s/%s.pt2", broker.dir, name);
	assert_int_equal(test_package_write(pkg, &p), 0);
	st = pt2box_load_path(box, pkg, NULL, ret, &test_error);
	unlink(pkg);
	return st;
}

static enum pt2box_status run_for(struct pt2box_model *m, float magic, int64_t deadline_ms)
{
	struct pt2box_run_options opt = PT2BOX_RUN_OPTIONS_INIT;
	struct pt2box_tensor *in, *out[1] = {NULL};
	enum pt2box_status st;

	OK(pt2box_tensor_alloc(m, PT2BOX_FLOAT32, 1, (int64_t[]){16}, &in, &test_error));
	memset(pt2box_tensor_get_info(in)->data, 0, 16 * sizeof(float));
	*(float *)pt2box_tensor_get_info(in)->data = magic;
	opt.deadline_ms = deadline_ms;
	st = pt2box_run(m, &in, 1, &opt, out, &test_error);
	pt2box_tensor_free(out[0]);
	pt2box_tensor_free(in);
	return st;
}

static enum pt2box_status run(struct pt2box_model *m, float magic)
{
	return run_for(m, magic, 0);
}

/* What a verb prints about the broker; static. */
static const char *command(const char *verb)
{
	static char out[1 << 17];
	char line[512];
	size_t n;
	FILE *f;

	snprintf(line, sizeof(line), "%s/pt2box %s --socket %s", test_build_dir(), verb, broker.socket);
	f = popen(line, "r");
	assert_non_null(f);
	n = fread(out, 1, sizeof(out) - 1, f);
	out[n] = '\0';
	assert_int_equal(pclose(f), 0);
	return out;
}

/* The newest model is the first. */
static json_t *model_of(const json_t *ps, size_t i)
{
	return json_array_get(json_object_get(ps, "models"), i);
}

static const char *text(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key));
}

/* ---- the format of metrics ---- */

static bool is_name(char c)
{
	return (c >= 'a' && c <= 'z') || c == '_' || (c >= '0' && c <= '9');
}

/* One line of the format: {key="value",...}, escaped. Returns what is behind it. */
static const char *skip_labels(const char *p)
{
	if (*p != '{')
		return p;
	do {
		p++;
		assert_true(is_name(*p));
		while (is_name(*p))
			p++;
		assert_true(p[0] == '=' && p[1] == '"');
		for (p += 2; *p != '"'; p++) {
			assert_true(*p >= ' ');
			p += *p == '\\';
		}
		p++;
	} while (*p == ',');
	assert_true(*p == '}');
	return p + 1;
}

/* Every series has HELP and TYPE before it, all of one name stand together, none is there twice. */
static void check_format(const char *all)
{
	static char seen[1 << 17];
	char name[80] = "", type[96], series[600], *copy = strdup(all), *save;
	int n = 0;

	seen[0] = '\n';
	seen[1] = '\0';
	for (char *l = strtok_r(copy, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
		const char *p = l;
		char *rest;

		if (sscanf(l, "# HELP %79s", name) == 1) {
			snprintf(type, sizeof(type), "\n%s!", name);
			assert_null(strstr(seen, type));
			strcat(seen, type + 1);
			strcat(seen, "\n");
			l = strtok_r(NULL, "\n", &save);
			snprintf(type, sizeof(type), "# TYPE %s ", name);
			assert_int_equal(strncmp(l, type, strlen(type)), 0);
			continue;
		}
		while (is_name(*p))
			p++;
		assert_true((size_t)(p - l) == strlen(name) && strncmp(l, name, strlen(name)) == 0);
		p = skip_labels(p);
		snprintf(series, sizeof(series), "\n%.*s\n", (int)(p - l), l);
		if (strstr(seen, series))
			fail_msg("twice: %s", series);
		strcat(seen, series + 1);
		assert_true(*p == ' ');
		(void)strtod(p + 1, &rest);
		assert_true(rest > p + 1 && *rest == '\0');
		n++;
	}
	assert_true(n > 20);
	assert_true(all[strlen(all) - 1] == '\n');
	free(copy);
}

static void has(const char *all, const char *what)
{
	if (!strstr(all, what))
		fail_msg("%s is not in:\n%s", what, all);
}

/* ---- tests ---- */

static void test_crash(void **state)
{
	struct pt2box_model *good, *bad, *third;
	json_t *ps, *cause;
	const char *out;

	(void)state;
	assert_int_equal(load_hostile("benign", 3, &good), PT2BOX_OK);
	assert_int_equal(load_hostile("segfault", 3, &bad), PT2BOX_OK);
	assert_int_equal(load_hostile("segfault", 3, &third), PT2BOX_OK); /* of the same name */
	for (int i = 0; i < 3; i++)
		OK(run(good, 1));
	assert_int_equal(run(bad, MAGIC), PT2BOX_MODEL_CRASHED);
	OK(run(bad, 1));

	ps = test_ps(box);
	assert_string_equal(text(model_of(ps, 2), "health"), "healthy");
	assert_true(json_is_null(json_object_get(model_of(ps, 2), "cause")));
	assert_int_equal(json_integer_value(json_object_get(model_of(ps, 2), "runs")), 3);
	assert_string_equal(text(model_of(ps, 1), "health"), "degraded");
	cause = json_object_get(model_of(ps, 1), "cause");
	assert_string_equal(text(cause, "status"), "MODEL_CRASHED");
	assert_int_equal(json_integer_value(json_object_get(cause, "signal")), SIGSEGV);
	assert_non_null(strstr(text(cause, "text"), "SIGSEGV"));
	assert_int_equal(json_integer_value(json_object_get(json_object_get(model_of(ps, 1), "deaths"), "MODEL_CRASHED")), 1);
	assert_true(json_integer_value(json_object_get(json_object_get(ps, "broker"), "rss_bytes")) > 0);
	json_decref(ps);

	out = command("ps");
	has(out, "  degraded, ");
	has(out, " ago: MODEL_CRASHED: the model died by signal 11 (SIGSEGV)");
	out = command("metrics");
	check_format(out);
	has(out, "serial=\"1\",health=\"healthy\"} 1\n");
	has(out, "serial=\"2\",health=\"healthy\"} 0\n");
	has(out, "serial=\"2\",health=\"degraded\"} 1\n");
	has(out, "serial=\"2\",status=\"MODEL_CRASHED\"} 1\n");
	has(out, "resource=\"models\"} 3\n");
	out = command("top -n 2");
	assert_null(strchr(out, '\033'));
	has(out, "degraded");
	has(out, "MODEL_CRASHED: the model died");
	assert_non_null(strstr(strstr(out, "pt2box: 3 models") + 1, "pt2box: 3 models"));
	pt2box_unload(good);
	pt2box_unload(bad);
	pt2box_unload(third);
}

/* Its template ends by itself, again and again. */
static void test_given_up(void **state)
{
	struct pt2box_model *m;
	enum pt2box_status st;
	json_t *ps = NULL;
	int after = 0;

	(void)state;
	assert_int_equal(load_hostile("late_crash", 0, &m), PT2BOX_OK);
	for (long until = test_now_ms() + 20000; test_now_ms() < until; usleep(20000)) {
		json_decref(ps);
		ps = test_ps(box);
		if (strcmp(text(model_of(ps, 0), "health"), "quarantined") == 0)
			break;
	}
	assert_string_equal(text(model_of(ps, 0), "health"), "quarantined");
	assert_string_equal(text(model_of(ps, 0), "state"), "broken");
	assert_string_equal(text(json_object_get(model_of(ps, 0), "cause"), "status"), "MODEL_CRASHED");
	json_decref(ps);
	has(command("ps"), "  quarantined, ");
	has(command("metrics"), "health=\"quarantined\"} 1\n");
	/* Who asks is told at once. */
	for (; after < 3; after++) {
		st = run(m, 1);
		assert_int_equal(st, PT2BOX_MODEL_CRASHED);
	}
	pt2box_unload(m);
}

/* ---- more than there is room for ---- */

/* The worker hangs, so that nothing moves: what is over the limit is said at once, and what waits is not lost. */
static void test_too_many_runs(void **state)
{
	enum { SLOTS = 16, MOST = PT2BOX_QUEUED_RUNS_MAX + SLOTS };
	static struct pt2box_run *runs[MOST], *more;
	struct pt2box_tensor *hangs, *in, *out[1] = {NULL};
	struct rlimit files;
	struct pt2box_model *m;
	int n = 0, last;

	(void)state;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	if (files.rlim_cur < MOST + 100)
		skip();
	assert_int_equal(load_hostile("loop", 3, &m), PT2BOX_OK);
	OK(pt2box_tensor_alloc(m, PT2BOX_FLOAT32, 1, (int64_t[]){16}, &hangs, &test_error));
	OK(pt2box_tensor_alloc(m, PT2BOX_FLOAT32, 1, (int64_t[]){16}, &in, &test_error));
	memset(pt2box_tensor_get_info(in)->data, 0, 16 * sizeof(float));
	memset(pt2box_tensor_get_info(hangs)->data, 0, 16 * sizeof(float));
	*(float *)pt2box_tensor_get_info(hangs)->data = MAGIC;
	*(float *)pt2box_tensor_get_info(in)->data = 1;
	OK(pt2box_run_start(m, &hangs, 1, NULL, &runs[n], &test_error));
	for (n = 1; n < MOST; n++)
		OK(pt2box_run_start(m, &in, 1, NULL, &runs[n], &test_error));
	for (int i = 0; i < 3; i++)
		REFUSED(pt2box_run_start(m, &in, 1, NULL, &more, &test_error), PT2BOX_LIMIT, "wait already");
	pt2box_run_cancel(runs[0]);
	assert_int_equal(pt2box_run_finish(runs[0], out, &test_error), PT2BOX_CANCELLED);
	for (last = 1; last < n; last++) {
		OK(pt2box_run_finish(runs[last], out, &test_error));
		pt2box_tensor_free(out[0]);
	}
	OK(run(m, 1));
	pt2box_tensor_free(hangs);
	pt2box_tensor_free(in);
	pt2box_unload(m);
}

static int begin_small(void **state)
{
	(void)state;
	begin_with("tenant default { models = 2 workers = 3 runs_in_flight = 20 connections = 3 }\n");
	return 0;
}

/* Loads, workers, sessions' runs, connections: each beyond its limit is refused at once, and is served when there is room. */
static void test_too_much(void **state)
{
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT;
	struct pt2box_model *m[3];
	struct pt2box *more[3];
	long began;

	(void)state;
	assert_int_equal(load_hostile("benign", 3, &m[0]), PT2BOX_OK);
	OK(run(m[0], 1));
	began = test_now_ms();
	opt.runners = 3;
	REFUSED(pt2box_load_path(box, TEST_FIXTURES "/mlp/model.pt2", &opt, &m[1], &test_error), PT2BOX_LIMIT, "workers");
	opt.runners = 1;
	OK(pt2box_load_path(box, TEST_FIXTURES "/mlp/model.pt2", &opt, &m[1], &test_error));
	for (int i = 0; i < 50; i++)
		REFUSED(pt2box_load_path(box, TEST_FIXTURES "/mlp/model.pt2", &opt, &m[2], &test_error), PT2BOX_LIMIT, "models");
	OK(pt2box_open(broker.socket, &more[0], &test_error));
	OK(pt2box_open(broker.socket, &more[1], &test_error));
	assert_true(pt2box_open(broker.socket, &more[2], &test_error) != PT2BOX_OK);
	assert_in_range(test_now_ms() - began, 0, 20000);
	pt2box_close(more[0]);
	pt2box_close(more[1]);
	OK(run(m[0], 1));
	pt2box_unload(m[0]);
	OK(pt2box_load_path(box, TEST_FIXTURES "/mlp/model.pt2", &opt, &m[2], &test_error));
	pt2box_unload(m[1]);
	pt2box_unload(m[2]);
}

/* ---- the audit log ---- */

static char audit[64];

static int begin_audited(void **state)
{
	char config[200];

	(void)state;
	strcpy(audit, "/tmp/pt2box-audit-XXXXXX");
	close(mkstemp(audit));
	snprintf(config, sizeof(config), "audit = \"%s\"\ntenant default {}\n", audit);
	begin_with(config);
	return 0;
}

static int end_audited(void **state)
{
	unlink(audit);
	return end(state);
}

/* The next line of the log; json_decref(). */
static json_t *event(FILE *f, const char *name)
{
	char line[8192];
	json_t *o;

	if (!fgets(line, sizeof(line), f))
		fail_msg("there is no line for %s", name);
	assert_true(line[strlen(line) - 1] == '\n');
	o = json_loads(line, 0, NULL);
	assert_non_null(o);
	assert_string_equal(text(o, "event"), name);
	assert_int_equal(json_integer_value(json_object_get(o, "uid")), getuid());
	assert_int_equal(json_integer_value(json_object_get(o, "pid")), getpid());
	assert_int_equal(strlen(text(o, "time")), strlen("2026-01-01T00:00:00.000Z"));
	assert_true(text(o, "time")[0] == '2' && text(o, "time")[23] == 'Z');
	return o;
}

static void sha256_of(const char *path, char ret[65])
{
	char line[300];
	FILE *f;

	snprintf(line, sizeof(line), "sha256sum %s", path);
	f = popen(line, "r");
	assert_non_null(f);
	assert_int_equal(fread(ret, 1, 64, f), 64);
	ret[64] = '\0';
	while (fgetc(f) != EOF)
		;
	assert_int_equal(pclose(f), 0);
}

static void test_audit(void **state)
{
	static const char mlp[] = TEST_FIXTURES "/mlp/model.pt2";
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT;
	struct pt2box_model *m;
	char sha[65];
	json_t *o;
	FILE *f;

	(void)state;
	OK(pt2box_load_path(box, mlp, NULL, &m, &test_error));
	pt2box_unload(m);
	opt.profile = "lax";
	assert_int_equal(pt2box_load_path(box, mlp, &opt, &m, &test_error), PT2BOX_USAGE);
	assert_int_equal(pt2box_load_path(box, "/etc/passwd", NULL, &m, &test_error), PT2BOX_PKG_REJECTED);
	assert_int_equal(load_hostile("segfault", 3, &m), PT2BOX_OK);
	assert_int_equal(run(m, MAGIC), PT2BOX_MODEL_CRASHED);
	OK(run(m, 1));
	pt2box_unload(m);
	opt = (struct pt2box_load_options)PT2BOX_LOAD_OPTIONS_INIT;
	assert_int_equal(load_hostile("loop", 3, &m), PT2BOX_OK);
	assert_int_equal(run_for(m, MAGIC, 200), PT2BOX_MODEL_TIMEOUT);
	pt2box_unload(m);

	f = fopen(audit, "re");
	assert_non_null(f);
	json_decref(event(f, "load"));
	o = event(f, "loaded");
	sha256_of(mlp, sha);
	assert_string_equal(text(o, "sha256"), sha);
	assert_string_equal(text(o, "name"), "model");
	json_decref(o);
	json_decref(event(f, "unload"));
	o = event(f, "refused");
	assert_string_equal(text(o, "status"), "USAGE");
	json_decref(o);
	json_decref(event(f, "load"));
	o = event(f, "refused");
	assert_string_equal(text(o, "status"), "PKG_REJECTED");
	json_decref(o);
	json_decref(event(f, "load"));
	json_decref(event(f, "loaded"));
	o = event(f, "died");
	assert_string_equal(text(o, "status"), "MODEL_CRASHED");
	assert_string_equal(text(o, "process"), "worker 0");
	assert_int_equal(json_integer_value(json_object_get(o, "signal")), SIGSEGV);
	assert_non_null(strstr(text(o, "cause"), "SIGSEGV"));
	json_decref(o);
	json_decref(event(f, "unload"));
	json_decref(event(f, "load"));
	json_decref(event(f, "loaded"));
	o = event(f, "killed");
	assert_true(strcmp(text(o, "status"), "CANCELLED") == 0 || strcmp(text(o, "status"), "MODEL_TIMEOUT") == 0);
	json_decref(o);
	json_decref(event(f, "unload"));
	assert_int_equal(fgetc(f), EOF);

	/* The operator empties it: what comes next is at its beginning. */
	assert_int_equal(truncate(audit, 0), 0);
	OK(pt2box_load_path(box, mlp, NULL, &m, &test_error));
	pt2box_unload(m);
	f = freopen(audit, "re", f);
	assert_non_null(f);
	json_decref(event(f, "load"));
	fclose(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_crash, begin, end),
		cmocka_unit_test_setup_teardown(test_given_up, begin, end),
		cmocka_unit_test_setup_teardown(test_too_many_runs, begin, end),
		cmocka_unit_test_setup_teardown(test_too_much, begin_small, end),
		cmocka_unit_test_setup_teardown(test_audit, begin_audited, end_audited),
	};

	if (test_programs_init() != 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
