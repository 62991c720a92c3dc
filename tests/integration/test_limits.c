/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A configured broker and real users: who they are is what the kernel says, what they get is what the configuration says,
 * what they held is nobody's when they have gone. A fresh fork for every run. Needs root, to be several users.
 */
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/broker.h"
#include "tests/lib/loaded.h"
#include "tests/lib/tensors.h"

#define ALICE 20001u
#define BOB 20002u
#define CAROL 20003u /* in a group that a tenant names */
#define MALLORY 20004u
#define DAVE_GROUP 20100u

static struct test_broker broker;

/* ---- users ---- */

/* Run @f as another user; what fails there fails here. */
static void as_user(uid_t uid, gid_t group, void (*f)(void))
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		if (setgroups(group ? 1 : 0, &group) != 0 || setresgid(uid, uid, uid) != 0 || setresuid(uid, uid, uid) != 0)
			_exit(99);
		f();
		fflush(NULL);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (status != 0)
		fail_msg("as uid %u: status 0x%x", uid, (unsigned)status);
}

/* In a child: cmocka's own checks would report to nobody. */
#define MUST(what)                                                                                                     \
	do {                                                                                                           \
		if (!(what)) {                                                                                         \
			fprintf(stderr, "%s:%d: %s; %s\n", __FILE__, __LINE__, #what, test_error.text);                \
			_exit(1);                                                                                      \
		}                                                                                                      \
	} while (0)

static struct pt2box *open_broker(void)
{
	struct pt2box *c = NULL;

	MUST(pt2box_open(broker.socket, &c, &test_error) == PT2BOX_OK);
	return c;
}

static bool run_once(struct pt2box_model *m)
{
	struct pt2box_tensor *in, *out[4] = {NULL};
	int64_t sizes[] = {4, 64};
	bool ok;

	MUST(pt2box_tensor_alloc(m, PT2BOX_FLOAT32, 2, sizes, &in, &test_error) == PT2BOX_OK);
	memset(pt2box_tensor_get_info(in)->data, 0, 4 * 64 * sizeof(float));
	ok = pt2box_run(m, &in, 1, NULL, out, &test_error) == PT2BOX_OK;
	for (int i = 0; i < 4; i++)
		pt2box_tensor_free(out[i]);
	pt2box_tensor_free(in);
	return ok;
}

static void uses(const char *tenant)
{
	char limit[100];
	struct pt2box *c = open_broker();
	struct pt2box_model *m, *second;

	MUST(pt2box_load_named(c, "mlp", NULL, &m, &test_error) == PT2BOX_OK);
	MUST(run_once(m) && run_once(m));
	MUST(pt2box_load_named(c, "mlp", NULL, &second, &test_error) == PT2BOX_LIMIT);
	snprintf(limit, sizeof(limit), "tenant %s may have at most 1 models (models)", tenant);
	MUST(strstr(test_error.text, limit));
	pt2box_unload(m);
	MUST(pt2box_load_named(c, "mlp", NULL, &m, &test_error) == PT2BOX_OK);
	MUST(run_once(m));
	pt2box_unload(m);
	MUST(pt2box_load_path(c, TEST_FIXTURES "/mlp/model.pt2", NULL, &m, &test_error) == PT2BOX_DENIED);
	_exit(0); /* not in order: the connection just ends */
}

static void uses_what_is_offered(void)
{
	uses("alice");
}

static void uses_what_is_offered_by_group(void)
{
	uses("group");
}

/* Neither that there is such a model, nor anything about it. */
static void probes_names(void)
{
	struct pt2box *c = open_broker();
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT;
	struct pt2box_error absent;
	struct pt2box_model *m;

	MUST(pt2box_load_named(c, "no-such-model", NULL, &m, &absent) == PT2BOX_NOT_FOUND);
	MUST(pt2box_load_named(c, "mlp", NULL, &m, &test_error) == PT2BOX_NOT_FOUND);
	MUST(strcmp(absent.text, test_error.text) == 0);
	opt.runners = 64; /* too many for that model, and for this tenant */
	opt.profile = "default";
	MUST(pt2box_load_named(c, "mlp", &opt, &m, &test_error) == PT2BOX_NOT_FOUND);
	MUST(strcmp(absent.text, test_error.text) == 0);
	MUST(pt2box_load_named(c, "public", NULL, &m, &test_error) == PT2BOX_OK);
	MUST(run_once(m));
	pt2box_unload(m);
	pt2box_close(c);
}

static void is_refused(void)
{
	struct pt2box *c;

	MUST(pt2box_open(broker.socket, &c, &test_error) != PT2BOX_OK);
}

static void sees_only_itself(void)
{
	struct pt2box *c = open_broker();
	json_t *o = test_ps(c), *t = json_object_get(o, "tenants");

	MUST(json_array_size(json_object_get(o, "models")) == 0);
	MUST(json_array_size(t) == 1);
	MUST(strcmp(json_string_value(json_object_get(json_array_get(t, 0), "name")), "bob") == 0);
	json_decref(o);
	pt2box_close(c);
}

/* ---- what the operator sees ---- */

static long long used(const json_t *ps, const char *tenant, const char *key)
{
	const json_t *t;
	size_t i;

	json_array_foreach(json_object_get(ps, "tenants"), i, t)
		if (strcmp(json_string_value(json_object_get(t, "name")), tenant) == 0)
			return json_integer_value(json_object_get(json_object_get(t, key), "used"));
	return -1;
}

/* The tenant holds nothing; processes may take a moment to end. */
static void expect_nothing_of(const char *tenant)
{
	static const char *const keys[] = {"connections", "models", "workers", "constants_bytes", "lanes_bytes",
					   "runs_in_flight", "fds"};
	struct pt2box *c;
	long long left = 1;

	OK(pt2box_open(broker.socket, &c, &test_error));
	for (int i = 0; i < 200 && left; i++) {
		json_t *ps = test_ps(c);

		left = 0;
		for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++)
			left += used(ps, tenant, keys[k]);
		json_decref(ps);
		usleep(20000);
	}
	pt2box_close(c);
	assert_int_equal(left, 0);
}

