/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tenants, with the peers played by the test: every limit is kept where a thing is made and returned where it ends (world_end()
 * looks whether all are at 0); models by name; a fresh fork for every run.
 */
#include "tests/unit/broker/world.h"

#include <stdio.h>

static struct pb_tenant_conf conf;
static struct pb_service_conf service;

/* A broker of which this user is a stranger, with the limits that @set sets. */
static void begin_with(void (*set)(struct pb_tenant_conf *c))
{
	pb_tenant_conf_init(&conf, "default");
	if (set)
		set(&conf);
	service = (struct pb_service_conf){.tenants = &conf, .n_tenants = 1, .strangers = &conf};
	world_service = &service;
	world_begin();
	world_service = NULL;
}

static void send_load(uint64_t request, uint32_t runners, void (*change)(struct pb_msg_load *m))
{
	struct pb_msg_load m = {.request = request, .model = "model", .backend = "auto", .profile = "default",
				.runners = runners, .device = -1};
	int fd = memfd_create("package", MFD_CLOEXEC);

	if (change)
		change(&m);
	say(w.client, PB_MSG_load, &m, &fd, m.name[0] ? 0 : 1);
	close(fd);
}

static void refused(pb_status st, const char *text)
{
	const union pb_msg *m = expect(w.client, PB_CLIENT, PB_MSG_failed);

	if (m->failed.status != st || !strstr(m->failed.text, text))
		fail_msg("%s: %s, not %s", pt2box_status_name((pb_status)m->failed.status), m->failed.text, text);
}

/* ---- limits ---- */

static void one_model(struct pb_tenant_conf *c)
{
	c->limit[PB_LIMIT_MODELS] = 1;
}

static void test_models(void **state)
{
	(void)state;
	begin_with(one_model);
	load(1, false);
	send_load(2, 1, NULL);
	refused(PT2BOX_LIMIT, "may have at most 1 models (models)");
	say(w.client, PB_MSG_unload, &(struct pb_msg_unload){.request = 3, .model = w.model}, NULL, 0);
	(void)expect(w.client, PB_CLIENT, PB_MSG_done);
	/* At once, though its processes still end. */
	assert_int_equal(w.b.clients->tenant->ending, 1);
	send_load(4, 1, NULL);
	(void)expect(w.spawner, PB_SPAWNER, PB_MSG_spawn_intake);
	pb_fds_close(&w.rx.fds);
	world_end();
}

static void three_workers(struct pb_tenant_conf *c)
{
	c->limit[PB_LIMIT_WORKERS] = 3;
}

static void test_workers(void **state)
{
	struct pb_msg_session_open open = {.request = 5};

	(void)state;
	begin_with(three_workers);
	send_load(2, 4, NULL);
	refused(PT2BOX_LIMIT, "may have at most 3 workers (workers)");
	load(2, false);
	open.model = w.model;
	say(w.client, PB_MSG_session_open, &open, NULL, 0);
	(void)fork_comes();
	assert_int_equal(w.b.clients->tenant->used[PB_LIMIT_WORKERS], 3);
	open.request = 6;
	say(w.client, PB_MSG_session_open, &open, NULL, 0);
	refused(PT2BOX_LIMIT, "workers");
	world_end();
}

/* A model with state has one worker, however many were asked for. */
static void test_workers_of_state(void **state)
{
	(void)state;
	begin_with(NULL);
	load(1, true);
	assert_int_equal(w.b.clients->tenant->used[PB_LIMIT_WORKERS], 1);
	world_end();
}

static void few_bytes(struct pb_tenant_conf *c)
{
	c->limit[PB_LIMIT_CONSTANTS] = 3 * CONST_BYTES;
	c->limit[PB_LIMIT_LANES] = 5 * PB_LANE_BYTES_MIN;
	c->limit[PB_LIMIT_RUNS] = 20;
}

