/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration: what it means, and that each mistake in it is told with its line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/config.h"
#include "tests/lib/check.h"

static struct pt2box_error err;

static struct pb_service_conf *parse(const char *text)
{
	struct pb_service_conf *c = NULL;
	FILE *f = fmemopen((void *)text, strlen(text), "r");
	pb_status st;

	assert_non_null(f);
	err = (struct pt2box_error){.status = PT2BOX_OK};
	st = pb_config_parse(f, "file", &c, &err);
	fclose(f);
	assert_int_equal(st, err.status);
	assert_true((st == PT2BOX_OK) == (c != NULL));
	return c;
}

/* Every value of a tenant and a model, and what is left out. */
static void test_values(void **state)
{
	struct pb_service_conf *c = parse("socket = \"/run/x\"\nsocket_mode = 0660\nsocket_group = root\n"
					  "worker_memory = 2G\nrun_deadline_ms = 5\nrequire = {\"Landlock\", pids}\n"
					  "tenant a { uid = {1000, root} gid = 7 models = 3 workers = 4 constants_bytes = 1K\n"
					  "lanes_bytes = 2M runs_in_flight = 9 fds = 11 connections = 2 cpu_weight = 50\n"
					  "cpu_max = 150 run_deadline_ms = 7 worker_memory = 1G profiles = {strict}\n"
					  "backends = native ops = false upload = no isolate = request operator = yes }\n"
					  "tenant default {}\n"
					  "model m { path = /a/b tenants = {a, default} share = public preload = true runners = 2\n"
					  "isolate = request profile = strict backend = native model = x constants = /c }\n"
					  "model n { path = '/a b' }\n");
	const struct pb_tenant_conf *a, *d;
	const struct pb_model_conf *m;

	(void)state;
	if (!c)
		fail_msg("%s", err.text);
	assert_string_equal(c->socket, "/run/x");
	assert_int_equal(c->mode, 0660);
	assert_string_equal(c->group, "root");
	assert_int_equal(c->memory_bytes, 2ll << 30);
	assert_int_equal(c->run_deadline_ms, 5);
	assert_int_equal(c->load_deadline_ms, 0);
	assert_int_equal(c->n_required, 2);
	assert_string_equal(c->required[1], "pids");
	assert_int_equal(c->n_tenants, 2);
	a = &c->tenants[0];
	assert_int_equal(a->n_uids, 2);
	assert_int_equal(a->uids[0], 1000);
	assert_int_equal(a->uids[1], 0);
	assert_int_equal(a->n_gids, 1);
	assert_int_equal(a->limit[PB_LIMIT_MODELS], 3);
	assert_int_equal(a->limit[PB_LIMIT_WORKERS], 4);
	assert_int_equal(a->limit[PB_LIMIT_CONSTANTS], 1024);
	assert_int_equal(a->limit[PB_LIMIT_LANES], 2 << 20);
	assert_int_equal(a->limit[PB_LIMIT_RUNS], 9);
	assert_int_equal(a->limit[PB_LIMIT_FDS], 11);
	assert_int_equal(a->limit[PB_LIMIT_CONNECTIONS], 2);
	assert_int_equal(a->cpu_weight, 50);
	assert_int_equal(a->cpu_max, 150);
	assert_int_equal(a->run_deadline_ms, 7);
	assert_int_equal(a->worker_memory, 1ll << 30);
	assert_int_equal(a->profiles, PB_PROFILE_STRICT);
	assert_int_equal(a->backends, PB_BACKEND_NATIVE);
	assert_true(!a->ops && !a->upload && a->isolate && a->is_operator);
	d = c->strangers;
	assert_ptr_equal(d, &c->tenants[1]);
	assert_int_equal(d->limit[PB_LIMIT_MODELS], 256);
	assert_int_equal(d->profiles, PB_PROFILES_ALL);
	assert_true(d->ops && d->upload && !d->isolate && !d->is_operator);
	m = &c->models[0];
	assert_true(m->is_public && m->preload && m->isolate);
	assert_int_equal(m->n_tenants, 2);
	assert_string_equal(m->model, "x");
	assert_string_equal(m->constants, "/c");
	assert_string_equal(m->profile, "strict");
	assert_int_equal(m->runners, 2);
	m = &c->models[1];
	assert_string_equal(m->path, "/a b");
	assert_true(!m->is_public && m->n_tenants == 0 && !m->backend[0] && !m->runners);
	pb_config_free(c);
}