static void test_offered(void **state)
{
	(void)state;
	as_user(ALICE, 0, uses_what_is_offered);
	expect_nothing_of("alice");
	as_user(CAROL, DAVE_GROUP, uses_what_is_offered_by_group);
	expect_nothing_of("group");
}

static void test_names_are_not_told(void **state)
{
	(void)state;
	as_user(BOB, 0, probes_names);
	expect_nothing_of("bob");
}

static void test_strangers(void **state)
{
	(void)state;
	as_user(MALLORY, 0, is_refused);
	as_user(MALLORY, 30000, is_refused);
}

static void test_ps_of_others(void **state)
{
	struct pt2box_model *m;
	struct pt2box *c;
	json_t *ps;

	(void)state;
	OK(pt2box_open(broker.socket, &c, &test_error));
	OK(pt2box_load_path(c, TEST_FIXTURES "/mlp/model.pt2", NULL, &m, &test_error));
	as_user(BOB, 0, sees_only_itself);
	ps = test_ps(c);
	assert_int_equal(json_array_size(json_object_get(ps, "tenants")), 5); /* and the repository */
	assert_int_equal(used(ps, "root", "models"), 1);
	assert_int_equal(used(ps, "root", "workers"), 1);
	assert_int_equal(used(ps, "root", "connections"), 1);
	assert_true(used(ps, "root", "constants_bytes") > 1000);
	assert_true(used(ps, "root", "lanes_bytes") > 1000);
	assert_true(used(ps, "root", "runs_in_flight") >= 16);
	json_decref(ps);
	pt2box_unload(m);
	pt2box_close(c);
}