static void test_bytes(void **state)
{
	struct pb_msg_read_constants read = {.request = 9};
	struct pb_msg_lane_open lane = {.request = 10, .up_bytes = 1, .down_bytes = 1};
	struct pb_msg_lane_grow grow = {.request = 11, .bytes = 1};
	const uint64_t *used;
	uint64_t held;

	(void)state;
	begin_with(few_bytes);
	used = w.b.clients->tenant->used;
	load(1, false);
	held = used[PB_LIMIT_CONSTANTS];
	assert_true(held > CONST_BYTES); /* code, and what describes it */
	read.model = lane.model = w.model;
	say(w.client, PB_MSG_read_constants, &read, NULL, 0);
	(void)expect(w.worker[0], PB_WORKER, PB_MSG_constants_extract);
	pb_fds_close(&w.rx.fds);
	assert_int_equal(used[PB_LIMIT_CONSTANTS], held + CONST_BYTES + 1);
	read.request = 12;
	say(w.client, PB_MSG_read_constants, &read, NULL, 0);
	refused(PT2BOX_LIMIT, "bytes of packages and constants (constants_bytes)");
	/* Two lanes of 16 slots and of what is left of 20; the third has no more runs, a segment no more bytes. */
	say(w.client, PB_MSG_lane_open, &lane, NULL, 0);
	assert_int_equal(expect(w.client, PB_CLIENT, PB_MSG_lane)->lane.slots, 16);
	lane.model = w.rx.msg.lane.lane;
	grow.lane = w.rx.msg.lane.lane;
	pb_fds_close(&w.rx.fds);
	lane.model = w.model;
	say(w.client, PB_MSG_lane_open, &lane, NULL, 0);
	assert_int_equal(expect(w.client, PB_CLIENT, PB_MSG_lane)->lane.slots, 4);
	pb_fds_close(&w.rx.fds);
	say(w.client, PB_MSG_lane_open, &lane, NULL, 0);
	refused(PT2BOX_LIMIT, "bytes of lanes (lanes_bytes)");
	say(w.client, PB_MSG_lane_grow, &grow, NULL, 0);
	(void)expect(w.client, PB_CLIENT, PB_MSG_segment);
	say(w.client, PB_MSG_segment_close,
	    &(struct pb_msg_segment_close){.lane = grow.lane, .segment = w.rx.msg.segment.segment}, NULL, 0);
	pb_fds_close(&w.rx.fds);
	assert_int_equal(used[PB_LIMIT_LANES], 4 * PB_LANE_BYTES_MIN);
	say(w.client, PB_MSG_lane_close, &(struct pb_msg_lane_close){.lane = grow.lane}, NULL, 0);
	assert_int_equal(used[PB_LIMIT_RUNS], 4);
	world_end();
}

/* What is over the runs alone. */
static void few_runs(struct pb_tenant_conf *c)
{
	c->limit[PB_LIMIT_RUNS] = 3;
}

static void test_runs(void **state)
{
	struct pb_msg_lane_open lane = {.request = 10, .up_bytes = 1, .down_bytes = 1};

	(void)state;
	begin_with(few_runs);
	load(1, false);
	lane.model = w.model;
	say(w.client, PB_MSG_lane_open, &lane, NULL, 0);
	assert_int_equal(expect(w.client, PB_CLIENT, PB_MSG_lane)->lane.slots, 3);
	pb_fds_close(&w.rx.fds);
	say(w.client, PB_MSG_lane_open, &lane, NULL, 0);
	refused(PT2BOX_LIMIT, "may have at most 3 runs in flight (runs_in_flight)");
	world_end();
}

/* A package that is more than there is room for; beside one that is being read, it waits. */
static void test_package_bytes(void **state)
{
	int fd = memfd_create("package", MFD_CLOEXEC);
	struct pb_msg_load m = {.request = 7, .model = "model", .backend = "auto", .profile = "default", .runners = 1,
				.device = -1};

	(void)state;
	begin_with(few_bytes);
	assert_int_equal(ftruncate(fd, 4 * CONST_BYTES), 0);
	say(w.client, PB_MSG_load, &m, &fd, 1);
	refused(PT2BOX_LIMIT, "constants_bytes");
	assert_int_equal(ftruncate(fd, CONST_BYTES), 0);
	say(w.client, PB_MSG_load, &m, &fd, 1);
	assert_int_equal(expect(w.spawner, PB_SPAWNER, PB_MSG_spawn_intake)->spawn_intake.max_bytes, 3 * CONST_BYTES);
	pb_fds_close(&w.rx.fds);
	say(w.client, PB_MSG_load, &m, &fd, 1);
	expect_nothing(w.client, PB_CLIENT);
	assert_int_equal(the_model()->state, PB_M_WAIT_TURN);
	close(fd);
	world_end();
}