/* One mistake each: where it is, and what the line says. */
static void test_mistakes(void **state)
{
	static const struct {
		const char *text, *where, *says;
	} rows[] = {
		{"verbose = true\nsokket = /x\n", "file:2:", "no such option 'sokket'"},
		{"tenant a {\nuid = 1\nmodel = 3\n}\n", "file:3:", "no such option 'model'"},
		{"tenant a {\nuid = 1\nmodels = many\n}\n", "file:3:", "models must be a number, not \"many\""},
		{"tenant a {\nuid = 1\nmodels = -1\n}\n", "file:3:", "models must be a number, not \"-1\""},
		{"tenant a {\nuid = 1\nmodels = 8G\n}\n", "file:3:", "models must be a number, not \"8G\""},
		{"tenant a {\nuid = 1\nlanes_bytes = 8X\n}\n", "file:3:", "lanes_bytes must be a number of bytes"},
		{"tenant a {\nuid = 1\nlanes_bytes = 9999999999T\n}\n", "file:3:", "lanes_bytes must be a number of bytes"},
		{"tenant a {\nuid = nobody-of-that-name\n}\n", "file:2:", "there is no user \"nobody-of-that-name\""},
		{"tenant a {\nuid = 4294967295\n}\n", "file:2:", "there is no user"},
		{"tenant a {\ngid = nobody-of-that-name\n}\n", "file:2:", "there is no group"},
		{"tenant a {\nuid = 1\ncpu_weight = 0\n}\n", "file:3:", "cpu_weight must be 1 to 10000, not 0"},
		{"tenant a {\nuid = 1\nprofiles = {strict, loose}\n}\n", "file:3:", "profiles must be default or strict, not \"loose\""},
		{"tenant a {\nuid = 1\nops = perhaps\n}\n", "file:3:", "ops"},
		{"tenant a {}\n", "file:1:", "tenant a needs a uid or a gid"},
		{"tenant default { uid = 1 }\n", "file:1:", "it has no uid and no gid"},
		{"tenant a { uid = 1 }\ntenant b { uid = {2, 1} }\n", "file:2:", "tenants a and b both have uid 1"},
		{"tenant a { gid = 1 }\ntenant b { gid = 1 }\n", "file:2:", "tenants a and b both have gid 1"},
		{"tenant a { uid = 1 }\ntenant a { uid = 2 }\n", "file:2:", "duplicate title 'a'"},
		{"tenant \"a b\" { uid = 1 }\n", "file:1:", "a name has 1 to 64 letters"},
		{"worker_memory = 1G\ntenant a { uid = 1 worker_memory = 2G }\n", "file:2:", "is more than everybody's"},
		{"model m {\npath = model.pt2\n}\n", "file:2:", "path must be an absolute path"},
		{"model m {\n}\n", "file:2:", "model m needs a path"},
		{"model m {\npath = /a preload = true }\n", "file:2:", "preload is for share = public"},
		{"model m { path = /a tenants = {a} }\n", "file:1:", "there is no tenant a"},
		{"model m { path = /a\nrunners = 65 }\n", "file:2:", "runners must be 1 to 64, not 65"},
		{"socket_mode = 0999\n", "file:1:", "socket_mode must be octal"},
		{"run_deadline_ms = 0\n", "file:1:", "run_deadline_ms must be 1 to 86400000, not 0"},
		{"tenant a { uid = 1\n", "file:", ""},
		{"socket = \"/x\n", "file:", ""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct pb_service_conf *c = parse(rows[i].text);

		if (c)
			fail_msg("taken: %s", rows[i].text);
		assert_int_equal(err.status, PT2BOX_USAGE);
		if (strncmp(err.text, rows[i].where, strlen(rows[i].where)) != 0 || !strstr(err.text, rows[i].says))
			fail_msg("%s: %s, not %s %s", rows[i].text, err.text, rows[i].where, rows[i].says);
	}
}

/* Without a section for strangers they are refused; what is printed is a configuration, and the same one. */
static void test_printed(void **state)
{
	static const char text[] = "socket = \"/run/a \\\"b\"\ntenant a { uid = {1, 2} fds = 5 cpu_max = 20 }\n"
				   "model m { path = /a/b tenants = a share = public preload = true backend = torch }\n";
	struct pb_service_conf *c = parse(text);
	char *first = NULL, *second = NULL;
	size_t n;

	(void)state;
	assert_non_null(c);
	assert_null(c->strangers);
	for (char **out = &first; out; out = out == &first ? &second : NULL) {
		FILE *f = open_memstream(out, &n);

		pb_config_print(f, c);
		fclose(f);
		pb_config_free(c);
		c = parse(*out);
		if (!c)
			fail_msg("%s: %s", err.text, *out);
	}
	assert_string_equal(first, second);
	assert_non_null(strstr(first, "# users that no tenant names are refused"));
	pb_config_free(c);
	free(first);
	free(second);
}

static void test_the_example(void **state)
{
	struct pb_service_conf *c = NULL;
	FILE *f = fopen("docs/pt2box.conf", "re");

	(void)state;
	assert_non_null(f);
	if (pb_config_parse(f, "docs/pt2box.conf", &c, &err))
		fail_msg("%s", err.text);
	fclose(f);
	assert_non_null(c->strangers);
	assert_int_equal(c->n_tenants, 2);
	assert_int_equal(c->tenants[1].limit[PB_LIMIT_RUNS], 65536);
	pb_config_free(c);
}

/* What others may change is not the operator's. */
static void test_whose_file(void **state)
{
	struct pb_service_conf *c = NULL;
	char path[] = "/tmp/pt2box-conf-XXXXXX";
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "verbose = true\n", 15), 15);
	close(fd);
	assert_int_equal(chmod(path, 0666), 0);
	assert_int_equal(pb_config_read(path, &c, &err), PT2BOX_DENIED);
	assert_int_equal(chmod(path, 0620), 0);
	assert_int_equal(pb_config_read(path, &c, &err), PT2BOX_DENIED);
	assert_int_equal(chmod(path, 0640), 0);
	assert_int_equal(pb_config_read(path, &c, &err), PT2BOX_OK);
	pb_config_free(c);
	if (geteuid() == 0) {
		assert_int_equal(chown(path, 12345, 0), 0);
		assert_int_equal(pb_config_read(path, &c, &err), PT2BOX_DENIED);
	}
	unlink(path);
	assert_int_equal(pb_config_read("/nowhere/x", &c, &err), PT2BOX_SYSTEM);
	assert_int_equal(pb_config_read("/tmp", &c, &err), PT2BOX_USAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_values),      CHECK_TEST(test_mistakes),   CHECK_TEST(test_printed),
		CHECK_TEST(test_the_example), CHECK_TEST(test_whose_file),
	};

	return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