/* A broker that ends takes its own socket away, not the one that another has put there. */
static void test_successor_keeps_its_socket(void **state)
{
	struct test_broker old, next;
	struct test_paths paths;
	struct pt2box *c;

	(void)state;
	test_paths_init(&paths);
	assert_int_equal(test_broker_start(&old, paths.programs), 0);
	assert_int_equal(test_broker_start(&next, paths.programs), 0);
	OK(pt2box_open(next.socket, &c, &test_error)); /* it has seen what is its own */
	pt2box_close(c);
	assert_int_equal(rename(next.socket, old.socket), 0);
	assert_int_equal(kill(old.pid, SIGTERM), 0);
	assert_int_equal(waitpid(old.pid, NULL, 0), old.pid);
	OK(pt2box_open(old.socket, &c, &test_error));
	pt2box_close(c);
	assert_int_equal(rename(old.socket, next.socket), 0);
	assert_int_equal(kill(next.pid, SIGTERM), 0);
	assert_int_equal(waitpid(next.pid, NULL, 0), next.pid);
	assert_int_equal(access(next.socket, F_OK), -1);
	test_remove_tree(old.dir);
	test_remove_tree(next.dir);
}

/* ---- a fresh fork for every run ---- */

static int count(struct loaded *l)
{
	int n;

	OK(loaded_run(l, l->m));
	n = (int)fixture_at(pt2box_tensor_get_info(l->out[1]), 0);
	loaded_free(l);
	return n;
}

/* The model counts its runs in a buffer that it mutates. */
static void test_isolate(void **state)
{
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT;
	struct pt2box_model *session;
	struct loaded l;
	int first;

	(void)state;
	loaded_open(&l, NULL, "mutbuf", 1);
	first = count(&l);
	assert_int_equal(count(&l), first + 1);
	pt2box_unload(l.m);
	for (opt.runners = 1; opt.runners <= 3; opt.runners += 2) {
		opt.isolate = PT2BOX_ISOLATE_REQUEST;
		OK(pt2box_load_path(l.c, l.f.package, &opt, &l.m, &test_error));
		for (int i = 0; i < 20; i++)
			assert_int_equal(count(&l), first);
		REFUSED(pt2box_session_open(l.m, &session, &test_error), PT2BOX_USAGE, "isolate=request");
		pt2box_unload(l.m);
	}
	opt.isolate = PT2BOX_ISOLATE_NONE;
	OK(pt2box_load_path(l.c, l.f.package, &opt, &l.m, &test_error));
	loaded_close(&l);
}

/* ---- the whole ---- */

static int begin(void **state)
{
	struct test_paths paths;
	char config[2000], cwd[300];

	(void)state;
	alarm(200);
	if (getuid() != 0)
		return 0;
	test_paths_init(&paths);
	if (!getcwd(cwd, sizeof(cwd)))
		return -1;
	snprintf(config, sizeof(config),
		 "tenant root { uid = 0 }\n"
		 "tenant alice { uid = %u models = 1 workers = 2 upload = false }\n"
		 "tenant bob { uid = %u }\n"
		 "tenant group { gid = %u models = 1 upload = false }\n"
		 "model mlp { path = \"%s/%s/mlp/model.pt2\" tenants = {alice, group} runners = 2 }\n"
		 "model public { path = \"%s/%s/mlp/model.pt2\" share = public preload = true }\n",
		 ALICE, BOB, DAVE_GROUP, cwd, TEST_FIXTURES, cwd, TEST_FIXTURES);
	return test_broker_start_configured(&broker, paths.programs, config);
}

static int end(void **state)
{
	int left;

	(void)state;
	if (getuid() != 0)
		return 0;
	left = test_broker_stop(&broker);
	test_remove_tree(broker.dir);
	return left;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_offered),	     cmocka_unit_test(test_names_are_not_told),
		cmocka_unit_test(test_strangers),    cmocka_unit_test(test_ps_of_others),
		cmocka_unit_test(test_isolate),	     cmocka_unit_test(test_successor_keeps_its_socket),
	};
	const struct CMUnitTest isolate[] = {cmocka_unit_test(test_isolate)};

	if (test_programs_init())
		return 1;
	return getuid() == 0 ? cmocka_run_group_tests_name("limits", tests, begin, end) :
			       cmocka_run_group_tests_name("limits", isolate, NULL, NULL);
}