/* Memory that one lane has given back is not what the next one gets. */
static void test_lanes_begin_empty(void **state)
{
	static const uint8_t zeros[PB_LANE_BYTES_MIN];
	struct pb_msg_lane_open open = {.request = 10, .up_bytes = 1, .down_bytes = 1};
	struct pb_msg_lane_grow grow = {.request = 11, .bytes = 1};
	uint8_t buf[PB_LANE_BYTES_MIN];
	off_t at; /* behind the control part */

	(void)state;
	begin_with(NULL);
	load(1, false);
	open.model = w.model;
	for (int i = 0; i < 3; i++) {
		const uint8_t dirt[PB_LANE_BYTES_MIN] = {[0] = 1, [100] = 7, [PB_LANE_BYTES_MIN - 1] = 9};

		say(w.client, PB_MSG_lane_open, &open, NULL, 0);
		grow.lane = expect(w.client, PB_CLIENT, PB_MSG_lane)->lane.lane;
		at = lseek(w.rx.fds.fd[0], 0, SEEK_END) - (off_t)sizeof(buf);
		assert_int_equal(pread(w.rx.fds.fd[0], buf, sizeof(buf), at), sizeof(buf));
		assert_memory_equal(buf, zeros, sizeof(buf));
		assert_int_equal(pwrite(w.rx.fds.fd[0], dirt, sizeof(dirt), at), sizeof(dirt));
		assert_int_equal(pread(w.rx.fds.fd[1], buf, sizeof(buf), at), sizeof(buf));
		assert_memory_equal(buf, zeros, sizeof(buf));
		pb_fds_close(&w.rx.fds);
		for (int k = 0; k < 3; k++) {
			struct pb_msg_segment_close end = {.lane = grow.lane};

			say(w.client, PB_MSG_lane_grow, &grow, NULL, 0);
			end.segment = expect(w.client, PB_CLIENT, PB_MSG_segment)->segment.segment;
			assert_int_equal(pread(w.rx.fds.fd[0], buf, sizeof(buf), 0), sizeof(buf));
			assert_memory_equal(buf, zeros, sizeof(buf));
			assert_int_equal(pwrite(w.rx.fds.fd[0], dirt, sizeof(dirt), 0), sizeof(dirt));
			pb_fds_close(&w.rx.fds);
			say(w.client, PB_MSG_segment_close, &end, NULL, 0);
		}
		say(w.client, PB_MSG_lane_close, &(struct pb_msg_lane_close){.lane = grow.lane}, NULL, 0);
	}
	world_end();
}

/* ---- what may be asked for ---- */

static void little(struct pb_tenant_conf *c)
{
	c->profiles = PB_PROFILE_STRICT;
	c->backends = PB_BACKEND_NATIVE;
	c->run_deadline_ms = 500;
	c->worker_memory = 1 << 20;
	c->ops = false;
}

static void as_default(struct pb_msg_load *m)
{
	(void)m;
}

static void strict(struct pb_msg_load *m)
{
	strcpy(m->profile, "strict");
}

static void strict_torch(struct pb_msg_load *m)
{
	strict(m);
	strcpy(m->backend, "torch");
}

static void strict_long(struct pb_msg_load *m)
{
	strict(m);
	m->run_deadline_ms = 501;
}

static void strict_for_ever(struct pb_msg_load *m)
{
	strict(m);
	m->run_deadline_ms = -1;
}

static void strict_large(struct pb_msg_load *m)
{
	strict(m);
	m->memory_bytes = (1 << 20) + 1;
}

static void test_allowed(void **state)
{
	static const struct {
		void (*change)(struct pb_msg_load *m);
		pb_status st;
		const char *text;
	} rows[] = {
		{as_default, PT2BOX_DENIED, "may not use profile default"},
		{strict_torch, PT2BOX_DENIED, "may not use backend torch"},
		{strict_long, PT2BOX_LIMIT, "at most 500 ms (run_deadline_ms)"},
		{strict_for_ever, PT2BOX_LIMIT, "at most 500 ms (run_deadline_ms)"},
		{strict_large, PT2BOX_LIMIT, "at most 1048576 bytes here (worker_memory)"},
	};

	(void)state;
	begin_with(little);
	w.b.config.embedded_fd = -1; /* of a service */
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		send_load(i + 1, 1, rows[i].change);
		refused(rows[i].st, rows[i].text);
	}
	send_load(90, 1, strict);
	(void)expect(w.spawner, PB_SPAWNER, PB_MSG_spawn_intake);
	pb_fds_close(&w.rx.fds);
	assert_int_equal(the_model()->opt.memory_bytes, 1 << 20);
	assert_int_equal(the_model()->opt.run_deadline_ms, 500);
	assert_string_equal(the_model()->opt.backend, "native");
	w.b.config.embedded_fd = 0;
	world_end();
}

/* ---- models by name ---- */

static char *for_a[] = {(char *)"a"};
static struct pb_model_conf offered[] = {
	{.name = (char *)"secret", .path = (char *)"/dev/null", .tenants = for_a, .n_tenants = 1},
	{.name = (char *)"mine", .path = (char *)"docs/pt2box.conf", .runners = 2, .profile = "strict"},
	{.name = (char *)"ours", .path = (char *)"docs/pt2box.conf", .is_public = true, .preload = true},
};

static void only_offered(struct pb_tenant_conf *c)
{
	c->upload = false;
}

static void absent(struct pb_msg_load *m)
{
	strcpy(m->name, "absent");
}

static void secret(struct pb_msg_load *m)
{
	strcpy(m->name, "secret");
	m->runners = 64;
}

static void mine(struct pb_msg_load *m)
{
	strcpy(m->name, "mine");
}

static void ours(struct pb_msg_load *m)
{
	strcpy(m->name, "ours");
}

static void begin_offering(void)
{
	begin_with(only_offered);
	service.models = offered + 1;
	service.n_models = 2;
	assert_int_equal(pb_repo_open(&w.b, NULL), PT2BOX_OK);
	w.b.repo[1].conf = &offered[2];
}

static void test_names(void **state)
{
	struct pb_msg_failed first;

	(void)state;
	begin_offering();
	w.b.repo[0].conf = &offered[0]; /* there, and not for strangers */
	send_load(1, 1, absent);
	first = expect(w.client, PB_CLIENT, PB_MSG_failed)->failed;
	send_load(1, 1, secret);
	(void)expect(w.client, PB_CLIENT, PB_MSG_failed);
	assert_memory_equal(&first, &w.rx.msg.failed, sizeof(first));
	assert_int_equal(first.status, PT2BOX_NOT_FOUND);
	w.b.repo[0].conf = &offered[1];
	send_load(2, 1, NULL);
	refused(PT2BOX_DENIED, "only models that are offered by name");
	send_load(3, 3, mine);
	refused(PT2BOX_LIMIT, "at most 2 workers (runners)");
	send_load(4, 2, mine);
	(void)expect(w.spawner, PB_SPAWNER, PB_MSG_spawn_intake);
	pb_fds_close(&w.rx.fds);
	assert_string_equal(the_model()->opt.profile, "strict");
	pb_repo_close(&w.b);
	the_model()->repo = NULL;
	world_end();
}

/* Read once, before anybody asks; a load then starts with the template, and is charged for no bytes but its manifest's. */
static void test_public(void **state)
{
	uint32_t id;

	(void)state;
	begin_offering();
	pb_repo_preload(&w.b);
	id = (uint32_t)expect(w.spawner, PB_SPAWNER, PB_MSG_spawn_intake)->spawn_intake.id;
	assert_int_equal(ftruncate(w.rx.fds.fd[3], CONST_BYTES), 0);
	give_manifest(w.rx.fds.fd[5], false);
	write_result(w.rx.fds.fd[1], PT2BOX_OK);
	pb_fds_close(&w.rx.fds);
	exited(id);
	assert_non_null(w.b.repo[1].code);
	assert_null(w.b.repo[1].code->tenant);
	assert_int_equal(w.b.clients->source.fd, -1);
	pb_client_close(&w.b, w.b.clients);
	w.b.stop = false;
	send_load(5, 1, ours);
	template_starts();
	worker_is_ready(fork_comes());
	w.model = expect(w.client, PB_CLIENT, PB_MSG_loaded)->loaded.model;
	pb_fds_close(&w.rx.fds);
	assert_ptr_equal(the_model()->code, w.b.repo[1].code);
	assert_int_equal(w.b.clients->tenant->used[PB_LIMIT_CONSTANTS], 0);
	pb_repo_close(&w.b);
	world_end();
}

/* ---- isolate=request ---- */

static void always_isolate(struct pb_tenant_conf *c)
{
	c->isolate = true;
}

static void test_isolate(void **state)
{
	struct pb_msg_session_open open = {.request = 5};

	(void)state;
	begin_with(always_isolate);
	load(1, true);
	assert_false(the_model()->stateful); /* nothing to lose */
	(void)expect(w.worker[0], PB_WORKER, PB_MSG_one_run);
	open.model = w.model;
	say(w.client, PB_MSG_session_open, &open, NULL, 0);
	refused(PT2BOX_USAGE, "isolate=request");
	/* One that ends without having served anybody dies young: after some of these the next one waits. */
	for (int i = 0; i < 9; i++) {
		worker_dies(0, 0);
		if (i < 8)
			assert_int_equal(fork_comes(), 0);
		if (i < 8)
			worker_is_ready(0);
	}
	expect_nothing(w.template, PB_TEMPLATE);
	world_end();
}

/* ---- the CPU ---- */

static uint64_t paused(uint64_t now)
{
	w.b.config.embedded_fd = -1; /* of a service */
	w.b.fair_ns = 0;
	(void)pb_fair_tick(&w.b, now);
	w.b.config.embedded_fd = 0;
	return atomic_load(&the_model()->board->paused);
}

/* While another tenant has runs too, one of four workers may claim, each in its turn; alone all may. */
static void test_turns(void **state)
{
	const uint64_t now = 1000000000u;
	struct pb_tenant other = {.active_ns = now};
	uint64_t seen = 0, mask;
	uint32_t bell;

	(void)state;
	begin_with(NULL);
	load(4, false);
	w.b.cpus = 2;
	w.b.clients->tenant->active_ns = now;
	assert_int_equal(paused(now), 0);
	other.next = w.b.tenants;
	w.b.tenants = &other;
	bell = atomic_load(&the_model()->board->bell);
	for (int i = 0; i < 4; i++) {
		mask = paused(now);
		assert_int_equal(__builtin_popcountll(mask), 3);
		assert_int_equal(mask >> 4, 0);
		seen |= ~mask & 15;
	}
	assert_int_equal(seen, 15);
	assert_true(atomic_load(&the_model()->board->bell) != bell);
	assert_int_equal(the_model()->paused_ns, now);
	w.b.cpus = 6;
	assert_int_equal(__builtin_popcountll(paused(now)), 1);
	w.b.clients->tenant->active_ns = now + 300000000u;
	assert_int_equal(paused(now + 300000000u), 0); /* the other one has stopped */
	other.active_ns = now + 300000000u;
	w.b.shares_cpu = true;
	assert_int_equal(paused(now + 300000000u), 0);
	w.b.tenants = other.next;
	world_end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_models),	CHECK_TEST(test_workers), CHECK_TEST(test_workers_of_state),
		CHECK_TEST(test_bytes),		CHECK_TEST(test_runs),	  CHECK_TEST(test_package_bytes),
		CHECK_TEST(test_allowed),	CHECK_TEST(test_names),	  CHECK_TEST(test_public),
		CHECK_TEST(test_isolate),	CHECK_TEST(test_lanes_begin_empty), CHECK_TEST(test_turns),
	};

	return cmocka_run_group_tests_name("tenant", tests, NULL, NULL);
}
